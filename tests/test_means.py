from itertools import product

import numpy as np
import pandas as pd
import pytest

from hiddencost.results import typeset, verdicts
from hiddencost.results.claims import Claim
from hiddencost.results.means import means

COST = {"one": 2.0, "two": 4.0, "three": 9.0}  # points, by dataset
NETWORKS = {"dense": ("none", None), "pruned_1": ("magnitude", None), "random": ("none", "random_init")}


def made(shots=("1", "full")):
    rows = []
    for (name, (compression, control)), dataset, method, number, seed in product(
        NETWORKS.items(), COST, ("flm", "zs"), shots, range(3)
    ):
        accuracy = 70.0 - (name != "dense") * COST[dataset] + (number == "full") * (method == "flm")
        rows.append(
            {"study": "s_1", "checkpoint": "net", "backbone": name, "dense": "dense", "recipe_dense": "dense"}
            | {"compression": compression, "control": control, "dataset": dataset, "method": method}
            | {"shots": number, "seed": seed, "status": "ok", "accuracy": accuracy / 100, "mean_class_accuracy": 0.7}
        )
    runs = pd.DataFrame(rows).assign(classes=10, n_test_fewest=100, recipe=None)
    # a row is a run of its own, but for a method that does not train, which is one evaluation
    once = runs["method"] == "zs"
    runs["run"] = runs["backbone"] + runs["dataset"] + np.where(once, "zs", runs.index.astype(str))
    return runs


def test_means_are_over_data_sets_and_the_cost_has_its_interval():
    table = means(made()).set_index(["shots", "backbone", "method"])
    assert list(table.index.unique("shots")) == ["every", "1", "full"]
    pruned = table.loc[("every", "pruned_1", "flm")]
    assert pruned["accuracy"] == pytest.approx(70 - 5 + 0.5)
    assert pruned["cost"] == pytest.approx(5)
    cells = {"backbones": "magnitude", "methods": "flm"}
    claim = Claim(text="t", source="s", measure="accuracy_lost", more_than=0, cells=cells)
    verdict = verdicts.judge(made(), {"c": claim}).iloc[0]
    assert pruned[["low", "high"]].tolist() == pytest.approx(verdict[["low", "high"]].tolist())
    assert pruned["low"] < 5 < pruned["high"]
    assert (pruned["cells"], pruned["missing"]) == (6, 0)
    assert table.loc[("every", "pruned_1", "zs"), "cells"] == 3  # one evaluation, whatever the budget
    assert table.loc[("full", "pruned_1", "flm"), "accuracy"] == pytest.approx(66)
    dense = means(made()).query("backbone == 'dense'")
    assert dense[["cost", "low", "high"]].isna().all(axis=None)
    assert list(means(made(shots=("full",)))["shots"].unique()) == ["full"]


def test_cells_without_a_result_are_counted_and_marked():
    runs = made()
    gone = (runs["backbone"] == "pruned_1") & (runs["dataset"] == "three") & (runs["method"] == "flm")
    runs.loc[gone, ["status", "accuracy", "run"]] = ["not run", np.nan, None]
    row = means(runs).set_index(["shots", "backbone", "method"]).loc[("every", "pruned_1", "flm")]
    assert (row["cells"], row["missing"], row["cost"]) == (4, 2, pytest.approx(3))
    assert "67.5*" in typeset.means_markdown(means(runs), "")
    runs = runs.assign(status="not run", accuracy=np.nan)
    assert "| –" in typeset.means_markdown(means(runs), "")


def test_the_means_are_set_as_tabulars(tmp_path):
    made().to_parquet(tmp_path / "runs.parquet")
    files = [tmp_path / f"means.{form}" for form in ("csv", "md", "tex")]
    typeset.write(tmp_path / "runs.parquet", files)
    _, markdown, latex = (file.read_text() for file in files)
    assert [line for line in markdown.splitlines() if line.startswith("#")] == [
        *("## every number of shots", "## 1 shot", "## full")
    ]
    assert "| pruned_1   | 65.5           | 5.0 [" in markdown
    assert latex.count("\\begin{tabular}") == 3
    assert "longtable" not in latex
    assert "pruned\\_1 & 65.5 & 5.0 [" in latex
    assert len(pd.read_csv(files[0])) == 3 * 3 * 2
