"""The log of a job."""

import io
import logging
import sys
import time
from pathlib import Path
from typing import Any

EPOCHS = "hiddencost.epochs"  # the logger of what would be too much for a log
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
    """Send log records, warnings, progress and tracebacks of this process to a file, a line at a time."""
    sys.stderr = sys.stdout = _Log(path)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.captureWarnings(True)


def write_scalars(folder: Path) -> None:
    """Write the scalars that log records carry as events for TensorBoard (the extra `tensorboard`).

    Such a record has by `extra` its `run`, whose events are a folder of their own, its `scalars`, numbers by name,
    and its `epoch`. One without an epoch is the run's last, at the epoch before.

    folder: of a pack, see `packfile.events`.
    """
    handler = _Scalars(folder)
    logging.getLogger("hiddencost").addHandler(handler)
    epochs = logging.getLogger(EPOCHS)
    epochs.addHandler(handler)
    epochs.propagate = False
    epochs.setLevel(logging.DEBUG)


class _Scalars(logging.Handler):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.writers: dict[str, tuple[Any, int]] = {}  # of the runs under way, with the epochs that they are at

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "scalars"):
            try:
                self._write(**{key: getattr(record, key, None) for key in ("run", "scalars", "epoch")})
            except Exception:  # as logging has it: what cannot be told stops no training
                self.handleError(record)

    def _write(self, run: Any, scalars: Any, epoch: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer, before = self.writers.get(run, (None, 0))
        step = before if epoch is None else epoch
        # a run that goes on after it was interrupted, or is trained anew, takes the place of what was written before
        writer = writer or SummaryWriter(str(self.folder / run), purge_step=step, flush_secs=10)
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
