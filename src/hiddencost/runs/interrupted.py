"""States of a training that is under way, kept to go on from."""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from hiddencost.files import atomic

log = logging.getLogger(__name__)


def keep_states(path: str | Path, states: dict[str, Any]) -> None:
    """Keep the states of runs under way, by identity: dicts and lists of tensors and numbers.

    With the SHA-256 of the rest as its first bytes, as torch.load does not see damaged tensors.
    """
    buffer = io.BytesIO()
    torch.save(states, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())


def states(path: str | Path, device: torch.device) -> dict[str, Any]:
    """Return the states of runs under way, by identity; none where there is no such file, or, with a warning, where
    it is damaged."""
    if not Path(path).exists():
        return {}
    content = Path(path).read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        log.warning("%s is damaged: its runs start anew", path)
        return {}
    return torch.load(io.BytesIO(content[32:]), device, weights_only=True)
