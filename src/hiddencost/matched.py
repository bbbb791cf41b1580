"""Hidden cost at matched upstream accuracy: what compression costs downstream where it has cost nothing upstream."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import linregress

from hiddencost import tables
from hiddencost.claims import Claim
from hiddencost.gallery import algorithm
from hiddencost.tables import CONFIDENCE
from hiddencost.verdicts import differences

LOST = Claim(text="compression costs accuracy", source="", measure="accuracy_lost", more_than=0)
CLOSE = 1.0  # points of upstream accuracy within which a network counts as matched
ALL = "all"
COLUMNS = [
    *("dense", "method", "compression", "networks", "cells", "upstream_lost_least", "upstream_lost_most"),
    *("cost_at_matched", "low", "high", "slope", "close", "close_cost"),
]


def write(runs: str | Path, upstream: str | Path, path: str | Path) -> None:
    """Write what `matched` gives of a study's tables."""
    tables.write(matched(tables.read(runs), tables.read(upstream)), path)


def losses(runs: pd.DataFrame, upstream: pd.DataFrame) -> pd.DataFrame:
    """Return a row a compressed network and method: its `dense`, `compression` (the kind), `upstream_lost` and
    `lost`, what it loses against the dense one in accuracy upstream and downstream, in points.

    Upstream it is the top-1, as published or as measured after training; networks of which it is not known, and
    controls, are left out. Downstream it is the mean of the seed-paired differences over those `cells` (dataset,
    shots and seed) in which all networks of the same dense one have a result.
    """
    top1 = upstream.set_index("backbone")["top1"].dropna()
    about = runs.drop_duplicates("backbone").set_index("backbone")
    lost = differences(runs, LOST, "accuracy")
    made = about.index[(about["compression"] != "none") & about["control"].isna()]
    lost = lost[lost["backbone"].isin(made.intersection(top1.index)) & lost["dense"].isin(top1.index)]
    # means over other cells would not be of the same
    cell = ["dense", "method", "dataset", "shots", "seed"]
    found = lost.groupby(cell)["difference"]
    complete = found.transform("count") == found.transform("size")
    cells = lost[complete].groupby(["dense", "method", "backbone"], sort=False)["difference"]
    table = cells.agg(lost="mean", cells="size").reset_index()
    table["compression"] = table["backbone"].map(about["compression"].map(algorithm))
    own, dense = (table[column].map(top1).astype(float) for column in ("backbone", "dense"))
    return table.assign(upstream_lost=dense - own)


def matched(runs: pd.DataFrame, upstream: pd.DataFrame) -> pd.DataFrame:
    """Estimate what compression costs downstream at equal upstream accuracy, for each dense network and method.

    runs: as in runs.parquet; upstream: `top1` (%) by backbone. Returns a row a dense network, method and kind of
    `compression` ("all" together, and each of several kinds), with two answers, in points:

    `close_cost`: the mean loss of the networks whose upstream accuracy is within `CLOSE` points of the dense one's,
    and how many they are (`close`). `cost_at_matched`: where the line of least squares through all `networks`, of
    downstream over upstream loss, is at an upstream loss of zero, with its 95 % interval (Student's t, n - 2); it is
    empty of fewer than three networks, or where all lost the same upstream. It takes the relation as linear, and the
    interval speaks for other networks of the kind, not for other datasets; where `upstream_lost_least` is far above
    zero, it is an extrapolation.
    """
    table, rows = losses(runs, upstream), []
    for (dense, method), own in table.groupby(["dense", "method"], sort=False):
        kinds = own["compression"].unique()
        for kind in [ALL, *(kinds if len(kinds) > 1 else [])]:
            some = own if kind == ALL else own[own["compression"] == kind]
            close = some[some["upstream_lost"].abs() <= CLOSE]
            told = {"dense": dense, "method": method, "compression": kind, "networks": len(some)}
            told |= {"cells": some["cells"].iloc[0]}
            least, most = some["upstream_lost"].agg(["min", "max"])
            told |= {"upstream_lost_least": least, "upstream_lost_most": most}
            rows.append(told | _line(some) | {"close": len(close), "close_cost": close["lost"].mean()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _line(losses: pd.DataFrame) -> dict:
    if len(losses) < 3 or np.ptp(losses["upstream_lost"]) < tables.ROUNDING:
        return {}
    line = linregress(losses["upstream_lost"], losses["lost"])
    width = stdtrit(len(losses) - 2, (1 + CONFIDENCE) / 2) * line.intercept_stderr
    bounds = {"low": line.intercept - width, "high": line.intercept + width}
    return {"cost_at_matched": line.intercept, "slope": line.slope} | bounds
