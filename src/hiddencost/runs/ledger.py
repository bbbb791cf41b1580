"""The ledger: each finished run in a file of its own, under the hash of all that determines it."""

import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hiddencost.files import atomic, canonical, sha256_text
from hiddencost.runs.interrupted import _digest

log = logging.getLogger(__name__)


def identity(**inputs: object) -> str:
    """Return a run's identity: the SHA-256 of its inputs (JSON values), by name."""
    return sha256_text(canonical(inputs))


def entry(ledger: str | Path, run: str) -> Path:
    """Return the file of a run, finished or not."""
    return Path(ledger) / run[:2] / f"{run}.safetensors"


def find(ledger: str | Path, run: str) -> dict | None:
    """Return the result of a finished run, or None if there is none.

    An entry that a failing disk has damaged is none, with a warning.
    """
    try:
        return read(ledger, run)[1]
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("%s: the run counts as not finished", error)
        return None


def read(ledger: str | Path, run: str) -> tuple[dict[str, Tensor], dict]:
    """Return what a finished run learned, and its result; see `record`.

    Raises FileNotFoundError if there is no such run, ValueError if a failing disk has damaged its entry.
    """
    path = entry(ledger, run)
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no dict)
        whole = metadata["sha256"] == _digest(tensors, metadata["result"])
    except (SafetensorError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged")
    return tensors, json.loads(metadata["result"])


def record(ledger: str | Path, run: str, tensors: dict[str, Tensor], result: dict) -> None:
    """Keep a finished run: what it learned (a prompt and its mapping, or a head) and its result (JSON values)."""
    text = canonical(result)
    with atomic(entry(ledger, run)) as temporary:
        save_file(tensors, temporary, metadata={"result": text, "sha256": _digest(tensors, text)})
