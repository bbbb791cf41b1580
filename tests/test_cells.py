from itertools import product

import numpy as np
import pandas as pd
import pytest

from hiddencost import catalog
from hiddencost.report.summary import headline
from hiddencost.results import cells, claims, tables, verdicts
from hiddencost.results.claims import Claim
from hiddencost.results.matched import matched

LOST = Claim(text="t", source="s", measure="accuracy_lost", cells={"backbones": "compressed"}, more_than=0)
BUDGETS = ["1", "2", "5", "10", "20", "50", "100", "full"]
IMAGES = {"flowers102": 10, "dtd": 40, "cifar10": 5000}  # training images of each class
NETWORKS = {  # checkpoint, compression
    "dense": ("resnet50-v1", "none"),
    **{f"acdc{level}": (f"resnet50-acdc{level}", "acdc") for level in (80, 90, 95)},
}
COMPARED = {"dense": "dense", "recipe_dense": "dense"}
AS_NAMED = {name: name for name in NETWORKS}
TOP1 = pd.DataFrame({"backbone": list(NETWORKS), "top1": [76.1, 76.4, 75.0, 73.1]})


def made(lost, datasets=("flowers102",), shots=BUDGETS, methods=("ilm",), networks=AS_NAMED, seeds=(0, 1, 2)):
    """Runs with identities: budgets that choose all images are one run, which loses as the first of them does."""
    rows = []
    for backbone, dataset, method, budget, seed in product(networks, datasets, methods, shots, seeds):
        checkpoint, compression = NETWORKS[networks[backbone]]
        images = IMAGES[dataset] if budget == "full" else min(int(budget), IMAGES[dataset])
        images = 0 if method == "zs" else images
        run = f"{checkpoint} {dataset} {method} {images} {seed}"
        noise = np.random.default_rng(sum(map(ord, run))).normal(0, 0.003)
        accuracy = 0.5 + noise - (compression != "none") * lost(dataset, images) / 100
        axes = {"backbone": backbone, "dataset": dataset, "method": method, "shots": budget, "seed": seed}
        told = {"checkpoint": checkpoint, "compression": compression, "control": None, **COMPARED}
        scores = {"run": run, "accuracy": accuracy, "ece": 0.1 + noise, "ece_published": 0.1, "classes_short": 0}
        rows.append(axes | told | scores | {"status": "ok"})
    return pd.DataFrame(rows).reindex(columns=tables.run_columns())


def distinct(runs):
    """The runs of a study that asks for no budget of a dataset beyond the first that chooses all images."""
    asked = runs["shots"].replace("full", str(max(IMAGES.values()))).astype(int)
    before = asked.map({shots: max(asked[asked < shots], default=0) for shots in asked.unique()})
    return runs[before < runs["dataset"].map(IMAGES)].reset_index(drop=True)


def few_gain_many_lose(dataset, images):
    return 5 if images >= 10 else -14.6 / 3


def test_copies_of_a_training_do_not_turn_a_verdict():
    runs = made(few_gain_many_lose, networks={"dense": "dense", "acdc80": "acdc80"})
    assert set(distinct(runs)["shots"]) == {"1", "2", "5", "10"}
    of_all, once = (verdicts.judge(table, {"c": LOST}).iloc[0] for table in (runs, distinct(runs)))
    assert once["verdict"] == "contradicted"
    assert once["effect"] == pytest.approx(-2.4, abs=0.5)
    assert once["cells"] == 4
    # of the paper's budgets, that one is another by name alone is known of a study that asks for it
    pd.testing.assert_series_equal(of_all.drop("relation"), once.drop("relation"))
    # counted as often as they stand there, the copies turn it
    copied = runs.assign(run=[f"{number}" for number in runs.index])
    otherwise = verdicts.judge(copied, {"c": LOST}).iloc[0]
    assert otherwise["verdict"] == "supported"
    assert otherwise["effect"] == pytest.approx(1.3, abs=0.5)


def test_copies_change_no_verdict_matched_cost_or_headline():
    runs = made(
        lambda dataset, images: np.log1p(images) - 3 * (dataset == "dtd"),
        datasets=IMAGES,
        shots=["5", "10", "50", "full"],
        methods=("rlm", "ilm", "zs"),
    )
    runs.loc[(runs["backbone"] == "acdc95") & (runs["seed"] == 1), "status"] = "diverged"
    runs.loc[runs["status"] != "ok", ["accuracy", "ece", "ece_published"]] = np.nan
    once = distinct(runs)
    assert len(once) < len(runs)
    asked = {"lost": LOST, "every": LOST.model_copy(update={"of": "every"})}
    asked["added"] = LOST.model_copy(update={"measure": "ece_added"})
    sides = {"left": claims.Cells(methods="ilm"), "right": claims.Cells(methods=["rlm", "zs"])}
    asked["order"] = LOST.model_copy(update={"measure": "accuracy", **sides})
    pd.testing.assert_frame_equal(*(verdicts.judge(table, asked) for table in (runs, once)))
    pd.testing.assert_frame_equal(*(matched(table, TOP1) for table in (runs, once)))
    assert headline(tables.summarise(runs), runs) == headline(tables.summarise(once), once)


def test_a_claim_of_one_of_the_budgets_that_are_one_is_answered():
    runs = made(few_gain_many_lose)
    for shots in (10, 50, "full", [50, "full"]):
        asked = LOST.model_copy(update={"cells": claims.Cells(backbones="acdc", shots=shots)})
        judged = verdicts.judge(runs, {"c": asked}).iloc[0]
        assert judged["cells"] == 3
        assert judged["effect"] == pytest.approx(5, abs=0.5)


def test_a_run_is_not_compared_with_itself():
    sides = {"left": {"shots": "full"}, "right": {"shots": [10, 5]}}
    more = Claim(text="t", source="s", measure="accuracy", cells={"backbones": "dense"}, more_than=0, **sides)
    pairs = verdicts.differences(verdicts.counted(made(few_gain_many_lose)), more, "accuracy")
    assert set(pairs["shots_right"]) == {"5"}


def test_a_table_without_rows_has_no_numbers():
    assert cells.numbers(made(few_gain_many_lose).iloc[:0]).empty


def test_budgets_where_some_classes_alone_are_short_are_different_runs():
    runs = made(few_gain_many_lose, shots=["5", "10", "20"])
    runs["run"] += runs["shots"]  # some classes have more than 10
    assert cells.same_as(runs).isna().all()


def test_a_method_that_trains_otherwise_at_each_budget_has_no_copies_though_another_has():
    runs = made(few_gain_many_lose, shots=["10", "20"], methods=["ilm", "lp"])
    prompted = runs["method"] == "ilm"
    runs.loc[prompted, "run"] += runs["shots"]  # by other batches
    copies = cells.same_as(runs)
    assert copies[prompted].isna().all()
    assert (copies[~prompted & (runs["shots"] == "20")] == "10").all()


def test_a_missing_run_makes_no_copy_of_a_cell_that_is_none():
    """A row that was not run took the budget of another backbone, and its cell, of which the other seeds are there,
    was left out of figures and headline."""
    runs = made(few_gain_many_lose, shots=["10", "full"], networks={"dense": "dense", "acdc80": "acdc80"})
    dense = runs["backbone"] == "dense"
    runs.loc[dense, "run"] += runs["shots"]  # by other batches
    missing = dense & (runs["seed"] == 2)
    runs.loc[missing, ["run", "status", "accuracy"]] = None, "not run", np.nan
    copies = cells.same_as(runs)
    assert copies[dense].isna().all()
    assert (copies[~dense & (runs["shots"] == "full")] == "10").all()
    summary = tables.summarise(runs).set_index(["backbone", "shots"])
    assert summary["same_as"].dropna().to_dict() == {("acdc80", "full"): "10"}
    # without any result of its own it is as the others of its dataset
    runs.loc[dense, ["run", "status", "accuracy"]] = None, "not run", np.nan
    assert (cells.same_as(runs)[dense & (runs["shots"] == "full")] == "10").all()


def test_a_cell_is_a_copy_where_each_of_its_seeds_is():
    runs = made(few_gain_many_lose, shots=["10", "full"], networks={"dense": "dense"})
    other = (runs["seed"] == 2) & (runs["shots"] == "full")
    runs.loc[other, "run"] += "other images"
    assert cells.same_as(runs).notna().sum() == 2
    assert tables.summarise(runs)["same_as"].isna().all()


def test_names_of_the_same_weights_are_one_network():
    named = AS_NAMED | {"again": "acdc80"}
    both, once = (made(few_gain_many_lose, networks=networks) for networks in (named, AS_NAMED))
    pd.testing.assert_frame_equal(*(verdicts.judge(runs, {"c": LOST}) for runs in (both, once)))
    top1 = pd.concat([TOP1, pd.DataFrame({"backbone": ["again"], "top1": [76.4]})])
    pd.testing.assert_frame_equal(matched(both, top1), matched(once, TOP1))
    assert headline(tables.summarise(both), both) == headline(tables.summarise(once), once)
    # what failed has no identity; the name is known by the other runs
    both.loc[both["seed"] == 2, ["run", "status", "accuracy"]] = None, "not run", np.nan
    missing = verdicts.judge(both, {"c": LOST}).iloc[0]
    assert missing["cells"] == 3 * 4
    assert "12 of 36 pairs missing" in missing["note"]


def test_zero_shot_is_one_cell_a_dataset_and_backbone_whatever_the_budget_and_the_seed():
    runs = made(lambda dataset, images: 3, datasets=["dtd", "cifar10"], methods=["zs"])
    runs["accuracy"] = 0.5 - 0.03 * (runs["compression"] != "none") - 0.01 * (runs["dataset"] == "dtd")
    # of the first seed there is no result
    runs.loc[runs["seed"] == 0, ["run", "status", "accuracy"]] = None, "not run", np.nan
    judged = verdicts.judge(runs, {"c": LOST}).iloc[0]
    assert judged["cells"] == 2 * 3
    assert "missing" not in judged["note"]
    summary = tables.summarise(runs)
    assert set(summary["seeds"]) == {1}
    assert set(summary["paired_seeds"]) == {1}
    assert set(cells.distinct(summary)["shots"]) == {"1"}


def test_the_summary_tells_of_which_budget_a_row_is_a_copy():
    summary = tables.summarise(made(few_gain_many_lose, datasets=["flowers102", "cifar10"], methods=["ilm", "zs"]))
    flowers = summary[summary["dataset"] == "flowers102"]
    prompted = flowers[(flowers["backbone"] == "dense") & (flowers["method"] == "ilm")].set_index("shots")
    assert prompted["same_as"].dropna().to_dict() == dict.fromkeys(["20", "50", "100", "full"], "10")
    assert prompted["accuracy_mean"].nunique() == 4
    assert cells.shots_labels(flowers) == {"1": "1", "2": "2", "5": "5", "10": "10 = all"}
    cifar = summary[summary["dataset"] == "cifar10"]
    assert cells.shots_labels(cifar) == {budget: budget for budget in BUDGETS}


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
