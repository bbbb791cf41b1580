import numpy as np
import pandas as pd
import pytest

from hiddencost import tables

GRID = {
    "backbone": ["dense", "pruned"],
    "dataset": ["toy"],
    "method": ["flm"],
    "shots": [1, "full"],
    "seed": [0, 1],
}


def row(backbone, shots, seed, accuracy, **more):
    pruned = backbone == "pruned"
    bins = {"bin_count": [0] * 14 + [10], "bin_confidence": [None] * 14 + [0.99], "bin_accuracy": [None] * 14 + [0.5]}
    values = {"compression": "magnitude" if pruned else "none", "control": None, "sparsity_declared": 0.2 * pruned}
    values["sparsity_measured"] = values["sparsity_declared"]
    metrics = dict.fromkeys(("mean_class_accuracy", "nll", "brier", "ece", "ece_published"), accuracy / 2)
    return {
        **{"study": "s", "checkpoint": "net", "backbone": backbone, "dataset": "toy", "method": "flm"},
        **{
            "shots": str(shots),
            "seed": seed,
            "status": "ok",
            "accuracy": accuracy,
            "sparsity_measured": 0.2 * pruned,
        },
        **values,
        **metrics,
        **bins,
        **more,
    }


@pytest.fixture
def packs(tmp_path):
    """Two packs a backbone, of which one holds a run that the grid no longer has, and one was not run."""
    rows = {
        "a": [row("dense", 1, 0, 0.5), row("dense", "full", 0, 0.8), row("dense", 7, 0, 0.1)],
        "b": [row("dense", 1, 1, 0.7), row("dense", "full", 1, 0.9)],
        "c": [row("pruned", 1, 0, 0.4), row("pruned", "full", 0, 0.8)],
    }
    for name, some in rows.items():
        pd.DataFrame(some).to_parquet(tmp_path / f"{name}.parquet")
    missing = pd.DataFrame([row("pruned", shots, 1, 0.0, status="not run", reason="gate") for shots in (1, "full")])
    missing.drop(columns=tables.METRICS + tables.BIN_COLUMNS).to_parquet(tmp_path / "d.parquet")
    return [tmp_path / f"{name}.parquet" for name in "abcd"]


def test_the_runs_of_the_grid_are_collected_in_its_order(packs):
    runs = tables.collect(packs[::-1], GRID)
    assert list(zip(runs["backbone"], runs["shots"], runs["seed"], strict=True)) == [
        *[("dense", "1", 0), ("dense", "1", 1), ("dense", "full", 0), ("dense", "full", 1)],
        *[("pruned", "1", 0), ("pruned", "1", 1), ("pruned", "full", 0), ("pruned", "full", 1)],
    ]
    assert list(runs.columns) == tables.RUN_COLUMNS + tables.BIN_COLUMNS
    assert runs["status"].tolist() == ["ok"] * 5 + ["not run", "ok", "not run"]
    assert np.isnan(runs["accuracy"][5])


def test_a_run_that_is_missing_or_there_twice_is_an_error(packs):
    with pytest.raises(
        ValueError, match=r"2 runs of the grid are in no pack, first: \('pruned', 'toy', 'flm', '1', "
    ):
        tables.collect(packs[:3], GRID)
    with pytest.raises(ValueError, match="more than one pack"):
        tables.collect([*packs, packs[0]], GRID)


def test_the_summary_pairs_by_seed_and_counts_what_is_there(packs):
    summary = tables.summarise(tables.collect(packs, GRID)).set_index(["backbone", "shots"])
    dense, pruned = summary.loc[("dense", "1")], summary.loc[("pruned", "1")]
    assert dense["accuracy_mean"] == pytest.approx(0.6)
    assert dense["accuracy_std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert dense["seeds"] == 2
    assert dense["accuracy_dense_minus_backbone_mean"] == 0
    # seed 1 has no pruned run: the pair of seed 0 alone counts, 0.5 - 0.4, not 0.6 - 0.4
    assert pruned["seeds"] == 1
    assert pruned["paired_seeds"] == 1
    assert pruned["accuracy_dense_minus_backbone_mean"] == pytest.approx(0.1)
    assert np.isnan(pruned["accuracy_std"])
    assert pruned["ece_dense_minus_backbone_mean"] == pytest.approx(0.05)


def test_a_backbone_without_a_dense_one_has_no_difference(packs):
    runs = tables.collect(packs, GRID)
    summary = tables.summarise(runs[runs["backbone"] == "pruned"])
    assert summary["accuracy_dense_minus_backbone_mean"].isna().all()
    assert summary["paired_seeds"].tolist() == [0, 0]


def test_bins_are_a_row_each_of_finished_runs(packs):
    bins = tables.bins(tables.collect(packs, GRID))
    assert len(bins) == 6 * 15
    assert bins["bin"].tolist()[:15] == list(range(1, 16))
    last = bins[bins["bin"] == 15]
    assert last["count"].tolist() == [10] * 6
    assert last["confidence"].tolist() == pytest.approx([0.99] * 6)
    assert bins.loc[bins["bin"] < 15, "confidence"].isna().all()


def test_the_conclusion_names_what_is_missing_and_where_the_rest_is(packs):
    text, complete = tables.conclude(tables.collect(packs, GRID), "results/s/report.html")
    assert not complete
    assert text.splitlines() == [
        "pruned: 2 runs not run: gate",
        "6 of 8 runs of study s have a result.",
        "report:  results/s/report.html",
        "tables:  results/s/tables/",
        "figures: results/s/figures/",
    ]


def test_tables_are_written_as_their_names_say(packs, tmp_path):
    runs = tables.collect(packs, GRID)[tables.RUN_COLUMNS]
    for name in ("runs.csv", "runs.parquet"):
        tables.write(runs, tmp_path / name)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == len(pd.read_parquet(tmp_path / "runs.parquet")) == 8
