"""The log of a job."""

import logging
import sys


def log_to(path: str) -> None:
    """Send log records, warnings, progress and tracebacks of this process to a file, a line at a time."""
    sys.stderr = sys.stdout = open(path, "w", buffering=1)  # noqa: SIM115 (open until the process ends)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.captureWarnings(True)
