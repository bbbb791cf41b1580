"""Reliability diagrams: accuracy against confidence."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.tables import pool

FEW = 0.01  # a bin with a smaller share of the test images is a point without a line


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """One panel a dataset and network, a line a method: the accuracy of each bin of confidence.

    At the study's last number of shots. The bins of all seeds are pooled; a point's area grows with the share of
    test images in its bin. Points under the diagonal are overconfident. ECE is the mean over seeds. Of many datasets
    the dense network alone and the most compressed one, and a quantised one beside it.

    Args:
        tables: `runs` and `bins`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    runs, bins, backbones, datasets = tables["runs"], tables["bins"], content.backbones, content.datasets
    shots = style.order(runs, "shots")[-1]
    runs, bins = runs[runs["shots"] == shots], bins[bins["shots"] == shots]
    methods, colours = style.order(runs, "method"), style.colours(settings)
    finished = style.finished(runs)
    names = style.networks(backbones, set(finished["backbone"]))
    if len(datasets) > 1:
        quantised = [name for name in names if backbones[name].quantised]
        names = list(dict.fromkeys([*gallery.dense_and_most_compressed(backbones, names), *quantised[-1:]]))
    room = 4 if len(datasets) == 1 else 5 if len(names) < 3 else 6
    columns = len(names) * max(1, room // max(1, len(names))) if len(names) < 5 else 4
    narrow = columns > 5
    cells = [(dataset, backbone) for dataset in datasets for backbone in names]
    width = settings["width"] * min(1, max(2, len(cells)) / max(1, columns))
    side = settings["width"] / max(columns, 3)
    height = side + (0.35 if narrow else 0.1)
    figure, axes = style.panels(max(1, len(cells)), max(1, columns), width, height, sharex=True, sharey=True)
    if not cells:
        axes[0].set_axis_off()
    for number, (axis, (dataset, backbone)) in enumerate(zip(axes, cells, strict=False)):
        chosen = {"dataset": dataset, "backbone": backbone}
        _panel(axis, _where(bins, chosen), _where(finished, chosen), methods, colours, narrow)
        prefix = "" if len(datasets) == 1 else style.named(dataset, settings) + ("\n" if narrow else ": ")
        axis.set_title(prefix + backbones[backbone].label, pad=10 if narrow else 12, size=7)
        if number >= len(cells) - columns:
            axis.set_xlabel("confidence", labelpad=1)
            axis.tick_params(labelbottom=True)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        if number % columns == 0:
            axis.set_ylabel("accuracy")
    handles = [
        Line2D([], [], color=colours[method], marker="o", markersize=3.5, label=style.named(method, settings))
        for method in methods
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    seeds = finished["seed"].nunique()
    note = f"{seeds} seed{'s' if seeds != 1 else ''}"
    note += style.missing_note(len(runs) - len(finished), len(runs), "runs")
    short = [style.named(name, settings) for name in style.order(runs[runs["classes_short"] > 0], "dataset")]
    note += f"; some classes of {', '.join(short)} have fewer images, and give all" if short else ""
    which = f"{style.named(datasets[0], settings)}, " if len(datasets) == 1 else ""
    style.title(figure, f"{which}reliability with {style.shots_label(shots)}, 15 bins, pooled over {note}", settings)
    return figure


def _panel(
    axis: Axes,
    bins: pd.DataFrame,
    finished: pd.DataFrame,
    methods: list[str],
    colours: dict[str, str],
    narrow: bool,
) -> None:
    """Draw a dataset and network: its bins, and over the panel the ECE of each method, of its finished runs."""
    axis.plot([0, 1], [0, 1], color="0.6", lw=0.6)
    over: dict[str, Any] = {"y": 1.05, "transform": axis.transAxes, "size": 5.3 if narrow else 6}
    axis.text(0, s="ECE", **over)
    for column, method in enumerate(methods):
        pooled = pool(_where(bins, {"method": method}), ["method"])
        share = pooled["share"]
        line = pooled.loc[share >= FEW, ["confidence", "accuracy"]].T.to_numpy()
        axis.plot(*line, color=colours[method], lw=0.9)
        points = pooled["confidence"], pooled["accuracy"]
        axis.scatter(*points, s=1.5 + 45 * share, color=colours[method], lw=0, clip_on=False, zorder=3)
        ece = _where(finished, {"method": method})["ece"].mean()
        note = "–" if np.isnan(ece) else f"{ece:.2f}"
        place = 0.23 + 0.8 * column / max(4, len(methods))
        axis.text(place, s=note.removeprefix("0") if narrow else note, color=colours[method], **over)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def _where(table: pd.DataFrame, values: dict[str, str]) -> pd.DataFrame:
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]
