import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hiddencost import figures
from hiddencost.figures import reliability, style

BACKBONES = {"dense": ("none", None, 0.0), "pruned": ("magnitude", None, 0.2), "random": ("none", "random_init", 0.0)}
METHODS, SHOTS, SEEDS = ["rlm", "flm", "ilm", "lp"], ["1", "10", "full"], [0, 1, 2]
SETTINGS = {"width": 6.8, "panel_height": 2.3, "colours": {}, "title": "made up", "classes": {"one": 10, "two": 43}}


@pytest.fixture
def study():
    """Made-up runs and bins of two datasets; one cell was not run."""
    rng = np.random.default_rng(0)
    runs, bins = [], []
    constant = dict.fromkeys(("mean_class_accuracy", "nll", "brier", "ece_published"), 0.1)
    constant |= {"study": "s", "checkpoint": "net", "dense": "dense"}
    for dataset, backbone, method, shots, seed in itertools.product(["one", "two"], BACKBONES, METHODS, SHOTS, SEEDS):
        compression, control, sparsity = BACKBONES[backbone]
        ran = (dataset, backbone, method, shots) != ("two", "pruned", "ilm", "10")
        axes = {"dataset": dataset, "backbone": backbone, "method": method, "shots": shots, "seed": seed}
        values = dict.fromkeys(("accuracy", "ece"), rng.uniform() if ran else np.nan)
        made = {"compression": compression, "control": control, "status": "ok" if ran else "not run"}
        made |= {"sparsity_declared": sparsity, "sparsity_measured": sparsity}
        runs.append(constant | made | axes | values)
        if ran:
            rows = {"count": [0, 5, 20], "confidence": [np.nan, 0.5, 0.9], "accuracy": [np.nan, 0.4, 0.7]}
            bins += [axes | {"bin": bin + 1} | {k: v[bin] for k, v in rows.items()} for bin in range(3)]
    return pd.DataFrame(runs), pd.DataFrame(bins)


@pytest.mark.parametrize("name", figures.DRAW)
def test_every_figure_is_drawn_from_the_tables_alone_at_print_size(study, tmp_path, name):
    outputs = [tmp_path / f"{name}.pdf", tmp_path / f"{name}.png"]
    figures.draw(name, *study, SETTINGS, outputs)
    assert outputs[0].read_bytes().startswith(b"%PDF")
    assert Image.open(outputs[1]).width == pytest.approx(6.8 * 200, abs=1)
    before = outputs[0].read_bytes()
    figures.draw(name, *study, SETTINGS, outputs)
    assert outputs[0].read_bytes() == before
    assert plt.get_fignums() == []


def test_an_all_missing_study_is_drawn(study, tmp_path):
    runs, bins = study
    runs = runs.assign(status="not run", accuracy=np.nan, ece=np.nan)
    for name in figures.DRAW:
        figures.draw(name, runs, bins.iloc[:0], SETTINGS, [tmp_path / f"{name}.png"])


def test_accuracy_has_a_panel_a_dataset_and_tells_dense_from_compressed(study):
    with style.paper():
        axes = figures.DRAW["accuracy"](*study, SETTINGS).axes
        assert [axis.get_title() for axis in axes] == ["one", "two"]
        lines = [container.lines[0] for container in axes[1].containers]
        assert len(lines) == 12
        by_method = [lines[i : i + 3] for i in range(0, 12, 3)]
        assert [[line.get_linestyle() for line in three] for three in by_method] == [["-", "--", ":"]] * 4
        assert [three[0].get_color() for three in by_method] == [style.COLOURS[method] for method in METHODS]
        missing = by_method[2][1].get_ydata().astype(float)
        assert np.isnan(missing).tolist() == [False, True, False]
        runs = study[0]
        first = runs[(runs["dataset"] == "two") & (runs["backbone"] == "dense") & (runs["method"] == "rlm")]
        assert by_method[0][0].get_ydata()[0] == pytest.approx(first[first["shots"] == "1"]["accuracy"].mean() * 100)


def test_a_backbone_without_any_run_is_left_out_of_the_accuracies(study):
    runs, bins = study
    gone = runs["backbone"] == "pruned"
    runs = runs.assign(status=runs["status"].mask(gone, "not run"), accuracy=runs["accuracy"].mask(gone))
    with style.paper():
        figure = figures.DRAW["accuracy"](runs, bins, SETTINGS)
        assert len(figure.axes[0].containers) == 8
        told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "dense" in told
    assert not any("magnitude" in text for text in told)


def test_the_heat_map_shows_paired_points_and_hatches_what_was_not_run(study):
    runs, bins = study
    with style.paper():
        axes = figures.DRAW["heatmap"](runs, bins, SETTINGS).axes
        panel = next(axis for axis in axes if axis.get_title() == "two, ILM-VP")
        cells = panel.collections[0].get_array()
        assert cells.shape == (2, 3)
        assert cells.mask.tolist() == [[False, True, False], [False, False, False]]
        assert panel.patch.get_hatch() == "////"
        own = runs[(runs["dataset"] == "two") & (runs["method"] == "ilm") & (runs["shots"] == "full")]
        mean = own.groupby("backbone")["accuracy"].mean()
        assert cells[0, 2] == pytest.approx(100 * (mean["dense"] - mean["pruned"]))
        limits = panel.collections[0].get_clim()
        assert limits[0] == -limits[1]


def test_pooling_weights_bins_by_their_images():
    bins = pd.DataFrame(
        {"bin": [1, 1, 2], "count": [10, 30, 5], "confidence": [0.1, 0.2, 0.5], "accuracy": [1, 0, 1.0]}
    )
    pooled = reliability.pool(bins)
    assert pooled.loc[1].tolist() == pytest.approx([40, 0.175, 0.25])
    assert pooled.loc[2].tolist() == pytest.approx([5, 0.5, 1.0])


def test_a_colour_of_the_study_replaces_the_default_and_the_others_stay():
    assert style.colours({"colours": {"ilm": "#123456"}}) == style.COLOURS | {"ilm": "#123456"}


def test_the_number_of_seeds_and_of_missing_runs_is_told(study):
    assert style.seeds_note(study[0]) == "3 seeds; 3 of 216 runs are missing"
    assert style.backbone_label(study[0], "pruned") == "magnitude 20 %"
    assert style.backbone_label(study[0], "random") == "random init (control)"
