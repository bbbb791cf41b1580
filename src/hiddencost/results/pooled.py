"""The mean of a comparison over cells, and its interval: what is weighed how, and what it speaks for."""

from itertools import pairwise

import numpy as np
import pandas as pd

from hiddencost.compression.registry import applied
from hiddencost.messages import listed
from hiddencost.results.cells import dataset_units
from hiddencost.results.intervals import crossed_interval, filled

NETWORK = ["backbone", "family", "network", "upstream_seed"]  # columns of pairs that tell networks, or two of each


def networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return of each backbone of runs, by name, what intervals ask of it.

    Returns:
        Its `family`: networks that are compressed in one way, to whatever level, from one dense network; `network`:
        the name that it shares with those that are trained alike from other seeds; and `upstream_seed`, its own, NaN
        where the study does not train it.
    """
    stated = runs.drop_duplicates("backbone").set_index("backbone")
    network = stated["network"] if "network" in stated else pd.Series(np.nan, stated.index)
    network = network.where(network.notna(), stated.index.to_series())
    seed = stated.get("upstream_seed", np.nan)
    origin = stated["dense"].map(network).fillna(network)
    done = [
        control if isinstance(control, str) else " + ".join(entry.kind for entry in applied(compression))
        for control, compression in zip(stated["control"], stated["compression"], strict=True)
    ]
    family = (origin + ": ").where(pd.Series(done, stated.index) != "", network) + done
    return pd.DataFrame({"family": family, "network": network, "upstream_seed": seed}, stated.index)


def pooled(pairs: pd.DataFrame, fixed: bool) -> tuple[float, tuple[float, float] | None, str]:
    """Return the mean difference over pairs of runs, and its 95 % interval.

    The mean is taken within a cell (dataset, methods, shots) first over the networks of a family, which may be ten
    levels of one algorithm and three of another, then over families; then over the cells of a dataset, and over
    datasets. A pair that is missing is filled by the additive fit to the others (see `intervals.filled`), so that a
    seed is not better for lack of a hard cell.

    Seeds are crossed with datasets: what depends on the seed alone, such as the classes that RLM-VP draws, is the
    same on all of them. So the interval is that of a mean over crossed samples (see `intervals.crossed_interval`):
    of seeds and datasets, for which it then speaks ("datasets of the kind"), or with one dataset, or a `fixed` choice
    of them, of seeds alone. Where all networks compared were trained from the same two or more upstream seeds, these
    are one more sample, and it speaks for other trainings by the same algorithms; else for these networks alone. It
    never speaks for another draw of a control's random weights: all seeds share one.

    With two seeds t is 12.7, and only what is much larger than their difference is decided. There is no interval
    from a single seed, nor from units that are all the same, which say nothing of how far others would lie. How
    often the interval covers the truth: bench/results/coverage.md.

    Args:
        pairs: a row a pair: its `difference`, `dataset`, `seed`, `method` and `shots`, and the columns `NETWORK`; or
            in place of these `..._left` and `..._right`.
        fixed: whether the choice of datasets is.

    Returns:
        The mean, the interval's ends, or None where there is none, and what it speaks for, in words.
    """
    found = pairs.dropna(subset="difference").copy()
    found["unit"], found["replicate"] = dataset_units(found["dataset"]), _replicates(found)
    table = _units(found)
    effect, seeds = table.mean(), found.groupby("unit")["seed"].nunique()
    if fixed or len(table) == 1:
        table = table.mean(0, keepdims=True)
        speaks_for = f"over {_range(seeds)} of {listed(sorted(found['dataset'].unique()), 'and')} alone"
    else:
        speaks_for = f"over {len(table)} datasets of the kind, {_range(seeds)} each"
    if table.shape[1] > 1:
        speaks_for += f", {table.shape[1]} trainings of each network"
    if seeds.max() < 2:
        return effect, None, f"{speaks_for}: no interval from a single one"
    low, high = crossed_interval(table.squeeze(tuple(axis for axis in (0, 1) if table.shape[axis] == 1))[None])
    if np.isnan(low.item()):
        return effect, None, f"{speaks_for}, which do not differ: no interval"
    return effect, (low.item(), high.item()), speaks_for


def _replicates(found: pd.DataFrame) -> pd.Series:
    """Return each pair's upstream seed where all networks have the same ones, two or more, and so have the sides of a
    pair; else 0: crossed is only what has its seeds in common."""
    seeds = found[[name for name in found if name.startswith("upstream_seed")]]
    same = len(seeds.columns) and seeds.notna().all(axis=None) and (seeds.nunique(axis=1) == 1).all()
    if not same:
        return pd.Series(0, found.index)
    several = seeds.iloc[:, 0].groupby([found[name] for name in found if name.startswith("network")]).nunique()
    crossed = several.min() == seeds.iloc[:, 0].nunique() > 1
    return seeds.iloc[:, 0] if crossed else pd.Series(0, found.index)


def _units(found: pd.DataFrame) -> np.ndarray:
    """Return the mean over cells of each dataset, upstream seed and seed: [datasets, upstream seeds, seeds]."""
    replicated = found["replicate"].nunique() > 1
    families, files = (
        [name for name in found if name.startswith(what)]
        for what in ("family", "network" if replicated else "backbone")
    )
    cell = ["unit", "dataset", *(name for name in found if name.startswith(("method", "shots")))]
    levels = [["unit"], ["unit", "dataset"], cell, [*cell, *families], [*cell, *families, *files]]
    keys = found[levels[-1]].apply(lambda names: pd.factorize(names)[0])
    place, cells = keys.groupby(levels[-1], sort=False).ngroup(), keys.drop_duplicates()
    weight = np.ones(len(cells))
    for whole, part in pairwise(np.unique(cells[level], axis=0, return_inverse=True)[1] for level in levels):
        parts = np.bincount(whole[np.unique(part, return_index=True)[1]])  # how many a whole has
        weight /= parts[whole]
    replicate, seed = (pd.factorize(found[name], sort=True) for name in ("replicate", "seed"))
    table = np.full((len(cells), len(replicate[1]), len(seed[1])), np.nan)
    table[place, replicate[0], seed[0]] = found["difference"]
    of_units = [
        np.tensordot(weight[rows], filled(table[rows]), 1)
        for rows in cells.groupby("unit", sort=False).indices.values()
    ]
    return filled(np.stack(of_units))


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low} to {high} seeds" if low < high else f"{low} seed{'s' if low > 1 else ''}"
