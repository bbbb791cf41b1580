"""SparseML's format (SparseZoo's GMP networks): ResNets with key names of their own, zeros in the weights, no masks.

torch.save of {state_dict, and of its training: optimizer, recipe (a text), epoch, manager, arch_key}, the tensors
copied as float32 (github.com/neuralmagic/sparseml, src/sparseml/pytorch/utils/model.py, save_model).

Loaded into torchvision's network with strict=False, as the paper's code does, not one key of it matches
(github.com/neuralmagic/sparseml, src/sparseml/pytorch/models/classification/resnet.py).
"""

import re
from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict


def torchvision_name(key: str) -> str | None:
    """Return torchvision's name for a key of SparseML's ResNet, None for one that is not of it."""
    if match := re.fullmatch(r"input\.(conv|bn)\.(\w+)", key):
        return f"{match[1]}1.{match[2]}"
    if match := re.fullmatch(r"sections\.(\d)\.(\d+)\.(conv\d|bn\d|identity\.conv|identity\.bn)\.(\w+)", key):
        section, block, layer, parameter = match.groups()
        layer = {"identity.conv": "downsample.0", "identity.bn": "downsample.1"}.get(layer, layer)
        return f"layer{int(section) + 1}.{block}.{layer}.{parameter}"
    if match := re.fullmatch(r"classifier\.(fc\.\w+)", key):
        return match[1]
    return None


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a ResNet of SparseML's, its masks taken from the zeros of its convolutions.

    Raises ValueError if the file is damaged or has a key of another network.
    """
    path = files["weights"]
    expected = "SparseML's input., sections. and classifier."
    return apply_masks(*read_state_dict(path).renamed(torchvision_name, path, expected), path)
