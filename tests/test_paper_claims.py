"""What the paper says has its entry in the catalog, or a reason why not; and how a study relates to the paper's."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from hiddencost import catalog
from hiddencost.files import canonical
from hiddencost.results import claims, verdicts
from hiddencost.results.chance import p_values, surely_above
from hiddencost.results.claims import Claim
from hiddencost.results.evidence import RISK
from hiddencost.results.relation import Paper
from hiddencost.study.load import load_study

BACKBONES = {  # name: checkpoint, compression, control, dense
    "dense": ("resnet50-v2", "none", None, "dense"),
    "old": ("resnet50-v1", "none", None, "dense"),
    "acdc80": ("resnet50-acdc80", "acdc", None, "dense"),
    "ticket": ("resnet50-lth4", "lth", None, "dense"),
    "blocks": ("resnet50-v2", "2:4", None, "dense"),
    "random": ("resnet50-v2", "none", "random_init", "dense"),
    "small": ("resnet18-v1", "none", None, "small"),
    "gmp": ("resnet18-gmp", "gmp", None, "small"),
    "ofq": ("swin-t-ofq-w2a2", "ofq", None, "dense"),
}

# What arXiv 2308.14969 says, in our words: the entries that test it, or why there is none
SAID = {
    "Compression costs accuracy under visual prompting": ["compression-accuracy"],
    "Compression costs calibration under visual prompting": ["compression-calibration"],
    "Of dense ResNet-18 and 34 (figures 1 and 2), asked of any: ILM-VP > FLM-VP > RLM-VP": [
        *("mapping-ilm-flm", "mapping-flm-rlm")
    ],
    "GMP, ResNet-18: dense is better for each dataset, budget and method": ["gmp-resnet18"],
    "GMP, ResNet-34: dense is better for each dataset, budget and method": ["gmp-resnet34"],
    "Dense ResNet-18 and 34: ILM-VP is better than FLM-VP but on SVHN and GTSRB": ["order-ilm-flm"],
    "Dense ResNet-18 and 34: RLM-VP is far behind but on SVHN and GTSRB": ["order-flm-rlm"],
    "Dense ResNet-18 and 34, SVHN, GTSRB: the three are close": ["close-ilm-flm", "close-flm-rlm", "close-ilm-rlm"],
    "GMP ResNet-18: no clear order of the three": ["no-order-ilm-flm", "no-order-ilm-rlm", "no-order-flm-rlm"],
    "GMP ResNet-34: ILM-VP stays the best": ["resnet34-gmp-ilm-flm", "resnet34-gmp-ilm-rlm"],
    "Pets, ResNet-18: dense is more than 50 points better at all budgets": ["gmp-pets"],
    "ResNet-34 reaches more than ResNet-18 on all data": ["resnet34-over-resnet18", "resnet34-over-resnet18-gmp"],
    "GMP networks keep the dense ones' ImageNet accuracy (69.8 and 73.3 %)": "no run measures it: the catalog of "
    "checkpoints has it as published",
    "AC/DC and RigL, four datasets: dense is better": ["acdc-accuracy", "rigl-accuracy"],
    "AC/DC and RigL, the other four: sparse matches dense in some settings": ["acdc-some-match", "rigl-some-match"],
    "Flowers102: AC/DC and RigL are better than dense": ["acdc-flowers", "rigl-flowers"],
    "Flowers102: by about 2 points": ["acdc-flowers-by-2", "rigl-flowers-by-2"],
    "AC/DC and RigL go alike": ["acdc-like-rigl-80", "acdc-like-rigl-90"],
    "Sparsity costs ResNet-50 less than ResNet-18 and 34": ["resnet50-smaller-gap"],
    "Tickets, CIFAR-10: dense is better under ILM-VP and FLM-VP at every budget": ["lth-accuracy"],
    "Tickets, CIFAR-10: ILM-VP is better than FLM-VP always, dense and sparse": ["lth-ilm-flm", "lth-dense-ilm-flm"],
    "Tickets, CIFAR-10: RLM-VP is the lowest": ["lth-lowest-ilm-rlm", "lth-lowest-flm-rlm"],
    "Tickets, CIFAR-10, RLM-VP: tickets match dense at high budgets": ["lth-rlm-alike"],
    "Tickets, CIFAR-10: they hurt ILM-VP most": ["lth-most-ilm-flm", "lth-most-ilm-rlm"],
    "Tickets, CIFAR-10, ILM-VP, 20 shots: 20 points are lost, the mean of all states": ["lth-ilm-20"],
    "Tickets, CIFAR-10, FLM-VP, 1 and 2 shots: tickets are better": ["lth-flm-few"],
    "Tickets, other datasets": "no statement of theirs is known",
    "Sparsity worsens calibration under visual prompting": ["sparsity-calibration"],
    "Sparsity worsens calibration under the linear probe": ["sparsity-calibration-probe"],
    "Quantisation lowers accuracy": ["quantisation-accuracy"],
    "Quantisation does not worsen calibration": ["quantisation-calibration"],
    "CLIP, compressed by UPop": "none known of its own: it is among the compressed networks of the first two",
}


def test_each_claim_of_the_paper_has_its_entry_or_the_reason_why_not():
    listed = [name for entries in SAID.values() if isinstance(entries, list) for name in entries]
    assert sorted(listed) == sorted(name for name, one in claims.load().items() if "2308.14969" in one.source)
    assert all(entries for entries in SAID.values())


def test_the_benchmark_names_the_claims_about_a_mean_on_one_dataset():
    """Their intervals are those that hold the truth least often (bench/coverage.py)."""
    (told,) = re.findall(
        r"claims of the paper use these:.*?\((.*?)\)", (ROOT / "bench/README.md").read_text(), re.DOTALL
    )
    alone = {
        name
        for name, one in claims.load().items()
        if one.of == "mean" and one.order is None and one.cells.datasets is not None and len(one.cells.datasets) == 1
    }
    assert set(re.findall("`(.+?)`", told)) == alone


def test_a_margin_of_ours_is_said_to_be_ours():
    for name, one in claims.load().items():
        if one.within is not None or (
            one.order is None and one.share is None and not {0, 50} & {one.more_than, one.less_than}
        ):
            assert "our margin" in one.text or "published" in one.text.lower(), name


def test_the_most_and_the_lowest_of_three_are_so_against_each_of_the_others():
    """Against the mean of the two others, "most" and "lowest" were "supported" of a network that was second."""
    tops = {"ilm": 0.7, "flm": 0.4, "rlm": 0.45}
    costs = {"ilm": 0.2, "flm": 0.25, "rlm": 0.02}
    runs = made(
        lambda b, d, m, n, seed: (
            tops[m] - (costs[m] * (b == "ticket") * (1 + 0.01 * seed)) - 0.001 * (m == "flm") * seed
        ),
        backbones=("dense", "ticket"),
        methods=tuple(tops),
        shots=("1", "20"),
    )
    asked = {name: one for name, one in claims.load().items() if name.startswith(("lth-most", "lth-lowest"))}
    judged = verdicts.judge(runs, asked)
    assert judged.set_index("claim")["verdict"].to_dict() == {
        **{"lth-most-ilm-flm": "contradicted", "lth-most-ilm-rlm": "supported"},
        **{"lth-lowest-ilm-rlm": "supported", "lth-lowest-flm-rlm": "contradicted"},
    }


def runs_of(accuracies, classes=10, n_test=1000, **more):
    """Runs of arms, with these accuracies by arm and seed, of classes that have alike many test images."""
    arm, seed = np.indices(np.shape(accuracies)).reshape(2, -1)
    told = {
        "backbone": "b",
        "dataset": "cifar10",
        "method": "ilm",
        "classes": classes,
        "n_test_fewest": n_test // classes,
    } | more
    return pd.DataFrame(told | {"shots": arm, "seed": seed, "mean_class_accuracy": np.ravel(accuracies)})


@pytest.mark.parametrize(
    ("accuracies", "more", "expected"),
    [
        ((0.10, 0.11, 0.09), {}, False),
        ((0.08, 0.12, 0.13), {"n_test": 10_000}, False),  # as random mappings scatter, beyond what images do
        ((0.12, 0.121, 0.122), {}, True),
        ((0.2, 0.5, 0.8), {}, True),  # of three seeds the t interval reaches below 10 %
        ((0.27, 0.4), {"n_test": 500}, True),  # of two, too
        ((0.15, 0.15, 0.122), {"n_test": 500}, False),  # the least sure seed counts
        ((0.13, 0.131, 0.13), {"n_test_fewest": 5}, False),  # the smallest class is of 5 images
        ((0.13, 0.131, 0.13), {"n_test_fewest": np.nan}, False),
        ((0.11, 0.11, 0.11), {"n_test": 500}, False),  # the same, whatever the seed
        # a single seed is held against what its test images tell
        ((0.6,), {}, True),
        ((0.6,), {"method": "rlm"}, True),
        ((0.11,), {"n_test": 500}, False),
        ((0.13,), {"n_test": 500}, True),
        ((0.13,), {"n_test": 100}, False),
        ((0.9,), {"classes": 2, "n_test": 20, "method": "lp"}, True),  # never, of two classes
        # a mapping that is drawn at random may have one of ten classes right by luck, or both of two
        ((0.2, 0.25), {"method": "rlm"}, False),
        ((0.9,), {"classes": 2, "method": "rlm"}, False),
        ((0.9, 0.91, 0.9), {"classes": 2, "method": "rlm"}, False),  # 5 of 6 in 11 % of draws
        ([0.9] * 7, {"classes": 2, "method": "rlm"}, True),
        ((0.3, 0.31, 0.32), {"method": "rlm"}, True),
        ([0.9] * 7, {"classes": 2, "method": "sem"}, False),  # one mapping, by names, for all seeds
        ((0.0, 0.0), {}, False),
    ],
)
def test_at_chance_is_what_is_not_surely_above_it(accuracies, more, expected):
    runs = runs_of([accuracies], **more)
    assert surely_above(runs).tolist() == [expected] * len(accuracies)
    assert surely_above(runs.assign(classes=np.nan)).all()


def falsely_above(shares, arms=20, **more):
    """The share of arms that guess, [arms, seeds], and of studies with any, that are said not to."""
    alone = (p_values(runs_of(shares, **more)) <= RISK).mean()
    studies = shares.reshape(-1, arms, shares.shape[1])
    return alone, np.mean([surely_above(runs_of(study, **more)).any() for study in studies])


@pytest.mark.parametrize(("seeds", "shared"), [(1, 0), (3, 0), (3, 0.8), (5, 0.95)])
def test_networks_that_guess_are_rarely_said_not_to(seeds, shared):
    """Seeds whose predictions agree have the luck of the test set in common: a t test over them said that 35 %
    of such guesses, and any of 20 in 99 % of studies, were none."""
    draw = np.random.default_rng(0)
    labels, first, own = np.arange(500) % 10, draw.integers(10, size=(2000, 1, 500)), (2000, seeds, 500)
    guesses = np.where(draw.random(own) < shared, first, draw.integers(10, size=own))
    alone, of_study = falsely_above((guesses == labels).mean(2), n_test=500)
    assert alone <= 0.035  # 2.5 % and two standard errors
    assert of_study < 0.06


@pytest.mark.parametrize("guessed", [slice(None), [0, 19]])
def test_guesses_of_unequal_classes_are_rarely_said_not_to(guessed):
    """The classes of GTSRB's test have 60 to 750 images. By their sum, a single seed of guesses was said to be none
    in 7.6 %; guesses that fall on the two smallest scatter furthest."""
    images = 30 * np.array([2, 24, 25, 15, 22, 21, 5, 15, 15, 16, 22, 14, 23, 24, 9, 7, 5, 12, 13, 2, 3, 3, 4])
    draw, shares, classes = np.random.default_rng(0), np.zeros((5000, len(images))), len(images)
    counts = images[guessed]
    shares[:, guessed] = draw.binomial(counts, 1 / len(counts), (5000, len(counts))) / counts
    right = runs_of(shares.mean(1)[:, None], classes=classes, n_test=60 * classes)
    assert (p_values(right) <= RISK).mean() <= 0.03
    assert (p_values(right) <= 1e-3).mean() <= 0.002


def test_however_many_guess_what_does_not_is_found():
    runs = runs_of([*np.full((200, 3), 0.1), (0.3, 0.25, 0.5)])
    assert surely_above(runs).tolist() == [False] * 600 + [True] * 3


def test_how_many_others_are_compared_decides_nothing():
    """By Holm's procedure over a study, an arm was surely no guess in a small one and at chance in a large one."""
    arm = (0.135, 0.135, 0.14)
    assert surely_above(runs_of([arm])).all()
    assert surely_above(runs_of([arm, *np.full((2000, 3), 0.5)])).all()
    small = made(lambda b, d, m, n, s: arm[s] - 0.1 * (b != "dense") * s)
    beside = made(lambda b, d, m, n, s: 0.1, methods=("lp",), shots=tuple(map(str, range(200))))
    told = claim(cells={"methods": "ilm"})
    alone, among = (verdicts.judge(runs, {"c": told}) for runs in (small, pd.concat([small, beside])))
    assert alone["verdict"].tolist() == among["verdict"].tolist() == ["undecided"]


def made(accuracy, backbones=("dense", "acdc80"), datasets=("cifar10",), methods=("ilm",), shots=("20",)):
    """Runs of three seeds whose accuracy is a function of backbone, dataset, method, shots and seed."""
    rows = []
    for backbone, dataset, method, shot, seed in product(backbones, datasets, methods, shots, range(3)):
        told = dict(zip(("checkpoint", "compression", "control", "dense"), BACKBONES[backbone], strict=True))
        told |= {"backbone": backbone, "dataset": dataset, "method": method, "shots": shot, "seed": seed}
        value = accuracy(backbone, dataset, method, shot, seed)
        told |= {"status": "ok", "accuracy": value, "mean_class_accuracy": value}
        rows.append(told | {"classes": 10, "n_test_fewest": 100, "recipe": None})
    return pd.DataFrame(rows)


def lost(*points):
    """An accuracy by which all but the dense networks lose, with seed 0, 1, ..., so many points."""
    return lambda b, d, m, n, seed: 0.5 - points[seed] / 100 * (b not in ("dense", "small"))


def claim(**more):
    values = {"text": "t", "source": "s", "measure": "accuracy_lost", "cells": {"backbones": "compressed"}}
    return Claim.model_validate(values | {"more_than": 0} | more)


def at(dense, sparse, **more):
    runs = made(lambda b, d, m, n, s: (dense if b == "dense" else sparse)[s], **more)
    return verdicts.judge(runs, {"c": claim()}).iloc[0]


def test_a_comparison_of_two_networks_at_chance_says_nothing():
    """12 % of the classes against 10, with nothing but images between them, was "supported"."""
    one = at((0.108, 0.105, 0.1), (0.098, 0.094, 0.09))
    assert (one["verdict"], one["low"] > 0) == ("at chance", True)
    assert "at chance in 1 of 1 cells" in one["note"]
    two = at((0.41, 0.405, 0.4), (0.098, 0.094, 0.09))
    assert two["verdict"] == "supported"
    assert "at chance" not in two["note"]


def test_an_arm_at_chance_hides_none_above_it():
    """The mean of all networks and methods of a cell was held against chance: one that fell far below it (a network
    that always says the wrong class), or many at it, made a cell "at chance" where another was at 30 %."""

    def accuracy(backbone, dataset, method, shots, seed):
        if method == "ilm":
            return 0.3 + 0.002 * seed if backbone == "dense" else 0.0
        return 0.1 + (-0.01, 0, 0.01)[seed] * (1 if backbone == "dense" else 0.5)

    runs = made(accuracy, methods=("ilm", "lp"))
    found = verdicts.judge(runs, {"ilm": claim(cells={"methods": "ilm"}), "lp": claim(cells={"methods": "lp"})})
    assert found["verdict"].tolist() == ["supported", "at chance"]
    # of a difference of differences each must be of one that does not guess
    sides = {"cells": {"backbones": "acdc"}, "left": {"methods": "lp"}, "right": {"methods": "ilm"}}
    assert related(runs, **sides)["verdict"] == "at chance"
    sides["cells"] = {"backbones": "dense"}
    assert related(runs, **sides, measure="accuracy")["verdict"] == "contradicted"


def test_cells_at_chance_are_no_evidence_of_cells():
    """20 points are lost wherever networks learn; where all guess none are, and "in some cells they match" held."""

    def accuracy(backbone, dataset, method, shots, seed):
        if shots == "1":
            return 0.1 + seed / 1000 * (backbone == "dense")
        return 0.5 - (0.2 + seed / 100) * (backbone != "dense")

    runs = made(accuracy, shots=("1", "5", "20"))
    some = {"within": 5, "more_than": None, "of": "some"}
    found = verdicts.judge(runs, {"some": claim(**some), "mean": claim()}).set_index("claim")
    assert found.loc["some", "verdict"] == "contradicted"
    assert "at chance in 1 of 3 cells" in found.loc["some", "note"]
    told = "of the others: holds in none of 2 cells; otherwise in 2 of 2 cells, surely in 2"
    assert told in found.loc["some", "note"]
    assert verdicts.judge(runs[runs["shots"] == "1"], {"c": claim(**some)})["verdict"].tolist() == ["at chance"]


def test_a_study_is_at_chance_where_each_of_its_cells_is():
    """One cell of eight is above: their mean is not, and "no network compared" was said of all."""
    datasets = ["cifar10", "svhn", "gtsrb", "dtd", "flowers102", "oxfordpets", "eurosat", "caltech101"]

    def accuracy(backbone, dataset, method, shots, seed):
        if dataset == "cifar10":
            return 0.145 + 0.002 * seed - 0.005 * (backbone == "acdc80")
        return 0.1 + (-0.004, 0.001, 0.002)[seed]

    (found,) = verdicts.judge(made(accuracy, datasets=datasets), {"c": claim()}).to_dict("records")
    assert found["verdict"] != "at chance"
    assert "at chance in 7 of 8 cells" in found["note"]


def recipe(**more):
    known = Paper.model_validate(catalog.load("paper")).recipes["train"][0]
    return canonical(known | {"image_size": 32, "shuffle": True, "precision": "fp32", "test_batch_size": 64} | more)


def related(runs, own=(), **more):
    return verdicts.judge(runs, {"c": claim(**more)}, own=own).iloc[0]


def test_a_verdict_says_in_what_its_cells_are_not_the_papers():
    """A study of 2 epochs on a canvas of 112 "supported" the paper's claims without a word."""
    shots = ("1", "2", "20", "full")
    cells = {"backbones": "resnet50-acdc80", "datasets": "cifar10", "methods": "ilm"}
    runs = made(lost(4, 5, 6), shots=shots).assign(recipe=recipe())
    assert related(runs, cells=cells)["relation"] == "as in the paper"
    other = runs.assign(recipe=recipe(epochs=2, canvas=112, milestones=[0.5]))
    assert related(other, cells=cells)["relation"] == (
        "canvas 112 (paper: 224); epochs 2 (paper: 100); milestones [0.5] (paper: [0.5, 0.72])"
    )
    by_steps = runs.assign(recipe=recipe(epochs=None, steps=500))
    assert related(by_steps, cells=cells)["relation"] == "epochs none (paper: 100)"
    few = related(runs[(runs["seed"] < 2) & runs["shots"].isin(["1", "20"])], cells=cells)
    assert few["relation"] == "without shots 2 and full; 2 seeds (paper: 3)"
    # what no cell of the claim used does not count
    beside = pd.concat([runs, made(lost(4, 5, 6), methods=["flm"]).assign(recipe=recipe(epochs=2))])
    assert related(beside, cells=cells)["relation"] == "as in the paper"
    assert related(runs, cells=cells | {"shots": [20, 50]})["relation"] == "without shots 50"
    assert related(runs, cells={"backbones": "acdc", "datasets": ["cifar10", "dtd"]})["relation"] == (
        "without resnet50-acdc90 and resnet50-acdc98; without dtd"
    )
    assert related(runs, cells={"backbones": "gmp"})["relation"] is None


def test_other_networks_and_datasets_are_told():
    runs = made(lost(4, 5, 6), backbones=["dense", "blocks", "old", "random"], datasets=["cifar10-part", "eurosat"])
    told = related(runs.assign(recipe=recipe(image_size=128)))["relation"]
    networks, parts = "other network: blocks; none of the 20 networks of the claim", "other dataset: cifar10-part"
    assert told.startswith(f"{networks}; {parts}; split of eurosat (paper: test images are trained on)")
    assert "; only 1 of the 8 datasets of the claim; " in told  # eurosat: cifar10-part is another
    assert "image size" not in told  # of cifar10-part the paper has none


def test_quantised_transformers_are_the_papers_where_a_study_has_them():
    quantised = {"cells": {"backbones": "quantised", "datasets": "cifar10", "shots": 20}}
    runs = made(lost(4, 5, 6), backbones=["dense", "ofq"]).assign(recipe=recipe())
    for bits, told in {2: "other network: ofq", 3: "as in the paper"}.items():
        runs["checkpoint"] = runs["checkpoint"].replace(
            "swin-t-ofq-w[23]a[23]", f"swin-t-ofq-w{bits}a{bits}", regex=True
        )
        assert related(runs, **quantised)[["verdict", "relation"]].tolist() == ["supported", told]


def test_a_file_of_ones_own_is_no_published_network():
    """It was, under the name of the published one."""
    runs = made(lost(4, 5, 6), backbones=["dense", "acdc80", "small", "gmp"]).assign(recipe=recipe())
    of = {kind: {"cells": {"backbones": kind}} for kind in ("acdc", "resnet50-acdc80", "compressed", "gmp")}
    own = {"own": ["resnet50-acdc80", "resnet18-gmp"]}
    for kind, verdict in {"acdc": "not run", "resnet50-acdc80": "not run", "compressed": "supported"}.items():
        assert related(runs, **of[kind])["verdict"] == "supported"
        assert related(runs, **own, **of[kind])["verdict"] == verdict
    # what nobody can download: the only way to have it, and said
    assert "resnet18-gmp is a file of one's own" in related(runs, **own, **of["gmp"])["relation"]
    assert "own" not in related(runs, **of["gmp"])["relation"]


def test_networks_that_a_study_here_made_in_place_of_published_ones_are_told_beside_the_verdict():
    """studies/remade.yaml's GMP decided the claims on SparseZoo's."""
    runs = made(lost(4, 5, 6), backbones=["dense", "acdc80", "small", "gmp"]).assign(recipe=recipe())

    def told(kind, names):
        claims = {"c": claim(cells={"backbones": kind})}
        return verdicts.judge(runs, claims, made=names).iloc[0]

    note = "with networks that a study here trained in place of published ones: supported, +5 (+2.52 to +7.48)"
    for kind in ("gmp", "resnet18-gmp"):
        assert told(kind, [])["verdict"] == "supported"
        found = told(kind, ["resnet18-gmp"])
        assert found["verdict"] == "not run"
        assert found["note"] == f"not in this study: no backbone is {kind}; {note}"
    both = told(["acdc", "gmp"], ["resnet18-gmp"])
    assert (both["verdict"], both["cells"]) == ("supported", told("acdc", [])["cells"])
    assert both["note"].endswith(note.partition(":")[0] + ": supported, +5 (+2.52 to +7.48)")
    compressed = told("compressed", ["resnet18-gmp"])
    assert (compressed["verdict"], "trained" in compressed["note"]) == ("supported", False)
    assert compressed["relation"].startswith("trained by a study here: gmp; ")
    runs.loc[runs["backbone"] == "gmp", "status"] = "not run"
    assert "trained" not in told("gmp", ["resnet18-gmp"])["note"]


def test_the_papers_study_is_the_one_that_is_planned():
    paper, study = (
        Paper.model_validate(catalog.load("paper")),
        load_study(yaml.safe_load((ROOT / "studies/paper.yaml").read_text()), "paper.yaml"),
    )
    assert paper.seeds == len(study.seeds)
    assert set(paper.shots) <= set(map(str, study.shots))
    assert set(paper.networks) <= {backbone.checkpoint for backbone in study.backbones}
    assert {d.name: d.image_size for d in study.datasets}.items() <= paper.image_sizes.items()
    of_study = {"train": [study.protocol, study.clip], "probe": [study.probe]}
    for job, recipes in of_study.items():
        for expected, stated in zip(paper.recipes[job], recipes, strict=True):
            assert {key: expected[key] for key in expected.keys() & dict(stated).keys()}.items() <= dict(
                stated
            ).items()


def test_a_budget_that_is_another_by_name_alone_is_there():
    runs = made(lost(4, 5, 6), shots=("1", "2", "10", "20", "full")).assign(recipe=recipe())
    runs["run"] = runs["backbone"] + runs["shots"].replace({"20": "10", "full": "10"}) + runs["seed"].astype(str)
    told = related(runs, cells={"backbones": "resnet50-acdc80", "datasets": "cifar10", "methods": "ilm"})
    assert (told["relation"], told["cells"]) == ("as in the paper", 3)


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("scatter", [0.015, 0.03, None])
def test_random_mappings_that_scatter_around_chance_are_no_better_than_it(seeds, scatter):
    """Guesses of 10 classes that scatter by 1.5 points or 3, where 10,000 images scatter by 0.3, or by whole classes:
    by its images, any of 200 arms was "surely" better in all studies."""
    draw = np.random.default_rng(0)
    shares = draw.binomial(10, 0.1, (4000, seeds)) / 10
    if scatter:
        shares = 0.1 + draw.normal(0, scatter, (4000, seeds))
    alone, of_study = falsely_above(shares, arms=200, n_test=10_000, method="rlm")
    assert alone <= 0.03
    assert of_study <= 0.1  # of 20 studies
