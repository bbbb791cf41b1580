"""What the readers share: a state dict out of a file, as it is published or saved today, and masks."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hiddencost.messages import one_line
from hiddencost.networks.formats.torch_file import read_tensors
from hiddencost.networks.formats.unpickle import ContentError, StoredTensor, Unread

log = logging.getLogger(__name__)

# where a state dict may be within a file; the averages of a training before its last weights, as timm loads them
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
MASKS = ("mask", "masks")  # what weights that lie beside it may be meant to be multiplied with
# what wrappers put before a network's names: DataParallel and averages, torch.compile, Lightning and lottery tickets
PREFIXES = ("module.", "_orig_mod.", "model.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the weights


class ImportedCheckpoint(NamedTuple):
    """A checkpoint as read.

    Attributes:
        state: the weights by the architecture's names, float32 where they are floating-point.
        masks: bool, True where a weight is kept, by the weight's key; a weight under False is 0, one under True is
            not.
        report: counts, for the log and the manifest.
        widths: of the blocks of a network that was pruned in structure, by name, see `build.build`.
        upstream: of a network that a study has trained: how, as its manifest has it.
    """

    state: dict[str, Tensor]
    masks: dict[str, Tensor]
    report: dict[str, int]
    widths: dict[str, list[int]] | None = None
    upstream: dict[str, Any] | None = None


class StateDict(NamedTuple):
    """A state dict by the network's own names.

    Attributes:
        weights: the tensors, float32 where they are floating-point.
        masks: of torch.nn.utils.prune, by the names of the weights, which are not multiplied with them yet.
    """

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]

    def renamed(self, translate: Callable[[str], str | None], path: Path, expected: str) -> "StateDict":
        """Return it by other names.

        Raises ValueError, with `path`, for a key that `translate` returns None for, or two that it returns one for.
        """
        if unknown := [key for key in self.weights if translate(key) is None]:
            raise ValueError(f"{path}: unexpected key {unknown[0]}; expected {expected}")
        renamed = StateDict(*({str(translate(key)): each[key] for key in each} for each in self))
        if len(renamed.weights) < len(self.weights):
            names = [translate(key) for key in self.weights]
            twice = next(key for key, name in zip(self.weights, names, strict=True) if names.count(name) > 1)
            raise ValueError(f"{path}: {twice} is there twice, by two names")
        return renamed


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict, of torch.save or safetensors, by its first bytes.

    It may be under a key (NESTED), its keys behind the prefix of a wrapper (PREFIXES), and its weights beside masks
    (`NAME_orig` and `NAME_mask`, as torch.nn.utils.prune has them). What else a file of torch.save holds is not read.

    Raises:
        ValueError: in one line, with file and key: the file is damaged or holds something else, a tensor is not of
            plain numbers, some keys have a prefix and some not, or a pruned weight has no mask.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: no file; expected one of torch.save or safetensors")
    with open(path, "rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        try:
            state = load_file(path)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that PyTorch has not
            raise ValueError(f"{path}: not a safetensors file, or a damaged one: {one_line(error)}") from error
        if not state:
            raise ValueError(f"{path}: no tensor is in it")
    else:
        state = read_tensors(path, lambda content: _state_dict(content, path))
    return _without_orig(_without_prefixes({key: _number(key, state[key], path) for key in state}, path), path)


def _state_dict(content: Any, path: Path) -> dict[str, StoredTensor]:
    """Return the state dict of what a file holds. Raises ContentError if none is there."""
    under: list[str] = []
    while len(under) < 3 and isinstance(content, Mapping):  # no deeper: a file may hold itself
        if not (inner := [key for key in NESTED if isinstance(content.get(key), Mapping) and content[key]]):
            break
        _check_unread(content, inner[0], path)
        under.append(inner[0])
        content = content[inner[0]]
    items = content.items() if isinstance(content, Mapping) else []
    if isinstance(content, Unread):
        found = f"; found an object of {content.kind}"
    elif others := [one for one in items if not (isinstance(one[0], str) and isinstance(one[1], StoredTensor))]:
        key, value = others[0]
        what = f"an object of {value.kind}" if isinstance(value, Unread) else "no name of a tensor"
        found = f"; {key!r} is {what}"
    else:
        found = "" if items else "; found none"
    if found:
        raise ContentError(f"expected a state dict {{name: tensor}}, alone or under {', '.join(NESTED)}{found}")
    if under:
        log.info("%s: the weights are those under %s", path, ".".join(under))
    return dict(items)


def _check_unread(content: Mapping[Any, Any], chosen: str, path: Path) -> None:
    """Raise ContentError if what is not read comes before the weights under `chosen`, or may be their masks."""
    unread = {key: value.kind for key, value in content.items() if isinstance(value, Unread)}
    for key in (*NESTED[: NESTED.index(chosen)], *MASKS):
        if key in unread:
            raise ContentError(
                f"{key!r} is an object of {unread[key]}, which is not read; expected a dictionary of tensors or none "
                f"beside {chosen!r}"
            )
    if unread:
        told = ", ".join(f"{key} ({kind})" for key, kind in unread.items())
        log.info("%s: beside the weights, and not read: %s", path, one_line(told))


def _number(key: str, tensor: Tensor, path: Path) -> Tensor:
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return tensor.float()
    if tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"{path}: {key} is of {tensor.dtype}; expected floats of 16 to 64 bits or integers")
    return tensor


def _without_prefixes(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    while prefixes := [prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in state)]:
        if prefixes[0] == PREFIXES[0]:
            state = {key: tensor for key, tensor in state.items() if key != COUNTER}
        state = _strip_prefix(state, prefixes[0], path)
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():  # a part of a network may have been wrapped alone, as torchvision's VGG was
        name = re.sub(r"^(\w+)\.module\.", r"\1.", key.replace("._orig_mod.", "."))
        if name in plain:
            raise ValueError(f"{path}: {name} is there twice, wrapped and not")
        plain[name] = tensor
    return plain


def _strip_prefix(state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    if without := [key for key in state if not key.startswith(prefix)]:
        raise ValueError(
            f"{path}: {len(state) - len(without)} of {len(state)} keys begin with {prefix!r}, expected all or none; "
            f"{without[0]} does not"
        )
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def _without_orig(state: dict[str, Tensor], path: Path) -> StateDict:
    weights, masks = dict(state), {}
    for key in state:
        if not key.endswith("_orig"):
            continue
        name = key.removesuffix("_orig")
        if f"{name}_mask" not in state or name in state:
            raise ValueError(f"{path}: {key} needs {name}_mask beside it, and no {name}, as torch.nn.utils.prune has")
        weights[name], masks[name] = weights.pop(key), weights.pop(f"{name}_mask")
    return StateDict(weights, masks)


def imported(state: StateDict, path: Path) -> ImportedCheckpoint:
    """Return a checkpoint of which nothing but a state dict is published: with masks only where it has some."""
    if state.masks:
        return apply_masks(*state, path)
    return ImportedCheckpoint(state.weights, {}, {"keys": len(state.weights)})


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
