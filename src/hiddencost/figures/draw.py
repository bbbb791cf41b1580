"""The study's figures, drawn from its tables alone."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hiddencost.figures import accuracy, glance, heatmap, mapping, movement, prompts, reliability, style
from hiddencost.files import atomic
from hiddencost.results import gallery, tables

matplotlib.use("agg")
DRAW: dict[str, Callable[[dict, dict, dict], Figure]] = {
    "accuracy": accuracy.draw,
    "heatmap": heatmap.draw,
    "calibration": heatmap.draw,
    "reliability": reliability.draw,
    "mapping": mapping.draw,
    "movement": movement.draw,
    "prompts": prompts.draw,
    "glance": glance.draw,
}


def draw(figure: dict, files: dict[str, str | Path], settings: dict, outputs: list[str | Path]) -> None:
    """Draw a figure of `gallery.listed` and save it to each output, in the format of its name.

    files: the study's tables, by the names that `gallery.TABLES` has for the figure's kind; settings: the study's
    `figures` with `title`, `methods` and the number of `classes` of each dataset (None where it is not known).
    """
    read = {name: _read(files[name], figure) for name in gallery.TABLES[figure["kind"]]}
    with style.paper():
        drawn = DRAW[figure["kind"]](read, figure, settings)
        drawn.get_layout_engine().execute(drawn)  # once, not again for each format
        drawn.set_layout_engine("none")
        for output in outputs:
            with atomic(output) as temporary:
                # no date within: the same tables give the same bytes
                metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(temporary.suffix[1:])
                drawn.savefig(temporary, metadata=metadata)


def _read(path: str | Path, figure: dict) -> pd.DataFrame | dict[str, np.ndarray]:
    """Read a table, of which the figure's datasets and backbones stay, in its order; or a file of arrays."""
    path, figure = Path(path), figure | {"backbones": [*figure["backbones"], *figure.get("references", [])]}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            wanted = {"gain", *figure["datasets"], *figure["backbones"]}
            return {name: arrays[name] for name in arrays.files if name.split("/")[0] in wanted}
    return style.in_order(tables.read(path), figure)
