"""What the hidden cost is made of: the network's, the prompt's and the mapping's parts, and what swaps change."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import bars, style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.pooled import networks, pooled
from hiddencost.runs.sides import COST

# Okabe and Ito's, each with a marker of its own
LOOKS: dict[str, dict[str, Any]] = {
    COST: {"color": "black", "marker": "D"},
    "network": {"color": "#0072B2", "marker": "o"},
    "prompt": {"color": "#E69F00", "marker": "s"},
    "mapping": {"color": "#D55E00", "marker": "^"},
    "both": {"color": "#CC79A7", "marker": "P"},
}
NAMES = {"both": "prompt and mapping"}
PARTS = {COST: COST} | {f"part_{part}": part for part in ("network", "prompt", "mapping")}
SWAPPED = {f"gain_{part}": part for part in ("mapping", "prompt", "both")}
SWAPPED |= {f"loss_{part}": part for part in ("mapping", "prompt", "both")}
REACH = 2.5  # of the axis, times the largest mean
ROW = 0.5  # inches of a network


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Two panels a method, a row a network: the parts of its cost, and what swaps of prompt and mapping change.

    Points are means over datasets and shots, with their 95 % interval over datasets and seeds (see `pooled.pooled`).

    Args:
        tables: `swaps` and `runs`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    swaps, backbones = tables["swaps"], content.backbones
    swaps = style.of_shots(swaps, settings).drop_duplicates(["run", "run_dense"])
    swaps = swaps.drop(columns=["run", "run_dense", "dense"]).join(networks(tables["runs"]), on="backbone")
    methods = style.order(swaps, "method") or settings["methods"][:1]
    compressed = gallery.names_in_role(backbones, gallery.COMPRESSED)  # a control's cost would set the scale
    names = [name for name in compressed if name in set(swaps["backbone"])]
    abreast = min(style.ABREAST, len(methods))
    blocks = -(-len(methods) // abreast)
    height = min(2 * blocks * (0.35 + ROW * max(1.5, len(names))) + 1.5, style.PAGE)
    size = settings["width"] if abreast > 1 else min(settings["width"], 4.5), height
    figure, axes = plt.subplots(2 * blocks, abreast, figsize=size, sharex=True, sharey=True, squeeze=False)
    for spare in axes.flat:
        spare.set_axis_off()
    largest = 0.0
    for number, method in enumerate(methods):
        block, column = divmod(number, abreast)
        found = swaps[swaps["method"] == method]
        for row, shown in ((2 * block, PARTS), (2 * block + 1, SWAPPED)):
            axis = axes[row, column]
            axis.set_axis_on()
            largest = max(largest, _panel(axis, found, names, shown))
            axis.tick_params(labelleft=column == 0, labelbottom=row == 2 * block + 1)
        if column == 0:
            axes[2 * block, 0].set_ylabel("parts of\nthe cost")
            axes[2 * block + 1, 0].set_ylabel("what swaps\nchange")
        axes[2 * block, column].set_title(style.named(method, settings))
        axes[2 * block + 1, column].set_xlabel("accuracy (points)")
    low, high = axes[0, 0].get_xlim()  # of few seeds an interval may be many times as long as what it is of
    axes[0, 0].set_xlim(max(low, -REACH * largest), min(high, REACH * largest))
    labels = [backbones[name].label for name in names]
    axes[0, 0].set_yticks(range(len(names)), labels)
    axes[0, 0].set_ylim(max(1, len(names)) - 0.5, -0.5)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=4 if abreast > 1 else 2)
    what = f"what the cost is made of, mean over {_counted(swaps)}; below: under the other network's prompt, mapping"
    what += bars.BEYOND if bars.mark_cut(axes.flat) else ""
    style.title(figure, content, what, settings)
    return figure


def _panel(axis: Axes, found: pd.DataFrame, names: list[str], shown: dict[str, str]) -> float:
    """Draw the quantities `shown` of each network, by its part; return the largest mean."""
    axis.axvline(0, color="black", lw=0.6)
    largest = 1.0
    for row, name in enumerate(names):
        of_network = found[found["backbone"] == name]
        if row:
            axis.axhline(row - 0.5, color="0.85", lw=0.5)
        offsets = np.linspace(-0.33, 0.33, len(shown))
        for offset, (quantity, part) in zip(offsets, shown.items(), strict=True):
            pairs = of_network.assign(difference=of_network[quantity]).dropna(subset="difference")
            if pairs.empty:
                continue
            mean, bounds, _ = pooled(pairs, fixed=False)
            largest = max(largest, abs(mean))
            look = LOOKS[part] | ({"mfc": "white"} if quantity.startswith("loss") else {})
            ends = [[mean - bounds[0]], [bounds[1] - mean]] if bounds else None
            axis.errorbar(mean, row + offset, xerr=ends, ls="", ms=3.5, mew=0.8, elinewidth=0.8, **look)
    return largest


def _handles() -> list[Line2D]:
    looks = {NAMES.get(part, part): look for part, look in LOOKS.items()}
    handles = [Line2D([], [], ls="", ms=4, label=label, **look) for label, look in looks.items()]
    grey: dict[str, Any] = {"color": "0.4", "ls": "", "ms": 4, "marker": "o"}
    filled = Line2D([], [], label="filled: gained by compressed", **grey)
    hollow = Line2D([], [], label="open: lost by dense", mfc="white", **grey)
    return [*handles, filled, hollow]


def _counted(swaps: pd.DataFrame) -> str:
    counts = [(swaps[axis].nunique(), axis) for axis in ("dataset", "seed")]
    return " and ".join(f"{count} {axis}{'s' if count != 1 else ''}" for count, axis in counts)
