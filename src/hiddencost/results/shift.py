"""What compression costs on corrupted test images: see `runs.shift`, which scores them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from hiddencost.results import cells, tables
from hiddencost.results.intervals import paired_interval
from hiddencost.runs.metrics import METRICS
from hiddencost.runs.packfile import AXES
from hiddencost.runs.shift_table import CLEAN, COLUMNS, GROWTH, SCORES

CELL = ["backbone", "dense", "dataset", "method", "shots", "severity"]
COST_COLUMNS = [
    *CELL,
    *("corruptions", "seeds", "paired_seeds", "classes_short", "same_as"),
    *(f"{name}{end}" for name in SCORES for end in ("", "_cost", "_cost_std", "_cost_low", "_cost_high")),
]


def write(files: Iterable[str | Path], runs: str | Path, paths: Mapping[str, str]) -> None:
    """Write `shift`, a row a run, corruption and severity, and `shift_cost`, a row a cell and severity.

    Args:
        files: of `runs.shift.write`.
        runs: the study's table.
        paths: of both tables, by name.
    """
    of_study = tables.read(runs)
    shifted = in_order(pd.concat([pd.read_parquet(file) for file in files]), of_study)
    tables.write(shifted, paths["shift"])
    tables.write(costs(shifted, of_study), paths["shift_cost"])


def in_order(shifted: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a study's runs, in the order of its table: packs may hold others, of an earlier grid."""
    place = runs[AXES].assign(place=range(len(runs)))
    return shifted.merge(place, on=AXES).sort_values(["place"], kind="stable")[COLUMNS].reset_index(drop=True)


def costs(shifted: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what compression costs at each severity: the mean over corruptions, which weigh alike.

    Args:
        shifted: a row a run, corruption and severity; severity 0 are the clean images.
        runs: as in runs.parquet.

    Returns:
        A row a cell and severity, in the order of the runs: of how many `corruptions` and `seeds` it is, and of how
        many `paired_seeds`, which the dense network has, too; of each paired metric the mean (a share of 1), and
        `..._cost`, what the backbone loses against the dense one, or has more of what is better small, paired by
        seed, in points, with its standard deviation (n - 1) and its 95 % interval over seeds (see
        `intervals.paired_interval`). It speaks for other seeds, on the same corrupted images.
    """
    told = cells.one_seed(runs.assign(same_as=cells.same_as(runs)))
    told = told[[*AXES, "dense", "classes_short", "same_as"]]
    of_runs = shifted.groupby([*AXES, "severity"], sort=False)
    means = of_runs[SCORES].mean().join(of_runs["corruption"].nunique().rename("corruptions")).reset_index()
    means = means.merge(told, on=AXES)
    pair = ["dense", "dataset", "method", "shots", "seed", "severity"]
    dense = means.drop(columns="dense").rename(columns={"backbone": "dense"})[[*pair, *SCORES]]
    means = means.merge(dense, on=pair, how="left", suffixes=("", "_dense"))
    for name in SCORES:
        sign = 1 if METRICS[name].higher_is_better else -1
        means[f"{name}_cost"] = sign * METRICS[name].factor * (means[f"{name}_dense"] - means[name])
        means.loc[means["backbone"] == means["dense"], f"{name}_cost"] = float("nan")
    of_cells = means.groupby(CELL, dropna=False, sort=False)
    table = (
        of_cells[["corruptions", "classes_short", *SCORES]]
        .agg("mean")
        .join(of_cells["seed"].nunique().rename("seeds"))
    )
    table["paired_seeds"] = of_cells["accuracy_cost"].count()
    table["same_as"] = cells.copies(of_cells["same_as"])
    for name in (f"{score}_cost" for score in SCORES):
        mean, std, count = (getattr(of_cells[name], statistic)() for statistic in ("mean", "std", "count"))
        table[name], table[f"{name}_std"] = mean, std
        table[f"{name}_low"], table[f"{name}_high"] = paired_interval(mean, std, count, of_cells[name].skew())
    return table.reset_index().reindex(columns=COST_COLUMNS)


def growth(shifted: pd.DataFrame) -> pd.DataFrame:
    """Return what shift costs each run: a column of `AXES` and, for each paired metric, `shift_...`: its value on
    corrupted images, mean over corruptions and severities, minus that on clean ones; a share of 1."""
    is_clean = shifted["corruption"] == CLEAN
    clean, corrupted = (shifted[rows].groupby(AXES, sort=False)[SCORES].mean() for rows in (is_clean, ~is_clean))
    return (corrupted - clean).add_prefix(GROWTH).reset_index()


def with_growth(runs: pd.DataFrame, shifted: pd.DataFrame | None) -> pd.DataFrame:
    """Return runs with the columns of `growth`, empty where a study has not been shown corrupted images."""
    if shifted is None:
        return runs.assign(**dict.fromkeys((f"{GROWTH}{name}" for name in SCORES), float("nan")))
    return runs.merge(growth(shifted), how="left", on=AXES)
