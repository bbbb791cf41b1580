"""What the figures share: colours, names, and the paper's look."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all common kinds of colour vision
COLOURS = {"rlm": "#E69F00", "flm": "#0072B2", "ilm": "#D55E00", "lp": "#555555", "ft": "#009E73"}
LABELS = {"rlm": "RLM-VP", "flm": "FLM-VP", "ilm": "ILM-VP", "lp": "linear probe", "ft": "fine-tuning"}
MARKERS = ["o", "s", "D", "^", "v", "P", "X", "*"]  # by backbone


@contextmanager
def paper() -> Iterator[None]:
    """Set the look of a printed paper: 8 point type, thin lines, fonts embedded as text."""
    look = {
        **sns.axes_style("ticks"),
        **{"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7},
        **{"xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.2},
        **{"axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 200},
        **{"figure.constrained_layout.use": True, "legend.frameon": False, "svg.hashsalt": "hiddencost"},
    }
    with plt.rc_context(look):
        yield
    plt.close("all")


def colours(settings: dict) -> dict[str, str]:
    """Return the colour of each method: the study's, else the default."""
    return COLOURS | settings["colours"]


def order(runs: pd.DataFrame, column: str) -> list:
    """Return a column's values in the order of the table, which is the study's."""
    return list(dict.fromkeys(runs[column]))


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a result."""
    return runs[runs["status"] == "ok"]


def compressed(runs: pd.DataFrame) -> list[str]:
    """Return the backbones that stand against a dense one: the compressed and the controls."""
    return order(runs[(runs["compression"] != "none") | runs["control"].notna()], "backbone")


def backbone_label(runs: pd.DataFrame, name: str) -> str:
    """Name a backbone by what was done to it: "dense", "magnitude 20 %", "random init (control)"."""
    row = runs[runs["backbone"] == name].iloc[0]
    checkpoints = runs["checkpoint"].nunique()
    prefix = f"{row['checkpoint']} " if checkpoints > 1 else ""
    if isinstance(row["control"], str):
        return f"{prefix}{row['control'].replace('_', ' ')} (control)"
    if row["compression"] == "none":
        return f"{prefix}dense"
    if pd.isna(row["sparsity_declared"]) or not row["sparsity_declared"]:
        return f"{prefix}{row['compression']}"
    return f"{prefix}{row['compression']} {row['sparsity_declared']:.0%}".replace("%", " %")


def line_of(runs: pd.DataFrame, name: str) -> dict:
    """Return the line and marker of a backbone: dense solid, compressed dashed, controls dotted."""
    row = runs[runs["backbone"] == name].iloc[0]
    dashes = ":" if isinstance(row["control"], str) else "-" if row["compression"] == "none" else "--"
    marker = MARKERS[order(runs, "backbone").index(name) % len(MARKERS)]
    return {"ls": dashes, "marker": marker, "markersize": 3.5}


def seeds_note(runs: pd.DataFrame) -> str:
    """Say how many seeds stand behind a figure, and how many of its runs are missing."""
    missing = len(runs) - len(finished(runs))
    count = runs["seed"].nunique()
    note = f"{count} seed{'s' if count > 1 else ''}"
    return note + (f"; {missing} of {len(runs)} runs are missing" if missing else "")


def panels(count: int, columns: int, settings: dict, **keywords: object) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in rows of `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(settings["width"], settings["panel_height"] * rows + 0.6),
        squeeze=False,
        **keywords,
    )
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return figure, list(axes.flat[:count])
