import copy
import itertools
import logging
import re
from dataclasses import replace
from pkgutil import resolve_name

import made_up
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from PIL import Image

from hiddencost.figures import draw, mapping, style
from hiddencost.figures.dark import PAGE
from hiddencost.figures.draw import rows_shown
from hiddencost.figures.registry import FIGURES as KINDS
from hiddencost.figures.registry import figures_of_study
from hiddencost.jobs.results import shown_metric
from hiddencost.methods import registry
from hiddencost.results import gallery, matched
from hiddencost.results.gallery import ShownBackbone
from hiddencost.results.tables import AXES, read, summarise
from hiddencost.results.upstream import with_shares
from hiddencost.runs.metrics import METRICS
from hiddencost.study.parts import PALETTES, SHOWN_METRICS

PLAIN = {"checkpoint": "net", "compression": "none", "control": None, "sparsity_declared": 0.0, "dense": "dense"}
PLAIN |= {"recipe_dense": "dense"}
PRUNED = PLAIN | {"compression": "magnitude", "sparsity_declared": 0.2}
BACKBONES = {"dense": PLAIN, "pruned": PRUNED, "random": PLAIN | {"control": "random_init"}}
METHODS, SHOTS, SEEDS = ["rlm", "flm", "ilm", "lp"], ["1", "10", "full"], [0, 1, 2]
CLASSES = {"one": 10.0, "two": np.nan}  # of the second nothing tells them
SETTINGS = {
    **{"width": 6.8, "panel_height": 2.3, "colours": {}, "labels": {}, "palette": "RdBu_r", "title": "made up"},
    **{"methods": METHODS, "style": "light", "metric": shown_metric("accuracy")},
}
FIGURES = figures_of_study(BACKBONES, ["one", "two"], METHODS, {})


@pytest.fixture
def tables(made):
    """Made-up tables of two datasets, to change; one cell was not run."""
    return copy.deepcopy(made)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    runs, bins = [], []
    constant = dict.fromkeys(METRICS, 0.1) | {"study": "s"}
    for dataset, backbone, method, shots, seed in itertools.product(["one", "two"], BACKBONES, METHODS, SHOTS, SEEDS):
        ran = (dataset, backbone, method, shots) != ("two", "pruned", "ilm", "10")
        axes = {"dataset": dataset, "backbone": backbone, "method": method, "shots": shots, "seed": seed}
        values = dict.fromkeys(("accuracy", "ece"), rng.uniform() if ran else np.nan)
        made = BACKBONES[backbone] | {"sparsity_measured": 0.0, "status": "ok" if ran else "not run"}
        made |= {"classes": CLASSES[dataset], "classes_short": 0.0, "run": f"{len(runs):064x}" if ran else None}
        runs.append(constant | made | axes | values)
        if ran:
            rows = {"count": [0, 5, 20], "confidence": [np.nan, 0.5, 0.9], "accuracy": [np.nan, 0.4, 0.7]}
            bins += [axes | {"bin": bin + 1} | {k: v[bin] for k, v in rows.items()} for bin in range(3)]
    runs = pd.DataFrame(runs)
    mapped = runs.loc[(runs["status"] == "ok") & runs["method"].isin(["flm", "ilm"]), AXES]
    mapped = mapped.loc[mapped.index.repeat(3)].reset_index(drop=True)
    mapped["target"] = np.tile([0, 1, 2], len(mapped) // 3)
    # the dense network's seeds agree in all classes, the pruned one with it in the first
    mapped["source"] = mapped["target"].where(mapped["backbone"] == "dense", 5 * mapped["target"])
    mapped["target_name"] = mapped["target"].map({0: "zebra crossing", 1: "oneWay", 2: "yield"})
    mapped["source_name"] = mapped["source"].map("class {}".format)
    moved = mapped[mapped["method"] == "ilm"].drop(columns=["source", "target_name", "source_name"])
    remapped = moved.rename(columns={"target": "epoch"}).assign(share=0.5)
    upstream = pd.DataFrame({"backbone": list(BACKBONES), "top1": [70.0, 63.0, np.nan], "photos": [18.0, 9, 0]})
    upstream = with_shares(upstream.assign(photos_shown=20))
    return {
        **{"runs": runs, "summary": summarise(runs), "bins": pd.DataFrame(bins)},
        **{"mappings": mapped, "remapped": remapped.assign(epoch=remapped["epoch"] + 2)},
        "examples": {"one": np.full((3, 3, 8, 8), 200, np.uint8)},
        "prompts": {"gain": np.array(4)}
        | {f"{b}/one/{m}/full/0": np.full((3, 16, 16), 9, np.uint8) for b in BACKBONES for m in METHODS[:3]},
        **{"upstream": upstream, "matched": matched.matched(runs, upstream)},
    }


def drawn_of(tables, content, **settings):
    """Draw a figure of some tables."""
    tables = copy.deepcopy(tables) | {"study": tables.get("study", tables.get("summary"))}
    return resolve_name(content.drawn_by)(tables, content, SETTINGS | settings)


def drawn(name, tables, **settings):
    """Draw a figure of the small study."""
    return drawn_of(tables, FIGURES[name], **settings)


@pytest.fixture(autouse=True)
def light():
    """No figure stays open."""
    yield
    plt.close("all")


def written(tables, folder):
    files = {}
    for name, table in tables.items():
        files[name] = folder / f"{name}.npz" if isinstance(table, dict) else folder / f"{name}.parquet"
        if isinstance(table, dict):
            np.savez(files[name], **table)
        elif name in ("summary", "upstream", "matched"):
            files[name] = folder / f"{name}.csv"
            table.to_csv(files[name], index=False)
        else:
            table.to_parquet(files[name])
    return files


def texts(artist):
    return [text.get_text() for text in artist.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.fixture(scope="session")
def full_grid(tmp_path_factory):
    """The figures, tables and settings of the paper's grid, with made-up numbers."""
    return made_up.write(tmp_path_factory.mktemp("made-up"), [f"class {number}" for number in range(1000)])


def test_the_papers_networks_are_grouped_by_what_they_are_compared_with_and_how_they_are_compressed():
    study = made_up.paper()
    datasets = [one.name for one in study.datasets]
    listed = figures_of_study(made_up.stated(study), datasets, study.methods, {})
    groups = ["resnet18-gmp", "resnet34-gmp", "resnet50-acdc", "resnet50-rigl", "resnet50-lth"]
    groups += ["clip-magnitude", "clip-coco-upop"]
    assert [name for name in listed if name.startswith("accuracy")] == [f"accuracy-{group}" for group in groups]
    shown = {name: one.role for name, one in listed["accuracy-resnet50-acdc"].backbones.items()}
    controls = dict.fromkeys(["resnet50-dense-v1", "resnet50-random", "resnet50-shuffled"], "control")
    compressed = dict.fromkeys([f"resnet50-acdc{level}" for level in (80, 90, 98)], "compressed")
    assert [*listed["accuracy-resnet18-gmp"].backbones] == [
        *("resnet18-dense", "resnet18-gmp", "resnet18-random", "resnet18-int8", "resnet18-int4")
    ]
    assert shown == {"resnet50-dense": "dense"} | compressed | controls
    # the maps of all ten lottery tickets take two pages
    pages = [listed[f"heatmap-resnet50-lth-page{number}"] for number in (1, 2)]
    assert [page.datasets for page in pages] == [datasets[:4], datasets[4:]]
    assert all(set(page.backbones) == set(listed["accuracy-resnet50-lth"].backbones) for page in pages)
    assert not any(name.startswith("heatmap-resnet50-acdc-") for name in listed)
    assert set(listed["glance"].backbones) == set(made_up.stated(study))
    assert all(re.fullmatch(r"[a-z0-9._-]+", name) for name in listed)


def test_a_small_study_has_one_figure_of_each_kind():
    unasked = [name for name, kind in KINDS.items() if not kind.analysis]
    assert list(FIGURES) == sorted(unasked, key=lambda name: name != "glance")  # of all networks: it leads
    labels = {name: one.label for name, one in FIGURES["accuracy"].backbones.items()}
    assert labels == {"dense": "dense", "pruned": "magnitude 20 %", "random": "random init"}
    assert set(figures_of_study(BACKBONES, ["one"], ["lp"], {})) == {*unasked} - {"mapping", "movement", "prompts"}


def test_quantised_networks_stand_beside_the_sparse():
    quantised = {f"int{bits}": PRUNED | {"compression": f"int{bits}"} for bits in (4, 8)}
    assert list(gallery.group_backbones(BACKBONES | quantised)) == [()]
    sparse = {
        f"{kind}{level}": PRUNED | {"compression": kind} for kind in ("magnitude", "2:4") for level in (1, 2, 3)
    }
    groups = gallery.group_backbones({"dense": PLAIN} | sparse | quantised)
    assert groups == {
        ("dense-magnitude",): ("dense", ["dense", "magnitude1", "magnitude2", "magnitude3", "int4", "int8"]),
        ("dense-nm",): ("dense", ["dense", "2:41", "2:42", "2:43", "int4", "int8"]),
    }


def test_networks_that_nothing_is_compared_with_have_figures_without_a_comparison():
    alone = {"a": PLAIN | {"dense": "a"}, "b": PLAIN | {"dense": "b"}}
    listed = figures_of_study(alone, ["one"], METHODS, {})
    assert list(listed) == ["accuracy", "reliability", "mapping", "movement", "prompts"]
    assert listed["accuracy"].backbones == {name: ShownBackbone("dense", 0.0, False, name) for name in alone}
    beside = gallery.group_backbones(BACKBONES | alone)
    assert beside == {("dense",): (None, ["a", "b"]), ("dense-magnitude",): ("dense", list(BACKBONES))}


def test_no_group_and_no_figure_takes_the_name_of_another():
    # compressed by two algorithms: their group has the dense network's name
    two = {"pruned": PRUNED, "nm": PRUNED | {"compression": "2:4"}}
    groups = gallery.group_backbones({"dense": PLAIN, **two, "alone": PLAIN | {"dense": "alone"}})
    assert groups == {("dense-2",): (None, ["alone"]), ("dense",): ("dense", ["dense", *two])}
    levels = {f"p{level}": PRUNED | {"sparsity_declared": level / 10} for level in range(1, 6)}
    other = {"dense-magnitude-one": PLAIN | {"dense": "dense-magnitude-one"}}
    other |= {name: one | {"dense": "dense-magnitude-one"} for name, one in two.items()}
    listed = figures_of_study({"dense": PLAIN, **levels, **other}, ["one", "two"], METHODS, {})
    shown = [set(one.backbones) for one in listed.values() if one.kind == "heatmap"]
    assert [len(names) for names in shown] == [6, 3]
    assert sum(name.startswith("accuracy") for name in listed) == 2


def test_a_dense_network_that_is_not_shown_leaves_the_others_compared(tables, tmp_path):
    listed = figures_of_study({"pruned": PRUNED}, ["one"], METHODS, {"pruned": "mine"})
    (one,) = listed["heatmap"].backbones.values()
    assert (one.role, one.label) == ("compressed", "mine")
    assert listed["glance"].references == ["dense"]
    files = written(tables, tmp_path)
    needed = ("runs", "upstream", "matched")
    glance = {name: rows_shown(read(files[name]), listed["glance"], METHODS) for name in needed}
    axes = drawn_of(glance, listed["glance"]).axes
    assert [len(axis.containers) for axis in axes[:4]] == [1] * 4  # a point in each panel


INT = PRUNED | {"sparsity_declared": 0.0}
LEVELS = {
    "p90": PRUNED | {"sparsity_declared": 0.9},
    "p20": PRUNED,
    "p70": PRUNED | {"sparsity_declared": 0.7},
    **{"int8": INT | {"compression": "int8"}, "p95": PRUNED | {"sparsity_declared": 0.95}},
    **{"p50": PRUNED | {"sparsity_declared": 0.5}, "int4": INT | {"compression": "magnitude+int4"}},
}


@pytest.mark.parametrize(
    ("ran", "chosen"),
    [
        (["p90", "p20"], "p90"),
        (["p90", "int8"], "p90"),
        (["int4", "int8"], "int4"),
        (["random", "p20"], "p20"),
        (["random"], "random"),
        ([*LEVELS, "random"], "p95"),
    ],
)
def test_the_most_compressed_is_the_sparsest_in_whatever_order(ran, chosen):
    shown = gallery.describe_backbones({"dense": PLAIN} | LEVELS | {"random": BACKBONES["random"]}, "dense", {})
    for names in (ran, ran[::-1]):
        assert gallery.dense_and_most_compressed(shown, names) == ["dense", chosen]


def test_where_there_is_no_room_for_all_levels_the_extremes_stay_and_one_that_is_quantised():
    shown = gallery.describe_backbones(LEVELS, "dense", {})
    names = list(LEVELS)
    assert gallery.spread_by_sparsity(shown, names, 7) == names
    assert gallery.spread_by_sparsity(shown, names, 3) == ["p20", "p95", "int4"]
    assert gallery.spread_by_sparsity(shown, names, 4) == ["p20", "p70", "p95", "int4"]
    unknown = {name: replace(one, sparsity=None) for name, one in shown.items() if not one.quantised}
    assert gallery.spread_by_sparsity(unknown, list(unknown), 3) == ["p90", "p70", "p50"]
    quantised = {f"int{bits}": replace(one, quantised=True) for bits, one in enumerate(unknown.values())}
    assert gallery.spread_by_sparsity(quantised, list(quantised), 3) == ["int0", "int2", "int4"]


def test_levels_of_which_no_sparsity_is_published_are_chosen_by_the_measured_one_and_labels_say_none():
    study = made_up.paper()
    shown = gallery.describe_backbones(made_up.stated(study), None, {})
    tickets = {name: one for name, one in shown.items() if "lth" in name}
    assert all((one.sparsity, one.label) == (None, name) for name, one in tickets.items())
    content = gallery.StudyFigure("heatmap", "", dict(reversed(tickets.items())), ["cifar10"])
    table = made_up.runs(study).rename(columns={"accuracy": "any"})
    content = replace(content, backbones=gallery.with_measured_sparsity(content.backbones, table))
    assert content.backbones["resnet50-lth2"].sparsity == pytest.approx(0.36)
    names = list(content.backbones)
    assert gallery.dense_and_most_compressed(content.backbones, names[::-1]) == ["resnet50-lth10"]
    assert gallery.spread_by_sparsity(content.backbones, names, 3) == [f"resnet50-lth{n}" for n in (10, 5, 1)]
    assert [one.label for one in content.backbones.values()] == names


def test_what_was_learned_is_shown_of_one_seed_and_budget_that_both_ran():
    shown = gallery.describe_backbones(BACKBONES, "dense", {})

    def kept(*ran):
        runs = pd.DataFrame([(name, "one", "ilm", shots, seed) for name, shots, seed in ran], columns=AXES)
        return [(name, shots, seed) for name, _, _, shots, seed in gallery.runs_shown(runs, shown)]

    ran = [("dense", "1", 0), ("dense", "1", 1), ("dense", "full", 0), ("dense", "full", 2), ("pruned", "1", 1)]
    assert kept(*ran) == [("dense", "1", 1), ("pruned", "1", 1)]
    assert kept(*ran, ("pruned", "full", 2)) == [("dense", "full", 2), ("pruned", "full", 2)]
    assert kept(*ran[:3]) == [("dense", "full", 0)]
    assert kept(("dense", "1", 0), ("pruned", "1", 1)) == [("dense", "1", 0)]
    assert kept() == []


FULL = [
    *("cost-resnet50-acdc", "accuracy-resnet18-gmp", "accuracy-clip-coco-upop", "heatmap-clip-magnitude"),
    *("heatmap-resnet50-lth-page1", "reliability-resnet50-lth", "glance"),
    # quantised beside sparse
    *(f"{kind}-resnet18-gmp" for kind in ("calibration", "mapping", "movement", "prompts")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_grids_figure_fits_its_page(full_grid, tmp_path, monkeypatch, name):
    listed, file, settings = full_grid
    drawn, drawing = [], resolve_name(listed[name].drawn_by)
    keep = lambda *arguments: drawn.append(drawing(*arguments)) or drawn[0]  # noqa: E731
    monkeypatch.setattr(draw, "resolve_name", lambda drawn_by: keep)
    needed = {table: file(table) for table in KINDS[listed[name].kind].tables}
    draw.draw(listed[name], needed, settings, [tmp_path / "it.png"])
    assert Image.open(tmp_path / "it.png").width == pytest.approx(6.8 * 200, abs=1)
    (figure,) = drawn
    box = figure.get_tightbbox()
    assert figure.get_suptitle().startswith("made-up numbers: ")
    width, height = figure.get_size_inches()
    assert height <= 9  # of a printed page
    assert min(text.get_size() for text in figure.findobj(Text) if text.get_text()) >= 6
    # nothing is cut off, to a hundredth of an inch
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


FORMATS = {"prompts": ["pdf", "png", "svg"], "movement": ["svg"]}  # of images, lines and text: drawn twice
STARTS = {".pdf": b"%PDF", ".png": b"\x89PNG", ".svg": b"<?xml"}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_from_the_tables_alone_and_the_same_each_time(tables, tmp_path, name):
    files, outputs = (
        written(tables, tmp_path),
        [tmp_path / f"{name}.{format}" for format in FORMATS.get(name, ["svg"])],
    )
    needed = {table: files[table] for table in KINDS[name].tables}
    content = figures_of_study(BACKBONES, ["one"], METHODS, {})[name]
    draw.draw(content, needed, SETTINGS, outputs)
    before = [output.read_bytes() for output in outputs]
    if name in FORMATS:
        draw.draw(content, needed, SETTINGS, outputs)
        assert [output.read_bytes() for output in outputs] == before
    assert plt.get_fignums() == []
    assert all(saved.startswith(STARTS[path.suffix]) for saved, path in zip(before, outputs, strict=True))


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_any_result_is_drawn(tables, tmp_path, name):
    runs = tables["runs"].assign(status="not run", accuracy=np.nan, ece=np.nan)
    empty = {key: tables[key].iloc[:0] for key in ("bins", "mappings", "remapped")}
    empty |= {"runs": runs, "summary": summarise(runs), "prompts": {}, "upstream": tables["upstream"], "examples": {}}
    empty |= {"matched": matched.matched(runs, tables["upstream"])}
    files = written(empty, tmp_path)
    content = replace(FIGURES[name], datasets=["one"])
    draw.draw(content, {table: files[table] for table in KINDS[name].tables}, SETTINGS, [tmp_path / f"{name}.png"])
    assert Image.open(tmp_path / f"{name}.png").height > 100


def test_datasets_and_backbones_are_shown_in_the_order_of_the_figure(tables, tmp_path):
    listed = figures_of_study({name: BACKBONES[name] for name in ("pruned", "dense")}, ["two"], METHODS, {})
    table = rows_shown(read(written(tables, tmp_path)["summary"]), listed["accuracy"], METHODS)
    assert style.order(table, "dataset") == ["two"]
    assert style.order(table, "backbone") == ["dense", "pruned"]  # the dense one first
    figure = replace(FIGURES["accuracy"], datasets=["two", "one"])
    axes = drawn_of(tables, figure, labels={"one": "First", "ilm": "mine"}).axes
    assert [axis.get_ylabel() for axis in axes[::4]] == ["two", "First"]
    assert [axis.get_title() for axis in axes[:4]] == ["RLM-VP", "FLM-VP", "mine", "linear probe"]


def lines_of(axis):
    """Return by label-less order the points of each network's line and bar of a panel: (line, bars) pairs."""
    return [(container.lines[0], container.lines[2][0].get_segments()) for container in axis.containers]


def test_accuracy_has_a_panel_for_each_dataset_and_method_a_line_a_network_and_a_gap_where_nothing_was_run(tables):
    figure = drawn("accuracy", tables)
    panels = np.array(figure.axes).reshape(2, 4)
    assert [axis.get_ylabel() for axis in panels[:, 0]] == ["one", "two"]
    assert [axis.get_title() for axis in panels[0]] == ["RLM-VP", "FLM-VP", "ILM-VP", "linear probe"]
    lines = [line for line, _ in lines_of(panels[1, 2])]
    assert [line.get_marker() for line in lines] == ["o", "s", "x"]
    assert [line.get_linestyle() for line in lines] == ["-", "--", ":"]
    assert lines[0].get_color() == "black"
    assert np.isnan(lines[1].get_ydata().astype(float)).tolist() == [False, True, False]
    cell = tables["runs"].query("dataset == 'two' and backbone == 'dense' and method == 'rlm' and shots == '1'")
    line, bars = lines_of(panels[1, 0])[0]
    mean, std = 100 * cell["accuracy"].mean(), 100 * cell["accuracy"].std()
    assert line.get_ydata()[0] == pytest.approx(mean)
    width = 4.303 * std / 3**0.5  # the 95 % interval of three seeds
    assert bars[0][:, 1] == pytest.approx([mean - width, mean + width], rel=1e-3)
    assert "accuracy, mean and 95 % interval over 3 seeds; " in figure.get_suptitle()
    assert "1 of 72 cells are missing" in figure.get_suptitle().replace("\n", " ")


def test_the_cost_is_the_seed_paired_difference_of_what_is_compressed(tables):
    figure = drawn("cost", tables)
    panel = np.array(figure.axes).reshape(2, 4)[0, 1]
    ((line, bars),) = lines_of(panel)  # a network that never learned is no compression
    own = tables["runs"].query("dataset == 'one' and method == 'flm' and shots == '10'")
    wide = 100 * own.pivot(index="seed", columns="backbone", values="accuracy")
    difference = wide["dense"] - wide["pruned"]
    assert line.get_ydata()[1] == pytest.approx(difference.mean())
    cell = tables["summary"].query("dataset == 'one' and method == 'flm' and shots == '10' and backbone == 'pruned'")
    ends = 100 * cell[[f"accuracy_dense_minus_backbone_{end}" for end in ("low", "high")]].iloc[0]
    assert bars[1][:, 1] == pytest.approx(ends.tolist())  # the interval of the tables, which is not symmetric
    assert abs(ends.mean() - difference.mean()) > 1
    assert len({axis.get_ylim() for axis in figure.axes}) == 1  # one scale
    assert "magnitude 20 %" in texts(figure.legends[0])


def test_one_number_of_shots_makes_points_over_methods(tables):
    runs = tables["runs"].query("shots == 'full'")
    figure = drawn("cost", tables | {"summary": summarise(runs)})
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    ((line, _),) = lines_of(figure.axes[0])
    assert line.get_linestyle() == "None"
    assert len(line.get_ydata()) == 4
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        registry.METHODS[name].label for name in METHODS
    ]


def test_zero_shot_is_a_horizontal_and_one_column_of_a_map(tables):
    flat = tables["runs"]["method"] == "lp"
    runs = tables["runs"].assign(method=tables["runs"]["method"].where(~flat, "zs"))
    summary = summarise(runs)
    figure = drawn("accuracy", tables | {"summary": summary}, methods=[*METHODS[:3], "zs"])
    assert [axis.get_title() for axis in figure.axes[:3]] == ["RLM-VP", "FLM-VP", "ILM-VP"]
    assert len(figure.axes) == 6
    levels = {tuple(line.get_ydata()) for line in figure.axes[0].lines if len(set(line.get_xdata())) == 2}
    own = runs.query("dataset == 'one' and backbone == 'pruned' and method == 'zs'")["accuracy"].iloc[0]
    assert any(level == pytest.approx((100 * own, 100 * own)) for level in levels)
    assert "fewer" not in figure.get_suptitle()  # one that does not train is no cell of fewer seeds
    maps = drawn("heatmap", tables | {"summary": summary}).axes
    assert [label.get_text() for label in maps[3].get_xticklabels()] == ["all"]


def test_budgets_that_have_all_images_are_drawn_once_and_called_all(tables):
    runs = tables["runs"]
    copied = (runs["dataset"] == "two") & (runs["shots"] == "full")
    first = runs[(runs["dataset"] == "two") & (runs["shots"] == "10")]
    runs.loc[copied, ["run", "accuracy", "ece", "status"]] = first[["run", "accuracy", "ece", "status"]].to_numpy()
    summary = summarise(runs)
    for kind in ("accuracy", "cost"):
        panels = np.array(drawn(kind, tables | {"summary": summary}).axes).reshape(2, 4)
        assert "10 = all" in texts(panels[1, 0])
        assert "10 = all" not in texts(panels[0, 0])
        assert np.isnan(lines_of(panels[1, 0])[0][0].get_ydata().astype(float)).tolist() == [False, False, True]
    axis = drawn("heatmap", tables | {"summary": summary}).axes[0]
    assert texts(axis).count("10 = all") == 1
    assert [mesh.get_array().shape for mesh in meshes(axis)] == [(1, 3)] * 2 + [(1, 2)] * 2


def test_a_study_chooses_methods_and_shots_of_its_figures(tables, tmp_path):
    files = written(tables, tmp_path)
    summary = rows_shown(read(files["summary"]), FIGURES["accuracy"], ["ilm", "lp"])
    figure = drawn("accuracy", {"summary": summary}, methods=["ilm", "lp"], shots=[1, "full"])
    assert [axis.get_title() for axis in figure.axes[:2]] == ["ILM-VP", "linear probe"]
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["1", "full"]


def test_bars_of_two_seeds_span_them_and_one_has_none(tables):
    for seeds, ends in ((2, ["min", "max"]), (1, [])):
        runs = tables["runs"].query(f"seed < {seeds}")
        axis = drawn("accuracy", tables | {"summary": summarise(runs)}).axes[0]
        cell = runs.query("dataset == 'one' and backbone == 'dense' and method == 'rlm' and shots == '1'")["accuracy"]
        bar = lines_of(axis)[0][1][0]
        if ends:
            assert bar[:, 1] == pytest.approx(100 * cell.agg(ends).to_numpy())
        else:
            assert not bar.size  # one seed has no spread
        assert ("mean and span of 2 seeds" if ends else "accuracy, 1 seed") in axis.figure.get_suptitle()


def test_a_backbone_without_any_run_is_left_out_of_the_accuracies(tables):
    gone = tables["runs"]["backbone"] == "pruned"
    runs = tables["runs"].assign(accuracy=tables["runs"]["accuracy"].mask(gone))
    told = texts(drawn("accuracy", tables | {"summary": summarise(runs)}).legends[0])
    assert {"dense", "random init"} <= set(told)
    assert not any("magnitude" in text for text in told)


def meshes(axis):
    return [one for one in axis.collections if type(one).__name__ == "QuadMesh"]


@pytest.mark.parametrize(("kind", "metric", "sign"), [("heatmap", "accuracy", 1), ("calibration", "ece", -1)])
def test_the_maps_show_paired_points_and_mark_what_is_sure_and_what_was_not_run(tables, kind, metric, sign):
    summary = tables["summary"]
    sure = (summary["backbone"] == "pruned") & (summary["shots"] == "full")
    for end, value in (("low", 0.01), ("high", 0.05)):
        name = f"{metric}_dense_minus_backbone_{end}"
        summary[name] = np.where(sure, value, -value if end == "low" else value)
    figure = drawn(kind, tables)
    panel = figure.axes[2]
    rows = [mesh.get_array()[0] for mesh in meshes(panel)]  # of each dataset the pruned and the random network
    assert [row.mask.tolist() for row in rows] == [[False] * 3, [False] * 3, [False, True, False], [False] * 3]
    (gap,) = [bars for bars in panel.collections if bars.get_hatch() and len(bars.get_paths())]
    assert len(gap.get_paths()) == 1
    own = tables["runs"].query("dataset == 'two' and method == 'ilm' and shots == 'full'")
    mean = own.groupby("backbone")[metric].mean()
    cost = sign * 100 * (mean["dense"] - mean["pruned"])
    assert rows[2][2] == pytest.approx(cost)
    bold = [text for text in panel.texts if text.get_weight() == "bold"]
    assert [text.get_position()[0] for text in bold] == [2.5, 2.5]  # full shots, the pruned network
    assert bold[1].get_text() == f"{cost:.1f}".replace("-", "−")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["one", "magnitude 20 %", "random init", "two", "magnitude 20 %", "random init"]
    told = figure.axes[-1].get_xlabel()
    assert (
        "bold: 95 % interval excludes 0, uncorrected (of the 48 cells with an interval 2 would by chance)"
        in told.replace("\n", " ")
    )
    assert "1 of 48 cells are missing" in figure.get_suptitle().replace("\n", " ")


def test_a_study_chooses_the_metric_of_curves_costs_and_their_map(tables):
    assert tuple(name for name, metric in METRICS.items() if metric.paired) == SHOWN_METRICS
    assert all(METRICS[name].percent for name in SHOWN_METRICS)
    runs = tables["runs"].assign(ece=np.random.default_rng(1).uniform(size=len(tables["runs"])))
    tables["summary"] = summarise(runs.assign(ece=runs["ece"].where(runs["status"] == "ok")))
    ece = shown_metric("ece")
    own = runs.query("dataset == 'one' and method == 'ilm'").groupby(["backbone", "shots"])["ece"].mean()
    curves, costs = drawn("accuracy", tables, metric=ece), drawn("cost", tables, metric=ece)
    assert curves.get_supylabel() == "test calibration error (ECE) (points)"
    assert lines_of(curves.axes[2])[0][0].get_ydata() == pytest.approx(100 * own["dense"][SHOTS].to_numpy())
    assert not [text for text in texts(curves) if text == "chance"]
    assert costs.get_supylabel() == "compressed minus dense, calibration error (ECE) (points)"
    worse = (100 * (own["pruned"] - own["dense"])[SHOTS]).tolist()  # above zero where compression costs
    assert lines_of(costs.axes[2])[0][0].get_ydata() == pytest.approx(np.array(worse))
    cell = tables["summary"].query("dataset == 'one' and method == 'ilm' and shots == '1' and backbone == 'pruned'")
    ends = -100 * cell[[f"ece_dense_minus_backbone_{end}" for end in ("high", "low")]].iloc[0]
    assert lines_of(costs.axes[2])[0][1][0][:, 1] == pytest.approx(ends.tolist())
    both = [drawn("heatmap", tables, metric=ece), drawn("calibration", tables)]
    maps = [np.ma.concatenate([mesh.get_array()[0] for mesh in meshes(one.axes[2])]) for one in both]
    np.testing.assert_array_equal(*maps)
    assert maps[0][:3].tolist() == pytest.approx(worse)
    assert "network minus dense, calibration error (ECE) (points)" in both[0].axes[-1].get_xlabel().replace("\n", " ")


@pytest.mark.parametrize("name", FIGURES)
def test_the_dark_style_leaves_nothing_in_the_colour_of_its_page(tables, tmp_path, name):
    pictures = {}
    for look in ("light", "dark"):
        with Image.open(draw_to(tmp_path / f"{look}.png", name, tables, style=look)) as image:
            pictures[look] = np.asarray(image.convert("L"), float) / 255
    light, dark = pictures["light"], pictures["dark"]
    assert np.isclose(dark, PAGE, atol=0.01).mean() > 0.3
    if name not in ("heatmap", "calibration", "prompts"):  # whose maps and images stay as they are
        assert np.isclose(dark[light == 1], PAGE, atol=0.01).mean() > 0.999
        assert dark[light < 0.2].min() > 0.6  # text, axes, the dense network


def draw_to(path, name, tables, **settings):
    files, content = written(tables, path.parent), FIGURES[name]
    some = {table: files[table] for table in KINDS[content.kind].tables}
    draw.draw(content, some, SETTINGS | settings, [path])
    return path


def test_the_first_row_of_a_map_is_the_dense_network_itself(tables):
    panel = drawn("heatmap", tables).axes[0]
    own = tables["runs"].query("dataset == 'one' and method == 'rlm' and shots == '1' and backbone == 'dense'")
    (first,) = [text.get_text() for text in panel.texts if text.get_style() == "italic"][:1]
    assert first == f"{100 * own['accuracy'].mean():.1f}"


def test_all_maps_of_a_study_have_one_scale_that_all_compressed_networks_fit(tables):
    summary = tables["summary"]
    column = "accuracy_dense_minus_backbone_mean"
    quiet = summary["dataset"] == "one"
    pruned = summary["backbone"] == "pruned"
    summary.loc[pruned, column] = np.where(quiet, 0.03, 0.44)[pruned]
    summary.loc[summary["backbone"] == "random", column] = 0.9  # a control, which may lie beyond
    one = replace(FIGURES["heatmap"], datasets=["one"])
    figure = drawn_of({"summary": summary[quiet], "study": summary}, one)
    assert {mesh.get_clim() for mesh in meshes(figure.axes[0])} == {(-50, 50)}
    assert "one scale for the study" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_map_of_one_column_has_its_words_within(tables, seeds):
    runs = tables["runs"].query(f"dataset == 'one' and method == 'ilm' and shots == 'full' and seed < {seeds}")
    summary = summarise(runs)
    with style.paper():
        figure = drawn_of({"summary": summary, "study": summary}, replace(FIGURES["heatmap"], datasets=["one"]))
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert ("would by chance" in figure.axes[-1].get_xlabel().replace("\n", " ")) == (
        seeds == 3
    )  # one has no interval


def test_networks_and_not_methods_have_colours_and_grey_tells_them_apart(tables):
    for kind in ("accuracy", "cost", "reliability", "glance"):
        axis = drawn(kind, tables).axes[0]
        title = axis.title if axis.title.get_text() else axis._left_title
        assert title.get_color() == plt.rcParams["text.color"]
    grey = [np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in ["black", *style.COLOURS]]
    assert np.diff(grey).min() > 0.08


def test_a_map_without_the_dense_network_counts_its_cells_as_missing(tables):
    gone = (tables["runs"]["backbone"] == "dense") & (tables["runs"]["dataset"] == "one")
    summary = summarise(tables["runs"].assign(accuracy=tables["runs"]["accuracy"].mask(gone)))
    figure = drawn("heatmap", tables | {"summary": summary})
    hatched = [len(bars.get_paths()) for axis in figure.axes[:4] for bars in axis.collections if bars.get_hatch()]
    assert sum(hatched) == 25
    assert "25 of 48 cells are missing" in figure.get_suptitle().replace("\n", " ")


def test_names_that_look_like_numbers_or_nothing_are_drawn_as_others_are(tables, tmp_path):
    names = {"dense": "2024", "pruned": "nan", "random": "1e5"}
    plain, figure = tables["summary"], FIGURES["heatmap"]
    renamed = plain.replace({"backbone": names, "dense": names, "recipe_dense": names})
    odd = replace(figure, backbones={names[name]: shown for name, shown in figure.backbones.items()})
    for what, summary, name in ((figure, plain, "plain"), (odd, renamed, "odd")):
        files = written({"summary": summary}, tmp_path)
        draw.draw(what, files, SETTINGS, [tmp_path / f"{name}.svg"])
    assert (tmp_path / "odd.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()


def test_reliability_is_the_gap_of_all_levels_beside_the_dense_network(tables):
    figure = drawn("reliability", tables)
    panel = np.array(figure.axes).reshape(2, 4)[0, 0]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"dense", "magnitude 20 %"}
    lines = [line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] == 50]
    assert [line.get_ydata() for line in lines] == [pytest.approx([-10, -20])] * 2  # accuracy minus confidence
    assert [list(points.get_sizes()) for points in panel.collections] == [pytest.approx([60 * 0.2, 60 * 0.8])] * 2


def test_the_mapping_names_what_each_network_chose_and_how_far_they_agree(tables):
    figure = drawn("mapping", tables)
    first, second = figure.axes
    title = first.get_title(loc="left")
    assert title == "one, all images\n33 % mapped alike; two seeds of dense: 100 %"
    told = texts(first)
    for name in ("zebra crossing", "one Way", "class 5", "class 10", "dense", "magnitude 20 %"):
        assert name in told
    (grey,) = {text.get_color() for text in first.texts if text.get_text() == "class 0"}
    assert grey != "black"  # both chose it
    images = [child for child in first.child_axes if child.images]
    assert len(images) == 3
    assert not second.child_axes  # of the second dataset there are no examples
    assert "missing" not in figure.get_suptitle()


def test_the_mapping_shows_first_what_the_networks_map_otherwise_in_the_most_seeds(tables):
    # the first class is mapped alike by both, and the second otherwise by a seed of the dense network
    mappings = tables["mappings"]
    own = (mappings["backbone"] == "dense") & (mappings["target"] == 1) & (mappings["seed"] == 2)
    mappings.loc[own, "source"] = 77
    axis = drawn("mapping", tables | {"mappings": mappings}).axes[0]
    names = {"yield", "one Way", "zebra crossing"}
    assert [text for text in texts(axis) if text in names] == ["yield", "one Way", "zebra crossing"]


def test_names_of_classes_never_reach_the_next_column():
    room = 72 * 3.4 * 0.29 - mapping.APART
    font = FontProperties(size=mapping.TYPE)
    for name in (
        "American chameleon",
        "West Highland white terrier of somewhere",
        "W" * 40,
        "a photo of a pink primrose",
    ):
        lines = mapping.fitted(name, room)
        assert len(lines) <= 2
        assert all(TextPath((0, 0), line, prop=font).get_extents().width <= room for line in lines)


def test_a_mapping_is_of_a_seed_that_both_networks_ran(tables):
    mappings = tables["mappings"]
    pruned = (mappings["backbone"] == "pruned") & (mappings["dataset"] == "one")
    mappings = mappings[~(pruned & (mappings["seed"] < 2))]
    mappings.loc[mappings["seed"] == 2, "source_name"] += ", seed 2"
    told = texts(drawn("mapping", tables | {"mappings": mappings}).axes[0])
    assert "class 10, seed 2" in [text.replace("\n", " ") for text in told]
    # of each dataset one network is left
    mappings = mappings[(mappings["backbone"] == "dense") == (mappings["dataset"] == "one")]
    figure = drawn("mapping", tables | {"mappings": mappings})
    assert "2 of 4 mappings are missing" in figure.get_suptitle().replace("\n", " ")


def test_the_movement_is_the_mean_over_seeds_of_the_share_remapped(tables):
    remapped = tables["remapped"]
    own = (remapped["backbone"] == "dense") & (remapped["dataset"] == "one") & (remapped["shots"] == "full")
    remapped.loc[own & (remapped["epoch"] == 3), "share"] = [0.1, 0.2, 0.6]
    axis = drawn("movement", tables).axes[0]
    assert axis.get_title() == "one, all images"
    assert axis.lines[0].get_xdata().tolist() == [2, 3, 4]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([50, 30, 50])
    assert axis.collections[0].get_datalim(axis.transData).intervaly.tolist() == pytest.approx([0, 95.7], abs=0.1)
    remapped.loc[own & (remapped["epoch"] == 3), "share"] = [0.1, 0.9, 1.0]
    assert drawn("movement", tables).axes[0].get_ylim()[1] < 110  # a share is 100 % at most
    (bar, *_) = drawn("movement", tables | {"remapped": remapped[remapped["epoch"] == 3]}).axes[0].containers
    assert bar.lines[2][0].get_segments()[0][:, 1] == pytest.approx([0, 100])
    assert "missing" not in axis.figure.get_suptitle()
    remapped = remapped[~((remapped["backbone"] == "random") & (remapped["dataset"] == "two"))]
    figure = drawn("movement", tables | {"remapped": remapped})
    assert "1 of 6 cells are missing" in figure.get_suptitle().replace("\n", " ")


def test_prompts_are_shown_as_they_are_and_hatched_where_there_is_none(tables):
    tables["prompts"]["pruned/one/ilm/full/0"][:] = 77
    figure = drawn("prompts", tables)
    assert "× 4" in figure.get_suptitle()
    shown = figure.axes[:12]  # two datasets, three methods, dense and pruned
    assert shown[5].get_title() == "ILM-VP\nmagnitude 20 %"
    assert (shown[5].images[0].get_array() == 77).all()
    assert not any(axis.images for axis in shown[6:])
    assert all(axis.patch.get_hatch() for axis in shown[6:])
    assert "6 of 12 prompts are missing" in figure.get_suptitle().replace("\n", " ")


def test_what_is_not_there_yet_of_a_study_is_counted_where_the_dense_network_alone_has_a_result(tables):
    """Columns and pairs were those that had a result, so that nothing was missing."""
    mappings = tables["mappings"][tables["mappings"]["backbone"] == "dense"]
    figure = drawn("mapping", tables | {"mappings": mappings})
    assert "2 of 4 mappings are missing" in figure.get_suptitle().replace("\n", " ")
    prompts = {name: tables["prompts"][name] for name in ("gain", "dense/one/ilm/full/0")}
    figure = drawn("prompts", tables | {"prompts": prompts})
    assert "11 of 12 prompts are missing" in figure.get_suptitle().replace("\n", " ")


def test_seeds_that_some_cells_lack_are_told(tables):
    missing = (tables["runs"]["seed"] > 0) & (tables["runs"]["backbone"] == "pruned")
    runs = tables["runs"].assign(accuracy=tables["runs"]["accuracy"].mask(missing))
    figure = drawn("accuracy", tables | {"summary": summarise(runs[runs["seed"] < 2])})
    assert "mean and span of 2 seeds, fewer in some cells" in figure.get_suptitle().replace("\n", " ")
    assert style.over(pd.Series([0, 3, 2])) == "mean and 95 % interval over 3 seeds, fewer in some cells"
    assert style.over(pd.Series([0, 1, 1])) == "1 seed"
    remapped = tables["remapped"].query("seed == 0 or backbone == 'dense'")
    title = drawn("movement", tables | {"remapped": remapped}).get_suptitle().replace("\n", " ")
    assert "over 3 seeds, fewer in some cells" in title


def test_lines_of_many_epochs_have_markers_at_epochs_of_their_own(tables):
    remapped = pd.concat([tables["remapped"].assign(epoch=tables["remapped"]["epoch"] + 3 * n) for n in range(20)])
    lines = list(drawn("movement", tables | {"remapped": remapped}).axes[0].lines)
    assert [line.get_marker() for line in lines] == ["o", "s", "x"]
    assert len({line.get_markevery()[0] for line in lines}) == 3


def test_in_maps_without_numbers_grey_tells_what_is_sure_below_zero(tables):
    summary = tables["summary"]
    low = np.where(summary["shots"] == "full", 0.01, -0.05)
    for name, value in (("mean", low + 0.02), ("low", low), ("high", low + 0.04)):
        summary[f"accuracy_dense_minus_backbone_{name}"] = value
    axis = drawn("heatmap", tables | {"summary": summary}, width=2.0).axes[0]
    assert {line.get_marker(): line.get_xdata()[0] for line in axis.lines} == {"_": 1.5, ".": 2.5}


MORE = {  # as tests/test_extending.py adds one
    name: registry.Method(name, label=f"{name.upper()}-VP", colour="#117733", mapping=registry.BY_FREQUENCY)
    for name in ("blm", "blm+", "fm", "flm-optimal", "ilm-optimal", "sem")
}


def test_of_ten_methods_pages_have_as_many_as_are_legible(tables, tmp_path, monkeypatch):
    for name, method in MORE.items():
        monkeypatch.setitem(registry.METHODS, name, method)
    methods = [*METHODS[:3], *MORE, "lp"]
    listed = figures_of_study(BACKBONES, ["one", "two"], methods, {}, shots=8)
    pages = {kind: [one.methods for one in listed.values() if one.kind == kind] for kind in KINDS}
    for kind, most in (("accuracy", 5), ("cost", 5), ("reliability", 5), ("heatmap", 4), ("prompts", 5)):
        shown = [name for part in pages[kind] for name in part]
        assert shown == [name for name in methods if name != "lp" or kind != "prompts"]
        lengths = [len(part) for part in pages[kind]]
        assert max(lengths) <= most
        assert max(lengths) - min(lengths) <= 1
    assert pages["mapping"] == pages["movement"] == pages["glance"] == [[]]
    few = figures_of_study(BACKBONES, ["one", "two"], methods, {}, shots=2)
    assert [one.methods for one in few.values() if one.kind == "heatmap"] == [[]]  # all fit
    runs = [tables["runs"]]
    for name in MORE:
        own = tables["runs"].query("method == 'ilm'")
        runs.append(own.assign(method=name, run=own["run"] + name))
    summary = summarise(pd.concat(runs))
    files = written({"summary": summary}, tmp_path)
    (page,) = [one for name, one in listed.items() if name == "heatmap-page2"]
    drawn, drawing = [], resolve_name(page.drawn_by)
    keep = lambda *arguments: drawn.append(drawing(*arguments)) or drawn[0]  # noqa: E731
    monkeypatch.setattr(draw, "resolve_name", lambda drawn_by: keep)
    draw.draw(page, files, SETTINGS | {"methods": methods}, [tmp_path / "it.svg"])
    titles = [axis.get_title() for axis in drawn[0].axes if axis.get_title()]
    assert titles == [registry.METHODS[name].label for name in page.methods]


def test_methods_that_are_lines_in_the_panels_of_others_take_no_column_of_a_page():
    methods = ["rlm", "flm", "ilm", "lp", "ft", "zs"]
    listed = figures_of_study(BACKBONES, ["one", "two"], methods, {}, shots=8)
    assert listed["accuracy"].methods == []
    assert listed["reliability-page1"].methods == methods[:3]
    assert listed["heatmap-page2"].methods == ["lp", "ft", "zs"]
    clip = figures_of_study(BACKBONES, ["one", "two"], [name for name in methods if name != "ft"], {}, shots=8)
    assert all(one.methods == [] for one in clip.values())


def test_fonts_of_a_pdf_are_not_told_in_the_log():
    assert not logging.getLogger("fontTools.subset").isEnabledFor(logging.INFO)


def test_the_glance_sets_what_was_kept_upstream_against_what_was_lost(tables):
    figure = drawn("glance", tables)
    axis = figure.axes[2]
    assert axis.get_title(loc="left") == "ILM-VP"
    runs = (
        tables["runs"]
        .query("method == 'ilm'")
        .pivot(index=["dataset", "shots", "seed"], columns="backbone", values="accuracy")
    )
    lost = 100 * (runs["dense"] - runs["pruned"]).groupby("dataset").mean().mean()
    (point,) = [bar.lines[0] for bar in axis.containers]
    assert point.get_xdata()[0] == pytest.approx(90)  # 63 of 70 % top-1
    assert point.get_ydata()[0] == pytest.approx(lost)
    assert axis.get_title(loc="right").startswith("random init: ")  # nothing is known of it upstream
    tables["upstream"].loc[1, "top1"] = np.nan
    axis = drawn("glance", tables).axes[2]
    (point,) = [bar.lines[0] for bar in axis.containers]
    assert point.get_xdata()[0] == -9  # 9 photos where the dense one knows 18: no percentage
    assert axis.get_xlabel() == "ImageNet photos of 20, minus dense"
    assert all(tick == round(tick) for tick in axis.get_xticks())


def test_what_was_kept_of_many_photos_is_a_percentage_with_its_interval(tables):
    known = tables["upstream"][["backbone", "top1"]].assign(photos=[800.0, 600, 1], photos_shown=1000)
    known.loc[1, "top1"] = np.nan
    upstream = with_shares(known)
    found = matched.matched(tables["runs"], upstream)
    assert (found["photos"] == 1000).all()
    assert found["dense_top1"].tolist() == pytest.approx([80] * len(found))
    assert found["upstream_lost_most"].tolist() == pytest.approx([20] * len(found))
    axis = drawn("glance", tables | {"upstream": upstream, "matched": found}).axes[2]
    (bar,) = axis.containers
    assert bar.lines[0].get_xdata()[0] == pytest.approx(75)  # not 63 of 70 % top-1, which the pruned one has not
    across = next(each.get_segments()[0] for each in bar.lines[2] if np.ptp(each.get_segments()[0][:, 0]) > 0)
    low, high = upstream.loc[1, ["photos_low", "photos_high"]]
    assert sorted(across[:, 0]) == pytest.approx([low / 0.8, high / 0.8])
    assert axis.get_xlabel() == "upstream accuracy kept (%)"


def another_pruned(tables, name):
    """The runs of the pruned network, as those of another one."""
    runs = tables["runs"].query("backbone == 'pruned'")
    return runs.assign(backbone=name, run=runs["run"] + name)


def test_photos_and_top1_never_share_the_axis_of_the_glance(tables):
    runs = pd.concat([tables["runs"], another_pruned(tables, "weak")])
    unknown = tables["upstream"].iloc[[1]].assign(backbone="weak", top1=np.nan, photos=18.0)
    upstream = pd.concat([tables["upstream"], unknown])
    listed = figures_of_study(BACKBONES | {"weak": PRUNED}, ["one", "two"], METHODS, {})
    given = {"runs": runs, "upstream": upstream, "matched": matched.matched(runs, upstream)}
    figure = drawn_of(given, listed["glance"])
    points = [bar.lines[0] for bar in figure.axes[0].containers]
    known, apart = sorted(points, key=lambda point: -point.get_xdata()[0])
    assert known.get_xdata()[0] == pytest.approx(90)
    assert apart.get_xdata()[0] < 87.5  # the axis begins there: not at 18 of 18 photos
    assert apart.get_markerfacecolor() == "white"
    assert "upstream accuracy unknown" in texts(figure.legends[0])


def test_the_glance_tells_what_it_cannot_show_alike(tables):
    better = tables["runs"]["backbone"] == "random"
    runs = tables["runs"].assign(accuracy=tables["runs"]["accuracy"] + 0.9 * better)
    figure = drawn("glance", tables | {"runs": runs})
    axis = figure.axes[2]
    assert axis.get_title(loc="right").startswith("random init: −")
    # of the pruned network 3 of 144 runs are missing, all of ILM
    assert "3 of 144 pairs of runs are missing" in figure.get_suptitle().replace("\n", " ")
    assert [sum(text == "*" for text in texts(one)) for one in figure.axes[:4]] == [0, 0, 1, 0]


def test_the_levels_of_a_kind_are_joined_by_their_sparsity(tables):
    weak = another_pruned(tables, "weak").assign(sparsity_declared=0.1)
    runs = pd.concat([tables["runs"], weak])
    upstream = pd.concat([tables["upstream"], tables["upstream"].iloc[[1]].assign(backbone="weak", top1=66.5)])
    listed = figures_of_study(BACKBONES | {"weak": PRUNED | {"sparsity_declared": 0.1}}, ["one", "two"], METHODS, {})
    given = {"runs": runs, "upstream": upstream, "matched": matched.matched(runs, upstream)}
    axis = drawn_of(given, listed["glance"]).axes[0]
    joined = [list(line.get_xdata()) for line in axis.lines if line.get_alpha()]
    assert joined == [pytest.approx([95, 90])]
    assert {"10 %", "magnitude 20 %"} <= set(texts(axis))  # of both ends
    named = [note for note in axis.texts if "%" in note.get_text()]
    first, last = (note.get_window_extent() for note in named)
    assert not first.overlaps(last)
    zero = axis.transData.transform((0, 0))[1]
    assert not any(note.get_window_extent().y0 < zero < note.get_window_extent().y1 for note in named)


def test_networks_that_kept_the_same_are_each_seen_and_each_named(tables):
    alike = [f"other{number}" for number in range(3)]
    runs = pd.concat([tables["runs"], *(another_pruned(tables, name) for name in alike)])
    kinds = {
        name: PRUNED | {"compression": kind} for name, kind in zip(alike, ("sparsegpt", "int8", "int4"), strict=True)
    }
    runs["compression"] = runs["backbone"].map(lambda name: (BACKBONES | kinds)[name]["compression"])
    rows = [tables["upstream"].iloc[[1]].assign(backbone=name) for name in alike]
    upstream = pd.concat([tables["upstream"], *rows])
    listed = figures_of_study(BACKBONES | kinds, ["one", "two"], METHODS, {})
    given = {"runs": runs, "upstream": upstream, "matched": matched.matched(runs, upstream)}
    axis = drawn_of(given, listed["glance"]).axes[0]
    places = [bar.lines[0].get_xdata()[0] for bar in axis.containers if bar.lines[0].get_clip_on()]
    assert len(set(places)) == 4
    assert np.mean(places) == pytest.approx(90)
    words = [note for note in axis.texts if note.get_text()]
    assert len(words) == 4
    boxes = [note.get_window_extent() for note in words]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    # by photos, on an axis so wide that they stand apart by more than their intervals reach
    known = upstream[["backbone", "top1"]].reset_index(drop=True)
    known.loc[1:, "top1"] = np.nan
    upstream = with_shares(known.assign(photos=[1000.0, 400, 1, 970, 970, 970], photos_shown=1000))
    given = {"runs": runs, "upstream": upstream, "matched": matched.matched(runs, upstream)}
    bars = [bar for bar in drawn_of(given, listed["glance"]).axes[0].containers if bar.lines[0].get_clip_on()]
    place = {bar.lines[0].get_xdata()[0]: bar.lines[2][0].get_segments()[0][:, 0] for bar in bars}
    (pruned, *others), (low, high) = sorted(place), upstream.loc[3, ["photos_low", "photos_high"]]
    assert (pruned, np.mean(others)) == pytest.approx((40, 97))
    assert np.diff(others).min() > 97 - low
    assert [[*place[other] - other] for other in others] == [pytest.approx([low - 97, high - 97])] * 3


def test_figures_of_one_method_and_seed_say_so(tables):
    runs = tables["runs"].query("dataset == 'one' and method == 'ilm' and seed == 0")
    one = tables | {"runs": runs, "summary": summarise(runs)}
    content = figures_of_study(BACKBONES, ["one"], ["ilm"], {})
    figure = drawn_of(one, content["accuracy"])
    assert figure.get_suptitle() == "made up: net, accuracy, 1 seed"
    assert figure.axes[0].get_title() == "one, ILM-VP"
    assert drawn_of(one, content["glance"]).get_suptitle().endswith("at a glance, means of 1 seed, without interval")


@pytest.mark.parametrize(("spread", "beyond"), [(0.001, False), (0.3, True)])
def test_the_glance_says_where_intervals_leave_its_axes(tables, spread, beyond):
    runs = tables["runs"].query("dataset == 'one' and backbone != 'random'")
    lost = (runs["backbone"] == "pruned") * (0.05 + spread * (runs["seed"] - 1))
    runs = runs.assign(accuracy=0.5 - lost)
    for kind in ("glance", "cost"):
        figure = drawn(kind, tables | {"runs": runs, "summary": summarise(runs)})
        assert ("some intervals go on beyond the axes" in figure.get_suptitle().replace("\n", " ")) == beyond
        heads = {line.get_marker(): line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() in "v^"}
        low, high = figure.axes[0].get_ylim()
        assert heads == ({"v": low, "^": high} if beyond else {})


def test_the_cost_at_matched_upstream_accuracy_stands_on_the_right_edge_and_hides_no_point(tables):
    weak = [another_pruned(tables, name) for name in ("b", "c")]
    runs = pd.concat([tables["runs"], *weak])
    more = [
        tables["upstream"].iloc[[1]].assign(backbone=name, top1=top1) for name, top1 in (("b", 68.0), ("c", 66.0))
    ]
    upstream = pd.concat([tables["upstream"], *more])
    listed = figures_of_study(BACKBONES | {"b": PRUNED, "c": PRUNED}, ["one", "two"], METHODS, {})
    found = matched.matched(runs, upstream)
    given = {"runs": runs, "upstream": upstream, "matched": found}
    figure = drawn_of(given, listed["glance"])
    axis = figure.axes[1]
    marks = [bar.lines[0] for bar in axis.containers if not bar.lines[0].get_clip_on()]
    expected = found.query("method == 'flm' and compression == 'all'")["cost_at_matched"].item()
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(1, pytest.approx(expected))]
    assert marks[0].get_transform().transform((1, 0))[0] == pytest.approx(axis.bbox.x1)
    assert "right edge: cost at matched upstream" in texts(figure.legends[0])


@pytest.mark.parametrize("name", ["accuracy", "cost", "movement", "reliability"])
def test_a_network_has_the_colour_that_the_study_gives_it(tables, name):
    legend = drawn(name, tables, colours={"pruned": "#abcdef"}).legends[0]
    shown = zip(legend.texts, legend.legend_handles, strict=True)
    colours = {text.get_text(): line.get_color() for text, line in shown}
    assert colours["magnitude 20 %"] == "#abcdef"
    assert colours.get("dense", "black") == "black"


def test_chance_is_drawn_where_the_classes_are_known_and_of_a_folder_the_runs_tell_them(tables):
    panels = np.array(drawn("accuracy", tables).axes).reshape(2, 4)[:, 0]
    levels = [
        [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]  # from edge to edge
        for axis in panels
    ]
    assert levels == [[10.0], []]


def test_a_title_keeps_a_number_and_its_unit_on_one_line(tables):
    for width in range(20, 110):
        figure = plt.figure(figsize=(width / 16, 1))
        style.title(figure, FIGURES["accuracy"], "mean and 95 % interval over 3 seeds", SETTINGS)
        assert "95\n%" not in figure.get_suptitle()
        plt.close(figure)


@pytest.mark.parametrize("palette", PALETTES)
def test_numbers_are_legible_on_each_colour_of_a_palette(palette):
    for share in np.linspace(0, 1, 101):
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in plt.colormaps[palette](share)[:3]
        ]
        luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
        white, black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
        ink = style.ink(plt.colormaps[palette](share))
        assert {"white": white, "black": black}[ink] >= 4.5  # WCAG's AA


def test_captions_hold_under_each_palette():
    named = re.compile(r"\b(red|blue|black(?!{dark}))\b", re.IGNORECASE)
    assert not [name for name, kind in KINDS.items() if named.search(kind.caption)]


def test_a_colour_of_the_study_replaces_the_default_and_the_others_stay():
    colours = {name: method.colour for name, method in registry.METHODS.items()}
    assert style.colours({"colours": {"ilm": "#123456"}}) == colours | {"ilm": "#123456"}


def test_networks_of_one_name_are_told_apart_by_their_own():
    twins = {"dense": PLAIN, "a": PRUNED, "b": PRUNED | {"compression": "magnitude"}, "c": PLAIN | {"dense": "dense"}}
    told = gallery.describe_backbones(twins, "dense", {"a": "mine"})
    assert [one.label for one in told.values()] == ["dense", "mine", "b", "net"]
    assert told["c"].role == "control"


DOLLARS = "$\\frac$ costs $5_{^ and \\$"


@pytest.mark.parametrize("name", ["accuracy", "reliability", "mapping", "movement"])
def test_text_is_never_taken_for_mathematics(tables, name):
    tables["mappings"] = tables["mappings"].assign(target_name=DOLLARS, source_name=DOLLARS)
    labels = dict.fromkeys(["dense", "pruned", "one", "two", *METHODS], DOLLARS)
    content = figures_of_study(BACKBONES, ["one"], METHODS, labels)[name]
    some = {key: table[table["dataset"] == "one"] if "dataset" in table else table for key, table in tables.items()}
    with style.paper():
        figure = drawn_of(some, content, labels=labels, title=DOLLARS)
        figure.draw_without_rendering()
    assert any(r"$\frac$" in text for text in texts(figure))


def test_figures_do_not_look_as_a_users_matplotlibrc_says(tmp_path):
    theirs = {"text.usetex": True, "font.size": 30, "savefig.transparent": True, "svg.fonttype": "none"}
    with plt.rc_context(theirs):
        with style.paper():
            assert not any(plt.rcParams[key] == value for key, value in theirs.items())
        assert {key: plt.rcParams[key] for key in theirs} == theirs


@pytest.mark.parametrize("name", ["mapping", "movement", "prompts"])
@pytest.mark.parametrize("number", ["full", "1"])
def test_what_was_learned_of_a_budget_above_what_a_class_has_is_marked(tables, name, number):
    """At the budget that is shown, the largest, alone."""
    tables["runs"]["classes_short"] = 4.0 * (
        (tables["runs"]["dataset"] == "one") & (tables["runs"]["shots"] == number)
    )
    tables["summary"] = summarise(tables["runs"])
    told = " ".join(text.replace("\n", " ") for text in texts(drawn_of(tables, FIGURES[name])))
    assert ("all images†" in told) == ("†: some classes have fewer images" in told) == (number == "full")
    assert told.count("†") == (2 if number == "full" else 0)  # of the dataset, not of the other


@pytest.mark.parametrize("name", ["accuracy", "heatmap", "reliability"])
def test_a_budget_above_what_a_class_has_is_marked(tables, name):
    short = (tables["runs"]["dataset"] == "two") & (tables["runs"]["shots"] == "full")
    tables["runs"]["classes_short"] = 4.0 * short
    tables["summary"] = summarise(tables["runs"])
    figure = drawn_of(tables, FIGURES[name])
    told = " ".join(texts(figure)).replace("\n", " ")
    if name == "reliability":
        assert "some classes of two have fewer images" in told
        return
    assert "†: some classes have fewer images" in told
    if name == "heatmap":
        assert texts(figure.axes[0]).count("†") == 1
        return
    marked = [[t.get_position()[0] for t in axis.texts if t.get_text() == "†"] for axis in figure.axes]
    assert marked == [[]] * 4 + [[2.0]] * 4  # in each panel of the dataset, at its last number of shots
