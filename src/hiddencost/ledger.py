"""The ledger: each finished run in a file of its own, under the hash of all that determines it."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hiddencost.files import atomic, canonical, sha256_text


def identity(**inputs: object) -> str:
    """Return a run's identity: the SHA-256 of its inputs (JSON values), by name."""
    return sha256_text(canonical(inputs))


def entry(ledger: str | Path, run: str) -> Path:
    """Return the file of a run, finished or not."""
    return Path(ledger) / run[:2] / f"{run}.safetensors"


def find(ledger: str | Path, run: str) -> dict | None:
    """Return the result of a finished run, or None if there is none."""
    path = entry(ledger, run)
    if not path.exists():
        return None
    with safe_open(path, "pt") as stored:
        return json.loads(stored.metadata()["result"])


def record(ledger: str | Path, run: str, tensors: dict[str, Tensor], result: dict) -> None:
    """Keep a finished run: what it learned (a prompt and its mapping, or a head) and its result (JSON values)."""
    with atomic(entry(ledger, run)) as temporary:
        save_file(tensors, temporary, metadata={"result": canonical(result)})
