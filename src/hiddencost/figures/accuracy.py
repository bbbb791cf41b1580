"""Accuracy against shots (figures 1 to 4 of the paper)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style

DODGE = 0.05  # between the backbones of a budget, in steps of the x axis
CHANCE = {"color": "black", "lw": 0.6, "ls": (0, (1, 3))}


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset, a colour a method, a marker a backbone; dense solid, compressed dashed, controls dotted.

    Lines are means over seeds, bars run from the lowest to the highest seed. A cell that was not run is a gap; a
    backbone without any run is left out.
    """
    shown = style.order(style.finished(runs), "backbone")
    datasets = style.order(runs, "dataset")
    figure, axes = style.panels(len(datasets), 4, settings, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        _panel(axis, runs[runs["dataset"] == dataset], shown, settings)
        axis.set_title(dataset)
        if classes := settings["classes"][dataset]:
            axis.axhline(100 / classes, **CHANCE)
        axis.set_xlabel("shots (images per class)")
    axes[0].set_ylabel("test accuracy (%)")
    colours = style.colours(settings)
    handles = [Line2D([], [], color=colours[m], label=style.LABELS[m]) for m in style.order(runs, "method")]
    handles += [
        Line2D([], [], color="black", label=style.backbone_label(runs, name), **style.line_of(runs, name))
        for name in shown
    ]
    if any(settings["classes"].values()):
        handles.append(Line2D([], [], label="chance", **CHANCE))
    if len(datasets) == 1:
        figure.legend(handles=handles, loc="outside right center")
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    figure.suptitle(f"{settings['title']}: mean and range over {style.seeds_note(runs)}", fontsize=8)
    return figure


def _panel(axis: Axes, runs: pd.DataFrame, backbones: list[str], settings: dict) -> None:
    shots = style.order(runs, "shots")
    offsets = min(DODGE, 0.8 / max(1, len(backbones))) * (np.arange(len(backbones)) - (len(backbones) - 1) / 2)
    for method in style.order(runs, "method"):
        for backbone, offset in zip(backbones, offsets, strict=True):
            own = style.finished(runs[(runs["method"] == method) & (runs["backbone"] == backbone)])
            cells = own.groupby("shots")["accuracy"].agg(["mean", "min", "max"]).reindex(shots) * 100
            spread = [cells["mean"] - cells["min"], cells["max"] - cells["mean"]]
            axis.errorbar(
                np.arange(len(shots)) + offset,
                cells["mean"],
                spread,
                color=style.colours(settings)[method],
                elinewidth=0.7,
                **style.line_of(runs, backbone),
            )
    axis.set_xticks(range(len(shots)), shots)
    axis.set_xlim(-0.25, len(shots) - 0.75)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", lw=0.3)
