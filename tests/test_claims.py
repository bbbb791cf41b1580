import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from scipy import stats

from hiddencost.jobs.results import printed_metrics
from hiddencost.messages import StudyError, validate
from hiddencost.results import claims, evidence, typeset, verdicts
from hiddencost.results.cells import numbers
from hiddencost.results.claims import Claim
from hiddencost.results.intervals import crossed_interval
from hiddencost.results.pooled import networks
from hiddencost.runs.metrics import METRICS, Metric

# name: checkpoint, compression, control, dense
BACKBONES = {
    "dense": ("resnet50-v2", "none", None, "dense"),
    "old": ("resnet50-v1", "none", None, "dense"),
    "acdc80": ("resnet50-acdc80", "acdc", None, "dense"),
    "acdc80-int8": ("resnet50-acdc80", "acdc+int8", None, "dense"),
    "own-acdc80": ("own", "acdc", None, "own"),  # trained by the study
    "rigl80": ("resnet50-rigl80", "rigl", None, "dense"),
    "blocks": ("resnet50-v2", "2:4", None, "dense"),
    "int8": ("resnet50-v2", "int8", None, "dense"),
    "random": ("resnet50-v2", "none", "random_init", "dense"),
    "small": ("resnet18-v1", "none", None, "small"),
    "gmp": ("resnet18-gmp", "gmp", None, "small"),
    "alone": ("mobilenetv2", "magnitude", None, None),
    "ofq": ("swin-t-ofq-w2a2", "ofq", None, "dense"),
}
MORE = {
    **{f"lth{state}": (f"resnet50-lth{state}", "lth", None, "dense") for state in range(1, 11)},
    **{f"acdc{level}": (f"resnet50-acdc{level}", "acdc", None, "dense") for level in (90, 98)},
    **{f"dense-{seed}": ("own", "none", None, f"dense-{seed}") for seed in range(3)},
    **{f"gmp90-{seed}": ("own", "gmp", None, f"dense-{seed}") for seed in range(3)},
}
TICKETS = ["dense", "acdc80", *(name for name in MORE if re.match("lth|acdc9", name))]
TRAININGS = [name for name in MORE if re.match(r"(dense|gmp90)-", name)]


def made(
    accuracy, backbones=("dense", "acdc80"), datasets=("cifar10",), methods=("ilm",), shots=("20",), seeds=(0, 1, 2)
):
    """Runs whose accuracy is a function of backbone, dataset, method, shots and seed."""
    rows = []
    for backbone, dataset, method, shot, seed in product(backbones, datasets, methods, shots, seeds):
        checkpoint, compression, control, dense = (BACKBONES | MORE)[backbone]
        told = {"checkpoint": checkpoint, "compression": compression, "control": control, "dense": dense}
        axes = {"backbone": backbone, "dataset": dataset, "method": method, "shots": shot, "seed": seed}
        value = accuracy(backbone, dataset, method, shot, seed)
        scores = {"accuracy": value, "mean_class_accuracy": value, "ece": 0.1, "ece_published": 0.1}
        rows.append(axes | told | scores | {"status": "ok", "classes": 10, "n_test_fewest": 100, "recipe": None})
    return pd.DataFrame(rows)


def claim(**more):
    values = {"text": "t", "source": "s", "measure": "accuracy_lost", "cells": {"backbones": "compressed"}}
    bound = {} if {"less_than", "within", "order"} & set(more) else {"more_than": 0}
    return Claim.model_validate(values | bound | more)


def judged(runs, **more):
    return verdicts.judge(runs, {"c": claim(**more)}).iloc[0]


def differences(runs, one, column="accuracy"):
    return verdicts.differences(verdicts.counted(runs), one, column)


def lost(*points):
    """An accuracy by which all but the dense networks lose, with seed 0, 1, ..., so many points."""
    return lambda b, d, m, n, seed: 0.5 - points[seed] / 100 * (b not in ("dense", "small"))


@pytest.mark.parametrize(
    ("stated", "measure", "compares", "bound"),
    [
        ({}, "accuracy_lost", "backbones: compressed", "mean > 0 points"),
        ({"less_than": -2, "of": "every"}, "accuracy_lost", "backbones: compressed", "every cell < -2 points"),
        ({"within": 2, "about": 20}, "accuracy_lost", "backbones: compressed", "mean within 2 points of 20"),
        (
            {"cells": {"shots": [1, "full"]}, "left": {"methods": "ilm"}, "right": {"methods": "prompting"}}
            | {"order": "none"},
            *("accuracy_lost", "shots: 1, full; methods: ilm against prompting", "cells of both signs"),
        ),
        ({"explained_by": "cka"}, "correlation of cka with accuracy_lost", "backbones: compressed", "mean > 0"),
        (
            {"measure": "part_mapping", "cells": {}, "share": 0.5, "more_than": None},
            *("part_mapping", "all", "mean > 0.5 of the cost"),
        ),
    ],
)
def test_a_row_says_what_is_measured_where_and_what_is_claimed_of_it(stated, measure, compares, bound):
    row = judged(made(lost(4, 5, 6)), **stated)
    assert row[["measure", "compares", "bound"]].tolist() == [measure, compares, bound]


def test_of_one_dataset_the_interval_is_the_paired_t_interval():
    found = judged(made(lost(4, 5.5, 7)))
    low, high = stats.ttest_1samp([4, 5.5, 7], 0).confidence_interval(0.95)
    assert found["effect"] == pytest.approx(5.5)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["verdict"] == "supported"
    assert found["cells"] == 1


def test_of_skewed_seeds_it_reaches_further_on_the_side_of_the_tail():
    found = judged(made(lost(4, 4.5, 9)))
    low, high = stats.ttest_1samp([4, 4.5, 9], 0).confidence_interval(0.95)
    assert found["low"] == pytest.approx(low)
    assert found["high"] > high + 1


@pytest.mark.parametrize(
    ("points", "bound", "verdict"),
    [
        ((10, 11, 12), {"more_than": 0}, "supported"),
        ((10, 11, 12), {"more_than": 5}, "supported"),
        ((10, 11, 12), {"more_than": 10}, "undecided"),
        ((10, 11, 12), {"more_than": 20}, "contradicted"),
        ((10, 11, 12), {"less_than": 20}, "supported"),
        ((10, 11, 12), {"less_than": 0}, "contradicted"),
        ((10, 11, 12), {"within": 20}, "supported"),
        ((10, 11, 12), {"within": 10}, "undecided"),
        ((10, 11, 12), {"within": 5}, "contradicted"),
        ((-10, -11, -12), {"within": 5}, "contradicted"),
        ((-10, -11, -12), {"more_than": 0}, "contradicted"),
        ((10, 30), {"more_than": 0}, "undecided"),  # two seeds that agree in sign alone decide nothing
        ((10, 11), {"more_than": 0}, "supported"),
    ],
)
def test_the_verdict_is_where_the_whole_interval_lies(points, bound, verdict):
    runs = made(lost(*points), seeds=range(len(points)))
    assert judged(runs, **bound)["verdict"] == verdict


def test_without_spread_to_judge_by_nothing_is_decided():
    one = judged(made(lost(30), seeds=[0]))
    assert (one["verdict"], one["effect"]) == ("undecided", pytest.approx(30))
    assert pd.isna(one["low"])
    assert "no interval from a single one" in one["note"]
    same = judged(made(lambda b, d, m, n, s: 0.4 + s / 10 - 0.3 * (b == "acdc80")))
    assert same["verdict"] == "undecided"
    assert "do not differ" in same["note"]


def test_over_datasets_the_interval_speaks_for_datasets_and_of_named_ones_for_seeds():
    by_dataset = {"cifar10": 1, "svhn": 5, "dtd": 9}
    noise = {0: -0.5, 1: 0, 2: 0.5}
    runs = made(lambda b, d, m, n, s: 0.5 - (b == "acdc80") * (by_dataset[d] + noise[s]) / 100, datasets=by_dataset)
    found = judged(runs)
    # the variance of the means of three data sets, and of three seeds, two degrees of freedom each
    parts = [np.var([1, 5, 9], ddof=1) / 3, 0.5**2 / 3]
    reach = stats.t.ppf(0.975, 2 * sum(parts) ** 2 / sum(part**2 for part in parts))
    width = reach * np.sqrt(sum(parts))
    assert (found["low"], found["high"]) == pytest.approx((5 - width, 5 + width))
    assert "over 3 datasets of the kind, 3 seeds each" in found["note"]
    but_one = judged(runs, cells={"backbones": "acdc", "except_datasets": "svhn"})  # speaks for datasets, too
    assert "over 2 datasets of the kind, 3 seeds each" in but_one["note"]
    named = judged(runs, cells={"backbones": "acdc", "datasets": list(by_dataset)})
    # seeds are the same on all datasets, and here they differ alike: no more is known of them than on one
    width = stats.t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    assert (named["low"], named["high"]) == pytest.approx((5 - width, 5 + width))
    assert "over 3 seeds of cifar10, dtd and svhn alone" in named["note"]


def test_a_seed_that_moves_all_datasets_alike_is_no_evidence_of_eight():
    """Eight datasets that agree to a tenth of a point, as all share three seeds, which differ by points."""
    datasets = ["cifar10", "svhn", "gtsrb", "dtd", "flowers102", "oxfordpets", "eurosat", "caltech101"]
    of_seed = [-2.5, 1, 5]
    runs = made(
        lambda b, d, m, n, s: 0.5 - (b == "acdc80") * (of_seed[s] + 0.1 * datasets.index(d)) / 100, datasets=datasets
    )
    found = judged(runs)
    low, high = stats.ttest_1samp([of + 0.35 for of in of_seed], 0).confidence_interval(0.95)
    assert found["low"] == pytest.approx(low, abs=0.1)
    assert (found["verdict"], found["high"] >= high) == ("undecided", True)


def test_two_names_of_one_dataset_are_one():
    runs = made(lost(4, 5, 6), datasets=["dtd", "dtd-coop"])
    assert "over 3 seeds of dtd and dtd-coop alone" in judged(runs)["note"]
    points = {"dtd": 2, "dtd-coop": 4, "svhn": 9}
    runs = made(lambda b, d, m, n, s: 0.5 - (b == "acdc80") * (points[d] + s - 1) / 100, datasets=points)
    found = judged(runs)
    assert "over 2 datasets of the kind" in found["note"]
    assert found["effect"] == pytest.approx((3 + 9) / 2)


def test_a_dataset_that_is_named_stands_for_its_variants():
    runs = made(lost(4, 5, 6), datasets=["gtsrb", "gtsrb-published", "dtd", "dtd-coop", "cifar10"])
    named = {
        "gtsrb": ("datasets", {"gtsrb", "gtsrb-published"}),
        "dtd-coop": ("datasets", {"dtd-coop"}),
        "dtd": ("except_datasets", {"cifar10", "gtsrb", "gtsrb-published"}),
    }
    for name, (axis, expected) in named.items():
        one = claim(cells={"backbones": "acdc", axis: name})
        assert set(differences(runs, one)["dataset"]) == expected


def test_runs_are_numbered_and_networks_told_once_for_all_claims(monkeypatch):
    """Of the paper's grid, once for each of 53 claims took ten seconds."""
    calls = []
    monkeypatch.setattr(verdicts, "numbers", lambda runs: calls.append(1) or numbers(runs))
    monkeypatch.setattr(verdicts, "networks", lambda runs: calls.append(2) or networks(runs))
    verdicts.judge(made(lost(4, 5, 6)), {name: claim() for name in "abc"})
    assert sorted(calls) == [1, 2]


def test_a_mean_weighs_families_and_not_files():
    """Ten tickets lose 20 points, three levels of AC/DC 2: algorithms lose 11, files 15.8."""
    runs = made(lambda b, d, m, n, s: 0.5 - (0.2 if "lth" in b else 0.02) * (b != "dense") - s / 1000, TICKETS)
    found = judged(runs)
    assert found["effect"] == pytest.approx(11)
    assert found["cells"] == 13
    sides = {"left": {"backbones": "lth"}, "right": {"backbones": "acdc"}}
    assert judged(runs, measure="accuracy", cells={}, less_than=0, **sides)["effect"] == pytest.approx(-18)


def test_networks_trained_from_several_seeds_are_units():
    """One level, three trainings that differ by points where the seeds of prompting differ by hundredths."""
    runs = made(
        lambda b, d, m, n, s: 0.5 - ("gmp90" in b) * (3 + 4 * (int(b[-1]) - 1) + 0.01 * s) / 100,
        TRAININGS,
        shots=["1"],
    )
    alone = judged(runs[runs["backbone"].isin(["dense-0", "gmp90-0"])], cells={"backbones": "compressed"})
    assert (alone["verdict"], alone["note"]) == ("contradicted", "over 3 seeds of cifar10 alone")
    runs["network"] = runs["backbone"].str[:-2]
    runs["upstream_seed"] = runs["backbone"].str[-1].astype(int)
    runs["dense"] = "dense-" + runs["backbone"].str[-1]
    found = judged(runs)
    assert found["note"].startswith("over 3 seeds of cifar10 alone, 3 trainings of each network")
    width = stats.t.ppf(0.975, 2) * stats.sem([-1, 3, 7])
    assert (found["low"], found["high"]) == pytest.approx((3 - width, 3 + width), abs=0.05)
    assert found["verdict"] == "undecided"
    # trainings from other seeds are not crossed: each is a sample of its own
    second = runs[runs["network"] == "gmp90"].assign(network="gmp80")
    second["backbone"] = second["backbone"].str.replace("90", "80")
    assert "3 trainings" in judged(pd.concat([runs, second]))["note"]
    assert "trainings" not in judged(pd.concat([runs, second[second["upstream_seed"] > 0]]))["note"]
    # where one network is a file, as others are not, these networks alone are spoken of
    runs.loc[runs["backbone"].str.startswith("gmp90"), "network"] = runs["backbone"]
    assert "trainings" not in judged(runs)["note"]


def test_a_seed_is_not_better_for_lack_of_a_hard_cell():
    points = {"1": 2, "5": 30}
    runs = made(lambda b, d, m, n, s: 0.5 - (b == "acdc80") * (points[n] + s - 1) / 100, shots=points)
    found = judged(runs[~((runs["shots"] == "5") & (runs["seed"] == 2))])
    assert found["effect"] == pytest.approx(16)
    assert (found["low"], found["high"]) == pytest.approx(tuple(judged(runs)[["low", "high"]]))


def test_what_was_not_run_is_missing_and_not_zero():
    runs = made(lost(10, 11, 12), datasets=["cifar10", "svhn"])
    runs.loc[(runs["dataset"] == "svhn") & (runs["backbone"] == "acdc80"), ["status", "accuracy"]] = ["not run", None]
    runs.loc[runs["dataset"] == "svhn", "status"] = "diverged"  # a number that is there does not count either
    found = judged(runs)
    assert found["effect"] == pytest.approx(11)
    assert found["cells"] == 1
    assert "3 of 6 pairs missing" in found["note"]
    none = judged(runs[runs["dataset"] == "svhn"])
    assert (none["verdict"], none["note"]) == ("not run", "its cell has no result")
    lacking = {"cells": {"backbones": ["gmp", "rigl"], "datasets": "cifar10", "shots": 5}}
    assert judged(runs, **lacking)["note"] == (
        "not in this study: no backbone is gmp or rigl; no number of shots is 5"
    )
    lacking = {"cells": {"backbones": ["resnet18-gmp"]}}
    assert judged(runs, **lacking)["note"] == "not in this study: no backbone is resnet18-gmp"


def test_seeds_are_paired():
    level = {0: 0.2, 1: 0.5, 2: 0.8}  # what seeds share is far more than what is lost
    runs = made(lambda b, d, m, n, s: level[s] - (b == "acdc80") * (0.04 + 0.001 * s))
    assert judged(runs)["verdict"] == "supported"
    without = runs[~((runs["backbone"] == "dense") & (runs["seed"] == 0))]
    assert judged(without)["effect"] == pytest.approx(4.15)  # of seeds 1 and 2


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("dense", {"dense", "old", "small"}),
        ("compressed", {"acdc80", "acdc80-int8", "own-acdc80", "rigl80", "blocks", "int8", "gmp", "alone", "ofq"}),
        ("sparse", {"acdc80", "own-acdc80", "rigl80", "blocks", "gmp", "alone"}),
        ("quantised", {"int8", "ofq"}),
        ("ofq", {"ofq"}),
        ("swin-t-ofq-w2a2", {"ofq"}),
        ("acdc", {"acdc80"}),
        (["nm", "rigl"], {"blocks", "rigl80"}),
        ("resnet50-v2", {"dense"}),
        ("resnet50-acdc80", {"acdc80"}),
        ("random_init", {"random"}),
        ("shuffled", set()),
    ],
)
def test_backbones_are_chosen_by_what_was_done_to_them(kinds, expected):
    runs = made(lost(1, 2, 3), backbones=BACKBONES, methods=("ilm", "flm"))
    sides = {"left": {"methods": "ilm"}, "right": {"methods": "flm"}}
    one = claim(measure="accuracy", cells={"backbones": kinds}, **sides)
    assert set(differences(runs, one)["backbone"]) == expected


def test_methods_are_compared_within_a_backbone():
    points = {"ilm": 9, "flm": 4, "rlm": 0}
    runs = made(
        lambda b, d, m, n, s: 0.3 + (points[m] + 0.1 * s * (m == "ilm")) / 100 + 0.2 * (b == "dense"),
        backbones=["dense", "acdc80"],
        methods=points,
    )
    sides = {"left": {"methods": "ilm"}, "right": {"methods": ["flm", "rlm"]}}
    found = judged(runs, measure="accuracy", cells={}, **sides)
    assert found["cells"] == 4
    assert found["effect"] == pytest.approx(9.1 - 2)


def test_the_hidden_cost_beyond_the_probe_is_a_difference_of_differences():
    cost = {"lp": 1, "ilm": 6, "flm": 8}
    runs = made(lambda b, d, m, n, s: 0.9 - (b == "acdc80") * (cost[m] + s) / 100 - 0.1 * s, methods=cost)
    runs.loc[runs["method"] == "lp", "accuracy"] += 0.002 * runs["seed"] * (runs["backbone"] == "acdc80")
    found = judged(runs, left={"methods": "prompting"}, right={"methods": "lp"})
    assert found["effect"] == pytest.approx(7 - 1 + 0.2)
    assert found["cells"] == 2


def test_a_paired_metric_is_compared_in_its_unit_and_has_a_table_for_print(monkeypatch):
    with pytest.raises(ValueError, match="'regret_added' is unknown"):
        claim(measure="regret_added")
    monkeypatch.setitem(METRICS, "regret", Metric("Regret", lambda predictions: 0.0, unit="nats", paired=True))
    runs = made(lambda *_: 0.5)
    runs["regret"] = np.where(runs["backbone"] == "dense", 0.5, 2.0)
    assert judged(runs, measure="regret_added")["effect"] == pytest.approx(1.5)
    assert printed_metrics() == ["accuracy", "worst_class_accuracy", "class_gap", "ece", "ece_scaled", "regret"]
    runs[["study", "classes_short"]] = "s", 0
    numbers = typeset.cells(runs, "regret").set_index("backbone")
    assert numbers["mean"].to_dict() == {"dense": 0.5, "acdc80": 2.0}
    assert typeset.caption(runs, "regret").startswith("Regret in nats, mean")


def test_networks_are_compared_within_one_family_unless_told():
    cost = {"acdc80": 2, "rigl80": 4, "gmp": 20, "random": 40, "alone": 0}
    runs = made(lambda b, d, m, n, s: 0.6 - (cost.get(b, 0) + 0.1 * s * (b == "gmp")) / 100, backbones=BACKBONES)
    sides = {"left": {"backbones": ["acdc", "rigl"]}, "right": {"backbones": "gmp"}}
    told = judged(runs, cells={}, less_than=0, **sides)["note"]
    assert told == "not in this study: it has no two such runs to compare"
    across = judged(runs, cells={}, less_than=0, networks="any", **sides)
    assert across["effect"] == pytest.approx(3 - 20.1)
    assert across["verdict"] == "supported"
    # the random network is resnet50's: gmp, of resnet18, has none, nor has what has no dense one
    controlled = {"left": {"backbones": "compressed"}, "right": {"backbones": "random_init"}}
    pairs = differences(runs, claim(measure="accuracy", cells={}, **controlled))
    assert set(pairs["backbone_left"]) == {"acdc80", "acdc80-int8", "rigl80", "blocks", "int8", "ofq"}


def by_cell(*points, spread=1.0):
    """Runs of so many cells, whose differences are so many points, less and more by `spread` over three seeds."""
    by_shots = dict(zip(map(str, range(1, len(points) + 1)), points, strict=True))
    return made(lambda b, d, m, n, s: 0.5 - (b == "acdc80") * (by_shots[n] + spread * (s - 1)) / 100, shots=by_shots)


# the 95 % interval of three seeds that spread by 1 reaches 4.30 / √3 = 2.48 points from their mean
@pytest.mark.parametrize(
    ("points", "bound", "mean", "every", "most", "some"),
    [
        ((6, 9, 20, 30), {"more_than": 0}, "supported", "supported", "supported", "supported"),
        ((2.5, 9, 20, 30), {"more_than": 0}, "supported", "supported", "supported", "supported"),
        ((2.4, 9, 20, 30), {"more_than": 0}, "supported", "not refuted", "supported", "supported"),
        ((-0.1, 9, 20, 30), {"more_than": 0}, "supported", "undecided", "supported", "supported"),
        ((0, 9, 20, 30), {"more_than": 0}, "supported", "undecided", "supported", "supported"),  # no more than 0
        # p = 0.0046 of a mean of -6, which is below 0.025 / 5, but not of six
        ((-6, *4 * [20]), {"more_than": 0}, "supported", "contradicted", "supported", "supported"),
        ((-6, *5 * [20]), {"more_than": 0}, "supported", "undecided", "supported", "supported"),
        ((-6, -6, 8, 9), {"more_than": 0}, "undecided", "contradicted", "contradicted", "supported"),
        ((-5, -6, 3, 3), {"more_than": 0}, "undecided", "contradicted", "contradicted", "undecided"),
        ((-5, -9, -20, -30), {"more_than": 0}, "contradicted", "contradicted", "contradicted", "contradicted"),
        ((5, 9, 20, 30), {"less_than": 0}, "contradicted", "contradicted", "contradicted", "contradicted"),
        # deviations that cancel in the mean
        ((-20, 20), {"within": 5}, "supported", "contradicted", "contradicted", "contradicted"),
        ((-4, 5.1), {"within": 5}, "supported", "undecided", "undecided", "undecided"),
        ((-1, 1), {"within": 5}, "supported", "supported", "supported", "supported"),
        # a value, 20 points
        ((18, 21), {"about": 20, "within": 5}, "supported", "supported", "supported", "supported"),
        ((10, 30), {"about": 20, "within": 5}, "supported", "contradicted", "contradicted", "contradicted"),
        ((5, 9), {"about": 20, "within": 5}, "contradicted", "contradicted", "contradicted", "contradicted"),
    ],
)
def test_a_claim_is_of_the_mean_of_every_cell_of_most_or_of_some(points, bound, mean, every, most, some):
    found = judged(by_cell(*points), of="every", **bound)
    assert found["verdict"] == every
    assert verdicts._of_interval(claim(**bound), found["low"], found["high"]) == mean
    cells = cells_of(np.add.outer([-1, 0, 1], points))
    for of, verdict in (("mean", mean), ("most", most), ("some", some)):
        assert evidence.judge_cells(claim(of=of, **bound), cells, mean)[0] == verdict, of


def cells_of(points):
    """What `judge_cells` asks of [seeds, cells]."""
    skew = stats.skew(points, bias=False)
    return pd.DataFrame({"mean": points.mean(0), "std": points.std(0, ddof=1), "count": len(points), "skew": skew})


@pytest.mark.parametrize("bound", [{"more_than": 0}, {"less_than": 0}, {"within": 1.5}, {"within": 3}])
@pytest.mark.parametrize("points", [(1, 2, 3.6), (0.4, 1, 1.5), (0.5, 1.5, 2.4), (2, 5, 5.2), (4, 4.1, 6), (3, 5)])
@pytest.mark.parametrize("sign", [1, -1])
def test_of_a_single_cell_every_most_and_some_are_as_sure_as_the_mean(points, bound, sign):
    """ "every", "most" and "some" were "supported" where the mean, of the same three seeds, was "undecided"."""
    seeds = sign * np.array(points)
    below, above = claim(**bound).bounds
    (low,), (high,) = crossed_interval(seeds[None])
    mean = "contradicted" if high < below or above < low else "undecided"
    mean = "supported" if below < low and high < above else mean
    cells = cells_of(seeds[:, None])
    found = {evidence.judge_cells(claim(of=of, **bound), cells, mean)[0] for of in ("every", "most", "some")}
    assert found == {mean}


@pytest.mark.parametrize("of", ["every", "some", "most"])
def test_of_skewed_effects_verdicts_on_cells_are_less_often_false(of):
    """Log-normal, skewness 1.8, tail below: "supported" in 12 to 19 %, where no more than half of the cells hold;
    moved back by each cell's own skewness alone still in 5.5 to 9.5."""
    generator, scale = np.random.default_rng(0), np.sqrt(np.exp(0.5) - np.exp(0.25))
    points = (np.exp(0.125) - np.exp(0.5 * generator.standard_normal((200, 5, 9)))) / scale
    if of != "some":
        points[..., : 8 if of == "every" else 4] += 100
    claimed = claim(of=of)
    given = [evidence.judge_cells(claimed, cells_of(one), "")[0] for one in points]
    assert given.count("supported") / len(given) <= 0.035


def test_a_cell_that_spreads_far_more_than_others_does_not_decide_how_skewed_they_are():
    cells = cells_of(np.outer([-1.0, 0.0, 1.0], np.ones(20)))
    wild = cells_of(np.array([[0.0], [0.0], [-1000.0]]))
    alone, with_it = (evidence.p_values(one, -3)[0][:20] for one in (cells, pd.concat([cells, wild])))
    assert (alone < 0.025).all()
    assert (with_it < 2 * alone).all()


def test_the_note_counts_cells():
    runs = by_cell(-9, -0.1, 20, 30)
    assert judged(runs)["note"].endswith("otherwise in 2 of 4 cells, surely in 1")
    assert "holds in 2 of 4 cells, surely in 2; otherwise in 2" in judged(runs, of="some")["note"]


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ((1.5, 1.5, 1.5, 1.5), "contradicted"),  # a clear order
        ((-1.5, -1.4, -1.5, -0.01), "contradicted"),
        ((1.5, -1.5, 1.5, -1.5), "supported"),  # no order at all
        ((1.5, 1.5, 1.5, -1.5), "supported"),
        ((0.1, -0.1, 0.1, -0.1), "undecided"),
        ((1.5, 1.5, -0.1, -0.1), "undecided"),
    ],
)
def test_no_order_is_no_consistent_sign_over_cells(points, verdict):
    found = judged(by_cell(*points, spread=0.1), order="none")
    assert found["verdict"] == verdict
    above_0 = sum(point > 0 for point in points)
    assert f"above 0 in {above_0 or 'none'} of 4 cells" in found["note"]


def test_a_claim_of_every_cell_is_rarely_supported_where_one_is_otherwise():
    """One cell truly a point otherwise, eight 10 points where claimed, three seeds that spread by 2."""
    points = np.random.default_rng(0).normal([-1, *8 * [10]], 2, (200, 3, 9))
    every = claim(of="every")
    verdict = [evidence.judge_cells(every, cells_of(one), "supported")[0] for one in points]
    assert verdict.count("supported") / len(points) <= 0.05
    assert verdict.count("not refuted") / len(points) > 0.15  # what was called supported


def test_of_a_single_cell_nothing_is_counted():
    assert "otherwise" not in judged(made(lost(-4, -5, -6)))["note"]


def test_of_several_cells_of_which_one_is_not_at_chance_that_one_is_counted():
    runs = by_cell(-9, -5)
    runs.loc[runs["shots"] == "2", ["accuracy", "mean_class_accuracy"]] = 0.1
    note = judged(runs, of="every")["note"]
    assert note.endswith("at chance in 1 of 2 cells; of the other: otherwise in 1 of 1 cell, surely in 1")


def test_cells_that_do_not_spread_prove_nothing():
    """A counterexample needs an interval; a single seed, or seeds that are the same but for rounding, have none."""
    points = {"1": -5, "2": 20, "5": 30}
    runs = made(
        lambda b, d, m, n, s: 0.4 + s / 10 - (b == "acdc80") * (points[n] + s * (n != "1")) / 100, shots=points
    )
    assert differences(runs, claim()).query("shots == '1'")["difference"].std() > 0
    found = judged(runs, of="every")
    assert (found["verdict"], found["note"].split("; ")[-1]) == (
        "undecided",
        "otherwise in 1 of 3 cells, surely in none",
    )


def test_the_published_value_and_the_published_ece_stand_beside():
    runs = made(lost(4, 5, 6))
    assert "the interval holds the published value" in judged(runs, published=6)["note"]
    found = judged(runs, published=20)
    assert "the interval does not hold the published value" in found["note"]
    assert found["published"] == 20
    runs["ece"] = 0.1 + (runs["backbone"] == "acdc80") * (0.05 + 0.001 * runs["seed"])
    runs["ece_published"] = 0.1 - (runs["backbone"] == "acdc80") * (0.05 + 0.001 * runs["seed"])
    found = judged(runs, measure="ece_added")
    assert found["verdict"] == "supported"
    assert found["effect"] == pytest.approx(5.1)
    assert "the ECE of the paper's code differs: contradicted, -5.1 (-5.35 to -4.85)" in found["note"]
    runs["ece_published"] = runs["ece"]
    assert "the ECE of the paper's code agrees: supported" in judged(runs, measure="ece_added")["note"]
    # a bound of so many points is none for a number that is not in points
    assert "the paper's code" not in judged(runs, measure="ece_added", less_than=1)["note"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "accurracy"}, "measure: 'accurracy' is unknown; did you mean 'accuracy'?"),
        ({"cells": {"backbones": "prunned"}}, "cells.backbones[0]: 'prunned' is unknown"),
        ({"cells": {"backbones": "resnet50-acdc85"}}, "'resnet50-acdc85' is unknown; did you mean 'resnet50-acdc"),
        ({"cells": {"method": "ilm"}}, "cells.method: the key 'method' is unknown; did you mean 'methods'?"),
        ({"cells": {"shots": 0}}, "cells.shots[0]: 0 is not a number of images per class"),
        ({"cells": {"except_datasets": "SVHN"}}, "cells.except_datasets[0]: "),
        (
            {"cells": {"datasets": "svhn", "except_datasets": "dtd"}},
            "cells: datasets and except_datasets do not go together",
        ),
        ({"less_than": 3}, "expected one of more_than, less_than, within, order and share"),
        ({"about": 3}, "about needs within"),
        ({"more_than": None, "order": "none", "of": "most"}, "order is of all cells together"),
        ({"of": "each"}, "of: 'each' is unknown; allowed: mean, every, most, some"),
        ({"measure": "ece"}, "ece alone is no comparison; expected left and right"),
        ({"left": {"methods": "ilm"}}, "left and right go together"),
        ({"left": {"methods": "ilm"}, "right": {"shots": 1}}, "left and right must name the same axes"),
        (
            {"left": {"except_datasets": "svhn"}, "right": {"except_datasets": "dtd"}},
            "left and right must name the same axes, at least one, and no datasets",
        ),
        (
            {"left": {"backbones": "acdc"}, "right": {"backbones": "rigl"}},
            "backbones: named in cells and in left and right",
        ),
    ],
)
def test_a_claim_that_makes_no_sense_is_told_in_a_line(change, message):
    sound = {"text": "t", "source": "s", "measure": "accuracy_lost", "cells": {"backbones": "gmp"}, "more_than": 0}
    with pytest.raises(StudyError) as error:
        validate(Claim, sound | change, "claims.yaml: mine")
    (line,) = str(error.value).splitlines()
    assert line.startswith("claims.yaml: mine: ")
    assert message in line


def test_what_a_claim_says_is_what_is_tested():
    for name, one in claims.load().items():
        says = {"every", "always"} & set(one.text.replace(",", "").split())
        assert (one.of == "every") == bool(says), name
        assert one.of != "mean" or one.within is None or one.about, name  # deviations either way cancel in a mean


def test_the_papers_claims_are_answered_as_far_as_a_study_goes():
    catalogued = claims.load()
    assert len(catalogued) > 30
    runs = made(
        lambda b, d, m, n, s: 0.7 - (b != "small") * (0.55 + 0.01 * s),
        backbones=["small", "gmp", "random"],
        datasets=["oxfordpets"],
        methods=["rlm", "flm", "ilm"],
        shots=["1", "full"],
    )
    runs["dense"] = "small"
    table = verdicts.judge(runs, catalogued).set_index("claim")
    assert list(table.index) == list(catalogued)
    assert table.loc["gmp-pets", ["verdict", "effect", "cells"]].tolist() == ["supported", pytest.approx(56), 4]
    assert table.loc["gmp-resnet18", "verdict"] == "supported"
    assert table.loc["gmp-resnet34", "verdict"] == "not run"
    assert table.loc["control-random-gmp", "verdict"] == "undecided"  # the same, whatever the seed
    assert "which do not differ" in table.loc["control-random-gmp", "note"]
    supported = ["compression-accuracy", "gmp-resnet18", "gmp-pets", "control-learned"]
    assert list(table.index[table["verdict"] == "supported"]) == supported
    assert verdicts.count(table["verdict"]).startswith("4 supported, 0 not refuted, 0 contradicted, ")


def test_a_study_has_claims_of_its_own_beside_those_of_the_catalog():
    own = {"text": "t", "source": "ours", "measure": "accuracy_lost", "cells": {"methods": "ilm"}, "more_than": 0}
    given = claims.of_study({"survives": own}, "mine.yaml")
    assert list(given)[:-1] == list(claims.load())
    assert given["survives"].cells.methods == ["ilm"]
    assert not given["survives"].analysis
    beyond = yaml.safe_load((ROOT / "studies/beyond.yaml").read_text())
    given = claims.of_study(beyond["claims"], "beyond.yaml", beyond["analysis"])
    assert given.keys() > beyond["claims"].keys()
    taken = next(iter(claims.load()))
    for name, change, message in (
        (taken, {}, f"mine.yaml: claims.{taken}: the catalog has a claim of this name; expected another"),
        (
            "new",
            {"measure": "acuracy_lost"},
            "mine.yaml: claims.new: measure: 'acuracy_lost' is unknown; did you mean",
        ),
        ("new", {"cells": {"methods": "imm"}}, "mine.yaml: claims.new: cells.methods"),
        ("new", {"measure": "part_mapping"}, "mine.yaml: claims.new: part_mapping needs analysis: [split]"),
        ("new", {"measure": "shift_ece_added"}, "mine.yaml: claims.new: shift_ece_added needs analysis: [shift]"),
        ("new", {"explained_by": "cka"}, "mine.yaml: claims.new: explained_by needs analysis: [why]"),
    ):
        with pytest.raises(StudyError, match=re.escape(message)):
            claims.of_study({name: own | change}, "mine.yaml")
