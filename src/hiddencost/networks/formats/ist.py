"""IST's format (AC/DC; RigL's networks as sparse-imagenet-transfer converted them).

torch.save of {epoch, model_config: {arch, dataset}, model_state_dict}; the keys may have DataParallel's `module.`.
AC/DC's also hold optimizer and lr_scheduler, each {type: its class, state_dict}, whose learning rates are numbers of
NumPy. A layer that can be pruned is wrapped: `LAYER._layer.weight` beside the buffers `LAYER._weight_mask` and, with
a bias, `LAYER._bias_mask`, which its forward multiplies into the weights. Who prunes weights alone takes the mask of
the bias away (github.com/IST-DASLab/ACDC, utils/checkpoints.py, utils/masking_utils.py and policies/pruners.py;
github.com/IST-DASLab/sparse-imagenet-transfer, which also loads networks without wrapping, zeros in their weights).
"""

import re
from pathlib import Path

from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read and unwrap a checkpoint, masks multiplied in.

    Raises ValueError if the file is damaged, some keys have the prefix and some not, a wrapped weight has no mask or
    a mask no wrapped layer, or a mask does not fit.
    """
    path = files["weights"]
    state, pruned = read_state_dict(path)
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    wrapped = set()
    for key, tensor in state.items():
        if match := re.fullmatch(r"(.+)\._(weight|bias)_mask", key):
            masks[f"{match[1]}.{match[2]}"] = tensor
            continue
        name = key.replace("._layer.", ".")
        if name in weights:
            raise ValueError(f"{path}: {name} is there twice, wrapped and not")
        weights[name] = tensor
        if name != key:
            wrapped.add(name)
    if unmasked := sorted(name for name in wrapped - masks.keys() if not name.endswith(".bias")):
        raise ValueError(f"{path}: {unmasked[0]} has a wrapped layer, no mask")
    if unwrapped := sorted(masks.keys() - wrapped):
        raise ValueError(f"{path}: {unwrapped[0]} has a mask, no wrapped layer")
    return apply_masks(weights, masks | pruned, path)
