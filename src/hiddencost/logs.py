"""The log of a job."""

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from operator import ne
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
TENSORBOARD = "HIDDENCOST_TENSORBOARD"  # of the environment of a job, not empty where it writes scalars
SECONDS, SHARE = 10.0, 0.02  # from one line of a progress bar to the next, or this share of the time so far


class _Log(io.TextIOWrapper):
    """A file in which a progress bar is a line from time to time, and its end one.

    tqdm draws a bar over the one before it, after a carriage return, blanks over it before a line that comes between,
    and draws it again.
    """

    def __init__(self, path: str) -> None:
        super().__init__(open(path, "wb"), encoding="utf-8", line_buffering=True)  # noqa: SIM115 (open until the process ends)
        self.began = self.due = time.monotonic()
        self.bar = self.told = ""  # as it was drawn last, if no line has told it, and as a line has
        self.is_drawing = False  # whether a bar was written last

    def write(self, text: str) -> int:
        if text.startswith("\r"):
            self.is_drawing, self.bar = True, text.strip() or self.bar
            if time.monotonic() >= self.due:
                self._tell_bar()
        elif text == "\n" and self.is_drawing:  # a bar's end
            self.is_drawing = False
            self._tell_bar()
        elif text:
            self.is_drawing = False
            super().write(text)
        return len(text)

    def _tell_bar(self) -> None:
        if self.bar and self.bar != self.told:
            super().write(f"{self.bar}\n")
            now, self.told, self.bar = time.monotonic(), self.bar, ""
            self.due = now + max(SECONDS, SHARE * (now - self.began))


def log_to(path: str) -> None:
    """Send log records, warnings, progress and tracebacks of this process to a file, a line at a time.

    Where TENSORBOARD says so, scalars are written beside it, see `write_scalars`.
    """
    sys.stderr = sys.stdout = _Log(path)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.captureWarnings(True)
    if os.environ.get(TENSORBOARD):
        write_scalars()


def write_scalars() -> None:
    """Write what log records tell of runs under way as events for TensorBoard (the extra `tensorboard`).

    Log calls are no part of the code that trains (`digest`), so that they carry, by `extra`, what is at hand, and
    names of scalars and of runs are made of it here:

    - `events`: the folder of a pack, see `packfile.events`, before its first run;
    - `ended`: of each run that ends an epoch its method, its number of images, the epoch, from 1, the losses of its
      steps, and, if its label mapping moves, the source classes of each epoch so far;
    - `finished`: of a run its method, its number of images, and its scores by name.
    """
    logger = logging.getLogger("hiddencost")
    logger.addHandler(_Scalars())
    logger.propagate = False
    logger.setLevel(logging.DEBUG)


class _Scalars(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.new_writer: Callable[[str, int], Any] | None = None  # of a run, from a step on
        self.writers: dict[str, tuple[Any, int]] = {}  # of the runs under way, with the epochs that they are at

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:  # of the others a log would have too many
            logging.getLogger().handle(record)
        try:
            self._tell(vars(record))
        except Exception:  # as logging has it: what cannot be told stops no training
            self.handleError(record)

    def _tell(self, told: Mapping[str, Any]) -> None:
        if "events" in told:
            self._begin(told["events"])
        for method, images, epoch, losses, mappings in told.get("ended", ()):
            self._write(_name_of(method, images), _of_epoch(losses, mappings), epoch)
        if "finished" in told:
            method, images, scores = told["finished"]
            accuracy = {f"test/{name}": score for name, score in scores.items() if name == "accuracy"}
            self._write(_name_of(method, images), accuracy, None)

    def _begin(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # not before: it takes seconds
        except ImportError as error:
            log.warning("--config tensorboard=true: %s: no events are written; expected it where jobs run", error)
        else:
            # a run that goes on after it was interrupted, or is trained anew, takes the place of what was before
            self.new_writer = lambda run, step: SummaryWriter(str(folder / run), purge_step=step, flush_secs=10)

    def _write(self, run: str, scalars: dict[str, float], epoch: int | None) -> None:
        """Write scalars of a run; without an epoch they are its last, at the epoch before."""
        if not self.new_writer:
            return
        writer, before = self.writers.get(run, (None, 0))
        step = before if epoch is None else epoch
        writer = writer or self.new_writer(run, step)
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        self.writers[run] = writer, step
        if epoch is None:
            self.writers.pop(run)[0].close()

    def close(self) -> None:
        """Write what is left; logging calls it as the process ends."""
        for writer, _ in self.writers.values():
            writer.close()
        self.writers.clear()
        super().close()


def _name_of(method: str, images: int) -> str:
    return f"{method}-{images}-images"


def _of_epoch(losses: Sequence[float], mappings: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the scalars of an epoch: the mean loss, and of a mapping that moves the share of target classes
    that have another source class than in the epoch before."""
    scalars = {"train/loss": sum(losses) / len(losses)}
    if len(mappings) > 1:
        before, after = mappings[-2:]
        scalars["train/remapped"] = sum(map(ne, before, after)) / len(after)
    return scalars
