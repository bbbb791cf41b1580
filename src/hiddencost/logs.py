"""The log of a job."""

import io
import logging
import sys
import time

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
