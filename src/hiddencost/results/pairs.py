"""The tables that analyses make of pairs of networks, held against the study's runs."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from hiddencost.runs.packfile import AXES


def rows_of_study(files: Iterable[str | Path], runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the rows of pairs' tables that are of the study's runs, in their order.

    Args:
        files: tables of `runs.pairs.evaluate`. What they hold from an earlier grid is left out, and so are pairs of a
            run with itself, of two names of the same weights.
        runs: the study's table.
        columns: those beside `pairs.KEYS`.
    """
    known = [*AXES, "dense", "run"]
    parts = [part for part in map(pd.read_parquet, files) if len(part)]
    found = pd.concat(parts or [pd.DataFrame(columns=[*known, "run_dense", *columns])])
    order = runs.loc[runs["status"] == "ok", known].dropna(subset="dense")
    found = order.merge(found[found["run"] != found["run_dense"]], on=known)
    numbers = [name for name in columns if name != "measure"]
    return found[[*AXES, "dense", "run", "run_dense", *columns]].astype(dict.fromkeys(numbers, float))
