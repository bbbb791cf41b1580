"""What the readers share: files opened safely, prefixes, masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class ImportedCheckpoint(NamedTuple):
    """A checkpoint as read.

    Attributes:
        state: the weights by the architecture's names, float32 where they are floating-point.
        masks: bool, True where a weight is kept, by the weight's key; a weight under False is 0, one under True is
            not.
        report: counts, for the log and the manifest.
        widths: of the blocks of a network that was pruned in structure, by name, see `build.build`.
    """

    state: dict[str, Tensor]
    masks: dict[str, Tensor]
    report: dict[str, int]
    widths: dict[str, list[int]] | None = None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_pickle(path: Path) -> Any:
    """Read a file of torch.save, without running code of it.

    Raises:
        ValueError: it is damaged, or holds more than data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises can be anything
        raise ValueError(f"{path}: not a file of weights alone, or a damaged one: {first_line(error)}") from error


def read_state_dict(path: Path, *nested: str) -> dict[str, Tensor]:
    """Read a pickled state dict.

    Args:
        path: of a file of torch.save: {name: tensor}, alone or under a key.
        nested: the keys under which the state dict may be; the first that the file has is taken.

    Returns:
        The tensors by name, float32 where they are floating-point.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    content = load_pickle(path)
    if isinstance(content, Mapping):
        content = next((content[key] for key in nested if key in content), content)
    items = content.items() if isinstance(content, Mapping) else []
    if not items or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in items):
        under = f", alone or under {' or '.join(nested)}" if nested else ""
        raise ValueError(f"{path}: expected a state dict {{name: tensor}}{under}")
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in items}


def read_weights(path: Path, *nested: str) -> dict[str, Tensor]:
    """Read a state dict of safetensors, or a pickled one, by the file's name or its first bytes.

    See `read_state_dict` for what is returned and raised, and for `nested`.
    """
    with open(path, "rb") as file:
        start = file.read(9)
    if path.suffix != ".safetensors" and start[8:] != b"{":
        return read_state_dict(path, *nested)
    try:
        return {key: t.float() if t.is_floating_point() else t for key, t in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one: {first_line(error)}") from error


def strip_prefix(state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """Take a prefix off the keys of a state dict; of one whose keys do not have it, nothing.

    Raises:
        ValueError: some keys have it and others have not; `path` is named.
    """
    without = [key for key in state if not key.startswith(prefix)]
    if len(without) == len(state):
        return state
    if without:
        raise ValueError(
            f"{path}: {len(state) - len(without)} of {len(state)} keys begin with {prefix!r}, expected all or none; "
            f"{without[0]} does not"
        )
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def apply_masks(state: dict[str, Tensor], masks: dict[str, Tensor], path: Path) -> ImportedCheckpoint:
    """Apply published masks to weights, as the code that published them does: the product is the network.

    Args:
        state: the weights by key.
        masks: 0 or 1, by the weight's key, of its shape.
        path: of the masks' file, for messages.

    Returns:
        The product, and the masks of the convolutions, and of the other layers' weights that were published with one
        or have zeros: what is published, less the weights that are 0 all the same. A layer without a published mask
        gets that of its zeros.

    Raises:
        ValueError: with file and key, for a mask of another shape or other values, or of something that has no
            weights.
    """
    product, removed = dict(state), 0
    for key, mask in masks.items():
        if key not in state:
            raise ValueError(f"{path}: a mask for {key}, of which there are no weights")
        if mask.shape != state[key].shape:
            raise ValueError(
                f"{path}: the mask of {key} has shape {list(mask.shape)}, expected {list(state[key].shape)}"
            )
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"{path}: the mask of {key} has other values than 0 and 1")
        product[key] = torch.where(mask.bool(), state[key], 0)
        removed += int(((state[key] != 0) & (mask == 0)).sum())
    has_mask = [
        key
        for key, weight in product.items()
        if weight.dim() == 4 or (weight.dim() == 2 and (key in masks or (weight == 0).any()))
    ]
    kept = {key: product[key] != 0 for key in has_mask}
    kept_zeros = sum(int((masks[key].bool() & ~kept[key]).sum()) for key in has_mask if key in masks)
    report = {"keys": len(state), "masks": len(masks), "removed_by_masks": removed, "zeros_not_masked": kept_zeros}
    return ImportedCheckpoint(product, kept, report)
