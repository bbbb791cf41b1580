"""What the figures share: colours, lines, panels, and the paper's look."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from hiddencost.methods.registry import METHODS
from hiddencost.results import cells, gallery
from hiddencost.results.cells import SHORT
from hiddencost.results.gallery import ShownBackbone, StudyFigure
from hiddencost.results.intervals import CONFIDENCE

# of compressed networks, each lighter than the one before, so that grey tells them apart; Okabe and Ito's and Tol's
COLOURS = ["#0072B2", "#D55E00", "#CC79A7", "#DDAA33"]
LEVELS = "viridis_r"  # of more of them, from the first to the last
LINES = ["--", (0, (4, 1.2, 1, 1.2)), (0, (1.6, 1)), (0, (4, 1.2, 1, 1.2, 1, 1.2))]
MARKERS = ["s", "D", "^", "v"]
DENSE_LINES, DENSE_MARKERS = ["-", (0, (7, 1))], ["o", "P"]  # of dense networks, in turn
CONTROL_COLOURS, CONTROL_MARKERS = ["0.3", "0.5", "0.65"], ["x", "+", "1", "2"]
CHANCE: dict[str, Any] = {"color": "black", "lw": 0.8, "ls": (0, (1, 3))}
REFERENCE: dict[str, Any] = {"lw": 0.8, "ls": (0, (6, 2))}
BAND = 0.1  # opacity
OUTLINE = [withStroke(linewidth=2.5, foreground="white")]  # of text over lines
PAGE = 8.9  # inches of a printed page that a figure may take
ABREAST = 4  # panels
TICKS = 5  # intervals of the upright axis of a small panel, at most
NOT_RUN: dict[str, Any] = {"facecolor": "white", "hatch": "//////", "edgecolor": "0.75", "lw": 0}


@contextmanager
def paper() -> Iterator[None]:
    """Set the look of a printed paper: 8 point type, thin lines, fonts embedded as text.

    It is the same for whatever matplotlibrc a user has, and text is text: `$` in a name or a title is a dollar.
    """
    look = {
        **sns.axes_style("ticks"),
        **{"text.parse_math": False},
        **{"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "figure.titlesize": 8},
        **{"xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.1},
        **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 3, "ytick.major.size": 3},
        **{"axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 200},
        **{"figure.constrained_layout.use": True, "legend.frameon": False, "svg.hashsalt": "hiddencost"},
        **{"hatch.linewidth": 0.5, "axes.axisbelow": True, "lines.solid_capstyle": "round"},
    }
    with plt.rc_context():
        matplotlib.rcdefaults()
        plt.rcParams.update(look)
        yield
    plt.close("all")


def colours(settings: dict) -> dict[str, str]:
    """Return the colour of each method: the study's, else the default."""
    return {name: method.colour for name, method in METHODS.items()} | settings["colours"]


def labels(settings: dict) -> dict[str, str]:
    """Return what methods, datasets and backbones are called where it is not by their names."""
    return {name: method.label for name, method in METHODS.items()} | settings["labels"]


def named(name: str, settings: dict) -> str:
    """Return what a method or a dataset is called."""
    return labels(settings).get(name, name)


def shots_label(shots: str, short: pd.DataFrame | None = None) -> str:
    """Say what a number of shots is: "1 shot", "20 shots", "all images"; marked, where some of the cells `short` (see
    `short_cells`) have it."""
    text = "all images" if shots == "full" else f"{shots} shot{'s' if shots != '1' else ''}"
    return text + (SHORT if short is not None and (short["shots"] == shots).any() else "")


def short_cells(summary: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Return of the cells (`dataset`, `shots`) that a figure shows those in which some classes have fewer images.

    Args:
        summary: the study's table.
        shown: the cells, a row each or more.
    """
    cells = summary.loc[summary["classes_short"] > 0, ["dataset", "shots", "classes_short"]]
    return cells.merge(shown[["dataset", "shots"]].drop_duplicates(), on=["dataset", "shots"])


def order(table: pd.DataFrame, column: str) -> list:
    """Return a column's values in the order of the table."""
    return list(dict.fromkeys(table[column]))


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a result."""
    return runs[runs["status"] == "ok"]


def looks(shown: Mapping[str, ShownBackbone], names: list[str], settings: dict) -> dict[str, dict]:
    """Return how networks are drawn: dense black and solid, compressed in colours and broken, controls thin and grey.

    Args:
        shown: the figure's backbones.
        names: those that are drawn.
        settings: the study's `figures`, whose `colours` come before these.

    Returns:
        By name, the keywords of Matplotlib for line and marker.
    """
    drawn, look = {name: shown[name] for name in names}, {}
    dense, compressed, controls = (
        gallery.names_in_role(drawn, role) for role in (gallery.DENSE, gallery.COMPRESSED, gallery.CONTROL)
    )
    levels = matplotlib.colormaps[LEVELS](np.linspace(0.1, 0.9, len(compressed)))
    colours = COLOURS if len(compressed) <= len(COLOURS) else [to_hex(colour) for colour in levels]
    for index, name in enumerate(dense):
        look[name] = _look("black", DENSE_LINES, DENSE_MARKERS, index)
    for index, name in enumerate(compressed):
        look[name] = _look(colours[index], LINES, MARKERS, index)
    for index, name in enumerate(controls):
        look[name] = _look(CONTROL_COLOURS[index % 3], [":"], CONTROL_MARKERS, index) | {"lw": 0.8, "mew": 0.7}
    return {name: one | {"color": settings["colours"].get(name, one["color"])} for name, one in look.items()}


def _look(colour: str, lines: list, markers: list[str], index: int) -> dict[str, Any]:
    return {"color": colour, "ls": lines[index % len(lines)], "marker": markers[index % len(markers)], "ms": 2.8}


def ink(colour: tuple[float, ...]) -> str:
    """Return the colour of text on another, given as shares of red, green and blue: of black and white the one with
    more contrast, by the relative luminance of WCAG 2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def of_shots(table: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """Return a table's rows of the shots that the study's figures show; copies of budgets are dropped after it, not
    before, as the budget that they are copies of may not be shown."""
    shots = settings.get("shots")
    return table[table["shots"].isin(list(map(str, shots)))] if shots else table


def chosen(summary: pd.DataFrame, settings: dict, *within: str) -> pd.DataFrame:
    """Return a summary's rows of the shots that the study's figures show, each training once (see `cells`): budgets
    that have the same images stand at the smallest of them.

    Args:
        summary: a row a cell, or a cell and value of the columns `within`.
        settings: the study's `figures`.
        within: columns that tell a training's rows apart.
    """
    shown = of_shots(summary, settings)
    trained = shown.assign(trained=shown["same_as"].fillna(shown["shots"]))
    return shown[~trained.duplicated(["backbone", "dataset", "method", "trained", *within])]


def shots_of(table: pd.DataFrame) -> list[str]:
    """Return a table's numbers of shots, the smallest first."""
    return sorted(set(table["shots"]), key=lambda number: float("inf") if number == "full" else int(number))


def saturated(summary: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return of the datasets whose budgets come to have all images the smallest of these, and what it is called."""
    labels = {dataset: cells.shots_labels(part) for dataset, part in summary.groupby("dataset", sort=False)}
    changed = {name: [(shots, text) for shots, text in of.items() if text != shots] for name, of in labels.items()}
    return {name: of[0] for name, of in changed.items() if of}


def grid(
    datasets: list[str], columns: list[str], settings: dict, **keywords: Any
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Return a figure with a row a dataset and a column for each of `columns`, and its panels by these two.

    Where one of both is alone, the other takes as many rows as it needs; a method alone stands beside each dataset.
    Titles are what methods and datasets are called, in black: colours are the networks' here.

    Args:
        datasets: names.
        columns: names of methods; [""] for panels of a dataset alone.
        settings: the study's `figures`.
        keywords: of `plt.subplots`.
    """
    keys = [(dataset, column) for dataset in datasets for column in columns]
    crossed = len(datasets) > 1 and len(columns) > 1
    abreast = len(columns) if crossed else min(ABREAST, len(keys))
    rows = -(-len(keys) // abreast)
    height = min(settings["panel_height"], (PAGE - 1.3) / rows)
    width = settings["width"] if abreast > 1 else min(settings["width"], 4.5)
    figure, axes = panels(len(keys), abreast, width, height, sharex=True, **keywords)
    for number, (axis, (dataset, column)) in enumerate(zip(axes, keys, strict=True)):
        if crossed:
            if number < abreast:
                axis.set_title(named(column, settings))
            if number % abreast == 0:
                axis.set_ylabel(named(dataset, settings))
        elif column and len(datasets) == 1 and len(columns) > 1:
            axis.set_title(named(column, settings))
        else:
            axis.set_title(", ".join(named(name, settings) for name in (dataset, column) if name))
        axis.tick_params(axis="x", labelbottom=number + abreast >= len(keys))
        axis.yaxis.set_major_locator(MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10]))
        axis.grid(axis="y", lw=0.3)
    return figure, dict(zip(keys, axes, strict=True))


def mark_short(axis: Axes, of_dataset: pd.DataFrame, shots: list[str], shift: float = 0.0) -> None:
    """Mark in a panel the numbers of shots that some classes have fewer images than.

    Args:
        axis: whose x axis has the shots, one apart.
        of_dataset: cells of one dataset, with `classes_short`.
        shots: in their order.
        shift: of the first from zero.
    """
    short = set(of_dataset.loc[of_dataset["classes_short"] > 0, "shots"])
    look: dict[str, Any] = {"ha": "center", "va": "top", "size": 7, "path_effects": OUTLINE}
    for place, number in enumerate(shots):
        if number in short:
            axis.text(place + shift, 0.99, SHORT, transform=axis.get_xaxis_transform(), **look)


def short_note(table: pd.DataFrame) -> str:
    """Say what the mark of `mark_short` means; "" where nothing has it."""
    some = (table["classes_short"] > 0).any()
    return f"; {SHORT}: some classes have fewer images, and give all" if some else ""


def over(seeds: pd.Series) -> str:
    """Say what lines and their bands show of cells of so many seeds each."""
    ran = seeds[seeds > 0]
    most = int(ran.max()) if len(ran) else 0
    text = {0: "no result", 1: "1 seed", 2: "mean and span of 2 seeds"}.get(
        most, f"mean and {CONFIDENCE:.0%} interval over {most} seeds".replace("%", " %")
    )
    return text + (", fewer in some cells" if (ran < most).any() else "")


def network_handles(shown: Mapping[str, ShownBackbone], styles: dict[str, dict]) -> list[Line2D]:
    """Return what tells the networks' lines in a legend."""
    return [Line2D([], [], label=shown[name].label, **line) for name, line in styles.items()]


def missing_note(missing: int, count: int, what: str = "cells") -> str:
    """Say how many of what a figure would show are missing; "" where none is."""
    return f"; {missing} of {count} {what} are missing" if missing else ""


def title(figure: Figure, content: StudyFigure, what: str, settings: dict) -> None:
    """Put the study's title, the network's and what a figure shows over it, in lines of about one length."""
    width = round(figure.get_figwidth() * 16)  # characters of 8 points
    network = f"{content.title}, " if content.title else ""
    text = f"{settings['title']}: {network}{what}".replace(" %", "\u00a0%")  # a number keeps its unit
    count = len(textwrap.wrap(text, width))
    while count > 1 and len(textwrap.wrap(text, width - 1)) == count:
        width -= 1
    figure.suptitle("\n".join(textwrap.wrap(text, width)).replace("\u00a0", " "))


def panels(count: int, columns: int, width: float, height: float, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, with 0.6 inches for title and legend.

    Args:
        count: of panels.
        columns: panels in a row, at most.
        width: of the figure, in inches.
        height: of a panel, in inches.
        keywords: of `plt.subplots`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows + 0.6), squeeze=False, **keywords)
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return figure, list(axes.flat[:count])


def in_order(table: pd.DataFrame, backbones: list[str], datasets: list[str], methods: list[str]) -> pd.DataFrame:
    """Return a table's rows of some datasets, backbones and methods, by name, in the order of these."""
    for column, names in (("method", methods), ("backbone", backbones), ("dataset", datasets)):
        if column in table:
            table = table[table[column].isin(names)]
            table = table.sort_values(column, key=lambda values, names=names: values.map(names.index), kind="stable")
    return table


def networks(shown: Mapping[str, ShownBackbone], ran: set[str]) -> list[str]:
    """Return a figure's networks with a result: the dense, as many of the compressed as one panel can show, and the
    controls."""
    compressed = [name for name in gallery.names_in_role(shown, gallery.COMPRESSED) if name in ran]
    if len(compressed) > gallery.MAX_CURVES:
        compressed = gallery.spread_by_sparsity(shown, compressed, 3)
    dense, controls = (
        [name for name in gallery.names_in_role(shown, role) if name in ran]
        for role in (gallery.DENSE, gallery.CONTROL)
    )
    return [*dense, *compressed, *controls]
