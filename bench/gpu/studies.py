"""Whole studies through the workflow, as a user runs them: the quickstart beside a CPU's numbers, and small.yaml.

python bench/gpu/studies.py     # after a `make quickstart` on a CPU: keep its accuracies in quickstart_cpu.csv
"""

import shutil
import sys
import time
from pathlib import Path

import pandas as pd
from stages import ROOT, Stage, bounded

QUICKSTART_CPU = Path(__file__).with_name("quickstart_cpu.csv")
KEYS = ["backbone", "method", "shots"]
TABLE = ROOT / "results/quickstart/tables/runs.parquet"


def snakemake(stage: Stage, study: str, configfile: Path) -> int:
    """Make a study's table of runs offline, as far as time allows, and keep its log, its table and its ledger under
    OUT. Returns snakemake's exit code."""
    command = [sys.executable, "-m", "snakemake", f"results/{study}/tables/runs.parquet"]
    command += ["--workflow-profile", "profiles/workstation", "--scheduler", "greedy", "--configfile", configfile]
    command += ["--config", "offline=true", "jobs_per_gpu=4"]
    # what has finished is in the ledger when time is over
    code = bounded(command, stage.left() - 10, stage.out / f"{study}.log")
    for folder in ("ledger", "tables", "logs"):
        if (made := ROOT / "results" / study / folder).exists():
            shutil.copytree(made, stage.out / study / folder, dirs_exist_ok=True)
    return code


def missing(stage: Stage, *downloads: str) -> bool:
    """Say whether a download that a study needs is not there, and keep a record of that."""
    absent = [f"resources/{name}" for name in downloads if not (ROOT / "resources" / name / "fetched.json").exists()]
    if absent:
        stage.tell(skipped=f"not there, to be fetched where there is a network: {', '.join(absent)}")
    return bool(absent)


def run_quickstart(stage: Stage) -> None:
    """The quickstart study, and how its accuracies differ from those of a CPU; where time was over before all were
    made, of the runs that have finished. Raises FileNotFoundError where there is none."""
    if missing(stage, "checkpoints/mobilenetv2", "photos/imagenet20", "raw/cifar10-part"):
        return
    start = time.monotonic()
    code = snakemake(stage, "quickstart", ROOT / "config.yaml")
    stage.tell(what="snakemake", code=code, seconds=time.monotonic() - start)
    finished = [TABLE] if TABLE.exists() else sorted(TABLE.parents[1].glob("[rp]*s/*/*/seed*.parquet"))
    if not finished:
        raise FileNotFoundError(f"no run has finished: see {stage.out / 'quickstart.log'}")
    runs = pd.concat(pd.read_parquet(path) for path in finished)
    devices = sorted(runs["device"].dropna().unique())
    stage.tell(what="runs", status=runs["status"].value_counts().to_dict(), devices=devices)
    for row in beside(runs, pd.read_csv(QUICKSTART_CPU)).to_dict("records"):
        stage.tell(**row)


def beside(here: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """Return the mean accuracies over seeds of two tables of runs, by backbone, method and shots, and their
    difference. Runs of either table alone are left out."""
    means = [
        table.assign(shots=table["shots"].astype(str)).groupby(KEYS, sort=False)["accuracy"].mean()
        for table in (here, there)
    ]
    both = pd.concat(means, axis=1, keys=["accuracy", "accuracy_cpu"], join="inner").reset_index()
    return both.assign(difference=both["accuracy"] - both["accuracy_cpu"])


def run_small(stage: Stage) -> None:
    """studies/small.yaml, in the time that is left."""
    if missing(stage, "raw/cifar10-npm"):
        return
    start = time.monotonic()
    code = snakemake(stage, "small", ROOT / "studies/small.yaml")
    done = list((stage.out / "small/ledger").rglob("*.safetensors"))
    stage.tell(what="snakemake", code=code, seconds=time.monotonic() - start, runs=len(done))


if __name__ == "__main__":
    pd.read_parquet(TABLE)[[*KEYS, "seed", "accuracy", "device", "precision"]].to_csv(QUICKSTART_CPU, index=False)
