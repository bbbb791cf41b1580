"""Means over data sets: what each network reaches by each method and what it costs, with the cost's interval."""

import numpy as np
import pandas as pd

from hiddencost.results import cells
from hiddencost.results.matched import LOST
from hiddencost.results.pooled import pooled
from hiddencost.results.verdicts import counted, differences

OF = ["backbone", "method"]
EVERY = "every"  # number of shots, together
COLUMNS = ["shots", *OF, "dense", "accuracy", "cost", "low", "high", "cells", "missing", "over"]


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """Return means over the cells of each network and method: over all budgets, and at each.

    Args:
        runs: a row a run, as in runs.parquet.

    Returns:
        A row a number of `shots` (of several, `EVERY` for them together first), `backbone` and `method`: `accuracy`
        (%), mean over seeds, over the budgets of a data set and over data sets, each training once; what it loses of
        it against `dense`, the `cost`, and its 95 % interval `low`, `high` (points, see `pooled.pooled`; empty of a
        dense network) and what this is `over`; the number of `cells` (data set and budget) with a result, and of
        those that are `missing`.
    """
    budgets = list(runs["shots"].unique())
    parts = {EVERY: runs} if len(budgets) > 1 else {}
    parts |= {shots: runs[runs["shots"] == shots] for shots in budgets}
    return pd.concat([_means(part).assign(shots=shots) for shots, part in parts.items()])[COLUMNS]


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    evaluated = cells.one_seed(runs)
    evaluated = evaluated[cells.same_as(runs).reindex(evaluated.index).isna()]
    evaluated = evaluated.assign(accuracy=100 * evaluated["accuracy"].where(evaluated["status"] == "ok"))
    evaluated["unit"] = cells.dataset_units(evaluated["dataset"])
    by_cell = [*OF, "unit", "dataset", "shots"]
    of_cells = evaluated.groupby(by_cell, sort=False)["accuracy"].mean()
    table = of_cells.groupby([*OF, "unit"], sort=False).mean().groupby(OF, sort=False).mean().to_frame()
    ran = of_cells.notna().groupby(OF, sort=False)
    table["cells"], table["missing"] = ran.sum(), ran.size() - ran.sum()
    dense = runs.drop_duplicates("backbone").set_index("backbone")["dense"]
    table["dense"] = table.index.get_level_values("backbone").map(dense)
    lost = differences(counted(runs), LOST, "accuracy").dropna(subset="difference")
    costs = {}
    for key, pairs in lost.groupby(OF, sort=False):
        cost, bounds, over = pooled(pairs, fixed=False)
        costs[key] = [cost, *(bounds or (np.nan, np.nan)), over]
    index = pd.MultiIndex.from_tuples(costs, names=OF) if costs else table.index[:0]
    columns = ["cost", "low", "high", "over"]
    return table.join(pd.DataFrame(list(costs.values()), index, columns)).reset_index()
