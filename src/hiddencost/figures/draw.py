"""The study's figures, drawn from its tables alone.

What draws a figure is named by it (`StudyFigure.drawn_by`) and imported here, so that a figure stands on the code of
its own kind, and on none of the other kinds'.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import matplotlib
import numpy as np
import pandas as pd

from hiddencost.figures import style
from hiddencost.files import atomic
from hiddencost.results import tables
from hiddencost.results.gallery import StudyFigure

matplotlib.use("agg")


def draw(
    content: StudyFigure, files: Mapping[str, str | Path], settings: dict, outputs: Sequence[str | Path]
) -> None:
    """Draw a figure and save it to each output, in the format of its name.

    Args:
        content: what it shows.
        files: the tables that its kind reads, by name.
        settings: the study's `figures` with `title`, `methods` and the number of `classes` of each dataset (None
            where it is not known).
        outputs: paths that end in .png, .pdf or .svg.
    """
    tables_shown = {name: read_shown(path, content) for name, path in files.items()}
    content = with_measured_sparsity(content, tables_shown.values())
    with style.paper():
        figure = resolve_name(content.drawn_by)(tables_shown, content, settings)
        figure.get_layout_engine().execute(figure)  # once, not again for each format
        figure.set_layout_engine("none")
        for output in outputs:
            with atomic(output) as temporary:
                # no date within: the same tables give the same bytes
                metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(temporary.suffix[1:])
                figure.savefig(temporary, metadata=metadata)


def read_shown(path: str | Path, content: StudyFigure) -> pd.DataFrame | dict[str, np.ndarray]:
    """Read what a figure is drawn from.

    Args:
        path: of a table, or of arrays (.npz).
        content: says which datasets and backbones stay.

    Returns:
        The table's rows of these, in the figure's order; or these arrays by name, and "gain".
    """
    path, backbones = Path(path), [*content.backbones, *content.references]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            wanted = {"gain", *content.datasets, *backbones}
            return {name: arrays[name] for name in arrays.files if name.split("/")[0] in wanted}
    return style.in_order(tables.read(path), backbones, content.datasets)


def with_measured_sparsity(content: StudyFigure, shown: Iterable[pd.DataFrame | dict]) -> StudyFigure:
    """Return a figure's content with the sparsity that was measured of networks of which none is published, by which
    levels are chosen. Labels stay as the study states them.

    Args:
        content: what the figure shows.
        shown: the tables that it reads; those without the column `sparsity_measured` say nothing.
    """
    measured: dict[str, float] = {}
    for table in shown:
        if "sparsity_measured" in table:
            of_backbones = table.dropna(subset="sparsity_measured").drop_duplicates("backbone")  # type: ignore[union-attr]
            measured |= dict(zip(of_backbones["backbone"], of_backbones["sparsity_measured"], strict=True))
    backbones = {
        name: replace(one, sparsity=measured.get(name)) if one.sparsity is None else one
        for name, one in content.backbones.items()
    }
    return replace(content, backbones=backbones)
