"""Start a training: in this process on one GPU or the CPU, by torchrun on several GPUs."""

import logging
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hiddencost.devices import compute_device
from hiddencost.files import write_json
from hiddencost.upstream import training

log = logging.getLogger(__name__)


def run(what: str, job: dict, leased: str | None, jobs_per_gpu: int, threads: int, workers: int) -> None:
    """Do `training.make` or `training.rewind_point` (`what`) for a job, on what `devices.lease` gave.

    On several GPUs torchrun starts a process each, which share every batch (DistributedDataParallel); workers: the
    processes that read images, which they share as well. Raises RuntimeError if one of the processes fails.
    """
    count = len(leased.split(",")) if leased else 0
    if count < 2:
        torch.set_num_threads(threads)
        getattr(training, what)(job, compute_device(leased, jobs_per_gpu), workers)
        return
    with TemporaryDirectory() as folder:
        told = Path(folder, "job.json")
        write_json(told, {"what": what, "job": job, "workers": workers // count})
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        log.info("torchrun starts %d processes", count)
        done = subprocess.run(
            [*command, "-m", "hiddencost.upstream", str(told)], stdout=sys.stdout, stderr=sys.stderr
        )
    if done.returncode:
        raise RuntimeError(f"torchrun ended with status {done.returncode}; the lines above say why")
