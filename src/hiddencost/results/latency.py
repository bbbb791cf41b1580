"""What networks cost to run, beside what compression costs them: see `runs.latency`, which measures it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from hiddencost.files import read_json
from hiddencost.methods.registry import run_by
from hiddencost.results import tables
from hiddencost.results.claims import Cells, Claim
from hiddencost.results.pooled import pooled
from hiddencost.results.verdicts import counted, differences

LOST = Claim(
    text="compression costs accuracy",
    source="",
    measure="accuracy_lost",
    cells=Cells(methods=run_by("train")),
    more_than=0,
)
MEASURED = [
    *("parameters", "nonzero", "bits", "bytes_dense", "bytes_compressed"),
    *(f"{name}_{size}{end}" for name in ("ms", "relative") for size in (1, 64) for end in ("", "_low", "_high")),
    *("calls_1", "calls_64", "canvas", "device", "threads"),
]
COLUMNS = ["backbone", "dense", "compression", "cost", "cost_low", "cost_high", *MEASURED]


def write(files: Iterable[str | Path], runs: str | Path, paths: Mapping[str, str]) -> None:
    """Write `latency`, a row a backbone.

    Args:
        files: of `runs.latency.write`.
        runs: the study's table.
        paths: of the table, by its name.
    """
    tables.write(latency([read_json(file) for file in files], tables.read(runs)), paths["latency"])


def latency(measured: list[dict], runs: pd.DataFrame) -> pd.DataFrame:
    """Set what was measured of networks beside what they lose.

    Args:
        measured: of each backbone its name and, where it could be made, `MEASURED`.
        runs: as in runs.parquet.

    Returns:
        A row a backbone, in the order of `measured`: `cost`, the accuracy under visual prompting that it loses
        against the dense one, with its 95 % interval (see `pooled.pooled`), in points, and what was measured.
    """
    lost = differences(counted(runs), LOST, "accuracy").dropna(subset="difference")
    costs = {}
    for name, pairs in lost.groupby("backbone"):
        effect, bounds, _ = pooled(pairs, fixed=False)
        costs[name] = {"cost": effect} | (dict(zip(("cost_low", "cost_high"), bounds, strict=True)) if bounds else {})
    stated = runs.drop_duplicates("backbone").set_index("backbone")[["dense", "compression"]].to_dict("index")
    rows = [one | stated.get(one["backbone"], {}) | costs.get(one["backbone"], {}) for one in measured]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)
