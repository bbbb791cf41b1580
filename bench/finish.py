"""Snakemake, whose --touch makes the files that are not there: a study is finished without any of its science.

    python bench/finish.py --touch ...

Files are empty, but for those that planning reads: the reports of downloads, and the tables of packs, which hold the
request that their job was given and name their runs, of which the ledger has empty entries. What each was made for is
kept, which is done for no other --touch.
"""

from pathlib import Path

from snakemake.cli import main
from snakemake.executors.touch import Executor

from hiddencost.files import canonical, sha256_text, write_json
from hiddencost.jobs import requests, values
from hiddencost.runs import packfile


def make(job) -> None:
    """Make a job's outputs."""
    for path in map(Path, job.output):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "fetched.json":
            write_json(path, {"failed": None, "files": {}, "attempt": 0})
        elif job.rule.name == "train":  # a pack; what one_job_a_run.smk makes is not read
            make_pack(packfile.PackRequest.model_validate(values.read(job.params)), path)
        else:
            path.touch()


def make_pack(request: packfile.PackRequest, path: Path) -> None:
    """Make a pack's table, and the entries of its runs."""
    rows = []
    for method, shots in request.runs:
        run = sha256_text(canonical([request.backbone, request.dataset, request.seed, method, shots]))
        rows.append({"run": run, "method": method, "shots": str(shots)})
        entry = Path(request.ledger, run[0], f"{run}.safetensors")
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
    packfile.write(rows, request, path)


def run_job(self, job) -> None:
    make(job)
    touch(self, job)
    if job.rule.script and job.rule.name != "train_one":  # of the workflow; one_job_a_run.smk keeps none
        requests.keep(job.output, sorted(job.non_derived_params), sorted(job.input))


if __name__ == "__main__":
    Executor.SLEEPING_TIME = 0  # it pauses 0.1 s a job: half an hour for 15,000
    touch, Executor.run_job = Executor.run_job, run_job
    main()
