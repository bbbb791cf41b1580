"""Accuracy against shots (figures 1 to 4 of the paper)."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset and compressed backbone, a colour a method; dense solid, compressed dashed.

    Lines are means over seeds, bands run from the lowest to the highest seed. A cell that was not run is a gap.
    """
    datasets, others = style.order(runs, "dataset"), style.compressed(runs)
    dense = [name for name in style.order(runs, "backbone") if name not in others]
    shots, methods, colours = style.order(runs, "shots"), style.order(runs, "method"), style.colours(settings)
    figure, axes = style.panels(len(datasets) * max(1, len(others)), 3, settings, sharey=True)
    for axis, (dataset, other) in zip(axes, [(d, o) for d in datasets for o in others or [None]], strict=True):
        here = style.finished(runs[runs["dataset"] == dataset])
        checkpoint = runs.loc[runs["backbone"] == other, "checkpoint"]
        for method in methods:
            same = [
                d
                for d in dense
                if other is None or (runs.loc[runs["backbone"] == d, "checkpoint"].iloc[0] == checkpoint.iloc[0])
            ]
            for backbones, dashes, marker in ((same, "-", "o"), ([other], "--", "s")):
                part = here[(here["method"] == method) & here["backbone"].isin(backbones)]
                by_shots = part.groupby("shots")["accuracy"].agg(["mean", "min", "max"]).reindex(shots) * 100
                x = range(len(shots))
                axis.plot(x, by_shots["mean"], dashes, marker=marker, color=colours[method], markersize=3.5)
                axis.fill_between(x, by_shots["min"], by_shots["max"], color=colours[method], alpha=0.15, lw=0)
        title = dataset if other is None else f"{dataset}: dense and {style.backbone_label(runs, other)}"
        axis.set_title(title)
        axis.set_xticks(range(len(shots)), shots)
        axis.set_xlim(-0.15, len(shots) - 0.85)
        axis.set_xlabel("shots (images per class)")
        axis.grid(axis="y", lw=0.3)
        if (classes := settings["classes"].get(dataset)) is not None:
            axis.axhline(100 / classes, color="black", lw=0.6, ls=":")
    axes[0].set_ylabel("test accuracy (%)")
    handles = [Line2D([], [], color=colours[m], label=style.LABELS[m]) for m in methods]
    handles += [
        Line2D([], [], color="black", ls="-", marker="o", markersize=3.5, label="dense"),
        Line2D([], [], color="black", ls="--", marker="s", markersize=3.5, label="compressed or control"),
        Line2D([], [], color="black", ls=":", lw=0.6, label="chance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(f"{settings['title']}: mean and range over {style.seeds_note(runs)}", fontsize=8)
    return figure
