"""The ledger: each finished run in a file of its own, under the hash of all that determines it."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hiddencost.files import atomic, canonical, sha256_text

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
    path = entry(ledger, run)
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as stored:
            return json.loads(stored.metadata()["result"])
    except SafetensorError as error:
        log.warning("%s is damaged (%s): the run counts as not finished", path, error)
        return None


def record(ledger: str | Path, run: str, tensors: dict[str, Tensor], result: dict) -> None:
    """Keep a finished run: what it learned (a prompt and its mapping, or a head) and its result (JSON values)."""
    with atomic(entry(ledger, run)) as temporary:
        save_file(tensors, temporary, metadata={"result": canonical(result)})


def keep_states(path: str | Path, states: dict[str, Any]) -> None:
    """Keep the states of runs under way, by identity: dicts and lists of tensors and numbers."""
    with atomic(path) as temporary:
        torch.save(states, temporary)


def states(path: str | Path, device: torch.device) -> dict[str, Any]:
    """Return the states of runs under way, by identity; none where there is no such file, or it is damaged."""
    if not Path(path).exists():
        return {}
    try:
        return torch.load(path, device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        log.warning("%s is damaged (%s): its runs start anew", path, type(error).__name__)
        return {}
