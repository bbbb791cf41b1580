"""How a method moves its label mapping while it trains."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.intervals import band_reach

COLUMNS = 4
HEIGHT = 1.7  # inches of a panel, at most
DOTS = 12  # epochs up to which each has a point; of more a line has so many:
MARKED = 5
BESIDE = 0.04  # epochs between points of the only one


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """A panel a dataset, a line a network: the share of target classes mapped otherwise than in the epoch before.

    Of one method (see `gallery.method_of_mappings`), at each dataset's largest number of shots with a result, with a
    band over seeds (see `intervals.band_reach`).

    Args:
        tables: `remapped` and `summary`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    remapped, backbones, datasets = tables["remapped"], content.backbones, content.datasets
    method = gallery.method_of_mappings(settings["methods"], set(remapped["method"]))
    remapped = remapped[remapped["method"] == method]
    lines = style.looks(backbones, style.networks(backbones, set(remapped["backbone"])), settings)
    if (last := remapped["epoch"].max()) > DOTS:  # each network's at epochs of its own
        places = [(round(index * last / MARKED / len(lines)), round(last / MARKED)) for index in range(len(lines))]
        lines = {name: look | {"markevery": place} for (name, look), place in zip(lines.items(), places, strict=True)}
    width = settings["width"] if len(datasets) > 1 else min(settings["width"], 4.5)
    height = min(settings["panel_height"], HEIGHT)
    ran, seeds = 0, []
    most = remapped.groupby("dataset")["shots"].agg(gallery.largest_shots).reset_index()
    short = style.short_cells(tables["summary"], most)
    figure, axes = style.panels(len(datasets), COLUMNS, width, height, sharex=True, sharey=True)
    for number, (axis, dataset) in enumerate(zip(axes, datasets, strict=True)):
        shown = remapped[remapped["dataset"] == dataset]
        note = "not run"
        if len(shown):
            shots = gallery.largest_shots(shown["shots"])
            shown, note = shown[shown["shots"] == shots], style.shots_label(shots, short[short["dataset"] == dataset])
        axis.set_title(f"{style.named(dataset, settings)}, {note}", size=7)
        for index, (name, line) in enumerate(lines.items()):
            cells = shown[shown["backbone"] == name].groupby("epoch")["share"].agg(["mean", "std", "count"])
            mean, width = 100 * cells["mean"], 100 * cells["std"] * band_reach(cells["count"])
            low, high = (mean - width).clip(0), (mean + width).clip(upper=100)  # it is a share
            if len(cells) == 1:  # of one epoch a band would not be seen
                beside = cells.index + BESIDE * (index - (len(lines) - 1) / 2)
                axis.errorbar(beside, mean, [mean - low, high - mean], elinewidth=0.7, **line)
            else:
                axis.plot(cells.index, mean, **line)
                axis.fill_between(cells.index, low, high, color=line["color"], alpha=style.BAND, lw=0)
            seeds += [*cells["count"]]
        ran += shown["backbone"].nunique()
        axis.set_xlim(1.5, max([2, *remapped["epoch"]]) + 0.5)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", lw=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if number + COLUMNS >= len(axes):
            axis.set_xlabel("epoch")
            axis.tick_params(labelbottom=True)
        if number % COLUMNS == 0:
            axis.set_ylabel("classes remapped (%)")
    handles = [Line2D([], [], label=backbones[name].label, **line) for name, line in lines.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6 if len(axes) > 1 else 2)
    cells = len(backbones) * len(datasets)
    note = style.missing_note(cells - ran, cells) + style.short_note(short)
    what = f"how {style.named(method, settings)} moves its mapping, {style.over(pd.Series(seeds, dtype=float))}{note}"
    style.title(figure, content, what, settings)
    return figure
