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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery
from hiddencost.results.gallery import ShownBackbone
from hiddencost.results.intervals import CONFIDENCE, band_reach
from hiddencost.results.typeset import SHORT

DENSE_LINES = ["-", (0, (7, 1))]  # lines of dense networks, and of others with their markers, in turn
DENSE_MARKERS = ["o", "P"]
COMPRESSED_LINES = ["--", (0, (4, 1.2, 1, 1.2)), (0, (1.6, 1)), (0, (4, 1.2, 1, 1.2, 1, 1.2))]
COMPRESSED_MARKERS = ["s", "D", "^", "v"]
CONTROL_LINES = [(0, (1, 1.4)), (0, (1, 3)), (0, (3, 3)), (0, (3, 2, 1, 2))]
CHANCE: dict[str, Any] = {"color": "black", "lw": 0.6, "ls": (0, (1, 5))}
BAND = 0.1  # opacity
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


def lines(shown: Mapping[str, ShownBackbone], names: list[str]) -> dict[str, dict]:
    """Return how networks are drawn: dense solid, compressed broken, controls thin and dotted without a marker.

    Args:
        shown: the figure's backbones.
        names: those that are drawn.

    Returns:
        By name, the keywords of Matplotlib for line and marker.
    """
    line_of: dict[str, dict[str, Any]] = {}
    drawn = {name: shown[name] for name in names}
    looks = (gallery.DENSE, DENSE_LINES, DENSE_MARKERS), (gallery.COMPRESSED, COMPRESSED_LINES, COMPRESSED_MARKERS)
    for role, dashes, markers in looks:
        for index, name in enumerate(gallery.names_in_role(drawn, role)):
            line_of[name] = {"ls": dashes[index % len(dashes)], "marker": markers[index % len(markers)], "ms": 2.8}
    for index, name in enumerate(gallery.names_in_role(drawn, gallery.CONTROL)):
        line_of[name] = {"ls": CONTROL_LINES[index % len(CONTROL_LINES)], "lw": 0.8}
    return line_of


def curves(
    axis: Axes,
    summary: pd.DataFrame,
    metric: str,
    styles: dict[str, dict],
    order_of: dict[str, list],
    settings: dict,
) -> None:
    """Draw a metric (%) of one dataset against shots, with a band over seeds (see `intervals.band_reach`), and mark
    the shots that some classes have fewer images than.

    Args:
        axis: to draw on.
        summary: the study's table, of the dataset alone.
        metric: its name.
        styles: of the networks drawn, as `lines` returns them: a line each, and each method.
        order_of: the `method`s and the `shots`.
        settings: the study's `figures`.
    """
    shots = order_of["shots"]
    places = np.arange(len(shots))
    keys = ["method", "backbone", "shots"]
    cells = summary.set_index(keys)[[f"{metric}_mean", f"{metric}_std"]]
    cells[f"{metric}_std"] *= band_reach(summary["seeds"]).to_numpy()
    cells = 100 * cells.reindex(pd.MultiIndex.from_product([order_of["method"], list(styles), shots]))
    values = cells.to_numpy().reshape(len(order_of["method"]), len(styles), len(shots), 2)
    for method, of_method in zip(order_of["method"], values, strict=True):
        colour = colours(settings)[method]
        for line, (mean, width) in zip(styles.values(), of_method.transpose(0, 2, 1), strict=True):
            axis.plot(places, mean, color=colour, **line)
            axis.fill_between(places, mean - width, mean + width, color=colour, alpha=BAND, lw=0)
    mark_short(axis, summary, shots)
    axis.set_xticks(places, shots)
    axis.set_xlim(-0.3, len(shots) - 0.7)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", lw=0.3)


def mark_short(axis: Axes, cells: pd.DataFrame, shots: list[str], shift: float = 0.0) -> None:
    """Mark in a panel the numbers of shots that some classes have fewer images than.

    Args:
        axis: whose x axis has the shots, one apart.
        cells: of one dataset, with `classes_short`.
        shots: in their order.
        shift: of the first from zero.
    """
    short = set(cells.loc[cells["classes_short"] > 0, "shots"])
    outline = [withStroke(linewidth=1.2, foreground="white")]
    look: dict[str, Any] = {"ha": "center", "va": "top", "size": 6.5, "path_effects": outline}
    for place, number in enumerate(shots):
        if number in short:
            axis.text(place + shift, 0.99, SHORT, transform=axis.get_xaxis_transform(), **look)


def short_note(cells: pd.DataFrame) -> str:
    """Say what the mark of `mark_short` means; "" where nothing has it."""
    some = (cells["classes_short"] > 0).any()
    return f"; {SHORT}: some classes have fewer images, and give all" if some else ""


def over(seeds: int) -> str:
    """Say what lines and their bands show of so many seeds, at most."""
    return {0: "no result", 1: "1 seed", 2: "mean and span of 2 seeds"}.get(
        seeds, f"mean and {CONFIDENCE:.0%} interval over {seeds} seeds".replace("%", " %")
    )


def method_handles(methods: list[str], settings: dict) -> list[Line2D]:
    """Return what tells the methods' colours in a legend."""
    return [Line2D([], [], color=colours(settings)[method], label=named(method, settings)) for method in methods]


def network_handles(shown: Mapping[str, ShownBackbone], styles: dict[str, dict]) -> list[Line2D]:
    """Return what tells the networks' lines in a legend."""
    return [Line2D([], [], color="black", label=shown[name].label, **line) for name, line in styles.items()]


def missing_note(missing: int, count: int, what: str = "cells") -> str:
    """Say how many of what a figure would show are missing; "" where none is."""
    return f"; {missing} of {count} {what} are missing" if missing else ""


def title(figure: Figure, what: str, settings: dict) -> None:
    """Put the study's title and what a figure shows over it, in as many lines as it takes."""
    width = round(figure.get_figwidth() * 16)  # characters of 8 points
    figure.suptitle("\n".join(textwrap.wrap(f"{settings['title']}: {what}", width)))


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


def in_order(table: pd.DataFrame, backbones: list[str], datasets: list[str]) -> pd.DataFrame:
    """Return a table's rows of some datasets and backbones, by name, in the order of these."""
    for column, names in (("backbone", backbones), ("dataset", datasets)):
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
