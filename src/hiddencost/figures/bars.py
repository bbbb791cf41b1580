"""Bars of intervals: how far they reach, the limits of an axis that has them, and marks where one leaves it."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from hiddencost.results.intervals import band_reach

BEYOND = "; some intervals go on beyond the axes (arrow heads)"


def reach(table: pd.DataFrame, mean: str, seeds: str) -> pd.DataFrame:
    """Return how far bars reach from means: `below` and `above`, in their unit, NaN where there is no interval.

    Of three seeds or more it is the interval that the table has, so that figures and tables tell the same; of two
    seeds, and where the table has none (of what is no difference), see `intervals.band_reach`.

    Args:
        table: with the columns `mean`, `seeds` and, by the mean's name without "_mean", `_std` and perhaps `_low` and
            `_high`.
        mean, seeds: names of columns.
    """
    name = mean.removesuffix("_mean")
    width = table[f"{name}_std"] * band_reach(table[seeds])
    found = pd.DataFrame({"below": width, "above": width})
    if f"{name}_low" in table:
        ends = {"below": table[mean] - table[f"{name}_low"], "above": table[f"{name}_high"] - table[mean]}
        found = pd.DataFrame(ends).where(table[seeds] > 2).fillna(found)  # where all seeds are the same it has none
    return found


def limits(cells: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of an axis: all points (`value`), and of their bars (`below`, `above`) as much as leaves the
    points room."""
    most = np.nanmax([cells["value"].abs().max(), 1.0])
    ends = cells["value"] - cells["below"].fillna(0), cells["value"] + cells["above"].fillna(0)
    low, high = np.nanmin([ends[0].min(), -0.1 * most]), np.nanmax([ends[1].max(), 0.1 * most])
    return 1.05 * max(low, -2 * most), 1.05 * min(high, 2 * most)


def mark_cut(axes: Iterable[Axes]) -> bool:
    """Put an arrow head where an error bar leaves its panel, whose limits are set; return whether one does."""
    cut = False
    for axis in axes:
        containers = [one for one in axis.containers if isinstance(one, ErrorbarContainer)]
        bars = [lines for container in containers for lines in container.lines[2]]
        edges = [(0, "<>", axis.get_xlim()), (1, "v^", axis.get_ylim())]
        for lines, (side, heads, limits) in product(bars, edges):
            for segment, (head, edge) in product(lines.get_segments(), zip(heads, sorted(limits), strict=True)):
                segment = np.reshape(segment, (-1, 2))  # of a bar that is not there it is empty
                beyond = segment[:, side] < edge if head in "<v" else segment[:, side] > edge
                if beyond.any() and not beyond.all():
                    place = np.where([side == 0, side == 1], edge, segment[0])
                    look: dict[str, Any] = {"color": lines.get_color()[0], "mew": 0, "clip_on": False}
                    axis.plot(*place, head, ms=3.5, transform=lines.get_transform(), **look)
                    cut = True
    return cut
