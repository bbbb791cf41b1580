"""Reliability diagrams: accuracy against confidence."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style

COLUMNS = 4
FEW = 0.01  # a bin with a smaller share of the test images is a point without a line


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset and backbone, a line a method: the accuracy of each bin of confidence.

    At the study's last number of shots. The bins of all seeds are pooled; a point's area grows with the share of
    test images in its bin. Points under the diagonal are overconfident. ECE is the mean over seeds.
    """
    shots = style.order(runs, "shots")[-1]
    runs, bins = runs[runs["shots"] == shots], bins[(bins["shots"] == shots) & (bins["count"] > 0)]
    methods, colours = style.order(runs, "method"), style.colours(settings)
    datasets, backbones = style.order(runs, "dataset"), style.order(runs, "backbone")
    cells = [(dataset, backbone) for dataset in datasets for backbone in backbones]
    square = settings | {"panel_height": settings["width"] / COLUMNS + 0.4}
    figure, axes = style.panels(max(COLUMNS, len(cells)), COLUMNS, square, sharex=True, sharey=True)
    for spare in axes[len(cells) :]:
        spare.set_axis_off()
    for axis, (dataset, backbone) in zip(axes[: len(cells)], cells, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", lw=0.6)
        axis.text(0, 1.04, "ECE", transform=axis.transAxes, size=6.5)
        for column, method in enumerate(methods, 1):
            chosen = {"dataset": dataset, "backbone": backbone, "method": method}
            pooled = pool(_where(bins, chosen))
            share = pooled["count"] / pooled["count"].sum()
            axis.plot(
                *pooled.loc[share >= FEW, ["confidence", "accuracy"]].T.to_numpy(), color=colours[method], lw=0.9
            )
            points = {"s": 2 + 60 * share, "color": colours[method], "lw": 0, "clip_on": False, "zorder": 3}
            axis.scatter(pooled["confidence"], pooled["accuracy"], **points)
            ece = style.finished(_where(runs, chosen))["ece"].mean()
            note = "–" if np.isnan(ece) else f"{ece:.2f}"
            axis.text(0.2 * column, 1.04, note, color=colours[method], transform=axis.transAxes, size=6.5)
        label = style.backbone_label(runs, backbone)
        axis.set_title(label if len(datasets) == 1 else f"{dataset}: {label}", pad=14)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence")
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0].set_ylabel("accuracy")
    handles = [Line2D([], [], color=colours[m], marker="o", markersize=3.5, label=style.LABELS[m]) for m in methods]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    which = f"{settings['title']}, {datasets[0]}" if len(datasets) == 1 else settings["title"]
    note = f"{shots} shots, 15 bins, {style.seeds_note(runs)}, pooled"
    figure.suptitle(f"{which}: reliability, {note}", fontsize=8)
    return figure


def pool(bins: pd.DataFrame) -> pd.DataFrame:
    """Pool the bins of several runs: counts add up, confidence and accuracy are means over images."""
    weighted = bins.assign(**{name: bins[name] * bins["count"] for name in ("confidence", "accuracy")})
    sums = weighted.groupby("bin")[["count", "confidence", "accuracy"]].sum()
    return sums.assign(**{name: sums[name] / sums["count"] for name in ("confidence", "accuracy")})


def _where(table: pd.DataFrame, values: dict[str, str]) -> pd.DataFrame:
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]
