"""What compression costs on corrupted images, against how much they are corrupted."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hiddencost.figures import bars, style
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure

BESIDE = 0.5  # how much of the room between two severities the networks' points take


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """One panel a dataset and method, a line a network: accuracy of the dense network minus its own, over severities.

    At each dataset's largest number of shots with a result, of compressed networks that have learned (of all, where
    there are no such). Severity 0 are the clean images.

    Args:
        tables: `shift_cost`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    costs = tables["shift_cost"]
    costs = style.chosen(costs[costs["accuracy_cost"].notna()], settings, "severity")
    largest = costs.groupby("dataset")["shots"].agg(gallery.largest_shots)
    costs = costs[costs["shots"] == costs["dataset"].map(largest)]
    methods, severities = style.order(costs, "method"), sorted(set(costs["severity"]))
    names = style.networks(content.backbones, set(costs["backbone"]))
    learned = [name for name in names if content.backbones[name].trained]
    lines = style.looks(content.backbones, learned or names, settings)
    figure, panels = style.grid(content.datasets, methods or [""], settings, sharey=True)
    costs = costs.assign(value=costs["accuracy_cost"])
    costs[["below", "above"]] = bars.reach(costs, "accuracy_cost", "paired_seeds")
    beside = dict(zip(lines, np.linspace(-BESIDE / 2, BESIDE / 2, len(lines) + 2)[1:-1], strict=True))
    for (dataset, method), axis in panels.items():
        of_panel = costs[(costs["dataset"] == dataset) & (costs["method"] == method)]
        for name, line in lines.items():
            of_line = of_panel[of_panel["backbone"] == name].set_index("severity").reindex(severities)
            places = np.arange(len(severities)) + beside[name]
            axis.errorbar(places, of_line["value"], of_line[["below", "above"]].T, elinewidth=0.6, **line)
        axis.axhline(0, color="black", lw=0.6)
        axis.set_xlim(-0.5, len(severities) - 0.5)
        axis.set_xticks(np.arange(len(severities)), ["clean" if one == 0 else str(one) for one in severities], size=7)
        if axis.xaxis.get_tick_params()["labelbottom"]:
            axis.set_xlabel("severity", size=7)
    next(iter(panels.values())).set_ylim(*bars.limits(costs[costs["backbone"].isin(list(lines))]))
    figure.supylabel("dense minus compressed, accuracy (points)", size=8)
    figure.legend(handles=style.network_handles(content.backbones, lines), loc="outside lower center", ncols=6)
    corruptions = int(costs["corruptions"].max()) if len(costs) else 0
    shots = dict.fromkeys(style.shots_label(number) for number in largest)
    what = (
        f"hidden cost on corrupted images, with {' or '.join(shots) or 'no result'}, mean over {corruptions} "
        f"corruption{'s' if corruptions != 1 else ''}, {style.over(costs['paired_seeds'])}; above 0 compression costs"
    )
    what += bars.BEYOND if bars.mark_cut(panels.values()) else ""
    style.title(figure, content, what + style.short_note(costs), settings)
    return figure
