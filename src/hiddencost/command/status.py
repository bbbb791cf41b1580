"""How far a study is, from its files alone: another call may run it, here or on a cluster."""

import argparse
import csv
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from pyarrow.parquet import read_table

from hiddencost.command import overrides
from hiddencost.jobs import analyses, grid, outlook, rates, resources, results
from hiddencost.jobs.call import Call, read_call, read_config
from hiddencost.jobs.layout import PACK, TABLES
from hiddencost.jobs.upstream import trainings
from hiddencost.results.claims import Claim

RECENT = 3600.0  # seconds since a log's last line, of jobs that are told


def status(arguments: argparse.Namespace) -> str:
    """Return how many packs of a study are done, what those that have begun say, and how long the others take here.

    Raises:
        StudyError: if the study is none.
    """
    files = overrides.files(arguments.study) or ["config.yaml"]
    told = overrides.as_values(overrides.of(arguments))
    call = read_call(read_config([*map(Path, files)], told), ", ".join(files), "snakemake")
    resources.count_arithmetic(call)
    return describe(call, time.time())


def describe(call: Call, now: float) -> str:
    """Return the status of a call's study in lines; now: in seconds, as of `time.time()`."""
    left = outlook.packs_left(call, ())
    total, count = sum(len(grid.packs(call, job)) for job in PACK), sum(map(len, left.values()))
    lines = [f"Study {call.study.study}: {total - count:,} of {total:,} packs are done"]
    if upstream := trainings(call):
        made = sum(Path(folder, "manifest.json").exists() for folder in upstream)
        lines.append(f"  upstream   {made:,} of {len(upstream):,} trainings are done")
    lines += _begun(call, left, now)
    if count:
        bench = call.root / "bench/results/throughput.json"
        times = rates.device_times(outlook.arithmetic_left(call, left), bench, 0, None)
        lines.append("  time left  " + ";\n             ".join(times))
    elif (conclusion := Path(call.output, "conclusion.txt")).exists():
        outdated = f"  outdated   {conclusion}: of other runs or claims than now; hiddencost run writes it anew"
        lines.append(conclusion.read_text("utf-8").rstrip() if _is_current(call, conclusion) else outdated)
    return "\n".join(lines)


def _is_current(call: Call, conclusion: Path) -> bool:
    """Whether a conclusion is of the packs as they are, and of the study's grid and claims."""
    table, claims = Path(call.output, TABLES["runs"]), Path(call.output, "tables/claims.csv")
    made = [grid.pack_table(call, job, pack) for job in PACK for pack in grid.packs(call, job)]
    steps: dict[Path, list[str | Path]]
    steps = {table: [*made], claims: [table, *analyses.claimed_tables(call).values()], conclusion: [claims]}
    if not all(_is_newer(*step) for step in steps.items()):
        return False
    return _has_the_grid(call, table) and _has_the_claims(call, claims)


def _is_newer(product: Path, of: Sequence[str | Path]) -> bool:
    files = list(map(Path, of))
    return all(file.exists() for file in (product, *files)) and all(
        file.stat().st_mtime_ns <= product.stat().st_mtime_ns for file in files
    )


def _has_the_grid(call: Call, table: Path) -> bool:
    """Whether a table of runs has those of the study, and no others."""
    axes = grid.axes(call.study)
    methods = {name: call.study.methods_of(call.study.backbone(name)) for name in axes["backbone"]}
    runs = {tuple(map(str, run)) for run in product(*axes.values()) if run[2] in methods[run[0]]}
    return {tuple(map(str, row.values())) for row in read_table(table, columns=list(axes)).to_pylist()} == runs


def _has_the_claims(call: Call, table: Path) -> bool:
    """Whether a table of verdicts is on the study's claims, as they are stated."""
    stated = [{"claim": name} | Claim.model_validate(one).stated for name, one in results.claims(call)["claims"]]
    with open(table, encoding="utf-8", newline="") as opened:
        return [{key: row.get(key) for key in stated[0]} for row in csv.DictReader(opened)] == stated


def _begun(call: Call, left: dict[str, list[tuple[dict, str]]], now: float) -> list[str]:
    """Return the last line of the log of each pack that is not done, the newest first, where it is recent."""
    told = []
    for job, packs in left.items():
        for pack, _ in packs:
            log = Path(call.results, "logs", job, pack["backbone"], pack["dataset"], f"seed{pack['seed']}.log")
            if log.exists() and (age := now - log.stat().st_mtime) < RECENT:
                last = log.read_text("utf-8", "replace").rstrip().rpartition("\n")[2]
                told.append((age, f"  {log}, {rates.duration(age)} ago: {last}"))
    return [line for _, line in sorted(told)]
