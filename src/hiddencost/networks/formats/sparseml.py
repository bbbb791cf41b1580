"""SparseML's format (SparseZoo's GMP networks): ResNets with key names of their own, zeros in the weights, no masks.

Loaded into torchvision's network with strict=False, as the paper's code does, not one key of it matches
(github.com/neuralmagic/sparseml, src/sparseml/pytorch/models/classification/resnet.py).
"""

import re
from pathlib import Path

from hiddencost.networks.formats.reading import Imported, masked, state_dict, without_prefix


def torchvision_name(key: str) -> str | None:
    """Return torchvision's name for a key of SparseML's ResNet, None for one that is not of it."""
    if found := re.fullmatch(r"input\.(conv|bn)\.(\w+)", key):
        return f"{found[1]}1.{found[2]}"
    if found := re.fullmatch(r"sections\.(\d)\.(\d+)\.(conv\d|bn\d|identity\.conv|identity\.bn)\.(\w+)", key):
        section, block, layer, parameter = found.groups()
        layer = {"identity.conv": "downsample.0", "identity.bn": "downsample.1"}.get(layer, layer)
        return f"layer{int(section) + 1}.{block}.{layer}.{parameter}"
    if found := re.fullmatch(r"classifier\.(fc\.\w+)", key):
        return found[1]
    return None


def read(files: dict[str, Path]) -> Imported:
    """Read a ResNet of SparseML's, its masks taken from the zeros of its convolutions.

    Raises ValueError if the file is damaged or has a key of another network.
    """
    path = files["weights"]
    state = {}
    for key, tensor in without_prefix(state_dict(path, "state_dict"), "module.", path).items():
        if (name := torchvision_name(key)) is None:
            raise ValueError(f"{path}: unexpected key {key}; expected SparseML's input., sections. and classifier.")
        state[name] = tensor
    return masked(state, {}, path)
