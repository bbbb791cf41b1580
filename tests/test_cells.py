import pandas as pd

from hiddencost import catalog
from hiddencost.results import cells


def test_two_names_of_one_dataset_are_one_unit():
    names = pd.Series(["dtd", "dtd-coop", "cifar10-npm", "cifar10", "oxfordpets-coop", "svhn", "of-the-user"])
    units = ["dtd", "dtd", "cifar10", "cifar10", "oxfordpets", "svhn", "of-the-user"]
    assert cells.dataset_units(names).tolist() == units


def test_the_catalog_s_variants_are_of_datasets_that_are_none_themselves():
    known = catalog.datasets()
    variants = {entry.variant_of for entry in known.values() if entry.variant_of}
    assert variants <= known.keys()
    assert not any(known[name].variant_of for name in variants)
    of_coop = {name: entry.variant_of for name, entry in known.items() if entry.reader == "coop"}
    assert of_coop == {name: name.removesuffix("-coop") for name in of_coop}
