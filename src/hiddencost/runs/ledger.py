"""The ledger: each finished run in a file of its own, under the hash of all that determines it."""

import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

import numpy
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hiddencost.files import atomic, canonical, sha256_text

log = logging.getLogger(__name__)
OF_INPUTS = 40  # digits of an identity that tell all but the code


class Result(BaseModel):
    """What came of a run, as the ledger keeps it.

    Attributes:
        status: "diverged" where a loss or a test logit was not finite.
        reason: where that was.
        training: how it was trained and on what (`pack.timing`), and what determined it beside its request.
        scores: its metrics and reliability bins, see `metrics.evaluate`; none of a run that diverged.
        metrics: digest of the code that scored it, see `metrics.digest`.
        test_batch_size: images a batch of the test that it was last scored for.
        scored_by: the same a column of scores, see `metrics.digests`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["ok", "diverged"]
    reason: str | None = None
    training: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    metrics: str = ""
    test_batch_size: int | None = None
    scored_by: dict[str, str] = {}

    def row(self) -> dict[str, Any]:
        """Return it as columns of the pack's table."""
        reason = {"reason": self.reason} if self.reason else {}
        return {"status": self.status, **reason, **self.training, **self.scores}

    def summary(self) -> str:
        """Return what a log says of it."""
        if self.status != "ok":
            return f"{self.status}: {self.reason}"
        accuracy, ece = self.scores["accuracy"], self.scores["ece"]
        return f"accuracy {accuracy:.3f}, ECE {ece:.3f}, {self.training['train_seconds']:.1f} s"


def entry_name(code: str, **inputs: object) -> str:
    """Return a run's identity, the name of its entry: 64 hexadecimal digits, 40 of its inputs' SHA-256, the others of
    its code's.

    Args:
        code: digest of the code that trains it.
        inputs: all else that determines it, JSON values by name.
    """
    return sha256_text(canonical(inputs))[:OF_INPUTS] + sha256_text(code)[: 64 - OF_INPUTS]


def entry(ledger: str | Path, run: str) -> Path:
    """Return the file of a run, finished or not."""
    return Path(ledger) / run[0] / f"{run}.safetensors"


def trained_by_other_code(ledger: str | Path, run: str) -> bool:
    """Tell whether the ledger holds the same run as another version of the code has trained it."""
    path = entry(ledger, run)
    return any(other != path for other in path.parent.glob(f"{run[:OF_INPUTS]}*.safetensors"))


def older_entries(ledger: str | Path, run: str = "*") -> bool:
    """Tell whether the ledger holds entries, or that of a run, in its older layout, of two digits a folder.

    They are not used.
    """
    return any(Path(ledger).glob(f"??/{run}.safetensors"))


def find(ledger: str | Path, run: str) -> Result | None:
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


def read(ledger: str | Path, run: str) -> tuple[dict[str, Tensor], Result]:
    """Return what a finished run learned, and its result; see `record`.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: if a failing disk has damaged its entry, or it is not of this version.
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
    try:
        return tensors, Result.model_validate_json(metadata["result"])
    except ValidationError:
        raise ValueError(f"{path} was written by another version of the code") from None


def record(ledger: str | Path, run: str, learned: dict[str, Tensor], result: Result) -> None:
    """Keep a finished run, in place of an earlier entry.

    Args:
        ledger: its folder.
        run: its identity.
        learned: a prompt and its mappings, a head, or the test logits of a network that is not kept.
        result: what came of it.
    """
    text = canonical(result.model_dump())
    with atomic(entry(ledger, run)) as temporary:
        save_file(learned, temporary, metadata={"result": text, "sha256": _digest(learned, text)})


def _digest(tensors: dict[str, Tensor], result: str) -> str:
    """Return the SHA-256 over a result and the tensors' names and values."""
    values = {name: hashlib.sha256(numpy.asarray(tensor).tobytes()).hexdigest() for name, tensor in tensors.items()}
    return sha256_text(canonical([result, values]))
