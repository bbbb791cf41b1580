"""What goes with the cost: rank correlations of measures of compressed networks with what they lose."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.results import tables
from hiddencost.results.cells import dataset_units
from hiddencost.results.intervals import crossed_interval, filled
from hiddencost.results.pairs import rows_of_study
from hiddencost.runs.packfile import AXES
from hiddencost.runs.sides import COST

FEWEST = 4  # cells of a dataset and seed that are ranked: of three the ranks are the same by chance in one of three
EVERY = "all"  # datasets, together
RANKED = ["unit", "dataset", "dense", "method", "seed"]  # within which cells are
MEASURED = [*AXES, "dense", "run", "run_dense", "measure", "value", "value_dense", "change", COST]
COLUMNS = ["measure", "method", "over", "correlation", "low", "high", "cells", "unit"]


class Correlation(NamedTuple):
    """A mean rank correlation, -1 to 1, NaN where there is none, its 95 % interval, how many cells are ranked, and
    what the interval speaks for."""

    correlation: float
    low: float
    high: float
    cells: int
    unit: str


def write(files: Iterable[str | Path], runs: str | Path, paths: Mapping[str, str]) -> None:
    """Write `measures`, a row a run and measure, and `why`, a row a measure, method and dataset.

    Args:
        files: of `runs.measured.write`.
        runs: the study's table.
        paths: of the tables, by name.
    """
    table = tables.read(runs)
    measures = of_study(files, table)
    tables.write(measures, paths["measures"])
    tables.write(correlations(measures, table), paths["why"])


def of_study(files: Iterable[str | Path], runs: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of a study's runs: `value` of the compressed network's run, `value_dense` of the dense
    one's, `change`, the first minus the second, or the first where the measure is of both networks, and the `cost`,
    accuracy that is lost, in points. files, runs: see `pairs.rows_of_study`."""
    found = rows_of_study(files, runs, ["measure", "value", "value_dense"])
    accuracy = runs.set_index("run")["accuracy"]
    of_run = 100 * accuracy[~accuracy.index.duplicated()].astype(float)
    found["change"] = found["value"] - found["value_dense"].fillna(0)
    found[COST] = found["run_dense"].map(of_run).astype(float) - found["run"].map(of_run).astype(float)
    return found[MEASURED]


def correlations(measures: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return how each measure goes with the cost by each method, over compressed networks and numbers of shots.

    Controls are left out: what never learned is far from all others in any measure, and would decide each.

    Args:
        measures: as `of_study` returns them.
        runs: the study's table.

    Returns:
        A row a measure, method and `over`: "all" datasets, and each where there are several; see `correlate`.
    """
    is_compressed = (runs["compression"] != UNCOMPRESSED) & runs["control"].isna()
    measures, rows = measures[measures["backbone"].isin(runs.loc[is_compressed, "backbone"])], []
    for (measure, method), found in measures.groupby(["measure", "method"], sort=False):
        datasets = found["dataset"].unique()
        for over in [EVERY, *(datasets if len(datasets) > 1 else [])]:
            of_these = found if over == EVERY else found[found["dataset"] == over]
            rows.append({"measure": measure, "method": method, "over": over, **correlate(of_these)._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def correlate(found: pd.DataFrame) -> Correlation:
    """Return the rank correlation of a measure's `change` with the `cost`, and its 95 % interval.

    Spearman's is taken within a dataset, a dense network, a method and a seed, over its cells (compressed networks
    and numbers of shots; each pair of runs once), as between datasets both differ for other reasons. Fisher's z of it
    is averaged over methods and dense networks, then over seeds and datasets, which are the units: the interval is
    that of a mean over datasets crossed with seeds, as of claims (see `pooled.pooled`), or of one dataset over its
    seeds. A correlation of 1 has no finite z; it counts as half a step below, where a step is what two neighbours in
    exchanged places take off: 6 / (n (n² - 1)) of n cells.

    Args:
        found: rows of one measure, as `of_study` returns them.
    """
    once = found.dropna(subset=["change", COST]).drop_duplicates(["run", "run_dense"])
    once = once.assign(unit=dataset_units(once["dataset"]))
    groups = once.groupby(RANKED)[["change", COST]]
    of_groups = groups.apply(_fisher_z).dropna() if len(once) else pd.Series(dtype=float)
    if of_groups.empty:
        return Correlation(np.nan, np.nan, np.nan, 0, f"fewer than {FEWEST} different cells of any dataset")
    ranked = once[pd.MultiIndex.from_frame(once[RANKED]).isin(of_groups.index)]
    cells = ranked.groupby(["dataset", "dense", "method", "backbone", "shots"]).ngroups
    table = of_groups.groupby(["unit", "seed"]).mean().unstack().to_numpy()
    datasets, seeds = table.shape
    unit = f"{datasets} dataset{'s' if datasets > 1 else ''}, {seeds} seed{'s' if seeds > 1 else ''}"
    table = filled(table)
    mean = float(np.tanh(table.mean()))
    if seeds < 2:
        return Correlation(mean, np.nan, np.nan, cells, f"{unit}: no interval from a single one")
    low, high = crossed_interval(table.squeeze(tuple(axis for axis in (0, 1) if table.shape[axis] == 1))[None])
    return Correlation(mean, float(np.tanh(low.item())), float(np.tanh(high.item())), cells, unit)


def _fisher_z(cells: pd.DataFrame) -> float:
    count = len(cells)
    if count < FEWEST or (cells.nunique() == 1).any():
        return np.nan
    most = 1 - 6 / (count * (count**2 - 1))
    return float(np.arctanh(np.clip(spearmanr(cells["change"], cells[COST]).statistic, -most, most)))
