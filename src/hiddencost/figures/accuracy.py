"""Accuracy, or another metric, and what compression costs of it, against shots (figures 1 to 4 of the paper)."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import bars, style
from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery
from hiddencost.results.cells import trains
from hiddencost.results.gallery import StudyFigure

SPREAD = 0.5  # how much of the room of a number of shots its points take
ROTATED = 6  # shots from which on they are written upwards


class Panels(NamedTuple):
    """What is drawn of a figure.

    Attributes:
        figure: the figure.
        axes: its panels, by dataset and method.
        handles: of its legend.
        cells: what it shows: `value`, and how far its bar reaches `below` and `above` it, in % or points, of `ran`
            seeds.
        names: of the networks that are drawn.
    """

    figure: Figure
    axes: dict[tuple[str, str], Axes]
    handles: list[Line2D]
    cells: pd.DataFrame
    names: list[str]


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw test accuracy, or the study's `figures.metric`; see `_draw`. A backbone without any result is left out.

    Args:
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    metric = settings["metric"]
    chance = 100 / tables["summary"].groupby("dataset")["classes"].max()
    if metric["name"] != "accuracy":  # of others nobody knows it
        chance *= np.nan
    panels = _draw(metric["name"], "seeds", list(content.backbones), tables, content, settings, sharey="row")
    for (dataset, _), axis in panels.axes.items():
        if chance.get(dataset, 0) > 0:  # NaN where nothing tells the number of classes
            axis.axhline(chance[dataset], **style.CHANCE)
        axis.set_ylim(bottom=0)
    if chance.notna().any():
        panels.handles.append(Line2D([], [], label="chance", **style.CHANCE))
    panels.figure.supylabel(f"test {metric['label']} ({metric['unit']})", size=8)
    _finish(panels, content, settings, metric["label"] + ", {over}")
    return panels.figure


def draw_cost(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw accuracy, or the study's `figures.metric`, of the dense network minus that of a compressed one, paired by
    seed, or the other way round where less is better; see `_draw`.

    Args:
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    compared = [name for name, shown in content.backbones.items() if shown.role != gallery.DENSE]
    compared = [name for name in compared if content.backbones[name].trained] or compared
    metric = settings["metric"]
    difference = f"{metric['name']}_dense_minus_backbone"
    ends = ["low", "high"][:: metric["sign"]]  # the other way round the ends change places
    turned = {
        f"{difference}_{end}": tables["summary"][f"{difference}_{of}"] * metric["sign"]
        for end, of in zip(["mean", "low", "high"], ["mean", *ends], strict=True)
    }
    costs = tables | {"summary": tables["summary"].assign(**turned)}
    panels = _draw(difference, "paired_seeds", compared, costs, content, settings, sharey=True)
    for axis in panels.axes.values():
        axis.axhline(0, color="black", lw=0.6)
    next(iter(panels.axes.values())).set_ylim(*bars.limits(panels.cells[panels.cells["backbone"].isin(panels.names)]))
    which = "dense minus compressed" if metric["sign"] > 0 else "compressed minus dense"
    panels.figure.supylabel(f"{which}, {metric['label']} (points)", size=8)
    what = f"hidden cost in {metric['label']}, paired by seed, {{over}}; above 0 compression costs"
    what += bars.BEYOND if bars.mark_cut(panels.axes.values()) else ""
    _finish(panels, content, settings, what)
    return panels.figure


def _draw(
    value: str, seeds: str, shown: list[str], tables: dict, content: StudyFigure, settings: dict, **keywords: Any
) -> Panels:
    """Draw a panel a dataset and method, a line a network over the shots; where there is one number of shots, a panel
    a dataset, and points over the methods. A method that trains nothing is a horizontal, as shots do not change it.

    Args:
        value: the columns of the summary, without `_mean` and `_std`, `_low` and `_high`.
        seeds: the column with the number of seeds that it is of.
        shown: names of the networks to draw, of which those with a result are.
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
        keywords: of `plt.subplots`.
    """
    summary = style.chosen(tables["summary"], settings)
    summary = summary[summary["backbone"].isin(shown)]
    cells = summary.assign(value=100 * summary[f"{value}_mean"], ran=summary[seeds])
    cells[["below", "above"]] = 100 * bars.reach(summary, f"{value}_mean", seeds)
    names = style.networks(content.backbones, set(cells.loc[cells["ran"] > 0, "backbone"]))
    methods, shots = style.order(cells, "method"), style.shots_of(cells)
    lines = style.looks(content.backbones, names, settings)
    handles = style.network_handles(content.backbones, lines)
    trained = [method for method in methods if METHODS[method].trains]
    constant = [method for method in methods if method not in trained] if trained and len(shots) > 1 else []
    across, columns = ("shots", trained) if constant or len(shots) > 1 else ("method", [""])
    figure, panels = style.grid(content.datasets, columns or methods, settings, **keywords)
    ticks = shots if across == "shots" else methods
    beside = dict(zip(lines, np.linspace(-SPREAD / 2, SPREAD / 2, len(lines) + 2)[1:-1], strict=True))
    by = [*(["dataset"] if across == "method" else ["dataset", "method"]), "backbone"]
    parts = {key: part.set_index(across) for key, part in cells.groupby(by, sort=False)}
    for (dataset, method), axis in panels.items():
        for name, line in lines.items():
            part = parts.get((dataset, method, name) if method else (dataset, name))
            if part is not None:
                part = part[["value", "below", "above"]].reindex(ticks).to_numpy().T
                ls = line["ls"] if across == "shots" else ""
                places = np.arange(len(ticks)) + beside[name]
                axis.errorbar(places, part[0], part[1:], elinewidth=0.6, **line | {"ls": ls})
            for flat in constant:
                level = parts.get((dataset, flat, name))
                if level is not None:
                    axis.axhline(level["value"].iloc[0], **style.REFERENCE, color=line["color"])
        of_panel = cells[cells["dataset"] == dataset]
        if across == "shots":
            style.mark_short(axis, of_panel, shots)
        axis.set_xlim(-0.5, len(ticks) - 0.5)
        _label(axis, ticks if across == "shots" else [style.named(name, settings) for name in ticks], across)
    handles += [
        Line2D([], [], label=style.named(flat, settings), color="black", **style.REFERENCE) for flat in constant
    ]
    _mark_saturated(panels, tables["summary"], shots)
    return Panels(figure, panels, handles, cells, names)


def _label(axis: Axes, ticks: list[str], across: str) -> None:
    upwards = across == "method" or len(ticks) > ROTATED
    axis.set_xticks(np.arange(len(ticks)), ticks, rotation=90 if upwards else 0, size=7)
    if axis.xaxis.get_tick_params()["labelbottom"] and across == "shots":
        axis.set_xlabel("shots (images per class)", size=7)


def _mark_saturated(panels: dict[tuple[str, str], Axes], summary: pd.DataFrame, shots: list[str]) -> None:
    """Say in the panels of a dataset from which number of shots on it gives all of its images."""
    for dataset, (first, text) in style.saturated(summary).items():
        for axis in (axis for (name, method), axis in panels.items() if name == dataset and method):
            if first in shots[:-1]:
                look: dict[str, Any] = {"size": 7, "color": "0.35", "va": "top", "path_effects": style.OUTLINE}
                axis.text(shots.index(first) + 0.6, 0.98, text, **look, transform=axis.get_xaxis_transform())


def _finish(panels: Panels, content: StudyFigure, settings: dict, what: str) -> None:
    """Put legend and title around what is drawn; what: it is, with the number of seeds as `{over}`."""
    cells = panels.cells
    panels.figure.legend(handles=panels.handles, loc="outside lower center", ncols=6)
    note = style.missing_note(int((cells["ran"] == 0).sum()), len(cells))
    more = len(set(cells.loc[cells["ran"] > 0, "backbone"]) - set(panels.names))
    note += f"; {more} more levels of compression are not drawn" if more else ""
    told = what.format(over=style.over(cells.loc[trains(cells), "ran"]))
    style.title(panels.figure, content, told + note + style.short_note(cells), settings)
