"""What counts once: which rows of a study's table are one run, and which names of a data set one data set.

A run's identity (the column `run`) is the hash of all that determines it, so rows that have it in common were trained
once: budgets from which on every class gives all of its images, and two names of the same weights. Rows that were not
run have none, and are the same where others of their backbone are, or, where it has none, of their dataset. A method
that does not train is one evaluation, whatever the budget and the seed.
"""

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy

from hiddencost import catalog
from hiddencost.methods.registry import METHODS
from hiddencost.runs.packfile import AXES

ALL = "all"  # what budgets that choose every image are called together
SHORT = "†"  # by what a cell is marked some of whose classes have fewer images than its shots


def numbers(runs: pd.DataFrame) -> pd.Series:
    """Return a number a row, the same for rows that are one run.

    Args:
        runs: a row a run, as in runs.parquet, in the order of the grid.
    """
    return _first_places(runs).groupby(AXES, sort=False).ngroup()


def _first_places(runs: pd.DataFrame) -> pd.DataFrame:
    """Return of each row the first that is the same run: of each of `AXES` the place of its value among those of the
    table, in their order."""
    table = runs.reindex(columns=[*AXES, "run"])
    places = pd.DataFrame({name: pd.factorize(table[name])[0] for name in table}, index=runs.index)
    run = places.pop("run").replace(-1, np.nan)  # -1: it was not run
    trained = trains(runs)
    places["backbone"] = _first(places, "backbone", run, [])
    places["shots"] = _first(
        places, "shots", run.where(trained), ["backbone", "dataset", "method"], ["dataset", "method"]
    )
    places["shots"] = places["shots"].where(trained, 0)
    places["seed"] = places["seed"].where(trained, 0)
    return places


def trains(runs: pd.DataFrame) -> pd.Series:
    """Return of each row whether its method trains."""
    return runs["method"].isin([name for name in runs["method"].unique() if METHODS[name].trains])


def _first(places: pd.DataFrame, name: str, run: pd.Series, *within: list[str]) -> pd.Series:
    """Return of each row the first value, given as a place, of its run; of one that was not run that of others of its
    value. `within`: columns of what these have in common with it, in the order in which they are asked."""
    first = places[name].groupby(run).transform("min")  # no group has the rows without a run
    for shared in within:
        first = first.fillna(first.groupby([places[column] for column in (*shared, name)]).transform("min"))
    return first.fillna(places[name]).astype(int)


def once(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return what is compared, each once: copies of a comparison are no further evidence.

    Args:
        pairs: a row a comparison: its `difference` and, in columns whose names begin with `run`, the numbers of the
            runs that it is of (see `numbers`).

    Returns:
        Of those of the same runs the first that has a result, or the first; none of a run with itself. Without the
        columns of numbers.
    """
    names = [name for name in pairs if name.partition("_")[0] == "run"]
    for one, other in (("run", "run_dense"), ("run_left", "run_right")):
        if {one, other} <= set(names):
            pairs = pairs[pairs[one] != pairs[other]]
    first = pairs.sort_values("difference", key=pd.isna, kind="stable").drop_duplicates(names)
    return first.sort_index().drop(columns=names)


def one_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs, those of methods that do not train as of one seed: none is drawn for them.

    Args:
        runs: a row a run, as in runs.parquet.
    """
    ran = runs.assign(seed=runs["seed"].where(trains(runs), 0))
    ran = ran.sort_values("status", key=lambda status: status != "ok", kind="stable")
    return ran.drop_duplicates(AXES).sort_index()


def same_as(runs: pd.DataFrame) -> pd.Series:
    """Return of each row the smaller number of shots that chooses the same images of its dataset, None where none
    does; of a method that does not train the first number of shots."""
    first = pd.Series(runs["shots"].unique()[_first_places(runs)["shots"]], runs.index)
    return first.where(first != runs["shots"], None)


def copies(of_cells: SeriesGroupBy) -> pd.Series:
    """Return of each cell its `same_as`: the smaller number of shots whose runs these are, of every seed; else None.

    Args:
        of_cells: `same_as` of runs, by cell.
    """
    return of_cells.first().where(of_cells.nunique(dropna=False) == 1, None)


def distinct(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a summary that are no copies of others: see `same_as`."""
    return summary[summary["same_as"].isna()]


def distinct_pairs(summary: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return of the rows of a summary that compare the same runs the first: of budgets that choose the same images,
    and of names of the same weights.

    Args:
        summary: a row a cell, with the name of the `dense` backbone that it is compared with.
        runs: a row a run of the same study, in the order of the grid.
    """
    backbone, *axes = AXES[:-1]
    cell_of = runs.assign(cell=numbers(runs)).drop_duplicates(AXES[:-1]).set_index(AXES[:-1])["cell"]
    names = ([summary[which], *(summary[axis] for axis in axes)] for which in (backbone, "dense"))
    pairs = [cell_of.reindex(pd.MultiIndex.from_arrays(of)).to_numpy() for of in names]
    return summary[~pd.DataFrame(dict(enumerate(pairs)), summary.index).duplicated()]


def shots_labels(summary: pd.DataFrame) -> dict[str, str]:
    """Return what to call the numbers of shots of one dataset, by each that is no copy of another.

    Args:
        summary: its rows of the study's summary.

    Returns:
        Such as {"5": "5", "10": "10 = all"}, where each class has 10 images and the study asks for more, too.
    """
    trained = summary[trains(summary)]
    copied = set(trained["same_as"].dropna())
    return {shots: f"{shots} = {ALL}" if shots in copied else shots for shots in distinct(trained)["shots"].unique()}


def dataset_units(names: pd.Series) -> pd.Series:
    """Return of each dataset the name of the one whose images it shows: those of CoOp's split of DTD are DTD's.

    A study that has both has one sample of the datasets of the kind, not two.
    """
    known = catalog.datasets()
    unit_of = {name: (known[name].variant_of if name in known else None) or name for name in names.unique()}
    return names.map(unit_of)
