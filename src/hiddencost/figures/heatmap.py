"""Hidden cost, in accuracy or another metric, over compression and shots (figure 6 of the paper and its siblings)."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.figures import style
from hiddencost.figures.dark import STAYS
from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery
from hiddencost.results.cells import ALL, SHORT
from hiddencost.results.gallery import StudyFigure


class Cost(NamedTuple):
    """What the maps show.

    Attributes:
        metric: its name.
        title: what the figure calls it.
        unit: of the dense network's own value.
        scale: what the colours' scale is called.
        sign: that makes the metric's difference, dense minus backbone, a cost.
    """

    metric: str
    title: str
    unit: str
    scale: str
    sign: int


CALIBRATION = Cost("ece", "calibration", "points", "network minus dense, ECE (points)", -1)
ROW = 0.125  # inches
LINE = 0.14  # inches, of a title's further line, which the maps would give up
NAMES = 1.35  # inches, of the rows' names
CELL = 0.5  # inches, of a map's column at most
WIDE, NARROW = 0.32, 0.145  # inches that a number takes, with a decimal and without
TYPE = 7  # points
LETTERS = 20  # of that size, in an inch
NARROW_PAGE = 5  # inches
CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "size": TYPE, "in_layout": False}
ENDS = [1, 2, 5, 10, 15, 20, 30, 40, 50, 75, 100]  # of the colours' scale, in points
BETWEEN, BEFORE_CONTROLS = 0.4, 0.15  # rows


class Rows(NamedTuple):
    """Where a dataset's rows are.

    Attributes:
        head: of the dense network, its upper edge.
        of: of each network that is compared with it, by name, its upper edge.
    """

    head: float
    of: dict[str, float]


def draw_metric(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw what compression costs in accuracy, or in the study's `figures.metric`; see `draw`."""
    name, label, unit, sign = (settings["metric"][key] for key in ("name", "label", "unit", "sign"))
    which = "dense minus network" if sign > 0 else "network minus dense"
    return draw(Cost(name, label, unit, f"{which}, {label} (points)", sign), tables, content, settings)


def draw_calibration(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw what compression does to calibration; see `draw`."""
    return draw(CALIBRATION, tables, content, settings)


def draw(cost: Cost, tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """A map a method, in it a block a dataset: the dense network's own value, and a row a network of what it costs.

    The colours are centred on zero and have one scale for the whole study. A cell that was not run is hatched; one
    whose paired interval excludes zero is bold.

    Args:
        cost: what the maps show.
        tables: `summary`, and `study`, that of the whole study.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    summary = _with_costs(style.chosen(tables["summary"], settings), cost)
    methods, shots = style.order(summary, "method"), style.shots_of(summary)
    # what trains nothing is one evaluation, whatever the shots
    columns = {method: shots if METHODS[method].trains else shots[:1] for method in methods}
    dense, compressed, controls = (
        gallery.names_in_role(content.backbones, role)
        for role in (gallery.DENSE, gallery.COMPRESSED, gallery.CONTROL)
    )
    rows, end = _rows(content.datasets, compressed, controls)
    room = {method: max(gallery.MAP_CELLS, len(places)) for method, places in columns.items()}  # cells
    count = max(1, sum(room.values()))
    cell = min(CELL, (settings["width"] - NAMES) / count - 0.01)
    width = max(4.0, NAMES + count * (cell + 0.01))
    ratios = {"width_ratios": [cells + 0.3 for cells in room.values()]} if columns else {}
    height = end * ROW + (0.7 if width > NARROW_PAGE else 1.2)  # there title and words take more lines
    figure, axes = style.panels(max(1, len(methods)), max(1, len(methods)), width, height, sharey=True, **ratios)
    limit = _limit(tables["study"], cost)
    decimals = None if cell < NARROW else 1 if cell > WIDE else 0
    saturated = style.saturated(tables["summary"])
    for axis, (method, places) in zip(axes, columns.items(), strict=False):
        cells = summary[summary["method"] == method]
        for dataset, of_dataset in cells.groupby("dataset", sort=False):
            first, text = saturated.get(dataset, (places[-1], ""))
            last = places[: places.index(first) + 1] if first in places else places
            own = of_dataset[of_dataset["backbone"].isin(dense)].set_index("shots")["own"].reindex(last)
            _block(axis, of_dataset, own, rows[dataset], last, (limit, decimals, settings["palette"]))
            if len(last) < len(places):
                middle = (rows[dataset].head + max(rows[dataset].of.values(), default=0) + 1) / 2
                axis.text(len(last) + 0.6, middle, text, color="0.35", rotation=90, **CENTRED)
        axis.set_title(style.named(method, settings), pad=3)
        names = places if METHODS[method].trains else [ALL]
        axis.set_xticks(np.arange(len(places)) + 0.5, names, rotation=90 if len(shots) > 4 else 0, size=TYPE)
        spare = (room[method] - len(places)) / 2
        axis.set(xlim=(-spare, len(places) + spare), ylim=(end, 0), xlabel="shots")
        axis.tick_params(length=0, pad=2)
        axis.spines[:].set_visible(False)
    _name_rows(axes[0], rows, content, settings)
    compared = summary[summary["backbone"].isin([*compressed, *controls])]
    _scale(figure, axes, compared, (limit, settings["palette"]), cost, decimals)
    note = style.missing_note(int(compared["cost"].isna().sum()), len(compared)) + style.short_note(summary)
    what = f"hidden cost in {cost.title}, paired means; first row: dense, in {cost.unit}{note}"
    style.title(figure, content, what, settings)
    longer = figure.get_figheight() + LINE * figure.get_suptitle().count("\n")
    figure.set_figheight(max(figure.get_figheight(), min(style.PAGE, longer)))
    return figure


def _with_costs(summary: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """Return a summary with `cost` (points), whether its interval excludes zero (`sure`) and whether there is one
    (`tested`), and the network's `own` value (%)."""
    difference = f"{cost.metric}_dense_minus_backbone"
    low, high = summary[f"{difference}_low"], summary[f"{difference}_high"]
    cost_of = {"cost": 100 * cost.sign * summary[f"{difference}_mean"], "own": 100 * summary[f"{cost.metric}_mean"]}
    return summary.assign(sure=low * high > 0, tested=low.notna(), **cost_of)


def _rows(datasets: list[str], compressed: list[str], controls: list[str]) -> tuple[dict[str, Rows], float]:
    """Return where the rows of each dataset are, and where they end."""
    rows, place = {}, 0.0
    for dataset in datasets:
        networks = {name: place + 1 + index for index, name in enumerate(compressed)}
        after = place + 1 + len(compressed) + (BEFORE_CONTROLS if controls else 0)
        networks |= {name: after + index for index, name in enumerate(controls)}
        rows[dataset] = Rows(place, networks)
        place = after + len(controls) + BETWEEN
    return rows, max(1.0, place - BETWEEN)


def _limit(study: pd.DataFrame, cost: Cost) -> float:
    """Return the cost, in points, where the colours end on both sides of zero: of all figures of a study."""
    compressed = study[(study["compression"] != UNCOMPRESSED) & study["control"].isna()]
    compressed = compressed[compressed["backbone"] != compressed["dense"]]
    most = 100 * compressed[f"{cost.metric}_dense_minus_backbone_mean"].abs().max()
    return next((end for end in ENDS if not most > end), ENDS[-1])


def _block(
    axis: Axes,
    cells: pd.DataFrame,
    own: pd.Series,
    rows: Rows,
    shots: list[str],
    look: tuple[float, int | None, str],
) -> None:
    """Draw a dataset's rows of a map.

    Args:
        axis: the map.
        cells: of the dataset: `cost` (points) and whether it is `sure`, by `backbone` and `shots`.
        own: the dense network's value (%) by shots.
        rows: where they are.
        shots: of the map's columns.
        look: where the colours end, the decimals of numbers (None: without), and the palette.
    """
    limit, decimals, palette = look
    colormap = colormaps[palette]
    texts: dict[str, Any] = {"ha": "center", "va": "center_baseline", "in_layout": False, "clip_on": False}
    wide = cells.pivot(index="backbone", columns="shots", values=["cost", "sure"]).astype(float)
    wide = wide.reindex(index=list(rows.of), columns=pd.MultiIndex.from_product([["cost", "sure"], shots]))
    for name, top in rows.of.items():
        cost, sure = wide.loc[name].to_numpy().reshape(2, -1)
        colours: dict[str, Any] = {"cmap": colormap, "vmin": -limit, "vmax": limit}
        drawn = np.ma.masked_invalid(cost)[None]
        axis.pcolormesh(np.arange(len(shots) + 1), [top, top + 1], drawn, **colours, edgecolors="white", lw=0.4)
        gaps = [(float(place), 1.0) for place in np.flatnonzero(np.isnan(cost))]
        axis.broken_barh(gaps, (top, 1), **style.NOT_RUN)
        for place in np.flatnonzero(~np.isnan(cost)).tolist():
            tone = style.ink(colormap(0.5 + 0.5 * cost[place] / limit))
            if decimals is not None:
                weight = "bold" if sure[place] == 1 else "normal"
                text = number(cost[place], decimals)
                axis.text(place + 0.5, top + 0.55, text, size=TYPE, weight=weight, color=tone, gid=STAYS, **texts)
            elif sure[place] == 1:  # in grey both ends of the colours are dark: below zero it is a dash
                axis.plot(place + 0.5, top + 0.5, "." if cost[place] > 0 else "_", ms=2, color=tone, gid=STAYS)
    for place, value in enumerate(own):
        if decimals is not None and np.isfinite(value):
            axis.text(place + 0.5, rows.head + 0.55, number(value, decimals), size=TYPE, style="italic", **texts)
    short = set(cells.loc[cells["classes_short"] > 0, "shots"])
    for place in (place for place, name in enumerate(shots) if name in short):
        axis.text(place + 0.92, rows.head + 0.4, SHORT, size=6.5, **texts)


def number(value: float, decimals: int) -> str:
    """Write a number, without a negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def _name_rows(axis: Axes, rows: dict[str, Rows], content: StudyFigure, settings: dict) -> None:
    names = []
    for dataset, places in rows.items():
        names.append((places.head, style.named(dataset, settings), "bold"))
        names += [(top, content.backbones[name].label, "normal") for name, top in places.of.items()]
    axis.set_yticks([top + 0.5 for top, *_ in names], [name for _, name, _ in names], size=TYPE)
    for label, (*_, weight) in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontweight(weight)


def _scale(
    figure: Figure,
    axes: list[Axes],
    compared: pd.DataFrame,
    look: tuple[float, str],
    cost: Cost,
    decimals: int | None,
) -> None:
    """Draw the colours' scale, and say what marks mean."""
    limit, palette = look
    colours = ScalarMappable(Normalize(-limit, limit), palette)
    aspect = 35 if len(axes) > 1 else 20
    bar = figure.colorbar(
        colours, ax=axes, orientation="horizontal", shrink=0.5, aspect=aspect, pad=0.1 / figure.get_figheight()
    )
    mark, tested = "dot (below 0 dash)" if decimals is None else "bold", int(compared["tested"].sum())
    said = (
        f"{mark}: 95 % interval excludes 0, uncorrected (of the {tested} cells with an interval {round(tested / 20)} "
        "would by chance); "
    )
    said = (said if tested else "") + ("hatched: no result" if compared["cost"].isna().any() else "")
    lines = [f"{cost.scale}, one scale for the study", said.removesuffix("; ")]
    room = int(LETTERS * (figure.get_figwidth() - NAMES))  # it stands under the maps
    bar.set_label("\n".join(line for text in lines for line in textwrap.wrap(text, room)), fontsize=TYPE)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TYPE)
