"""Reliability diagrams: accuracy against confidence."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset and backbone, a line a method: the accuracy of each bin of confidence.

    At the study's last number of shots. The bins of all seeds are pooled; a point's area grows with the share of
    test images in its bin. Points under the diagonal are overconfident. ECE is the mean over seeds.
    """
    shots = style.order(runs, "shots")[-1]
    runs = runs[runs["shots"] == shots]
    bins = bins[bins["shots"] == shots]
    methods, colours = style.order(runs, "method"), style.colours(settings)
    cells = [(d, b) for d in style.order(runs, "dataset") for b in style.order(runs, "backbone")]
    figure, axes = style.panels(len(cells), 4, settings, sharex=True, sharey=True)
    for axis, (dataset, backbone) in zip(axes, cells, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", lw=0.6)
        here = style.finished(runs[(runs["dataset"] == dataset) & (runs["backbone"] == backbone)])
        notes = []
        for method in methods:
            own = (bins["dataset"] == dataset) & (bins["backbone"] == backbone) & (bins["method"] == method)
            pooled = pool(bins[own & (bins["count"] > 0)])
            axis.plot(pooled["confidence"], pooled["accuracy"], color=colours[method], lw=0.9)
            sizes = 2 + 60 * pooled["count"] / max(1, pooled["count"].sum())
            axis.scatter(pooled["confidence"], pooled["accuracy"], s=sizes, color=colours[method], lw=0)
            ece = here.loc[here["method"] == method, "ece"].mean()
            notes.append((method, "not run" if np.isnan(ece) else f"{ece:.2f}"))
        for line, (method, note) in enumerate(notes):
            text = f"ECE {note}" if line == 0 else note
            axis.text(
                0.04,
                0.95 - 0.085 * line,
                text,
                color=colours[method],
                transform=axis.transAxes,
                va="top",
                size=7,
            )
        label = style.backbone_label(runs, backbone)
        axis.set_title(label if len(cells) == runs["backbone"].nunique() else f"{dataset}: {label}")
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("confidence", fontsize=8)
    axes[0].set_ylabel("accuracy")
    handles = [Line2D([], [], color=colours[m], marker="o", markersize=3.5, label=style.LABELS[m]) for m in methods]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    note = f"{shots} shots, 15 bins, {style.seeds_note(runs)} pooled"
    figure.suptitle(f"{settings['title']}: reliability, {note}", fontsize=8)
    return figure


def pool(bins: pd.DataFrame) -> pd.DataFrame:
    """Pool the bins of several runs: counts add up, confidence and accuracy are means over images."""
    weighted = bins.assign(**{name: bins[name] * bins["count"] for name in ("confidence", "accuracy")})
    sums = weighted.groupby("bin")[["count", "confidence", "accuracy"]].sum()
    return sums.assign(**{name: sums[name] / sums["count"] for name in ("confidence", "accuracy")})
