"""NNCF's format of networks whose filters were pruned: torchvision's names, and masks of whole filters.

torch.save of {epoch, arch, state_dict, compression_state, acc1, best_acc1, optimizer}, keys behind DataParallel's
`module.` and, in older versions, NNCF's `nncf_module.`. A layer that is pruned has a mask [filters], called
LAYER.pre_ops.N.op._binary_filter_pruning_mask or without that underscore, which its forward multiplies into weight
and bias; so has the batch norm behind it (github.com/openvinotoolkit/nncf up to 2.18: main.py of
examples/torch/classification; base_algo.py and filter_pruning/layers.py of nncf/torch/pruning).
"""

import re
from pathlib import Path

from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict

MASK = re.compile(r"(.+)\.pre_ops\.\d+\.op\._?binary_filter_pruning_mask")
PARAMETERS = "weight", "bias"


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a network, its masks multiplied in.

    Raises ValueError, with file and key, if the file is damaged, or a mask is of no layer or does not fit it.
    """
    path = files["weights"]
    stored, pruned = read_state_dict(path)
    state: dict[str, Tensor] = {}
    filters: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        match = MASK.fullmatch(name := key.removeprefix("nncf_module."))
        if (match[1] if match else name) in (filters if match else state):
            raise ValueError(f"{path}: {name} is there twice")
        if match:
            filters[match[1]] = tensor
        else:
            state[name] = tensor
    masks: dict[str, Tensor] = {}
    for layer, mask in filters.items():
        own = [f"{layer}.{parameter}" for parameter in PARAMETERS if f"{layer}.{parameter}" in state]
        if not own:
            raise ValueError(f"{path}: a mask for {layer}, of which there are no weights")
        for key in own:
            if mask.shape != state[key].shape[:1]:
                raise ValueError(
                    f"{path}: the mask of {key} has shape {list(mask.shape)}, expected {list(state[key].shape[:1])}"
                )
            masks[key] = mask.reshape(-1, *[1] * (state[key].dim() - 1)).expand_as(state[key])
    return apply_masks(state, masks | pruned, path)
