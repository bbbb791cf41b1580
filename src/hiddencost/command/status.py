"""How far a study is, from its files alone: another call may run it, here or on a cluster."""

import argparse
import time
from pathlib import Path

from hiddencost.command import overrides
from hiddencost.jobs import grid, outlook, rates, requests, resources, results, values
from hiddencost.jobs.call import Call, code, read_call, read_config
from hiddencost.jobs.layout import PACK, TABLES
from hiddencost.jobs.upstream import trainings

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
        outdated = f"  outdated   {conclusion}: of other runs, claims or code than now; hiddencost run writes it anew"
        lines.append(conclusion.read_text("utf-8").rstrip() if _is_current(call, str(conclusion)) else outdated)
    return "\n".join(lines)


def _is_current(call: Call, conclusion: str) -> bool:
    """Whether a conclusion is of the packs as they are, and of the study's grid and claims: by the requests of what
    leads to it, as in a plan."""
    steps = (
        ("collect", f"{call.output}/{TABLES['runs']}", results.collect(call)),
        ("claims", f"{call.output}/tables/claims.csv", results.claims(call)),
        ("conclude", conclusion, {"report": f"{call.output}/report.html"}),
    )
    for rule, product, settings in steps:
        asked = settings | {"code": code(call.root, rule)}
        if not requests.is_current(call, product, values.texts(asked, [*asked]).values()):
            return False
    return True


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
