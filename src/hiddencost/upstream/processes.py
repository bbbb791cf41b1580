"""The processes of a training: one, or several that torchrun has started, and how what goes wrong in one is told."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

log = logging.getLogger(__name__)


class Diverged(ValueError):
    """The loss of a training has ceased to be finite, in all of its processes."""


class FailedAlone(ValueError):
    """One of several processes cannot go on, while the others do not know."""


@dataclass
class Processes:
    """The processes of a training: which of how many this is, and its device."""

    rank: int
    count: int
    device: torch.device

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.item() / self.count


def join_processes(device: torch.device) -> Processes:
    """Return this process among those that torchrun has started, joined with them; alone where it started none."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return Processes(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), count, device)


@contextmanager
def failure_as_result(run: Processes, fail: Callable[[str], None]) -> Iterator[None]:
    """Let what cannot be trained, a ValueError, be a result.

    Args:
        run: this process among those of the training.
        fail: writes why, a line. The first process calls it, or the one that fails alone.

    Raises:
        RuntimeError: in the process that fails alone; torchrun ends the others, which would wait for it.
    """
    try:
        yield
    except ValueError as error:
        reason = str(error).splitlines()[-1]  # of a process that reads images: its traceback comes before
        alone = isinstance(error, FailedAlone)
        if run.rank == 0 or alone:
            log.error("it cannot be trained: %s", reason)
            fail(reason)
        if alone:
            raise RuntimeError(f"process {run.rank} of {run.count} fails: {reason}") from error
    if distributed.is_initialized():
        distributed.destroy_process_group()
