"""The cost split: how much of what compression costs is the network's, the prompt's and the label mapping's."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import factorial
from pathlib import Path

import pandas as pd

from hiddencost.results import tables
from hiddencost.results.intervals import paired_interval
from hiddencost.results.pairs import rows_of_study
from hiddencost.runs.sides import COST, DENSE, OWN, PARTS, SPLIT, SWAPS, accuracy_of

CELL = ["backbone", "dense", "dataset", "method", "shots"]
COLUMNS = [*CELL, "seeds", *(f"{name}{end}" for name in (COST, *SPLIT) for end in ("", "_low", "_high"))]


def write(files: Iterable[str | Path], runs: str | Path, paths: Mapping[str, str]) -> None:
    """Write `swaps`, a row a run, and `split`, a row a cell.

    Args:
        files: of `runs.swaps.write`.
        runs: the study's table.
        paths: of the tables, by name.
    """
    swaps = of_study(files, tables.read(runs))
    tables.write(swaps, paths["swaps"])
    tables.write(of_cells(swaps), paths["split"])


def of_study(files: Iterable[str | Path], runs: pd.DataFrame) -> pd.DataFrame:
    """Return what `split` says of a study's runs, a row a run; files, runs: see `pairs.rows_of_study`."""
    return split(rows_of_study(files, runs, SWAPS))


def split(swaps: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies of swaps with what they say of the cost, in points.

    Args:
        swaps: a row a pair of runs, with the accuracies `SWAPS`, shares of 1.

    Returns:
        Them with `cost`, the dense network's accuracy under its own prompt and mapping minus the compressed one's
        under its own. `gain_...`: what the compressed network gains under the dense one's prompt, mapping, or both.
        `loss_...`: what the dense network loses under the compressed one's. `part_...`: the cost's Shapley values,
        what it changes when the network, the prompt or the mapping becomes the dense one's, mean over all orders in
        which they may (Shapley, A value for n-person games, 1953): they add up to the cost. A prompt and a mapping
        were learned on one network, together, so that under the other they may do worse than either's own: then gains
        are negative, and the network's part is larger than the cost.
    """

    def accuracy(*of_dense: str) -> pd.Series:
        return 100 * swaps[accuracy_of(*(DENSE if part in of_dense else OWN for part in PARTS))]

    own, dense = accuracy(), accuracy(*PARTS)
    found = {COST: dense - own}
    learned = PARTS[1:]
    for name, swapped in (*((part, (part,)) for part in learned), ("both", learned)):
        found[f"gain_{name}"] = accuracy(*swapped) - own
        found[f"loss_{name}"] = dense - accuracy(*(part for part in PARTS if part not in swapped))
    for part in PARTS:
        others = [other for other in PARTS if other != part]
        found[f"part_{part}"] = sum(
            factorial(size) * factorial(len(others) - size) / factorial(len(PARTS))
            * (accuracy(part, *before) - accuracy(*before))
            for size in range(len(PARTS))
            for before in combinations(others, size)
        )  # fmt: skip
    return swaps.assign(**{name: found[name] for name in (COST, *SPLIT)})


def of_cells(swaps: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds of what `split` says, with their 95 % intervals, a row a cell; budgets that choose
    the same images stand once, at the smallest."""
    cells = swaps.drop_duplicates(["run", "run_dense"]).groupby(CELL, sort=False)
    found: dict[str, pd.Series] = {"seeds": cells["seed"].nunique()}
    for name in (COST, *SPLIT):
        values = cells[name]
        low, high = paired_interval(values.mean(), values.std(), values.count(), values.skew())
        found |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(found).reset_index().reindex(columns=COLUMNS)
