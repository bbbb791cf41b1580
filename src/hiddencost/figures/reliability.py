"""Calibration: accuracy minus confidence, over confidence."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.tables import pool

FEW = 0.01  # a bin with a smaller share of the test images is not shown
DOT = 60  # square points, of all images in one bin


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """One panel a dataset and method, a line a network: accuracy minus confidence of each bin of confidence.

    At the last number of shots, of the dense network and all compressed ones. The bins of all seeds are pooled; a
    point's area grows with the share of test images in its bin. Below zero the network is overconfident.

    Args:
        tables: `runs` and `bins`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    runs, bins, datasets = tables["runs"], tables["bins"], content.datasets
    shots = gallery.largest_shots(map(str, settings.get("shots") or set(runs["shots"])))
    runs, bins = runs[runs["shots"] == shots], bins[bins["shots"] == shots]
    methods, finished = style.order(runs, "method"), style.finished(runs)
    roles = gallery.DENSE, gallery.COMPRESSED
    of_roles = [name for role in roles for name in gallery.names_in_role(content.backbones, role)]
    names = [name for name in of_roles if name in set(finished["backbone"])]
    looks = style.looks(content.backbones, names, settings)
    figure, panels = style.grid(datasets, methods, settings, sharey=True)
    pooled = pool(bins[bins["backbone"].isin(names)], ["dataset", "method", "backbone"])
    pooled["gap"] = 100 * (pooled["accuracy"] - pooled["confidence"])
    pooled = pooled[pooled["share"] >= FEW]
    for (dataset, method, name), part in pooled.groupby(["dataset", "method", "backbone"], sort=False):
        axis, look = panels[dataset, method], looks[name]
        confidence = 100 * part["confidence"]
        axis.plot(confidence, part["gap"], color=look["color"], ls=look["ls"], lw=0.8)
        points = {"s": DOT * part["share"], "marker": look["marker"], "color": look["color"], "lw": 0}
        axis.scatter(confidence, part["gap"], **points, clip_on=False, zorder=3)
    for axis in panels.values():
        axis.axhline(0, color="black", lw=0.6)
        axis.set_xlim(0, 100)
        axis.set_xticks([0, 50, 100])
        if axis.xaxis.get_tick_params()["labelbottom"]:
            axis.set_xlabel("confidence (%)", size=7)
    gap = np.nanmax([pooled["gap"].abs().max(), 5.0])
    low, high = min(pooled["gap"].min(), -0.2 * gap), max(pooled["gap"].max(), 0.2 * gap)
    next(iter(panels.values())).set_ylim(*(np.nan_to_num([low, high], nan=5.0) * 1.05 if len(pooled) else (-5, 5)))
    figure.supylabel("accuracy minus confidence (points)\nbelow 0: overconfident", size=8)
    figure.legend(handles=style.network_handles(content.backbones, looks), loc="outside lower center", ncols=6)
    seeds = finished["seed"].nunique()
    note = f"{seeds} seed{'s' if seeds != 1 else ''}; areas: share of test images"
    shown = runs[runs["backbone"].isin(of_roles)]
    note += style.missing_note(int((shown["status"] != "ok").sum()), len(shown), "runs")
    short = [style.named(name, settings) for name in style.order(runs[runs["classes_short"] > 0], "dataset")]
    note += f"; some classes of {', '.join(short)} have fewer images, and give all" if short else ""
    what = f"calibration gap with {style.shots_label(shots)}, 15 bins, pooled over {note}"
    style.title(figure, content, what, settings)
    return figure
