"""Check and measure this project on a GPU, stage by stage: each in a process of its own, for its share of the time.

python check.py OUT [--limit SECONDS] [--dry] [--only STAGE ...]     # run.sh sets its paths
"""

import argparse
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

import page
from stages import Stage, bounded

# The share of the limit that is kept for a stage, and the function that runs it. What one leaves is the next one's.
STAGES = {
    "machine": (0.03, "machine:run"),
    "tests": (0.15, "machine:run_tests"),
    "parity": (0.08, "parity:run_parity"),
    "precision": (0.08, "parity:run_precision"),
    "speed": (0.28, "speed:run"),
    "clip": (0.10, "speed:run_clip"),
    "kernels": (0.07, "kernels:run"),
    "quickstart": (0.21, "studies:run_quickstart"),
    "small": (0.0, "studies:run_small"),
}
NOT_DRY = ("tests", "quickstart", "small")
GRACE = 8  # seconds beyond its time before a stage is ended


def run_stage(name: str, out: Path, dry: bool, seconds: float) -> None:
    """Run one stage in this process. What it raises is a record."""
    stage = Stage(name, out, dry, time.monotonic() + seconds)
    module, function = STAGES[name][1].split(":")
    try:
        getattr(importlib.import_module(module), function)(stage)
    except Exception as error:
        traceback.print_exc()
        stage.tell(failed=f"{type(error).__name__}: {error}"[:500])


def in_process(name: str, out: Path, dry: bool, seconds: float) -> None:
    """Run one stage in a process of its own, which is ended where it takes too long."""
    command = [sys.executable, __file__, out, "--stage", name, "--limit", seconds, *["--dry"] * dry]
    start = time.monotonic()
    if code := bounded(command, seconds + GRACE, out / f"{name}.txt"):
        why = f"exit code {code} after {time.monotonic() - start:.0f} s: see {name}.txt"
        append(out, {"stage": name, "failed": why})


def append(out: Path, record: dict) -> None:
    """Keep a record."""
    with open(out / "records.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")


def publish(out: Path) -> list[dict]:
    """Write records.json and gpu.md of the records so far, and return them."""
    lines = (out / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (out / "records.json").write_text(json.dumps(records, indent=1) + "\n")
    (out / "gpu.md").write_text(page.page(records))
    return records


def run_all(names: list[str], out: Path, dry: bool, limit: float) -> list[dict]:
    """Run stages one after another, and return all records."""
    (out / "records.jsonl").write_text("")
    start = time.monotonic()
    for place, name in enumerate(names):
        kept = sum(STAGES[later][0] for later in names[place + 1 :]) * limit
        seconds = limit - (time.monotonic() - start) - kept - GRACE
        began = time.monotonic()
        print(f"{name}: {max(seconds, 0):.0f} s at most; {out / name}.txt", flush=True)
        if dry and name in NOT_DRY:
            append(out, {"stage": name, "skipped": "dry"})
        elif seconds < 5:
            append(out, {"stage": name, "skipped": "no time left"})
        else:
            in_process(name, out, dry, seconds)
        took = time.monotonic() - began
        append(out, {"stage": name, "what": "stage", "seconds": took, "at": time.monotonic() - start})
        records = publish(out)
        bad = sum(is_bad(record) for record in records if record["stage"] == name)
        print(f"{name}: took {took:.0f} s, {bad} failed", flush=True)
    return records


def is_bad(record: dict) -> bool:
    """Say whether a record tells of a failure."""
    return "failed" in record or record.get("passed") is False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=float, default=480, help="seconds, of all stages")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, no tests, no studies")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in_process calls it
    told = parser.parse_args()
    if told.stage:
        run_stage(told.stage, told.out, told.dry, told.limit)
        return
    records = run_all(told.only, told.out, told.dry, told.limit)
    print(f"{told.out / 'records.json'} and gpu.md written")
    sys.exit(any(map(is_bad, records)))


if __name__ == "__main__":
    main()
