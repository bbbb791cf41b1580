"""What jobs cost beside their science: packs against one job a run, for about 100, 1,000 and 15,000 runs.

    python bench/scale.py

Plans studies of the paper's shape through the workflow and through one_job_a_run.smk, afresh and when all is up to
date, and has Snakemake go through all their jobs with nothing in them: in folders of their own, where nothing is
downloaded or trained. Then runs a few real jobs of both kinds that find their runs in the ledger, in this checkout:
at the first call MobileNetV2 is downloaded and 24 small runs are trained. Writes bench/results/scale.{json,md}.
"""

import re
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from math import prod
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
import psutil
import snakemake
import yaml
from throughput import machine, publish

from hiddencost import catalog

ROOT = Path(__file__).parents[1]
SNAKEFILES = {"packs": ROOT / "Snakefile", "one job a run": ROOT / "bench/one_job_a_run.smk"}
TRAINING = {"packs": "train", "one job a run": "train_one"}
METHODS = ["rlm", "flm", "ilm"]
# the last: as many of each as studies/paper.yaml
GRIDS = (
    {"backbones": 2, "datasets": 1, "shots": 8, "seeds": 2},
    {"backbones": 7, "datasets": 2, "shots": 8, "seeds": 3},
    {"backbones": 26, "datasets": 8, "shots": 8, "seeds": 3},
)
SPARSITIES = (None, 0.2, 0.3)
REPEATS = 2
# what is gone through: many jobs at once, chosen from a part of those that wait, as otherwise the time that choosing
# takes grows with the square of their number
THROUGH = ["--cores", "64", "--scheduler-subsample", "1000", "--resources", "gpu=64", "mem_mb=1000000000"]
SAMPLING = 0.1  # seconds between two looks at the memory


class Call(NamedTuple):
    """A call of Snakemake: how long it took, the most memory of its processes together, and what it said."""

    seconds: float
    megabytes: float
    output: str


def call(kind: str, directory: Path, study: dict, *arguments: str, finish: bool = False) -> Call:
    """Call Snakemake in a directory, on a study in packs or at one job a run; `finish`: see finish.py."""
    program = [ROOT / "bench/finish.py", "--touch"] if finish else ["-m", "snakemake"]
    with TemporaryDirectory() as folder:
        file, said = Path(folder, "study.yaml"), Path(folder, "output.txt")
        file.write_text(yaml.safe_dump(study))
        where = ["--snakefile", SNAKEFILES[kind], "--directory", directory, "--configfile", file]
        command = [sys.executable, *program, *arguments, *where, "--workflow-profile", ROOT / "profiles/default"]
        peak, start = 0, time.perf_counter()
        with said.open("w") as output:
            process = psutil.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None:
                peak = max(peak, memory(process))
                time.sleep(SAMPLING)
        seconds = time.perf_counter() - start
        text = said.read_text()
    if process.returncode:
        raise SystemExit(f"{text}\nbench/scale.py: this call failed: {' '.join(map(str, command))}")
    return Call(seconds, peak / 1e6, text)


def memory(process: psutil.Process) -> int:
    """Return the resident memory of a process and its descendants, in bytes."""
    total = 0
    with suppress(psutil.NoSuchProcess):  # it has ended since
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


def study_of(grid: dict) -> dict:
    """Return the paper's study with the prompting methods, cut to a grid, on networks that are all public."""
    study = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    public = [name for name, entry in catalog.checkpoints().items() if not entry.unavailable]
    backbones = [
        {"name": f"{name}-magnitude{100 * sparsity:.0f}", "checkpoint": name}
        | {"compression": {"algorithm": "magnitude", "sparsity": sparsity}}
        if sparsity
        else {"name": f"{name}-dense", "checkpoint": name}
        for sparsity, name in product(SPARSITIES, public)
    ]
    parts = study | {"backbones": backbones}
    of_all = {"study": "scale", "methods": METHODS, "paths": {}}
    return study | of_all | {axis: parts[axis][: grid[axis]] for axis in grid}


def measure_planning(kind: str, grid: dict, repeats: int = REPEATS, whole: bool = True) -> dict:
    """Plan a study, afresh and, if `whole`, when it is up to date, and go through its jobs. Returns the record, times
    in seconds, None for what is not measured.

    Of repeated plans the time is the least, the memory the most.
    """
    study, runs = study_of(grid), len(METHODS) * prod(grid.values())
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        afresh = [call(kind, directory, study, "--dry-run") for _ in range(repeats)]
        planned = afresh[0].output
        told = re.search(r"to run +([\d,]+) runs", planned)
        if kind == "packs" and (not told or int(told[1].replace(",", "")) != runs):
            raise SystemExit(f"{planned[-3000:]}\nbench/scale.py: expected a plan of {runs} runs")
        through = call(kind, directory, study, *THROUGH, finish=True) if whole else None
        again = [call(kind, directory, study, "--dry-run") for _ in range(repeats)] if whole else []
    for one in again:
        if "Nothing to be done" not in one.output:
            raise SystemExit(f"{one.output[-3000:]}\nbench/scale.py: expected nothing to be done")
    jobs, training = (int(re.search(rf"^{row} +(\d+)$", planned, re.M)[1]) for row in ("total", TRAINING[kind]))
    return {
        "kind": kind,
        "runs": runs,
        "jobs": jobs,
        "training_jobs": training,
        "plan_seconds": min(one.seconds for one in afresh),
        "up_to_date_seconds": min((one.seconds for one in again), default=None),
        "through_seconds": through and through.seconds,
        "peak_mb": max(one.megabytes for one in (*afresh, *again, *filter(None, [through]))),
    }


def job_study() -> dict:
    """Return the study of the real jobs: four packs of six runs."""
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study |= {"study": "scale", "methods": METHODS, "shots": [1, 2], "seeds": [0, 1, 2, 3]}
    return study | {"backbones": study["backbones"][:1]}


def tables_of(study: dict) -> dict[str, list[str]]:
    """Return the tables of a study of one backbone and dataset: of its packs, and of the runs of its first seed."""
    ((backbone,), (dataset,)) = ([one["name"] for one in study[axis]] for axis in ("backbones", "datasets"))
    packs = [f"runs/{backbone}/{dataset}/seed{seed}" for seed in study["seeds"]]
    cells = product(study["methods"], study["shots"], study["seeds"][:1])
    runs = [f"one_job_a_run/{backbone}/{dataset}/{method}/{shots}/seed{seed}" for method, shots, seed in cells]
    return {
        kind: [f"results/{study['study']}/{name}.parquet" for name in names]
        for kind, names in (("packs", packs), ("one job a run", runs))
    }


def measure_jobs(directory: Path, study: dict) -> dict[str, list[float]]:
    """Run real jobs of both kinds that find all their runs in the ledger. Returns the seconds of each, by kind.

    What the ledger lacks is trained first; the files upstream are there. Jobs run one after another.
    """
    tables = tables_of(study)
    call("packs", directory, study, *tables["packs"], "--allowed-rules", "train")
    seconds = {}
    for kind, outputs in tables.items():
        call(kind, directory, study, *outputs, "--force", "--allowed-rules", TRAINING[kind], "--cores", "1")
        seconds[kind] = []
        for output in outputs:
            name = output.removeprefix(f"results/{study['study']}/").removesuffix(".parquet")
            name = re.sub("^runs/", "train/", name)
            log, benchmark = (
                directory / f"results/{study['study']}/{folder}/{name}.{suffix}"
                for folder, suffix in (("logs", "log"), ("benchmarks", "tsv"))
            )
            if " 0 of them trained now" not in log.read_text():
                raise SystemExit(f"{log}: expected all runs to be found in the ledger")
            seconds[kind].append(float(pd.read_csv(benchmark, sep="\t")["s"].item()))
    return seconds


def put_together(planning: list[dict], jobs: dict[str, list[float]]) -> list[dict]:
    """Return the records with their overhead: Snakemake's, measured, and that of the training jobs, multiplied."""
    records = []
    for one in planning:
        job = {"job_seconds": mean(jobs[one["kind"]]), "jobs_measured": len(jobs[one["kind"]])}
        seconds = (one["through_seconds"] or 0) + one["training_jobs"] * job["job_seconds"]
        records.append(one | job | {"overhead_hours": seconds / 3600})
    return records


def table(records: list[dict], device: str) -> str:
    """Return the records as a Markdown table."""
    pack, single = (next(one for one in records if one["kind"] == kind) for kind in SNAKEFILES)
    job = "{job_seconds:.1f} s (mean of {jobs_measured} jobs)"
    lines = [
        f"Measured on {device}.",
        "Multiplied: the overhead is the time through Snakemake alone, where it is given, and, for each job that",
        f"trains, that of one with nothing to train: {job.format(**pack)} of a pack, {job.format(**single)} of a run",
        "",
        "| runs | | jobs | that train | plan afresh | plan, up to date | through Snakemake alone | peak memory "
        "| overhead |",
        "|---" * 9 + "|",
    ]
    row = "| {runs:,} | {kind} | {jobs:,} | {training_jobs:,} | {plan_seconds:.1f} s | {} | {} | {peak_mb:.0f} MB "
    row += "| {overhead_hours:.2f} h |"
    for one in records:
        more = (one[key] for key in ("up_to_date_seconds", "through_seconds"))
        lines.append(row.format(*("–" if seconds is None else f"{seconds:.1f} s" for seconds in more), **one))
    return "\n".join(lines) + "\n"


def main() -> None:
    device = f"{machine()}, Snakemake {snakemake.__version__}"
    print(device, flush=True)
    call("packs", ROOT, job_study(), *tables_of(job_study())["packs"])
    jobs = measure_jobs(ROOT, job_study())
    for kind, seconds in jobs.items():
        print(f"a job with nothing to train, {kind}: {mean(seconds):.1f} s (mean of {len(seconds)})", flush=True)
    planning = []
    for grid, kind in product(GRIDS, SNAKEFILES):
        # the largest at one job a run is planned once and no more: to go through its jobs would take longest of all
        large = kind != "packs" and grid is GRIDS[-1]
        planning.append(measure_planning(kind, grid, *((1, False) if large else ())))
        line = "{runs:6} runs, {kind:13}: {jobs:6} jobs; planned in {plan_seconds:.1f} s; {peak_mb:.0f} MB"
        print(line.format(**planning[-1]), flush=True)
    records = put_together(planning, jobs)
    publish("scale", {"device": device, "jobs_seconds": jobs, "studies": records}, table(records, device))


if __name__ == "__main__":
    main()
