"""What counts once: which names of a data set are one."""

import pandas as pd

from hiddencost import catalog


def dataset_units(names: pd.Series) -> pd.Series:
    """Return of each dataset the name of the one whose images it shows: those of CoOp's split of DTD are DTD's.

    A study that has both has one sample of the datasets of the kind, not two.
    """
    known = catalog.datasets()
    unit_of = {name: (known[name].variant_of if name in known else None) or name for name in names.unique()}
    return names.map(unit_of)
