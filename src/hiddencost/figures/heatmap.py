"""Hidden cost, in accuracy or calibration, over compression and shots (figure 6 of the paper and its siblings)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.results import gallery

# the metric, what its cost is called, and the sign that makes more of it a cost
COSTS = {
    "heatmap": ("accuracy", "accuracy (%)", "dense minus network, accuracy (points)", 1),
    "calibration": ("ece", "ECE (%)", "network minus dense, ECE (points)", -1),
}
WIDE, NARROW = 0.32, 0.17  # inches that a number takes, with a decimal and without
WITHIN = 0.98  # share of the compressed networks' cells that the colours' scale reaches
LEVELS = 5  # compressed networks that the maps of many datasets have room for


def draw(tables: dict[str, pd.DataFrame], shown: dict, settings: dict) -> Figure:
    """For each dataset the curves of the dense and the most compressed network, and a map of the cost a method.

    The colours are centred on zero and share one scale, which the compressed backbones set; a few of their cells and
    the controls may lie beyond it. A cell that was not run is hatched; one whose paired interval excludes zero has a
    dot.
    """
    metric, unit, cost, sign = COSTS[shown["kind"]]
    backbones, summary = shown["backbones"], tables["summary"].copy()
    order_of = {column: style.order(summary, column) for column in ("method", "shots")}
    difference = f"{metric}_dense_minus_backbone"
    summary["cost"] = 100 * sign * summary[f"{difference}_mean"]
    summary["sure"] = 1.0 * (summary[f"{difference}_low"] * summary[f"{difference}_high"] > 0)
    maps, many = len(order_of["method"]), len(shown["datasets"]) > 1
    compressed, controls = (gallery.in_role(backbones, role) for role in ("compressed", "control"))
    compressed = gallery.spread(backbones, compressed, LEVELS) if many else compressed
    scale = summary.loc[summary["backbone"].isin(compressed or controls), "cost"].abs().quantile(WITHIN)
    limit = scale if scale > 0 else 1.0
    columns = 1 + maps if many else min(3, 1 + maps)
    rows = len(compressed) + len(controls)
    height = max(0.95, 0.095 * rows + 0.2) if many else max(1.7, 0.14 * rows + 0.55)
    figure, axes = style.panels(
        len(shown["datasets"]) * (1 + maps),
        columns,
        settings["width"],
        height,
        width_ratios=[1.5, *[1] * maps] if many else None,
    )
    cell = settings["width"] / (columns + 1.2) / len(order_of["shots"])
    number = None if many or cell < NARROW else 1 if cell > WIDE else 0
    styles = style.lines(backbones, gallery.pair(backbones, summary.loc[summary["seeds"] > 0, "backbone"]))
    for index, dataset in enumerate(shown["datasets"]):
        own = summary[summary["dataset"] == dataset]
        curve, *others = axes[index * (1 + maps) : (index + 1) * (1 + maps)]
        style.curves(curve, own, metric, styles, order_of, settings)
        curve.set_title(style.named(dataset, settings), pad=3)
        curve.set_ylabel(unit, fontsize=6.5 if many else 8)
        for place, (axis, method) in enumerate(zip(others, order_of["method"], strict=True)):
            cells = own[own["method"] == method].set_index(["backbone", "shots"])
            _map(axis, cells, [*compressed, *controls], order_of["shots"], limit, settings["palette"], number)
            axis.axhline(len(compressed), color="white", lw=2.5)
            if not many or index == 0:
                axis.set_title(style.named(method, settings), pad=3, color=style.colours(settings)[method])
            if (many and place == 0) or (not many and (place + 1) % columns in (0, 1)):
                names = [backbones[name]["label"] for name in (*compressed, *controls)]
                axis.set_yticks(np.arange(rows) + 0.5, names, fontsize=5.5 if many and rows > 5 else 6.5)
        last = index == len(shown["datasets"]) - 1
        for axis in (curve, *others):
            axis.tick_params(axis="x", labelsize=5.5 if many else 6.5)
            if many and axis is not curve:
                axis.tick_params(axis="x", rotation=90)
            if last:
                axis.set_xlabel("shots", labelpad=1)
            elif many:
                axis.tick_params(labelbottom=False)
    bar = figure.colorbar(
        axes[1].collections[0],
        ax=axes,
        orientation="horizontal",
        shrink=0.4,
        aspect=40,
        pad=0.1 / figure.get_figheight(),
        extend="both",
    )
    bar.set_label(f"{cost}; dot: 95 % interval excludes 0; hatched: no result", fontsize=7)
    bar.outline.set_visible(False)
    handles = style.method_handles(order_of["method"], settings) + style.network_handles(backbones, styles)
    spare = figure.axes[len(axes) : -1]
    if spare:
        spare[0].legend(handles=handles, loc="center")
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
    what = "accuracy" if metric == "accuracy" else "calibration"
    cells = summary[summary["backbone"].isin([*compressed, *controls])]
    note = style.missing_note(int(cells["cost"].isna().sum()), len(cells))
    curves = style.over(int(summary["seeds"].max()))
    style.title(figure, f"hidden cost in {what}, paired means; curves: {curves}{note}", settings)
    return figure


def _map(
    axis: Axes,
    cells: pd.DataFrame,
    names: list[str],
    shots: list[str],
    limit: float,
    palette: str,
    number: int | None,
) -> None:
    wanted = pd.MultiIndex.from_product([names, shots])
    cost = cells["cost"].reindex(wanted).to_numpy().reshape(len(names), len(shots))
    sure = cells["sure"].reindex(wanted).to_numpy().reshape(cost.shape) == 1
    axis.patch.set(**style.NOT_RUN)
    axis.pcolormesh(
        np.ma.masked_invalid(cost), cmap=palette, vmin=-limit, vmax=limit, edgecolors="white", linewidth=0.4
    )
    rows, columns = np.nonzero(sure)
    dark = np.abs(cost) > 0.6 * limit
    across, down = (0.5, 0.5) if number is None else (0.9, 0.18)
    tones = np.where(dark[rows, columns], "white", "black")
    axis.scatter(columns + across, rows + down, s=5 if number else 1.8, c=tones, lw=0)
    for (row, column), value in np.ndenumerate(cost):
        if number is not None and np.isfinite(value):
            told = f"{round(value, number) + 0.0:.{number}f}".replace("-", "−")  # + 0.0: no negative zero
            tone = "white" if dark[row, column] else "black"
            axis.text(column + 0.48, row + 0.56, told, ha="center", va="center", fontsize=5.8, color=tone)
    axis.invert_yaxis()
    axis.set_xticks(np.arange(len(shots)) + 0.5, shots)
    axis.set_yticks([])
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)
