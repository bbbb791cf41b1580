"""A stage under way, and its records."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 5  # seconds between being interrupted and being killed


@dataclass(frozen=True)
class Stage:
    """A stage under way: its name, the folder of its records, whether sizes are tiny, and when it should have ended,
    in seconds of time.monotonic."""

    name: str
    out: Path
    dry: bool
    deadline: float

    def tell(self, **found: object) -> None:
        """Keep a record, at once: a stage may be killed."""
        record = {"stage": self.name, **found}
        with open(self.out / "records.jsonl", "a") as file:
            file.write(json.dumps(record, default=str) + "\n")
        print(*(f"{key}={_short(value)}" for key, value in record.items()), flush=True)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def bounded(command: Sequence[object], seconds: float, log: Path) -> int:
    """Run a command in the project's folder, its output in a file, for so many seconds at most: then it and what it
    has started are interrupted, and killed if they stay. Returns its exit code, which is not 0 where it was ended."""
    with open(log, "w") as file:
        told = {"cwd": ROOT, "stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
        process = subprocess.Popen(list(map(str, command)), **told)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it has left behind
        return process.wait()
