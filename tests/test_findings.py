"""The pages of docs/findings: rendered again from the tables beside them, and what is made of tables whose values are
known."""

import json
import re
import runpy
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from hiddencost.results import matched, tables, verdicts
from hiddencost.results.claims import of_study
from hiddencost.results.upstream import with_shares

FINDINGS = ROOT / "docs/findings"
SCRIPT = runpy.run_path(str(FINDINGS / "render.py"))
# of each network what it loses under a method of prompting, in points, and what it knows of 1,000 photos
NETWORKS = {"dense": (0, 840), "pruned": (4, 820), "int8": (1, 838), "random": (20, 1)}
METHODS = {"rlm": 0.2, "flm": 0.3, "ilm": 0.35, "lp": 0.6}
OWN = {
    "mine": {
        "text": "Compression costs less than ten points under ILM-VP",
        **{"source": "ours", "measure": "accuracy_lost", "less_than": 10},
        "cells": {"backbones": "compressed", "methods": "ilm", "datasets": "cifar10"},
    }
}


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in FINDINGS.glob("*/runs.parquet")), ids=lambda p: p.name
)
def test_a_page_is_what_its_tables_give(folder):
    assert SCRIPT["render"](folder) == (folder / "README.md").read_text(encoding="utf-8")


def test_what_the_readme_says_came_out_is_on_the_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = re.findall(r"[+−]\d+\.\d \([^)]+ to [^)]+\)", readme)
    page = (FINDINGS / "cost/README.md").read_text(encoding="utf-8")
    assert len(said) == 13
    assert [interval for interval in said if interval not in page] == []


def test_no_number_of_a_page_is_written_by_hand():
    text = re.sub(r"{[%{#].*?[%}#]}", "", (FINDINGS / "page.md.j2").read_text())
    assert set(re.findall(r"\S*\d\S*", re.sub("2308.14969|top-1", "", text))) == set()


def made_up_runs():
    """Made-up runs of three seeds, each network and seed with a scatter of its own, small beside what is lost."""
    random, rows = np.random.default_rng(0), []
    recipe = json.dumps({"epochs": 20, "image_size": 48, "canvas": 64, "learning_rate": 0.01})
    kinds = {"pruned": "magnitude", "int8": "int8"}
    for name, method, shots, seed in product(NETWORKS, METHODS, ("1", "20"), (0, 1, 2)):
        lost = NETWORKS[name][0] * (0.25 if method == "lp" and name != "random" else 1) / 100
        row = {
            "study": "small",
            "checkpoint": "mobilenetv2",
            "backbone": name,
            "dense": "dense",
            "dataset": "cifar10",
        }
        row |= {"recipe_dense": "dense", "compression": kinds.get(name, "none"), "network": name, "status": "ok"}
        row |= {"control": "random_init" if name == "random" else None, "sparsity_measured": 0.2 * (name == "pruned")}
        row |= {"method": method, "shots": shots, "seed": seed, "run": f"{name}{method}{shots}{seed}"}
        accuracy = METHODS[method] + 0.1 * (shots == "20") - lost + random.normal(0, 0.002)
        row |= {
            "accuracy": accuracy,
            "mean_class_accuracy": accuracy,
            "ece": 0.1 + lost / 2,
            "ece_published": 1 + lost,
            "recipe": recipe,
        }
        row |= {"classes": 10, "n_test": 10_000, "n_test_fewest": 1000, "device": "a processor", "precision": "fp32"}
        rows.append(row | {"torch": "2", "classes_short": 0, "train_seconds": 1.0})
    return pd.DataFrame(rows).reindex(columns=tables.run_columns())


@pytest.fixture
def results(tmp_path):
    """The results of a study with made-up numbers."""
    folder, runs = tmp_path / "results/small", made_up_runs()
    known = [[name, None, photos, 1000] for name, (_, photos) in NETWORKS.items()]
    upstream = with_shares(pd.DataFrame(known, columns=["backbone", "top1", "photos", "photos_shown"]))
    looking = runs[runs["method"].isin(["flm", "ilm"])][["backbone", "dataset", "method", "shots", "seed"]]
    mappings = looking.merge(pd.DataFrame({"target": range(10)}), how="cross")
    # of ten classes the pruned network maps four otherwise
    mappings["source"] = mappings["target"] + 100 * ((mappings["backbone"] == "pruned") & (mappings["target"] < 4))
    moving = looking[looking["method"] == "ilm"].merge(pd.DataFrame({"epoch": range(2, 21)}), how="cross")
    written = {
        "runs.parquet": runs,
        "summary.csv": tables.summarise(runs),
        "claims.csv": verdicts.judge(runs, of_study(OWN, "small.yaml")),
        "upstream.csv": upstream,
        "matched.csv": matched.matched(runs, upstream),
        "mappings.parquet": mappings.assign(target_name="", source_name=""),
        "remapped.parquet": moving.assign(share=np.where(moving["epoch"] > 10, 0.25, 1.0)),
    }
    for name, table in written.items():
        tables.write(table, folder / "tables" / name)
    for rule, seconds in (("train/dense/cifar10/seed0", 5400), ("collect", 1800)):
        benchmark = folder / f"benchmarks/{rule}.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\tmax_rss\n{seconds}\t100\n")
    (folder / "figures").mkdir()
    for figure in ("glance", "accuracy", "prompts"):
        (folder / f"figures/{figure}.png").write_bytes(b"png")
    return folder


def test_a_difference_of_guesses_is_not_bold():
    surely = {"effect": 2.0, "low": 1.0, "high": 3.0, "verdict": "supported"}
    assert SCRIPT["effect"](surely) == "**+2.0 (+1.0 to +3.0)**"
    assert SCRIPT["effect"](surely | {"verdict": "at chance"}) == "+2.0 (+1.0 to +3.0), at chance"
    assert SCRIPT["effect"](surely | {"low": -0.04}) == "+2.0 (0.0 to +3.0)"


def section(page, title):
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def numbers_of(line):
    return [float(text.replace("−", "-")) for text in re.findall(r"[+−]?\d+(?:\.\d+)?", line)]


def test_a_study_s_results_become_a_page(results, tmp_path):
    page = tmp_path / "findings/small"
    (page / "old").mkdir(parents=True)
    (page / "stale.png").write_bytes(b"of another study")
    SCRIPT["main"](page, results)
    text = (page / "README.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in page.glob("*.png")) == ["accuracy.png", "glance.png"]
    SCRIPT["main"](page)
    assert (page / "README.md").read_text(encoding="utf-8") == text

    assert "96 of 96 runs have a result, of 96 entries of the ledger" in text
    assert "`pruned` | magnitude | 20.0 | 82.0 (79.5 to 84.3) | +2.0 |" in section(text, "The networks")
    assert "the compressed networks lost +0.2 to +2.0 points of top-1" in section(text, "In short")
    costs = section(text, "What each compression costs")
    of_ilm = costs.partition("ILM-VP, points lost")[2].partition("points lost")[0]
    (pruned,) = [line for line in of_ilm.splitlines() if line.startswith("| `pruned`")]
    assert pruned.count("**") == 4  # at both budgets surely above zero
    for effect, low, high in np.reshape(numbers_of(pruned), (2, 3)):
        assert low < 4 < high
        assert effect == pytest.approx(4, abs=0.5)
    (both,) = [line for line in costs.splitlines() if line.startswith("| compressed | ILM-VP")]
    assert numbers_of(both)[-3] == pytest.approx(2.5, abs=0.3)  # of one that loses 4 and one that loses 1
    (beyond,) = [line for line in section(text, "Against the linear probe").splitlines() if "ILM-VP" in line]
    assert numbers_of(beyond)[-3] == pytest.approx(2.5 * 0.75, abs=0.3)
    with_it = section(text, "What goes with it")
    assert "| `pruned` | ILM-VP | 60.0 | 25.0 |" in with_it
    assert "| `dense` | FLM-VP | – | – |" in with_it
    assert numbers_of(next(line for line in with_it.splitlines() if line.startswith("| ILM-VP")))[0] == 1.3
    claims = section(text, "Claims")
    assert "| Compression costs less than ten points under ILM-VP | supported |" in claims
    assert "| Compression costs accuracy under visual prompting | supported |" in claims
    assert "2.0 hours of jobs on a processor (fp32, PyTorch 2)" in section(text, "Runs and hours")


def test_whose_the_cost_is_and_how_it_grows_on_corrupted_images():
    cell = {"backbone": "pruned", "dense": "dense", "method": "flm"}
    parts = {"cost": 4.0, "part_network": 3.0, "part_prompt": 1.5, "part_mapping": -0.5}
    ends = {
        f"{name}_{end}": value + by for name, value in parts.items() for end, by in (("low", -1.0), ("high", 1.0))
    }
    table = pd.DataFrame([cell | {"shots": shots} | parts | ends for shots in ("1", "20")])
    (row,) = SCRIPT["split"](table, "20", set())
    assert row["name"] == "pruned"
    assert {name: SCRIPT["effect"](row[name]) for name in ("cost", "network", "prompt", "mapping")} == {
        "cost": "**+4.0 (+3.0 to +5.0)**",
        "network": "**+3.0 (+2.0 to +4.0)**",
        "prompt": "**+1.5 (+0.5 to +2.5)**",
        "mapping": "−0.5 (−1.5 to +0.5)",
    }
    guess = {("pruned", "flm", "20"), ("dense", "flm", "1")}
    (row,) = SCRIPT["split"](table, "20", guess)
    assert SCRIPT["effect"](row["cost"]) == "**+4.0 (+3.0 to +5.0)**"  # of a dense network that does not guess
    (row,) = SCRIPT["split"](table, "20", guess | {("dense", "flm", "20")})
    assert [SCRIPT["effect"](row[name]) for name in ("cost", "network")] == [
        "+4.0 (+3.0 to +5.0), at chance",
        "+3.0 (+2.0 to +4.0), at chance",
    ]


def test_the_cost_grows_on_corrupted_images_until_both_networks_guess():
    cell = {"dense": "dense", "dataset": "cifar10", "method": "flm", "shots": "20", "accuracy_cost_low": 0.5}
    seen = [
        cell
        | {"backbone": name, "severity": severity, "paired_seeds": 3 * (name == "pruned")}
        | {"accuracy_cost": 1.0 + severity, "accuracy_cost_high": 9.0}
        | {"worst_class_accuracy": 0.02, "class_gap": 0.08 if severity == 5 else 0.2}
        for severity, name in product((5, 1, 0), ("pruned", "dense"))
    ]
    found = SCRIPT["shift"](pd.DataFrame(seen), "20", made_up_runs())
    assert found["severities"] == [0, 1, 5]
    assert [(row["name"], [SCRIPT["effect"](cell) for cell in row["cells"]]) for row in found["rows"]] == [
        ("pruned", ["**+1.0 (+0.5 to +9.0)**", "**+2.0 (+0.5 to +9.0)**", "+6.0 (+0.5 to +9.0), at chance"])
    ]


def test_of_single_networks_too_a_difference_of_guesses_is_not_bold():
    runs = made_up_runs()
    of_rlm = (runs["method"] == "rlm") & (runs["shots"] == "1")
    accuracy = (0.1 - 0.01 * (runs["backbone"] == "pruned")).where(of_rlm, runs["accuracy"])
    runs = runs.assign(accuracy=accuracy, mean_class_accuracy=accuracy)
    runs.loc[of_rlm & (runs["backbone"] == "pruned"), "accuracy"] += 0.0001 * runs["seed"]
    guess = SCRIPT["guesses"](runs)
    assert {("dense", "rlm", "1"), ("pruned", "rlm", "1")} <= guess
    assert not {(name, "ilm", "20") for name in ("dense", "pruned")} & guess
    (row,) = [
        one for one in SCRIPT["costs"](tables.summarise(runs), ["1", "20"], guess)["rlm"] if one["name"] == "pruned"
    ]
    few, many = map(SCRIPT["effect"], row["cells"])
    assert few.endswith(", at chance")
    assert "**" not in few
    assert many.startswith("**")
    table = pd.DataFrame(
        {"dense": ["dense"] * 2, "method": ["rlm", "ilm"], "compression": "all", "cost_at_matched": 2.0}
    )
    found = SCRIPT["matched"](table.assign(low=1.0, high=3.0), runs, set(product(NETWORKS, ["rlm"], ["1", "20"])))
    assert [SCRIPT["effect"](row) for row in found] == ["+2.0 (+1.0 to +3.0), at chance", "**+2.0 (+1.0 to +3.0)**"]
