"""Label mappings: which class of the source stands for each target class."""

import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.runs.packfile import AXES

SHOWN = {1: 10}  # target classes a dataset, by the number of datasets; else:
FEWER = 4
ROW = 0.33  # inches a class
SAME = "0.55"  # where both networks chose the same


def draw(tables: dict, content: StudyFigure, settings: dict) -> Figure:
    """A list a dataset: an example, the target class, and the source classes that each network chose.

    Of one method: see `gallery.method_of_mappings`.

    Args:
        tables: `mappings`, `examples` and `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    mappings, backbones = tables["mappings"], content.backbones
    method = gallery.method_of_mappings(settings["methods"], set(mappings["method"]))
    mappings = mappings[mappings["method"] == method]
    kept = gallery.runs_shown(mappings[AXES].drop_duplicates(), backbones)
    short = style.short_cells(tables["summary"], pd.DataFrame(kept, columns=AXES))
    pair = gallery.dense_and_most_compressed(backbones, mappings["backbone"])
    columns = min(2, len(content.datasets))
    classes = SHOWN.get(len(content.datasets), FEWER)
    width = settings["width"] if columns == 2 else min(settings["width"], 5.0)
    figure, axes = style.panels(len(content.datasets), columns, width, ROW * (classes + 1.3))
    for axis, dataset in zip(axes, content.datasets, strict=True):
        axis.set(xlim=(0, 1), ylim=(classes + 0.1, -0.7))
        axis.set_axis_off()
        chosen = [(name, shots, seed) for name, of_run, _, shots, seed in kept if of_run == dataset]
        shown = mappings[mappings["dataset"] == dataset]
        if not chosen:
            axis.set_title(f"{style.named(dataset, settings)}: not run", loc="left")
            continue
        names, (_, shots, seed) = [name for name, *_ in chosen], chosen[0]
        shown = shown[(shown["shots"] == shots) & shown["backbone"].isin(names)]
        note = _agreement(shown, names, backbones)
        budget = style.shots_label(shots, short[short["dataset"] == dataset])
        axis.set_title(f"{style.named(dataset, settings)}, {budget}{note}", loc="left", fontsize=7)
        shown = shown[shown["seed"] == seed]
        _list(axis, width / columns, shown, names, tables["examples"].get(dataset), classes, backbones)
    what = f"source classes that {style.named(method, settings)} chose for target classes"
    count = len(pair) * len(axes)
    note = style.missing_note(count - len(kept), count, "mappings") + style.short_note(short)
    style.title(figure, f"{what}, the first of each dataset, one seed{note}", settings)
    return figure


def _list(
    axis: Axes,
    inches: float,
    mappings: pd.DataFrame,
    names: list[str],
    examples: np.ndarray | None,
    classes: int,
    backbones: dict,
) -> None:
    places = np.linspace(0.14, 1, len(names) + 2)[:-1]
    letters = round(inches * (places[1] - places[0]) / 0.055)
    for place, name in zip(places, ["target", *(backbones[name].label for name in names)], strict=True):
        axis.text(place, -0.35, name, fontweight="bold", fontsize=6.5, va="center")
    axis.plot([0.0, 1], [0, 0], color="black", lw=0.5, clip_on=False)
    wide = mappings.pivot(index="target", columns="backbone", values="source_name")
    targets = mappings.drop_duplicates("target").set_index("target")["target_name"]
    for row in range(min(classes, len(targets))):
        if examples is not None and row < len(examples):
            image = axis.inset_axes((0.0, row + 0.08, 0.12, 0.84), transform=axis.transData)
            image.imshow(examples[row].transpose(1, 2, 0), aspect="equal", interpolation="antialiased")
            image.set_axis_off()
        classes_of_row = [targets.loc[row], *(wide.loc[row, name] for name in names)]
        alike = len(names) > 1 and len(set(classes_of_row[1:])) == 1
        for column, (place, text) in enumerate(zip(places, classes_of_row, strict=True)):
            lines = textwrap.wrap(re.sub("_|(?<=[a-z])(?=[A-Z])", " ", str(text)), letters)
            text = "\n".join(lines[:2]) + ("…" if len(lines) > 2 else "")
            colour = SAME if alike and column else "black"
            axis.text(place, row + 0.5, text, fontsize=6.2, va="center_baseline", linespacing=1.0, color=colour)


def _agreement(mappings: pd.DataFrame, names: list[str], backbones: dict) -> str:
    """Say which share of the target classes two networks map alike, and two seeds of the first."""
    wide = mappings.pivot(index="target", columns=["backbone", "seed"], values="source").dropna(axis=1)
    seeds = {name: sorted(wide[name].columns) if name in wide else [] for name in names}
    both = [
        (wide[names[0]][seed] == wide[names[-1]][seed]).mean() for seed in seeds[names[0]] if seed in seeds[names[-1]]
    ]
    first = seeds[names[0]]
    within = [(wide[names[0]][a] == wide[names[0]][b]).mean() for a in first for b in first if a < b]
    note = f": {np.mean(both):.0%} alike" if len(names) == 2 and both else ""
    if note and within:
        note += f"; two seeds of {backbones[names[0]].label}: {np.mean(within):.0%}"
    return note.replace("%", " %")
