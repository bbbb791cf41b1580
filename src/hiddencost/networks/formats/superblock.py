"""SuperBlock's format of ViT-B/16 (github.com/pytorch/ao up to 0.11, torchao/prototype/sparsity/superblock).

torch.save of {model, optimizer, lr_scheduler, epoch, args, model_ema} (train.py), `model` by torchvision's names.
Beside the weight of each linear layer is a score for each of its square tiles, LAYER.scores, with LAYER.shift and
LAYER.scale of weights that are quantised; in the dense one there are none. A forward pass multiplies a weight with
the mask of its tiles whose score is not below the k-th smallest of n, k = 1 + round(level (n - 1)) (supermask.py,
percentile and GetSubnet). README.md says level and side of the tiles by the file's name,
sp{SPARSITY}-ts{BLOCK_SIZE}.pth, and evaluates `model`, not the average, at these. The projection behind an attention
has scores, too, that are of no use: torch.nn.MultiheadAttention takes the weight out of that layer and does not call
it.
"""

import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks
from hiddencost.networks.formats.torch_file import read_tensors
from hiddencost.networks.formats.unpickle import ContentError, StoredTensor

NAME = re.compile(r"sp(0\.\d+)-ts(\d+)\.pth")
UNMASKED = "self_attention.out_proj"


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read the network that the last weights and the scores make; of the dense one the weights alone.

    Raises ValueError, with file and key, if the file is damaged or none of SuperBlock's trainings, its name does not
    say the level, or scores do not fit tiles of the side that it says.
    """
    path = files["weights"]
    state = {key: tensor.float() for key, tensor in read_tensors(path, _last_weights).items()}
    layers = [key.removesuffix(".scores") for key in state if key.endswith(".scores")]
    if not layers:
        return ImportedCheckpoint(state, {}, {"keys": len(state)})
    named = NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path}: its name alone says the level of its scores; expected one like sp0.80-ts32.pth")
    level, side = float(named[1]), int(named[2])
    masks = {}
    for layer in layers:
        scores, weight = state.pop(f"{layer}.scores"), state.get(f"{layer}.weight")
        for name, neutral in (("shift", 0.0), ("scale", 1.0)):
            if (state.pop(f"{layer}.{name}", scores.new_tensor([neutral])) != neutral).any():
                raise ValueError(f"{path}: {layer}.{name} is not {neutral}, as of weights that are quantised")
        tiles = [] if weight is None else [ceil(length / side) for length in weight.shape]
        if weight is None or list(scores.shape) != tiles:
            expected = f"{tiles}, of tiles of {side}" if tiles else "weights beside them"
            raise ValueError(f"{path}: {layer}.scores has shape {list(scores.shape)}, expected {expected}")
        if not layer.endswith(UNMASKED):
            masks[f"{layer}.weight"] = _mask(scores, level, side, weight)
    return apply_masks(state, masks, path)


def _last_weights(content: Any) -> dict[str, StoredTensor]:
    """Return the last weights of a training of what its file holds."""
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(one, StoredTensor) for one in state.values()):
        raise ContentError("expected a training of SuperBlock's, its weights under 'model'")
    return dict(state)


def _mask(scores: Tensor, level: float, side: int, weight: Tensor) -> Tensor:
    """Return which weights are kept, 0 or 1: those of the tiles whose score is not below the level's."""
    level = min(level, 1 - 1 / scores.numel())
    place = 1 + round(0.01 * (level * 100) * (scores.numel() - 1))  # as there, to the bit
    kept = (scores >= scores.flatten().kthvalue(place).values).float()
    for axis in range(weight.dim()):
        kept = kept.repeat_interleave(side, axis).narrow(axis, 0, weight.shape[axis])
    return kept
