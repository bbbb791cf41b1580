"""The study's figures, drawn from its tables alone."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from hiddencost.figures import accuracy, heatmap, reliability, style
from hiddencost.files import atomic

matplotlib.use("agg")

DRAW: dict[str, Callable[[pd.DataFrame, pd.DataFrame, dict], Figure]] = {
    "accuracy": accuracy.draw,
    "heatmap": heatmap.draw,
    "reliability": reliability.draw,
}


def draw(name: str, runs: pd.DataFrame, bins: pd.DataFrame, settings: dict, outputs: list[str | Path]) -> None:
    """Draw a figure of `DRAW` and save it to each output, in the format of its name.

    runs, bins: the study's tables; settings: the study's `figures` (width, panel_height, colours) with `title`.
    """
    with style.paper():
        figure = DRAW[name](runs, bins, settings)
        for output in outputs:
            with atomic(output) as temporary:
                # no date within: the same tables give the same bytes
                metadata = {"CreationDate": None} if temporary.suffix == ".pdf" else None
                figure.savefig(temporary, metadata=metadata)
