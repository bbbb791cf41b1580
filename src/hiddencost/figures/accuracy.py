"""Accuracy against shots (figures 1 to 4 of the paper)."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style
from hiddencost.results.gallery import StudyFigure

COLUMNS = 4


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """One panel a dataset, a colour a method, a line and marker a backbone, with bands over seeds.

    A cell that was not run is a gap; a backbone without any result is left out.

    Args:
        tables: `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    summary, backbones = tables["summary"], content.backbones
    finished = summary[summary["seeds"] > 0]
    names = style.networks(backbones, set(finished["backbone"]))
    styles = style.lines(backbones, names)
    order_of = {column: style.order(summary, column) for column in ("method", "shots")}
    figure, axes = style.panels(
        len(content.datasets), COLUMNS, settings["width"], settings["panel_height"], sharex=True
    )
    for number, (axis, dataset) in enumerate(zip(axes, content.datasets, strict=True)):
        style.curves(axis, summary[summary["dataset"] == dataset], "accuracy", styles, order_of, settings)
        axis.set_title(style.named(dataset, settings))
        axis.tick_params(axis="x", labelbottom=True, labelsize=6.3)
        if classes := settings["classes"][dataset]:
            axis.axhline(100 / classes, **style.CHANCE)
        if number + COLUMNS >= len(axes):
            axis.set_xlabel("shots (images per class)")
        if number % COLUMNS == 0:
            axis.set_ylabel("test accuracy (%)")
    handles = style.method_handles(order_of["method"], settings) + style.network_handles(backbones, styles)
    if any(settings["classes"].values()):
        handles.append(Line2D([], [], label="chance", **style.CHANCE))
    if len(axes) == 1:
        figure.legend(handles=handles, loc="outside right center")
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
    note = style.missing_note(int((summary["seeds"] == 0).sum()), len(summary))
    more = len(set(finished["backbone"]) - set(names))
    note += f"; {more} more levels of compression are not drawn" if more else ""
    note += style.short_note(summary)
    style.title(figure, f"accuracy, {style.over(int(summary['seeds'].max()))}{note}", settings)
    return figure
