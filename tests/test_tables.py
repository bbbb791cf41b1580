from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hiddencost.files import write_json
from hiddencost.results import tables, typeset
from hiddencost.results.intervals import crossed_interval
from hiddencost.runs import packfile
from hiddencost.runs.metrics import METRICS

GRID = {
    "backbone": ["dense", "pruned"],
    "dataset": ["toy"],
    "method": ["flm"],
    "shots": [1, "full"],
    "seed": [0, 1],
}
STATED = {"checkpoint": "net", "compression": "none", "control": None, "sparsity_declared": 0.0, "dense": "dense"}
STATED |= {"network": "dense", "upstream_seed": None, "recipe_dense": "dense"}
STUDY = tables.CollectedStudy(
    study="s",
    grid=GRID,
    methods={name: ["flm"] for name in ("dense", "pruned", "gone")},
    backbones={"dense": STATED, "pruned": STATED | {"compression": "magnitude", "sparsity_declared": 0.2}},
    left_out={"backbone": {}, "dataset": {}},
    expectations=[],
    splits="splits/{dataset}/seed{seed}.json",
    test_labels={"toy": "labels.npy"},
)


def row(backbone, shots, seed, accuracy, **more):
    pruned = backbone == "pruned"
    bins = {"bin_count": [0] * 14 + [10], "bin_confidence": [None] * 14 + [0.99], "bin_accuracy": [None] * 14 + [0.5]}
    values = {"compression": "magnitude" if pruned else "none", "control": None, "sparsity_declared": 0.2 * pruned}
    values |= {"classes": 10.0, "classes_short": 0.0}  # of `collect`, not of packs
    values["sparsity_measured"] = values["sparsity_declared"]
    metrics = dict.fromkeys(METRICS.keys() - {"accuracy"}, accuracy / 2)
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
    missing.drop(columns=[*METRICS, *tables.BIN_COLUMNS]).to_parquet(tmp_path / "d.parquet")
    return [tmp_path / f"{name}.parquet" for name in "abcd"]


def test_a_method_that_nobody_knows_any_more_is_left_out_of_the_tables(packs):
    held = pd.read_parquet(packs[0])
    pd.concat([held, held.iloc[:1].assign(method="gone")]).to_parquet(packs[0])
    assert list(tables.collect(packs, STUDY)["method"]) == ["flm"] * 8


def test_a_budget_above_what_a_class_has_is_told(packs, tmp_path):
    for seed, images in enumerate(([[1, 2, 3], [4]], [[1, 2, 3], [4, 5, 6]])):
        write_json(tmp_path / f"toy{seed}.json", {"permutations": images})
    study = replace(STUDY, grid=GRID | {"shots": [1, "full"]}, splits=str(tmp_path / "{dataset}{seed}.json"))
    assert set(tables.collect(packs, study)["classes_short"]) == {0}
    three = [row(backbone, 3, seed, 0.5) for backbone in ("dense", "pruned") for seed in (0, 1)]
    pd.DataFrame(three).to_parquet(tmp_path / "e.parquet")
    runs = tables.collect([*packs, tmp_path / "e.parquet"], replace(study, grid=GRID | {"shots": [1, 3, "full"]}))
    told = runs.set_index(["shots", "seed"])["classes_short"]
    assert told.groupby(level=[0, 1]).first().to_dict() == {
        **{("1", 0): 0, ("1", 1): 0, ("3", 0): 1, ("3", 1): 0, ("full", 0): 0, ("full", 1): 0}
    }
    summary = tables.summarise(runs)
    assert summary.groupby("shots")["classes_short"].first().to_dict() == {"1": 0, "3": 1, "full": 0}
    # nothing is said of images that were not drawn, and a method that sees none is short of none
    assert tables.collect(packs, STUDY)["classes_short"].isna().all()
    zero_shot = pd.read_parquet(tmp_path / "e.parquet").assign(method="zs")
    zero_shot.to_parquet(tmp_path / "z.parquet")
    methods = {name: ["zs"] for name in ("dense", "pruned")}
    study = replace(study, grid=GRID | {"shots": [3], "method": ["zs"]}, methods=methods)
    assert set(tables.collect([tmp_path / "z.parquet"], study)["classes_short"]) == {0}


def test_the_test_images_of_the_smallest_class_are_told(packs, tmp_path):
    assert tables.collect(packs, STUDY)["n_test_fewest"].isna().all()
    np.save(tmp_path / "labels.npy", np.array([0, 0, 0, 2, 2, 3, 3, 3]))  # of class 1 there is none
    study = replace(STUDY, test_labels={"toy": str(tmp_path / "labels.npy")})
    assert set(tables.collect(packs, study)["n_test_fewest"]) == {2}


def test_the_runs_of_the_grid_are_collected_in_its_order(packs):
    runs = tables.collect(packs[::-1], STUDY)
    assert list(zip(runs["backbone"], runs["shots"], runs["seed"], strict=True)) == [
        *[("dense", "1", 0), ("dense", "1", 1), ("dense", "full", 0), ("dense", "full", 1)],
        *[("pruned", "1", 0), ("pruned", "1", 1), ("pruned", "full", 0), ("pruned", "full", 1)],
    ]
    assert list(runs.columns) == tables.run_columns() + tables.BIN_COLUMNS
    assert runs["status"].tolist() == ["ok"] * 5 + ["not run", "ok", "not run"]
    assert np.isnan(runs["accuracy"][5])


def test_a_run_has_the_recipe_that_its_pack_was_made_for(tmp_path):
    grid = GRID | {"backbone": ["dense"], "seed": [0]}
    request = packfile.PackRequest(
        **{"study": "s", "backbone": "dense", "dataset": "toy", "seed": 0, "canvas": 16, "size": "12"},
        **{"recipe": {"epochs": 2}, "runs": [("flm", 1), ("flm", "full")], "ledger": "ledger"},
    )
    rows = [row("dense", 1, 0, 0.5), row("dense", "full", 0, 0.0, status="not run", reason="gate")]
    packfile.write(rows, request, tmp_path / "pack.parquet")
    runs = tables.collect([tmp_path / "pack.parquet"], replace(STUDY, grid=grid))
    assert runs["recipe"].tolist() == ['{"epochs":2}', None]


def test_a_run_that_is_missing_or_there_twice_is_an_error(packs):
    with pytest.raises(
        ValueError, match=r"2 runs of the grid are in no pack, first: \('pruned', 'toy', 'flm', '1', "
    ):
        tables.collect(packs[:3], STUDY)
    with pytest.raises(ValueError, match="more than one pack"):
        tables.collect([*packs, packs[0]], STUDY)


def test_the_summary_pairs_by_seed_and_counts_what_is_there(packs):
    summary = tables.summarise(tables.collect(packs, STUDY)).set_index(["backbone", "shots"])
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


def test_a_metric_that_few_test_images_do_not_give_is_empty_and_takes_nothing_with_it(packs, tmp_path):
    """A column of None alone is none of numbers to Parquet; `d.parquet` has no metrics at all."""
    for pack in packs[:3]:
        pd.read_parquet(pack).assign(ece_scaled=None).to_parquet(pack)
    runs = tables.collect(packs, STUDY)
    assert runs["ece_scaled"].dtype == float
    summary = tables.summarise(runs).set_index(["backbone", "shots"])
    assert summary["ece_scaled_mean"].isna().all()
    assert summary["ece_scaled_dense_minus_backbone_mean"].isna().all()
    assert summary["paired_seeds"].tolist() == [2, 2, 1, 1]
    cells = typeset.cells(runs, "ece_scaled")
    assert cells["seeds"].tolist() == [0] * 4
    assert not cells["best"].any()
    assert "| –" in typeset.markdown(cells, typeset.caption(runs, "ece_scaled"))


def test_the_interval_of_the_paired_difference_is_students(packs):
    """Against scipy's paired t test, but on the side of a tail, as that of a claim; of one pair there is none."""
    values = {"dense": [0.61, 0.58, 0.66, 0.6], "pruned": [0.5, 0.55, 0.52, 0.58]}
    rows = [row(name, 1, seed, value) for name, some in values.items() for seed, value in enumerate(some)]
    rows += [row("dense", 2, 0, 0.5), row("pruned", 2, 0, 0.4), row("pruned", 3, 0, 0.4)]
    runs = pd.DataFrame(rows).assign(dense="dense", recipe_dense="dense")
    summary = tables.summarise(runs).set_index(["backbone", "shots"])
    for metric, scale in (("accuracy", 1), ("ece", 0.5)):
        ends = [f"{metric}_dense_minus_backbone_{end}" for end in ("low", "high")]
        expected = stats.ttest_rel(values["dense"], values["pruned"]).confidence_interval(0.95)
        low, high = summary.loc[("pruned", "1"), ends]
        assert low == pytest.approx(scale * expected.low)
        differences = scale * np.subtract(values["dense"], values["pruned"])
        assert high == pytest.approx(crossed_interval(differences[None])[1].item()) != scale * expected.high
        assert summary.loc[[("pruned", "2"), ("pruned", "3")], ends].isna().all(axis=None)
        assert summary.loc[("dense", "1"), ends].isna().all()


def test_without_spread_there_is_no_interval(packs):
    """Two seeds with the same difference but for rounding do not make it certain."""
    rows = [
        row(name, 1, seed, 0.7 + 0.2 * seed - 0.2 * (name == "pruned"))
        for name in GRID["backbone"]
        for seed in (0, 1)
    ]
    summary = tables.summarise(pd.DataFrame(rows).assign(dense="dense", recipe_dense="dense")).set_index("backbone")
    assert summary.loc["pruned", "accuracy_dense_minus_backbone_mean"] == pytest.approx(0.2)
    assert 0 < summary.loc["pruned", "accuracy_dense_minus_backbone_std"] < 1e-12
    for metric in ("accuracy", "ece"):
        ends = [f"{metric}_dense_minus_backbone_{end}" for end in ("low", "high")]
        assert summary.loc["pruned", ends].isna().all()


def test_a_backbone_without_a_dense_one_has_no_difference(packs):
    runs = tables.collect(packs, STUDY)
    summary = tables.summarise(runs[runs["backbone"] == "pruned"])
    assert summary["accuracy_dense_minus_backbone_mean"].isna().all()
    assert summary["paired_seeds"].tolist() == [0, 0]


def test_bins_are_a_row_each_of_finished_runs(packs):
    bins = tables.bins(tables.collect(packs, STUDY))
    assert len(bins) == 6 * 15
    assert bins["bin"].tolist()[:15] == list(range(1, 16))
    last = bins[bins["bin"] == 15]
    assert last["count"].tolist() == [10] * 6
    assert last["confidence"].tolist() == pytest.approx([0.99] * 6)
    assert bins.loc[bins["bin"] < 15, "confidence"].isna().all()


def test_the_conclusion_names_what_is_missing_and_where_the_rest_is(packs):
    text, complete = tables.conclude(tables.collect(packs, STUDY), "1 supported", "results/s/report.html")
    assert not complete
    assert text.splitlines() == [
        "pruned: 2 runs not run: gate",
        "6 of 8 runs of study s have a result.",
        "claims:  1 supported (results/s/tables/claims.csv)",
        "report:  results/s/report.html",
        "tables:  results/s/tables/",
        "figures: results/s/figures/",
    ]


def test_tables_are_written_as_their_names_say(packs, tmp_path):
    runs = tables.collect(packs, STUDY)[tables.run_columns()]
    for name in ("runs.csv", "runs.parquet"):
        tables.write(runs, tmp_path / name)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == len(pd.read_parquet(tmp_path / "runs.parquet")) == 8


def test_what_is_left_out_is_a_row_that_says_why(packs):
    left_out = {"backbone": {"gone": "never public"}, "dataset": {"lost": "the host is dead"}}
    grid = GRID | {"backbone": ["dense", "pruned", "gone"], "dataset": ["toy", "lost"]}
    backbones = STUDY.backbones | {"gone": STATED | {"compression": "lth", "sparsity_declared": 0.9}}
    runs = tables.collect(packs, replace(STUDY, grid=grid, backbones=backbones, left_out=left_out))
    assert len(runs) == 3 * 2 * 2 * 2
    gone, lost = runs[runs["backbone"] == "gone"], runs[runs["dataset"] == "lost"]
    assert set(gone["status"]) == set(lost["status"]) == {"not run"}
    assert set(gone["reason"]) == {"never public"}
    assert set(lost.loc[lost["backbone"] != "gone", "reason"]) == {"the host is dead"}
    assert set(gone["compression"]) == {"lth"}
    assert set(gone["sparsity_declared"]) == {0.9}
    text, complete = tables.conclude(runs, "1 supported", "results/s/report.html")
    assert not complete
    assert "gone: 8 runs not run: never public" in text


def test_what_a_study_so_far_does_not_hold_is_a_row_that_says_so(packs):
    left_out = {"backbone": {"gone": "never public"}, "dataset": {}}
    grid, backbones = GRID | {"backbone": ["dense", "pruned", "gone"]}, STUDY.backbones | {"gone": STATED}
    study = replace(STUDY, grid=grid, backbones=backbones, left_out=left_out, so_far={})
    whole = tables.collect(packs, study).set_index(["backbone", "seed", "shots"])
    runs = tables.collect(packs[:1], study).set_index(["backbone", "seed", "shots"])
    assert runs.index.tolist() == whole.index.tolist()
    assert runs["accuracy"].count() == 2
    assert len(tables.summarise(runs.reset_index())) == 3 * 2  # of which one seed alone is finished: one row a cell
    assert runs.loc[("dense", 0, "1"), "accuracy"] == whole.loc[("dense", 0, "1"), "accuracy"]
    assert runs.loc[("pruned", 1, "full"), "reason"] == "not finished yet"
    assert runs.loc[("gone", 0, "1"), "reason"] == "never public"
    assert set(tables.collect([], study)["status"]) == {"not run"}


def test_published_accuracies_stand_beside_ours(packs):
    summary = tables.summarise(tables.collect(packs, STUDY)).assign(classes_short=2.0)
    published = {"dataset": "toy", "method": "flm", "std": 1.0, "source": "table 1"}
    expectations = [
        published | {"backbone": "dense", "shots": 1, "accuracy": 55.0, "epoch": "best on test"},
        published | {"backbone": "pruned", "shots": 50, "accuracy": 30.0},
    ]
    table = tables.against_published(summary, expectations)
    assert table["ours"].tolist() == pytest.approx([60.0, np.nan], nan_ok=True)
    assert table["difference"].tolist() == pytest.approx([5.0, np.nan], nan_ok=True)
    assert table["published_std"].tolist() == [1.0, 1.0]
    assert table["classes_short"].tolist() == pytest.approx([2, np.nan], nan_ok=True)
    assert table["source"].tolist() == ["table 1", "table 1"]
    assert table["published_epoch"].fillna("").tolist() == ["best on test", ""]  # not of the same epoch as ours
    assert set(table["ours_epoch"]) == {"last"}
    assert len(tables.against_published(summary, [])) == 0


def test_the_dense_backbone_may_be_of_another_checkpoint(packs):
    backbones = STUDY.backbones | {"dense": STATED | {"dense": None}}
    summary = tables.summarise(tables.collect(packs, replace(STUDY, backbones=backbones))).set_index("backbone")
    assert summary.loc["dense", "accuracy_dense_minus_backbone_mean"].isna().all()
    assert summary.loc["pruned", "accuracy_dense_minus_backbone_mean"].tolist() == pytest.approx([0.1, 0.0])


def test_pooling_weights_bins_by_their_images():
    values = {
        "count": [10, 30, 5, 0, 7],
        "confidence": [0.1, 0.2, 0.5, np.nan, 0.9],
        "accuracy": [1, 0, 1, np.nan, 1],
    }
    bins = pd.DataFrame({"backbone": ["b", "b", "b", "b", "a"], "bin": [2, 2, 1, 3, 1]} | values)
    pooled = tables.pool(bins, ["backbone"]).set_index(["backbone", "bin"])
    assert pooled.index.tolist() == [("a", 1), ("b", 1), ("b", 2)]  # no image is in b's third
    assert pooled.loc[("b", 2)].tolist() == pytest.approx([40, 0.175, 0.25, 40 / 45])
    assert pooled.loc[("b", 1)].tolist() == pytest.approx([5, 0.5, 1.0, 5 / 45])
    assert pooled.loc[("a", 1)].tolist() == pytest.approx([7, 0.9, 1.0, 1.0])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_names_that_look_like_numbers_or_nothing_stay_names(packs, tmp_path, suffix):
    names = {"dense": "2024", "pruned": "nan"}
    runs = tables.collect(packs, STUDY).assign(dataset="1e5").replace({"backbone": names, "dense": names})
    summary = tables.summarise(runs)
    tables.write(summary, tmp_path / f"summary.{suffix}")
    again = tables.read(tmp_path / f"summary.{suffix}")
    names = ["backbone", "dense", "dataset", "shots"]
    pd.testing.assert_frame_equal(again[names], summary[names])
    assert again["control"].isna().all()
    np.testing.assert_allclose(again["accuracy_mean"], summary["accuracy_mean"], rtol=1e-5)
