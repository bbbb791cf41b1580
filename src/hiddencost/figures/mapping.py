"""Label mappings: which class of the source stands for each target class."""

import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.runs.packfile import AXES

SHOWN = {1: 10}  # target classes a dataset, by the number of datasets; else:
FEWER = 4
ROW = 0.33  # inches a class
TYPE = 7  # points
APART = 6  # points between columns, at least
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
    pair = gallery.dense_and_most_compressed(backbones, backbones)  # with results of all
    columns = min(2, len(content.datasets))
    classes = min(SHOWN.get(len(content.datasets), FEWER), mappings["target"].nunique() or FEWER)
    width = settings["width"] if columns == 2 else min(settings["width"], 5.0)
    figure, axes = style.panels(len(content.datasets), columns, width, ROW * (classes + 1.7))
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
        axis.set_title(f"{style.named(dataset, settings)}, {budget}{note}", loc="left", fontsize=7.5)
        examples = tables["examples"].get(dataset)
        telling = _telling(shown, names, examples)[:classes]
        shown = shown[shown["seed"] == seed]
        _list(axis, width / columns, shown, names, examples, telling, backbones)
    what = f"source classes that {style.named(method, settings)} chose for target classes"
    count, there = len(pair) * len(axes), sum(name in pair for name, *_ in kept)
    note = style.missing_note(count - there, count, "mappings") + style.short_note(short)
    style.title(figure, content, f"{what}, those that differ most; one seed{note}", settings)
    return figure


def _list(
    axis: Axes,
    inches: float,
    mappings: pd.DataFrame,
    names: list[str],
    examples: np.ndarray | None,
    telling: list[int],
    backbones: dict,
) -> None:
    places = np.linspace(0.13, 1, len(names) + 2)[:-1]
    room = 72 * inches * (places[1] - places[0]) - APART  # points
    for place, name in zip(places, ["target", *(backbones[name].label for name in names)], strict=True):
        head = "\n".join(fitted(name, room, bold=True))
        axis.text(place, -0.35, head, fontweight="bold", fontsize=TYPE, va="center_baseline", linespacing=1.0)
    axis.plot([0.0, 1], [0, 0], color="black", lw=0.5, clip_on=False)
    wide = mappings.pivot(index="target", columns="backbone", values="source_name")
    targets = mappings.drop_duplicates("target").set_index("target")["target_name"]
    for row, target in enumerate(telling):
        if examples is not None and target < len(examples):
            image = axis.inset_axes((0.0, row + 0.08, 0.11, 0.84), transform=axis.transData)
            image.imshow(examples[target].transpose(1, 2, 0), aspect="equal", interpolation="antialiased")
            image.set_axis_off()
        classes_of_row = [targets.loc[target], *(wide.loc[target, name] for name in names)]
        alike = len(names) == 2 and classes_of_row[1] == classes_of_row[2]
        for column, (place, text) in enumerate(zip(places, classes_of_row, strict=True)):
            text = "\n".join(fitted(re.sub("_|(?<=[a-z]{2})(?=[A-Z])", " ", str(text)), room))
            colour = SAME if alike and column else "black"
            axis.text(place, row + 0.5, text, fontsize=TYPE, va="center_baseline", linespacing=1.0, color=colour)


def fitted(text: str, room: float, bold: bool = False) -> list[str]:
    """Return a name in at most two lines, none of them wider than so many points, by the widths of its letters."""
    font = FontProperties(size=TYPE, weight="bold" if bold else "normal")

    def width(line: str) -> float:
        return TextPath((0, 0), line, prop=font).get_extents().width if line.strip() else 0.0

    letters = len(text)
    while letters > 1 and any(width(line) > room for line in textwrap.wrap(text, letters)):
        letters -= 1
    lines = textwrap.wrap(text, letters)
    if len(lines) < 3:
        return lines
    while lines[1] and width(f"{lines[1]}…") > room:
        lines[1] = lines[1][:-1]
    return [lines[0], f"{lines[1]}…"]


def _telling(mappings: pd.DataFrame, names: list[str], examples: np.ndarray | None) -> list[int]:
    """Return the target classes, the most telling first: those that two networks map otherwise in the most seeds, and
    of these those that the first maps alike in the most pairs of its seeds.

    Args:
        mappings: of a dataset, a row a run and target class.
        names: of the networks.
        examples: images of the first classes; where there are some, only these are returned.
    """
    wide = mappings.pivot(index="target", columns=["backbone", "seed"], values="source").dropna(axis=1)
    if examples is not None and len(examples):
        wide = wide[wide.index < len(examples)]
    first, last = (wide[name] if name in wide else wide.iloc[:, :0] for name in (names[0], names[-1]))
    seeds = [seed for seed in first if seed in last]
    pairs = [(a, b) for a in first for b in first if a < b]
    differ = sum(((first[seed] != last[seed]).astype(int) for seed in seeds), pd.Series(0, wide.index))
    stable = sum(((first[a] == first[b]).astype(int) for a, b in pairs), pd.Series(0, wide.index))
    return sorted(wide.index, key=lambda target: (-differ[target], -stable[target], target))


def _agreement(mappings: pd.DataFrame, names: list[str], backbones: dict) -> str:
    """Say which share of the target classes two networks map alike, and two seeds of the first."""
    wide = mappings.pivot(index="target", columns=["backbone", "seed"], values="source").dropna(axis=1)
    seeds = {name: sorted(wide[name].columns) if name in wide else [] for name in names}
    both = [
        (wide[names[0]][seed] == wide[names[-1]][seed]).mean() for seed in seeds[names[0]] if seed in seeds[names[-1]]
    ]
    first = seeds[names[0]]
    within = [(wide[names[0]][a] == wide[names[0]][b]).mean() for a in first for b in first if a < b]
    note = f"\n{np.mean(both):.0%} mapped alike" if len(names) == 2 and both else ""
    if note and within:
        note += f"; two seeds of {backbones[names[0]].label}: {np.mean(within):.0%}"
    return note.replace("%", " %")
