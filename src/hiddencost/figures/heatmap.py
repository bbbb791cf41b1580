"""Hidden cost, in accuracy or calibration, over compression and shots (figure 6 of the paper and its siblings)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure


class Cost(NamedTuple):
    """What the maps show.

    Attributes:
        metric: its name.
        title: what the figure calls it.
        unit: of the curves.
        scale: what the colours' scale is called.
        sign: that makes the metric's difference, dense minus backbone, a cost.
    """

    metric: str
    title: str
    unit: str
    scale: str
    sign: int


ACCURACY = Cost("accuracy", "accuracy", "accuracy (%)", "dense minus network, accuracy (points)", 1)
CALIBRATION = Cost("ece", "calibration", "ECE (%)", "network minus dense, ECE (points)", -1)
WIDE, NARROW = 0.32, 0.17  # inches that a number takes, with a decimal and without
WITHIN = 0.98  # share of the compressed networks' cells that the colours' scale reaches
LEVELS = 5  # compressed networks that the maps of many datasets have room for


@dataclass
class Layout:
    """How the panels of a figure are laid out: in a row a dataset, where there are many, or over some rows.

    Attributes:
        many: whether there are many datasets.
        maps: maps of a dataset, one a method.
        columns: panels in a row.
        compressed, controls: names of the backbones of a map's rows, in their order.
        shots: of a map's columns.
        limit: the cost, in points, where the colours end, on both sides of zero.
        decimals: of the numbers in the cells; None where there is no room for them.
    """

    many: bool
    maps: int
    columns: int
    compressed: list[str]
    controls: list[str]
    shots: list[str]
    limit: float
    decimals: int | None

    @property
    def rows(self) -> list[str]:
        """The names of the backbones of a map's rows."""
        return [*self.compressed, *self.controls]

    @property
    def height(self) -> float:
        """The height of a panel, in inches."""
        rows = len(self.rows)
        return max(0.95, 0.095 * rows + 0.2) if self.many else max(1.7, 0.14 * rows + 0.55)


def draw_accuracy(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw what compression costs in accuracy; see `draw`."""
    return draw(ACCURACY, tables["summary"], content, settings)


def draw_calibration(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """Draw what compression costs in calibration; see `draw`."""
    return draw(CALIBRATION, tables["summary"], content, settings)


def draw(cost: Cost, summary: pd.DataFrame, content: StudyFigure, settings: dict) -> Figure:
    """For each dataset the curves of the dense and the most compressed network, and a map of the cost a method.

    The colours are centred on zero and share one scale, which the compressed backbones set; a few of their cells and
    the controls may lie beyond it. A cell that was not run is hatched; one whose paired interval excludes zero has a
    dot.

    Args:
        cost: what the maps show.
        summary: the study's table.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    summary, difference = summary.copy(), f"{cost.metric}_dense_minus_backbone"
    summary["cost"] = 100 * cost.sign * summary[f"{difference}_mean"]
    summary["sure"] = 1.0 * (summary[f"{difference}_low"] * summary[f"{difference}_high"] > 0)
    order_of = {column: style.order(summary, column) for column in ("method", "shots")}
    layout = _layout(summary, content, order_of, settings)
    figure, axes = style.panels(
        len(content.datasets) * (1 + layout.maps),
        layout.columns,
        settings["width"],
        layout.height,
        width_ratios=[1.5, *[1] * layout.maps] if layout.many else None,
    )
    with_result = summary.loc[summary["seeds"] > 0, "backbone"]
    styles = style.lines(content.backbones, gallery.dense_and_most_compressed(content.backbones, with_result))
    for index, dataset in enumerate(content.datasets):
        curve, *maps = axes[index * (1 + layout.maps) : (index + 1) * (1 + layout.maps)]
        of_dataset = summary[summary["dataset"] == dataset]
        style.curves(curve, of_dataset, cost.metric, styles, order_of, settings)
        curve.set_title(style.named(dataset, settings), pad=3)
        curve.set_ylabel(cost.unit, fontsize=6.5 if layout.many else 8)
        for place, (axis, method) in enumerate(zip(maps, order_of["method"], strict=True)):
            cells = of_dataset[of_dataset["method"] == method].set_index(["backbone", "shots"])
            _map(axis, cells, layout, settings["palette"])
            style.mark_short(axis, of_dataset, layout.shots, 0.5)
            if not layout.many or index == 0:
                axis.set_title(style.named(method, settings), pad=3, color=style.colours(settings)[method])
            if place == 0 if layout.many else (place + 1) % layout.columns in (0, 1):
                _name_rows(axis, [content.backbones[name].label for name in layout.rows], layout.many)
        _label_shots(curve, maps, layout.many, last=index == len(content.datasets) - 1)
    _legends(figure, axes, cost, style.method_handles(order_of["method"], settings), content, styles)
    cells = summary[summary["backbone"].isin(layout.rows)]
    note = style.missing_note(int(cells["cost"].isna().sum()), len(cells))
    note += style.short_note(summary)
    curves = style.over(int(summary["seeds"].max()))
    style.title(figure, f"hidden cost in {cost.title}, paired means; curves: {curves}{note}", settings)
    return figure


def _layout(summary: pd.DataFrame, content: StudyFigure, order_of: dict[str, list], settings: dict) -> Layout:
    maps, many = len(order_of["method"]), len(content.datasets) > 1
    compressed, controls = (
        gallery.names_in_role(content.backbones, role) for role in (gallery.COMPRESSED, gallery.CONTROL)
    )
    compressed = gallery.spread_by_sparsity(content.backbones, compressed, LEVELS) if many else compressed
    scale = summary.loc[summary["backbone"].isin(compressed or controls), "cost"].abs().quantile(WITHIN)
    columns = 1 + maps if many else min(3, 1 + maps)
    cell = settings["width"] / (columns + 1.2) / len(order_of["shots"])  # inches
    return Layout(
        many=many,
        maps=maps,
        columns=columns,
        compressed=compressed,
        controls=controls,
        shots=order_of["shots"],
        limit=scale if scale > 0 else 1.0,
        decimals=None if many or cell < NARROW else 1 if cell > WIDE else 0,
    )


def _map(axis: Axes, cells: pd.DataFrame, layout: Layout, palette: str) -> None:
    """Draw a map; cells: `cost` (points) and `sure` (1.0 where its interval excludes zero) by backbone and shots."""
    wanted = pd.MultiIndex.from_product([layout.rows, layout.shots])
    cost = cells["cost"].reindex(wanted).to_numpy().reshape(len(layout.rows), len(layout.shots))
    sure = cells["sure"].reindex(wanted).to_numpy().reshape(cost.shape) == 1
    axis.patch.set(**style.NOT_RUN)
    colours: dict[str, Any] = {"cmap": palette, "vmin": -layout.limit, "vmax": layout.limit}
    axis.pcolormesh(np.ma.masked_invalid(cost), **colours, edgecolors="white", linewidth=0.4)
    rows, columns = np.nonzero(sure)
    dark = np.abs(cost) > 0.6 * layout.limit
    across, down = (0.5, 0.5) if layout.decimals is None else (0.9, 0.18)
    tones = np.where(dark[rows, columns], "white", "black")
    axis.scatter(columns + across, rows + down, s=5 if layout.decimals else 1.8, c=tones, lw=0)
    for (row, column), value in np.ndenumerate(cost):
        if layout.decimals is not None and np.isfinite(value):
            # + 0.0: no negative zero
            text = f"{round(value, layout.decimals) + 0.0:.{layout.decimals}f}".replace("-", "−")
            tone = "white" if dark[row, column] else "black"
            axis.text(column + 0.48, row + 0.56, text, ha="center", va="center", fontsize=5.8, color=tone)
    axis.invert_yaxis()
    axis.set_xticks(np.arange(len(layout.shots)) + 0.5, layout.shots)
    axis.set_yticks([])
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)
    axis.axhline(len(layout.compressed), color="white", lw=2.5)


def _name_rows(axis: Axes, names: list[str], many: bool) -> None:
    axis.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=5.5 if many and len(names) > 5 else 6.5)


def _label_shots(curve: Axes, maps: list[Axes], many: bool, last: bool) -> None:
    """Label the shots of a dataset's panels; of many datasets below the last alone."""
    for axis in (curve, *maps):
        axis.tick_params(axis="x", labelsize=5.5 if many else 6.5)
        if many and axis is not curve:
            axis.tick_params(axis="x", rotation=90)
        if last:
            axis.set_xlabel("shots", labelpad=1)
        elif many:
            axis.tick_params(labelbottom=False)


def _legends(
    figure: Figure, axes: list[Axes], cost: Cost, methods: list, content: StudyFigure, styles: dict[str, dict]
) -> None:
    """Draw the colours' scale, and what tells methods and networks, in a spare panel where there is one."""
    bar = figure.colorbar(
        axes[1].collections[0],
        ax=axes,
        orientation="horizontal",
        shrink=0.4,
        aspect=40,
        pad=0.1 / figure.get_figheight(),
        extend="both",
    )
    bar.set_label(f"{cost.scale}; dot: 95 % interval excludes 0; hatched: no result", fontsize=7)
    bar.outline.set_visible(False)
    handles = methods + style.network_handles(content.backbones, styles)
    spare = figure.axes[len(axes) : -1]
    if spare:
        spare[0].legend(handles=handles, loc="center")
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
