"""Hidden cost at matched upstream accuracy: what compression costs downstream where it has cost nothing upstream."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import linregress

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.compression.registry import last_applied
from hiddencost.results import tables
from hiddencost.results.claims import Claim
from hiddencost.results.counterparts import with_same_recipe
from hiddencost.results.intervals import ROUNDING, pooled_freedom, t_quantile
from hiddencost.results.upstream import reached
from hiddencost.results.verdicts import counted, differences

LOST = Claim(text="compression costs accuracy", source="", measure="accuracy_lost", more_than=0)
CLOSE = 1.0  # points of upstream accuracy within which a network counts as matched
EVERY_KIND = "all"  # of compression, together
COLUMNS = [
    *(
        "dense",
        "method",
        "compression",
        "networks",
        "seeds",
        "cells",
        "photos",
        "dense_top1",
        "dense_low",
        "dense_high",
    ),
    *("upstream_lost_least", "upstream_lost_most"),
    *("cost_at_matched", "low", "high", "slope", "close", "close_cost", "other_recipe"),
]


def write(runs: str | Path, upstream: str | Path, path: str | Path) -> None:
    """Write what `matched` gives of a study's tables."""
    tables.write(matched(tables.read(runs), tables.read(upstream)), path)


def losses(runs: pd.DataFrame, upstream: pd.DataFrame) -> pd.DataFrame:
    """Return what compressed networks lose in accuracy, upstream and downstream.

    Upstream it is the top-1, as published, as measured after training, or on photos (see `upstream.reached`);
    networks of which it is not known, and controls, are left out, and so is one that has no result by a method.
    Downstream it is the mean of the seed-paired differences over those `cells` (datasets and shots) in which all
    others of the same dense one have a result. The dense network is that of the same training recipe, where the study
    has it (see `counterparts.with_same_recipe`).

    Args:
        runs: as in runs.parquet.
        upstream: as in upstream.csv.

    Returns:
        A row a compressed network, method and seed: its `dense`, `compression` (the kind), `cells` (their number),
        `upstream_lost` and `lost`, what it loses against the dense one, in points; `other_recipe`, whether this is
        of another recipe.
    """
    runs = with_same_recipe(runs)
    backbones = runs.drop_duplicates("backbone").set_index("backbone")
    made = compressed_backbones(runs)
    top1 = reached(upstream, made)["top1"].dropna()
    lost = differences(counted(runs), LOST, "accuracy")
    lost = lost[lost["backbone"].isin(top1.index.intersection(made)) & lost["dense"].isin(top1.index)]
    lost = lost[lost.groupby(["dense", "method", "backbone"])["difference"].transform("count") > 0]
    # means over other cells would not be of the same
    cells = lost.groupby(["dense", "method", "dataset", "shots", "seed"])["difference"]
    complete = cells.transform("count") == cells.transform("size")
    cells = lost[complete].groupby(["dense", "method", "backbone", "seed"], sort=False)["difference"]
    table = cells.agg(lost="mean", cells="size").reset_index()
    table["compression"] = table["backbone"].map(backbones["compression"]).map(lambda label: last_applied(label).kind)
    table["other_recipe"] = table["backbone"].map(backbones["other_recipe"])
    compressed_top1, dense_top1 = (table[column].map(top1).astype(float) for column in ("backbone", "dense"))
    return table.assign(upstream_lost=dense_top1 - compressed_top1)


def compressed_backbones(runs: pd.DataFrame) -> list[str]:
    """Return the names of the compressed networks of runs, no controls among them."""
    backbones = runs.drop_duplicates("backbone")
    return backbones.loc[
        (backbones["compression"] != UNCOMPRESSED) & backbones["control"].isna(), "backbone"
    ].to_list()


def matched(runs: pd.DataFrame, upstream: pd.DataFrame) -> pd.DataFrame:
    """Estimate what compression costs downstream at equal upstream accuracy, for each dense network and method.

    There are two answers.

    `close_cost`: the mean loss of the networks whose upstream accuracy is within `CLOSE` points of the dense one's,
    and how many they are (`close`). `cost_at_matched`: where the line of least squares through all networks, of
    downstream over upstream loss (`slope`), is at an upstream loss of zero; it is empty of fewer than three networks,
    or where all lost the same upstream. It takes the relation as linear; where `upstream_lost_least` is far above
    zero, it is an extrapolation.

    Its 95 % interval, `low` to `high`, adds two variances of the line at zero: that of the networks' scatter about
    it, and that of the lines of single seeds, in which all networks share the error of the one dense run (Student's
    t, Satterthwaite's degrees of freedom; what the networks' own seeds scatter is in both, so that it is wide rather
    than narrow). It speaks for other networks of the kind and other seeds, on the same datasets, and takes the
    upstream accuracies as exact. From a single seed, which decides nothing, there is none.

    Args:
        runs: as in runs.parquet.
        upstream: as in upstream.csv.

    Returns:
        A row a dense network, method and kind of `compression` ("all" together, and each of several kinds), with the
        number of `networks`, of `seeds` and of the `cells` (dataset, shots, seed) that all of them have; on how many
        `photos` upstream accuracies were measured (empty: published, or of the study's own training), and the dense
        network's (%), `dense_top1`, with its interval, of photos, `dense_low` to `dense_high`; and the two answers,
        in points. `other_recipe`: of how many networks the study lacks the dense one of the same training recipe, so
        that the recipe is part of what they lose.
    """
    table, rows = losses(runs, upstream), []
    known = reached(upstream, compressed_backbones(runs))
    for (dense, method), compared in table.groupby(["dense", "method"], sort=False):
        kinds = compared["compression"].unique()
        for kind in [EVERY_KIND, *(kinds if len(kinds) > 1 else [])]:
            of_kind = compared if kind == EVERY_KIND else compared[compared["compression"] == kind]
            networks = of_kind.groupby("backbone", sort=False)[["upstream_lost", "lost"]].mean()
            close = networks[networks["upstream_lost"].abs() <= CLOSE]
            least, most = networks["upstream_lost"].agg(["min", "max"])
            row = {"dense": dense, "method": method, "compression": kind, "networks": len(networks)}
            row |= {"seeds": of_kind["seed"].nunique(), "cells": of_kind.groupby("seed")["cells"].first().sum()}
            row |= dict(zip(("dense_top1", "dense_low", "dense_high", "photos"), known.loc[dense], strict=True))
            row |= {"upstream_lost_least": least, "upstream_lost_most": most}
            row |= _line(of_kind, networks) | {"close": len(close), "close_cost": close["lost"].mean()}
            rows.append(row | {"other_recipe": of_kind.groupby("backbone")["other_recipe"].first().sum()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _line(losses: pd.DataFrame, networks: pd.DataFrame) -> dict:
    if len(networks) < 3 or np.ptp(networks["upstream_lost"]) < ROUNDING:
        return {}
    line = linregress(networks["upstream_lost"], networks["lost"])
    estimate = {"cost_at_matched": line.intercept, "slope": line.slope}
    by_seed = losses.groupby("seed")
    intercepts = [linregress(of_seed["upstream_lost"], of_seed["lost"]).intercept for _, of_seed in by_seed]
    if len(intercepts) < 2:
        return estimate
    between_seeds = np.var(intercepts, ddof=1) / len(intercepts)
    parts = [(line.intercept_stderr**2, len(networks) - 2), (between_seeds, len(intercepts) - 1)]
    variance = sum(part for part, _ in parts)
    if np.sqrt(variance) < ROUNDING:  # without any scatter it says nothing
        return estimate
    width = t_quantile(pooled_freedom(parts)) * np.sqrt(variance)
    return estimate | {"low": line.intercept - width, "high": line.intercept + width}
