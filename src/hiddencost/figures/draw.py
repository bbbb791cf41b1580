"""The study's figures, drawn from its tables alone.

What draws a figure is named by it (`StudyFigure.drawn_by`) and imported here, so that a figure stands on the code of
its own kind, and on none of the other kinds'.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import matplotlib
import numpy as np
import pandas as pd

from hiddencost.figures import dark, style
from hiddencost.files import atomic
from hiddencost.results import gallery, tables
from hiddencost.results.gallery import StudyFigure

matplotlib.use("agg")
logging.getLogger("fontTools").setLevel(logging.WARNING)  # which tells each table of the fonts in a PDF


def draw(
    content: StudyFigure, files: Mapping[str, str | Path], settings: dict, outputs: Sequence[str | Path]
) -> None:
    """Draw a figure and save it to each output, in the format of its name.

    Args:
        content: what it shows.
        files: the tables that its kind reads, by name.
        settings: the study's `figures` with `title`, the `methods` shown, `labels` and, as `metric`, what
            `jobs.results.shown_metric` tells. A figure of the `summary` has
            the whole study's, too, as `study`: it sets the scale that the study's figures share.
        outputs: paths that end in .png, .pdf or .svg.
    """
    settings = settings | {"methods": content.methods or settings["methods"]}
    given: dict[str, pd.DataFrame | dict[str, np.ndarray]] = {}
    for name, path in files.items():
        if Path(path).suffix == ".npz":
            given[name] = arrays_shown(path, content)
            continue
        table = tables.read(path)
        given[name] = shown = rows_shown(table, content, settings["methods"])
        if "sparsity_measured" in shown:
            content = replace(content, backbones=gallery.with_measured_sparsity(content.backbones, shown))
        if name == "summary":
            given["study"] = table
    with style.paper():
        figure = resolve_name(content.drawn_by)(given, content, settings)
        figure.get_layout_engine().execute(figure)  # once, not again for each format
        figure.set_layout_engine("none")
        if settings["style"] == "dark":
            dark.turn(figure)
        for output in outputs:
            with atomic(output) as temporary:
                # no date within: the same tables give the same bytes
                metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(temporary.suffix[1:])
                figure.savefig(temporary, metadata=metadata)


def rows_shown(table: pd.DataFrame, content: StudyFigure, methods: list[str]) -> pd.DataFrame:
    """Return a table's rows of a figure's datasets and backbones and of these methods, in the figure's order."""
    return style.in_order(table, [*content.backbones, *content.references], content.datasets, methods)


def arrays_shown(path: str | Path, content: StudyFigure) -> dict[str, np.ndarray]:
    """Return the arrays of a figure's datasets and backbones by name, and "gain"; path: of an .npz."""
    wanted = {"gain", *content.datasets, *content.backbones}
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files if name.split("/")[0] in wanted}
