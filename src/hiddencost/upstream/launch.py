"""Start a training: in this process on one GPU or the CPU, by torchrun on several GPUs.

As a program it is one of the processes that torchrun starts: python -m hiddencost.upstream.launch JOB.json
"""

import logging
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hiddencost.files import read_json, write_json
from hiddencost.machine import compute_device
from hiddencost.networks.manifest import Manifest
from hiddencost.runs import interrupted
from hiddencost.upstream import training
from hiddencost.upstream.job import UpstreamJob

log = logging.getLogger(__name__)
TRAININGS = {"sparsify": training.train_backbone, "rewind_point": training.train_rewind_point}  # by rule


def run(rule: str, settings: dict, leased: str | None, jobs_per_gpu: int, threads: int, workers: int) -> None:
    """Train for a rule, on what `machine.lease` gave.

    On several GPUs torchrun starts a process each, which share every batch (DistributedDataParallel).

    Args:
        rule: a name of `TRAININGS`.
        settings: as `UpstreamJob` checks them.
        leased: names of GPUs, comma between; None: the CPU.
        jobs_per_gpu: that share a GPU.
        threads: of this process, where it is alone.
        workers: processes that read images; those of torchrun share them, too.

    Raises:
        RuntimeError: if one of the processes fails and has not written why.
    """
    job = UpstreamJob.model_validate(settings)
    count = len(leased.split(",")) if leased else 0
    if count < 2:
        torch.set_num_threads(threads)
        TRAININGS[rule](job, compute_device(leased, jobs_per_gpu), workers)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "job.json")
        write_json(path, {"rule": rule, "settings": settings, "workers": workers // count})
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        log.info("torchrun starts %d processes", count)
        command += ["-m", "hiddencost.upstream.launch", str(path)]
        started = subprocess.Popen(command, stdout=sys.stdout, stderr=sys.stderr)
        # its processes end with this one, whose GPUs they have
        signal.signal(signal.SIGTERM, lambda *_: started.terminate())
        status = started.wait()
    if status and not _has_failed(job):
        raise RuntimeError(f"torchrun ended with status {status}; the lines above say why")


def _has_failed(job: UpstreamJob) -> bool:
    """Whether a training has written why it could not be."""
    if job.until is not None:
        return "failed" in interrupted.states(job.output, training.CPU)
    return Path(job.output, "manifest.json").exists() and Manifest.read(job.output).failed is not None


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    request = read_json(sys.argv[1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    TRAININGS[request["rule"]](UpstreamJob.model_validate(request["settings"]), device, request["workers"])
