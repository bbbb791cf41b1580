"""Finished runs on corrupted test images: what is stored answers, nothing is trained, costs are paired by seed."""

from pathlib import Path

import in_process
import numpy as np
import pandas as pd
import pytest
import torch

import hiddencost
from hiddencost.datasets import prepared
from hiddencost.datasets.corruptions import CORRUPTIONS, corrupt
from hiddencost.figures import shift as shift_figure
from hiddencost.figures import style
from hiddencost.figures.registry import figures_of_study
from hiddencost.jobs import analyses, layout, results
from hiddencost.jobs.call import Call
from hiddencost.messages import StudyError
from hiddencost.results import shift as table
from hiddencost.results import tables, verdicts
from hiddencost.results.claims import load
from hiddencost.runs import ledger, packfile, shift
from hiddencost.runs.metrics import evaluate
from hiddencost.runs.packfile import AXES
from hiddencost.study.load import load_study

CONFIG = in_process.STUDY | {
    "methods": ["flm", "lp"],
    "shots": [1],
    "seeds": [1],
    "analysis": ["shift"],
    "shift": {"corruptions": ["gaussian_noise", "contrast"], "severities": [1, 5]},
}


def make(call, backbone, output):
    """Make the table of a backbone's runs on the toy dataset as the rule does."""
    settings, files = (of(call, backbone, "toy") for of in (analyses.shift, analyses.shift_inputs))
    images = {size: Path(folder) for size, folder in settings.pop("images").items()}
    del settings["code"]
    prompted, probed = ([Path(path) for path in files[name]] for name in ("prompted", "probed"))
    inputs = shift.ShiftInputs(Path(call.path(layout.BACKBONE, backbone=backbone)), images, prompted, probed)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    shift.write(inputs, **settings, output=Path(output), plans="plans", device=in_process.CPU, memory=2**30)


def test_stored_runs_answer_on_corrupted_images(tmp_path, monkeypatch):
    finished = in_process.run(CONFIG, tmp_path, monkeypatch)
    call = Call(finished.study)
    before = sorted(Path(call.path(layout.LEDGER)).rglob("*.safetensors"))
    monkeypatch.setattr(ledger, "record", lambda *arguments: pytest.fail("something was trained, or scored anew"))
    files = analyses.evaluated(call, "shift")
    for backbone, file in zip(("dense", "pruned"), files, strict=True):
        make(call, backbone, file)
    made = analyses.tables(call, "shift")
    table.write(files, finished.tables["runs"], made)
    assert sorted(Path(call.path(layout.LEDGER)).rglob("*.safetensors")) == before
    shifted, runs = pd.read_csv(made["shift"], dtype={"shots": str}), finished.runs
    assert list(shifted) == table.COLUMNS
    assert len(shifted) == len(runs) * (1 + 2 * 2)
    clean = shifted[shifted["severity"] == 0]
    assert clean["accuracy"].tolist() == pytest.approx(runs["accuracy"].tolist(), abs=1e-5)
    # the module of a run, on images that are corrupted here; those of lp fill the canvas
    for method, size in (("flm", "12"), ("lp", "16")):
        images = prepared.load(analyses.shifted_images(call, "pruned", "toy")[size])
        noisy = torch.tensor(corrupt(images.test_images, "gaussian_noise", 5))
        model = hiddencost.load("results/tiny", backbone="pruned", method=method, shots=1, seed=1)
        expected = evaluate(model(noisy), torch.tensor(images.test_labels), 16)
        of_run = shifted[shifted[["backbone", "method", "seed"]].eq(["pruned", method, 1]).all(axis=1)]
        of_run = of_run.set_index(["corruption", "severity"])
        for name in ("accuracy", "ece"):
            assert of_run.loc[("gaussian_noise", 5), name] == pytest.approx(expected[name], abs=1e-5)
        assert of_run["ece"].nunique() == 5
    costs = pd.read_csv(made["shift_cost"], dtype={"shots": str})
    assert list(costs) == table.COST_COLUMNS
    assert costs["severity"].tolist() == [0, 1, 5] * 4


def test_images_of_packs_without_a_result_are_not_corrupted(tmp_path, monkeypatch):
    """Nothing is asked of a size at which no run has a result."""
    request = packfile.PackRequest(
        **{"study": "tiny", "backbone": "dense", "dataset": "toy", "seed": 0, "recipe": {}, "canvas": 16},
        **{"size": "12", "runs": (), "ledger": "ledger"},
    )
    packfile.write([{"status": "not run"}], request, tmp_path / "pack.parquet")
    run = dict(zip(AXES, ("dense", "toy", "lp", "1", 0), strict=True)) | {"status": "ok", "run": "a", "n_train": 1}
    packfile.write(
        [run | dict.fromkeys(shift.SCORES, 0.5)], request.model_copy(update={"size": "16"}), tmp_path / "p"
    )
    seen = []
    toy = prepared.Dataset(*[None] * len(prepared.Dataset._fields))._replace(test_labels=[0])
    monkeypatch.setattr(shift, "_corrupted", lambda folder, *_: seen.append(folder) or (toy, toy))
    monkeypatch.setattr(shift, "_answers", lambda *_, **__: iter(()))
    inputs = shift.ShiftInputs(tmp_path, {"16": tmp_path / "16"}, [tmp_path / "pack.parquet"], [tmp_path / "p"])
    shift.write(inputs, ["contrast"], [1], tmp_path / "out", "plans", in_process.CPU, 2**30)
    assert seen == [tmp_path / "16"]
    assert len(pd.read_parquet(tmp_path / "out")) == 1


def test_native_images_are_corrupted_as_published_and_resized_as_the_clean_ones(tmp_path, monkeypatch):
    """Of severity 0 they are those that the networks see."""
    from hiddencost.datasets.own import user_entry
    from hiddencost.datasets.prepare import prepare

    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    labels = np.arange(6) % 2
    np.savez(tmp_path / "raw.npz", x_train=images, y_train=labels, x_test=images[::-1], y_test=labels[::-1])
    for size in ("8", "20"):
        prepare("raw", user_entry("raw", npz=str(tmp_path / "raw.npz")), None, size, tmp_path / size)
    dataset, stacked = shift._corrupted(tmp_path / "8", "contrast", [0, 3], "20", tmp_path)
    assert np.array_equal(stacked.test_images[:6], prepared.load(tmp_path / "20").test_images)
    assert stacked.test_images[6:].std() < 0.6 * stacked.test_images[:6].std()
    assert len(dataset.test_images) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "8", "raw.npz"]


def made_up(seeds=3):
    """Runs of a dense and a sparse network, and their scores: shift costs the sparse one 10 points more."""
    rows, shifted = [], []
    for backbone in ("dense", "sparse"):
        for seed in range(seeds):
            run = {"backbone": backbone, "dataset": "dtd", "method": "ilm", "shots": "1", "seed": seed}
            lost = 0.1 if backbone == "sparse" else 0.0
            rows.append(run | {"dense": "dense", "status": "ok", "run": f"{backbone}{seed}", "classes_short": 0})
            for corruption, severity, drop in (("none", 0, 0), ("contrast", 1, 0.1), ("jpeg_compression", 1, 0.2)):
                accuracy = 0.8 - lost * (1 + (severity > 0)) - drop - 0.01 * seed
                scores = dict.fromkeys(shift.SCORES, 0.0) | {"accuracy": accuracy + 0.001 * seed * (lost > 0)}
                shifted.append(
                    run | {"run": f"{backbone}{seed}", "corruption": corruption, "severity": severity} | scores
                )
    return pd.DataFrame(shifted)[shift.COLUMNS], pd.DataFrame(rows)


def test_costs_are_means_over_corruptions_paired_by_seed():
    shifted, runs = made_up()
    costs = table.costs(table.in_order(shifted, runs), runs).set_index(["backbone", "severity"])
    sparse = costs.loc["sparse"]
    assert sparse["accuracy_cost"].tolist() == pytest.approx([10 - 0.1, 20 - 0.1])
    assert costs.loc["dense", "accuracy"].tolist() == pytest.approx([0.79, 0.64])
    assert costs.loc["dense", "accuracy_cost"].isna().all()
    assert sparse["corruptions"].tolist() == [1, 2]
    assert sparse["seeds"].tolist() == [3, 3]
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert sparse["accuracy_cost_high"].tolist() == pytest.approx([9.9 + half, 19.9 + half])
    grown = table.growth(shifted).set_index(AXES)["shift_accuracy"].groupby("backbone").mean()
    assert grown.to_dict() == pytest.approx({"dense": -0.15, "sparse": -0.25})


def test_a_claim_that_the_cost_grows_under_shift():
    shifted, runs = made_up()
    told = {"checkpoint": "resnet50-v1", "control": None, "recipe_dense": "dense", "classes": 2}
    told |= {"n_test": 1000, "n_test_fewest": 500, "recipe": "{}"}
    compression = np.where(runs["backbone"] == "sparse", "magnitude", "none")
    clean = shifted.loc[shifted["severity"] == 0, "accuracy"].to_numpy()
    runs = runs.assign(**told, compression=compression, accuracy=clean).reindex(columns=tables.run_columns())
    shifted.loc[shifted["corruption"] == "contrast", "accuracy"] += (
        0.001 * shifted["seed"] * (shifted["backbone"] == "dense")
    )  # seeds differ
    claims = {name: one for name, one in load().items() if one.analysis == "shift"}
    found = verdicts.judge(runs, claims, shift=shifted).set_index("claim")
    assert found.loc["shift-accuracy", "verdict"] == "supported"
    assert found.loc["shift-accuracy", "effect"] == pytest.approx(10.05)
    assert found.loc["shift-calibration", "effect"] == 0
    assert found.loc["shift-beyond-probe", "verdict"] == "not run"
    without = verdicts.judge(runs, claims).set_index("claim")
    assert set(without["verdict"]) == {"not run"}
    assert not [name for name, one in load().items() if one.analysis is None and "shift" in name]


def figure(costs, folder, **settings):
    """Draw the figure of some costs; return it."""
    stated = {"checkpoint": "net", "compression": "none", "control": None, "sparsity_declared": 0.0}
    stated |= {"dense": "dense", "recipe_dense": "dense"}
    pruned = stated | {"compression": "magnitude", "sparsity_declared": 0.5}
    listed = figures_of_study({"dense": stated, "sparse": pruned}, ["dtd"], ["ilm"], {}, analyses=["shift"])
    (content,) = [one for one in listed.values() if one.kind == "shift"]
    look = {"width": 6.8, "panel_height": 2.3, "colours": {}, "labels": {}, "title": "made up", "methods": ["ilm"]}
    with style.paper():
        return shift_figure.draw({"shift_cost": costs}, content, look | settings)


def test_the_figure_has_the_cost_at_each_severity(tmp_path):
    shifted, runs = made_up()
    drawn = figure(table.costs(table.in_order(shifted, runs), runs), tmp_path)
    (axis,) = drawn.axes
    (line,) = [one for one in axis.get_lines() if len(one.get_xdata()) == 2 and one.get_marker() != "None"]
    assert line.get_ydata().tolist() == pytest.approx([9.9, 19.9])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["clean", "1"]
    assert "2 corruptions" in drawn.get_suptitle().replace("\n", " ")
    empty = figure(table.costs(table.in_order(shifted, runs), runs).iloc[:0], tmp_path)
    assert "no result" in empty.get_suptitle()


def test_the_figure_shows_a_copied_budget_whose_original_is_not_shown(tmp_path):
    shifted, runs = made_up()
    costs = table.costs(shifted, runs)
    both = pd.concat([costs, costs.assign(shots="2", same_as="1")])
    for shots, one in (([], "1 shot"), ([1, 2], "1 shot"), ([2], "2 shots")):
        drawn = figure(both, tmp_path, shots=shots)
        (axis,) = drawn.axes
        (line,) = [one for one in axis.get_lines() if len(one.get_xdata()) == 2 and one.get_marker() != "None"]
        assert line.get_ydata().tolist() == pytest.approx([9.9, 19.9])
        assert f"with {one}," in drawn.get_suptitle().replace("\n", " ")


def test_bars_are_of_the_seeds_that_the_dense_network_has_too(tmp_path):
    shifted, runs = made_up()
    lacks = (shifted["backbone"] == "dense") & (shifted["seed"] == 2)
    costs = table.costs(shifted[~lacks], runs)
    sparse = costs[costs["backbone"] == "sparse"]
    assert sparse["seeds"].tolist() == [3, 3]
    assert sparse["paired_seeds"].tolist() == [2, 2]
    drawn = figure(costs, tmp_path)
    (bars,) = [one for one in drawn.axes[0].collections if len(one.get_segments()) == 2]
    reach = [abs(np.diff(ends[:, 1]).item()) / 2 for ends in bars.get_segments()]
    assert reach == pytest.approx([0.05, 0.05])  # to each of both
    assert "mean and span of 2 seeds" in drawn.get_suptitle().replace("\n", " ")


def test_bars_are_the_intervals_of_the_table_and_one_that_leaves_the_axis_is_marked(tmp_path):
    shifted, runs = made_up()
    worse = (shifted["backbone"] == "sparse") & (shifted["seed"] == 2) & (shifted["severity"] == 1)
    shifted.loc[worse, "accuracy"] -= 0.6
    costs = table.costs(shifted, runs)
    drawn = figure(costs, tmp_path)
    bars = next(one for one in drawn.axes[0].collections if len(one.get_segments()) == 2)
    ends = costs.loc[costs["backbone"] == "sparse", ["accuracy_cost_low", "accuracy_cost_high"]].to_numpy()
    assert [one[:, 1].tolist() for one in bars.get_segments()] == [pytest.approx(pair) for pair in ends.tolist()]
    assert drawn.axes[0].get_ylim()[1] < ends[1, 1]
    assert "some intervals go on beyond the axes" in drawn.get_suptitle().replace("\n", " ")


def test_without_the_analysis_there_is_no_such_figure():
    assert "shift" not in results.figures(Call(load_study(in_process.STUDY, "s")))
    assert "shift" in results.figures(Call(load_study(CONFIG, "s")))


def test_runs_that_the_study_has_no_longer_are_left_out():
    shifted, runs = made_up()
    assert set(table.in_order(shifted, runs[runs["seed"] < 2])["seed"]) == {0, 1}


def test_a_study_says_which_corruptions(tmp_path):
    assert load_study(in_process.STUDY, "s").shift.corruptions == list(CORRUPTIONS)
    for key, value, message in (
        ("corruptions", ["fog"], "shift.corruptions[0]: 'fog' is unknown; "),
        ("severities", [6], "shift.severities[0]"),
    ):
        with pytest.raises(StudyError, match=f"s: {key and message}".replace("[", r"\[")):
            load_study(in_process.STUDY | {"shift": {key: value}}, "s")
