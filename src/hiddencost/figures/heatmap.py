"""Hidden cost: dense minus compressed accuracy over compression and shots (figure 6 of the paper)."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.tables import summarise


def draw(runs: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> Figure:
    """One panel a dataset and method: the mean over seeds of dense minus compressed accuracy, in points.

    The colours are centred on zero and share one scale. A cell that was not run is hatched.
    """
    datasets, methods = style.order(runs, "dataset"), style.order(runs, "method")
    backbones, shots = style.compressed(runs), style.order(runs, "shots")
    labels = [style.backbone_label(runs, name) for name in backbones]
    points = (
        summarise(runs).set_index(["dataset", "method", "backbone", "shots"])["accuracy_dense_minus_backbone_mean"]
        * 100
    )
    limit = np.nanmax(np.abs(points.to_numpy()), initial=1.0)
    figure, axes = style.panels(len(datasets) * len(methods), len(methods), settings, sharey=True)
    for axis, (dataset, method) in zip(axes, [(d, m) for d in datasets for m in methods], strict=True):
        cells = points.loc[dataset, method].unstack().reindex(index=backbones, columns=shots)
        axis.set_facecolor("white")
        axis.patch.set(hatch="////", edgecolor="0.7")
        sns.heatmap(
            cells, ax=axis, cmap="RdBu_r", center=0, vmin=-limit, vmax=limit, annot=True, fmt="+.1f", cbar=False,
            linewidths=1, yticklabels=labels, annot_kws={"size": 7},
        )  # fmt: skip
        axis.set_title(style.LABELS[method] if len(datasets) == 1 else f"{dataset}, {style.LABELS[method]}")
        axis.set_xlabel("shots")
        axis.set_ylabel("")
        axis.tick_params(length=0)
        axis.tick_params(axis="y", rotation=0)
    if axes:
        bar = figure.colorbar(axes[-1].collections[0], ax=axes, shrink=0.8, pad=0.02)
        bar.set_label("dense minus backbone (points)")
        bar.outline.set_visible(False)
    names = ", ".join(datasets)
    figure.suptitle(
        f"{settings['title']}, {names}: hidden cost in accuracy, mean of {style.seeds_note(runs)} (paired)",
        fontsize=8,
    )
    return figure
