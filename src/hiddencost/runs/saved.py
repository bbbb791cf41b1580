"""The file of a saved classifier: one safetensors file, whole, and of values that make sense.

It comes from anywhere. What it says of itself is typed and bounded here, and its tensors are held against their
checksum and against what a classifier can have.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hiddencost.datasets.prepare import sized
from hiddencost.files import atomic, canonical, sha256_text
from hiddencost.messages import Record, describe_mismatch, one_of, validate
from hiddencost.methods.registry import METHODS
from hiddencost.prompting.prompts import PROMPTS
from hiddencost.study.masks import Layers, Patch

log = logging.getLogger(__name__)
MOST = 4096  # pixels of a side: more than any published network's input


class SavedPreprocessing(Record):
    """How a network's images were made, from pixels scaled to [0, 1]."""

    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=3, max_length=3)


class SavedRun(Record):
    """What the study's table says of a run."""

    study: str
    backbone: str
    dataset: str
    method: Annotated[str, one_of([name for name, method in METHODS.items() if not method.changes_weights])]
    shots: str
    seed: int
    accuracy: float = Field(ge=0, le=1)
    run: str


class SavedOrigin(Record):
    """What the study says of a run's network.

    Attributes:
        published: the checkpoint of the catalog whose weights it has, or was trained from, as far as checksums tell.
        trained: whether a study has trained it upstream; None in files of before it was told.
    """

    checkpoint: str
    compression: str
    control: str | None
    sparsity: float = Field(ge=0, le=1)
    published: str | None = None
    trained: bool | None = None


class SavedSettings(Record):
    """What a file says of its classifier, see `classifier.TrainedClassifier`. Families have settings beyond these,
    which they hold against the tensors."""

    model_config = ConfigDict(extra="allow")

    architecture: str = Field(max_length=200)
    preprocessing: SavedPreprocessing
    classes: list[str] = Field(min_length=1)
    size: str = Field(pattern=r"^\d{1,4}(-(shortest|squash)-(bilinear|bicubic))?$")
    prompt: Annotated[str, one_of(PROMPTS)]
    canvas: int = Field(ge=1, le=MOST)
    image_size: int = Field(ge=1)
    border: int = Field(0, ge=0)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    layers: Layers | None = None  # of masks, as patch: of so many a list would be made before a tensor is
    patch: Patch | None = None
    run: SavedRun
    origin: SavedOrigin | None = None  # files of before a card was made of it have none

    @model_validator(mode="after")
    def _fits(self) -> "SavedSettings":
        side, _, _ = sized(self.size)
        if not (1 <= side <= self.canvas and self.image_size <= self.canvas and 2 * self.border <= self.canvas):
            raise ValueError(
                f"canvas: {self.canvas} pixels; expected at least those of the image, {side} and {self.image_size}, "
                f"and of the border on both sides, {2 * self.border}"
            )
        return self


def write(path: str | Path, about: dict, tensors: Mapping[str, Tensor]) -> None:
    """Write a file, with its checksum, for `read`.

    Args:
        path: of the file.
        about: its settings, see `SavedSettings`.
        tensors: its state.
    """
    text = canonical(about)
    with atomic(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"hiddencost": text, "sha256": _digest(text, tensors)})
        _order_metadata(temporary)


def _order_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order, which the library writes in any. So the same classifier is the
    same bytes, of which huggingface_hub makes no new commit."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(ordered) == length, "the same keys and values"
        file.seek(8)
        file.write(ordered)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of a file (see `SavedSettings`) and its tensors.

    Raises:
        ValueError: it is not one of `write`, not whole, or its settings make no sense.
    """
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one: {error}") from None
    if "hiddencost" not in metadata:
        raise ValueError(f"{path}: expected a file that a loaded run's save() wrote, or one of a study's ledger")
    if "sha256" not in metadata:
        log.warning("%s: an older version wrote it without a checksum: whether it is whole cannot be told", path)
    elif metadata["sha256"] != _digest(metadata["hiddencost"], tensors):
        raise ValueError(f"{path}: a damaged file: by its checksum it is not what was written")
    try:
        about = json.loads(metadata["hiddencost"])
        # of files of before prompts were named
        shape = "additive" if "border" in about else "border"
        about = {"prompt": shape, "image_size": sized(about["size"])[0]} | about
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{path}: what it says of itself is not what a loaded run's save() writes") from None
    validate(SavedSettings, about, str(path))
    return about, tensors


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str) -> None:
    """Hold the shapes of tensors against those expected, by name. Raises ValueError; origin: their file."""
    shapes, given = ({key: list(tensor.shape) for key, tensor in each.items()} for each in (expected, tensors))
    if given != shapes:
        raise ValueError(f"{origin}: {describe_mismatch(shapes, given)}")


def check_values(tensors: Mapping[str, Tensor], sources: int, origin: str) -> None:
    """Hold the values of tensors against what a classifier can have.

    Args:
        tensors: by name.
        sources: the number of classes that a mapping may choose from.
        origin: what messages call them: their file.

    Raises:
        ValueError: a weight (of a mapping, too) or a prompt is not finite, or a mapping names a class that there is
            not.
    """
    mapping = tensors.get("mapping")
    one_to_one = mapping is not None and mapping.ndim == 1  # else of weights
    for name, tensor in tensors.items():
        if not (name == "mapping" and one_to_one) and not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise ValueError(f"{origin}: {name} has a value that is no finite number; expected numbers alone")
    if mapping is None or not one_to_one:
        return
    if mapping.dtype != torch.int64 or not ((mapping >= 0) & (mapping < sources)).all():
        raise ValueError(f"{origin}: mapping names a class that there is not; expected 0 to {sources - 1}")


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over settings and the tensors' names, types, shapes and bytes."""
    parts = []
    for name, tensor in sorted(tensors.items()):
        content = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
        parts.append([name, str(tensor.dtype), list(tensor.shape), content])
    return sha256_text(canonical([about, parts]))
