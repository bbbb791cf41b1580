"""Accuracy, and what compression costs of it, against shots (figures 1 to 4 of the paper)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style
from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.intervals import band_reach

SPREAD = 0.5  # how much of the room of a number of shots its points take
ROTATED = 6  # shots from which on they are written upwards


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw test accuracy; see `_draw`. A backbone without any result is left out.

    Args:
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    summary = style.chosen(tables["summary"], settings)
    cells = _cells(summary, "accuracy_mean", "accuracy_std", "seeds")
    names = style.networks(content.backbones, set(summary.loc[summary["seeds"] > 0, "backbone"]))
    figure, panels, handles = _draw(cells, names, content, settings, sharey="row")
    _mark_saturated(panels, tables["summary"], style.shots_of(summary))
    classes = settings["classes"]
    for (dataset, _), axis in panels.items():
        if classes[dataset]:
            axis.axhline(100 / classes[dataset], **style.CHANCE)
        axis.set_ylim(bottom=0)
    if any(classes[dataset] for dataset in content.datasets):
        handles.append(Line2D([], [], label="chance", **style.CHANCE))
    figure.supylabel("test accuracy (%)", size=8)
    _finish(figure, handles, summary, names, content, settings, f"accuracy, {_over(summary, 'seeds')}")
    return figure


def draw_cost(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw accuracy of the dense network minus that of a compressed one, paired by seed; see `_draw`.

    Args:
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    summary = style.chosen(tables["summary"], settings)
    difference = "accuracy_dense_minus_backbone"
    cells = _cells(summary, f"{difference}_mean", f"{difference}_std", "paired_seeds")
    compared = [name for name, shown in content.backbones.items() if shown.role != gallery.DENSE]
    compared = [name for name in compared if content.backbones[name].trained] or compared
    ran = set(summary.loc[summary["paired_seeds"] > 0, "backbone"]) & set(compared)
    names = [name for name in style.networks(content.backbones, ran) if name in ran]
    figure, panels, handles = _draw(cells, names, content, settings, sharey=True)
    _mark_saturated(panels, tables["summary"], style.shots_of(summary))
    shown = cells[cells["backbone"].isin(names)]
    low, high = _reach(shown)
    for axis in panels.values():
        axis.axhline(0, color="black", lw=0.6)
    next(iter(panels.values())).set_ylim(low, high)
    figure.supylabel("dense minus compressed, accuracy (points)", size=8)
    what = f"hidden cost in accuracy, paired by seed, {_over(summary, 'paired_seeds')}; above 0 compression costs"
    _finish(figure, handles, summary[summary["backbone"].isin(compared)], names, content, settings, what)
    return figure


def _cells(summary: pd.DataFrame, mean: str, std: str, seeds: str) -> pd.DataFrame:
    """Return a row a cell: `value` and `reach`, the half width of its bar, in % or points."""
    width = summary[std] * band_reach(summary[seeds])
    return summary.assign(value=100 * summary[mean], reach=100 * width)


def _reach(cells: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of an axis: all points, and of their bars as much as leaves the points room."""
    most = np.nanmax([cells["value"].abs().max(), 1.0])
    ends = cells["value"] - cells["reach"].fillna(0), cells["value"] + cells["reach"].fillna(0)
    low, high = np.nanmin([ends[0].min(), -0.1 * most]), np.nanmax([ends[1].max(), 0.1 * most])
    return 1.05 * max(low, -2 * most), 1.05 * min(high, 2 * most)


def _draw(
    cells: pd.DataFrame, names: list[str], content: StudyFigure, settings: dict, **keywords: Any
) -> tuple[Figure, dict[tuple[str, str], Axes], list[Line2D]]:
    """Draw a panel a dataset and method, a line a network over the shots; where there is one number of shots, a panel
    a dataset, and points over the methods. A method that trains nothing is a horizontal, as shots do not change it.

    Returns:
        The figure, its panels by dataset and method, and the handles of its legend.
    """
    methods, shots = style.order(cells, "method"), style.shots_of(cells)
    lines = style.looks(content.backbones, names)
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
                part = part[["value", "reach"]].reindex(ticks)
                ls = line["ls"] if across == "shots" else ""
                places = np.arange(len(ticks)) + beside[name]
                axis.errorbar(places, *part.to_numpy().T, elinewidth=0.6, **line | {"ls": ls})
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
    return figure, panels, handles


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
                place = shots.index(first) + 0.6
                axis.text(place, 0.5, text, size=7, color="0.35", transform=axis.get_xaxis_transform(), va="center")


def _over(summary: pd.DataFrame, seeds: str) -> str:
    return style.over(int(np.nan_to_num(summary[seeds].max())))


def _finish(
    figure: Figure,
    handles: list[Line2D],
    summary: pd.DataFrame,
    names: list[str],
    content: StudyFigure,
    settings: dict,
    what: str,
) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    note = style.missing_note(int((summary["seeds"] == 0).sum()), len(summary))
    more = len(set(summary.loc[summary["seeds"] > 0, "backbone"]) - set(names))
    note += f"; {more} more levels of compression are not drawn" if more else ""
    style.title(figure, content, what + note + style.short_note(summary), settings)
