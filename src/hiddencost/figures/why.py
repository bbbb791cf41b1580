"""What goes with the hidden cost: rank correlations of measures of compressed networks with what they lose."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiddencost.figures import style
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.why import EVERY, correlations
from hiddencost.runs.measures import MEASURES

ROW = 0.2  # inches of a measure
SURE, OPEN = "#0072B2", "0.35"  # of an interval that excludes 0, and of another


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """A panel a method, a row a measure: its rank correlation with the cost, with its interval, and by dataset.

    Args:
        tables: `measures` and `runs`: of the figure's shots, too, which the study's table `why` does not leave out.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    table = correlations(style.of_shots(tables["measures"], settings), tables["runs"])
    methods = style.order(table, "method") or settings["methods"][:1]
    names = [name for name in MEASURES if name in set(table["measure"])] or list(MEASURES)
    height = 0.5 + ROW * len(names)
    width = settings["width"] if len(methods) > 1 else min(settings["width"], 4.5)
    figure, axes = style.panels(len(methods), style.ABREAST, width, height, sharex=True, sharey=True)
    for number, (axis, method) in enumerate(zip(axes, methods, strict=True)):
        axis.axvline(0, color="black", lw=0.6)
        found = table[table["method"] == method]
        for one in found.itertuples():
            row = names.index(one.measure)
            if one.over != EVERY:
                axis.plot(one.correlation, row, marker="|", ms=6, mew=0.8, color="0.6", ls="", zorder=1)
                continue
            sure = one.low > 0 or one.high < 0
            colour = SURE if sure else OPEN
            axis.hlines(row, one.low, one.high, color=colour, lw=1.1)
            axis.plot(one.correlation, row, marker="o", ms=4, color=colour, mfc=colour if sure else "white", ls="")
        axis.set_title(style.named(method, settings))
        axis.grid(axis="y", lw=0.3)
        axis.set_xlim(-1.05, 1.05)
        axis.set_xticks([-1, 0, 1])
        if number + style.ABREAST >= len(axes):
            axis.set_xlabel("rank correlation", size=7)
            axis.tick_params(labelbottom=True)
    axes[0].set_yticks(range(len(names)), [MEASURES[name].label for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    several = (table["over"] != EVERY).any()
    figure.legend(handles=_handles() if several else _handles()[:2], loc="outside lower center", ncols=3)
    units = ", ".join(dict.fromkeys(table.loc[table["correlation"].notna() & (table["over"] == EVERY), "unit"]))
    of_all = table[table["over"] == EVERY]
    ranked = of_all.dropna(subset="correlation").groupby(["measure", "method"]).ngroups
    note = "; no mark: alike in all, or not of the method" if 0 < ranked < len(names) * len(methods) else ""
    style.title(figure, content, f"what goes with the cost, over {units or 'no result'}{note}", settings)
    return figure


def _handles() -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.1}
    return [
        Line2D([], [], color=SURE, label="interval excludes 0", **dot),
        Line2D([], [], color=OPEN, mfc="white", label="interval holds 0, or there is none", **dot),
        Line2D([], [], color="0.6", marker="|", ms=6, ls="", label="a single dataset"),
    ]
