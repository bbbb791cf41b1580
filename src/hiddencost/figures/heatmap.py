"""Hidden cost: dense minus compressed accuracy over compression and shots (figure 6 of the paper)."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.tables import summarise


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset and method: the mean over seeds of dense minus compressed accuracy, in points.

    The colours are centred on zero and share one scale, which the compressed backbones set; a control may lie beyond
    it. A cell that was not run is hatched.
    """
    datasets, methods, shots = (style.order(runs, column) for column in ("dataset", "method", "shots"))
    backbones = style.compressed(runs)
    summary = summarise(runs)
    summary["points"] = summary["accuracy_dense_minus_backbone_mean"] * 100
    scale = summary.loc[(summary["compression"] != "none"), "points"].abs().max()
    limit = scale if scale > 0 else 1.0
    figure, axes = style.panels(len(datasets) * len(methods), len(methods), settings, sharey=True)
    for axis, (dataset, method) in zip(axes, [(d, m) for d in datasets for m in methods], strict=True):
        own = summary[(summary["dataset"] == dataset) & (summary["method"] == method)]
        cells = own.pivot(index="backbone", columns="shots", values="points").reindex(index=backbones, columns=shots)
        axis.patch.set(facecolor="white", hatch="////", edgecolor="0.7")
        sns.heatmap(
            cells,
            ax=axis,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            annot=True,
            fmt="+.1f",
            annot_kws={"size": 7},
            linewidths=1,
            cbar=False,
            yticklabels=[style.backbone_label(runs, name) for name in backbones],
        )
        axis.set_title(style.LABELS[method] if len(datasets) == 1 else f"{dataset}, {style.LABELS[method]}")
        axis.set(xlabel="shots", ylabel="")
        axis.tick_params(length=0, rotation=0)
    bar = figure.colorbar(axes[-1].collections[0], ax=axes, shrink=0.8, pad=0.02, extend="both")
    bar.set_label("dense minus backbone (points)")
    bar.outline.set_visible(False)
    which = f"{settings['title']}, {datasets[0]}" if len(datasets) == 1 else settings["title"]
    figure.suptitle(f"{which}: hidden cost in accuracy, paired mean over {style.seeds_note(runs)}", fontsize=8)
    return figure
