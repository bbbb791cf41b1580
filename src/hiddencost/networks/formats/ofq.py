"""OFQ's quantised vision transformers (github.com/nbasyl/OFQ, cga.py, by timm's CheckpointSaver).

torch.save of {state_dict, ...}: the names of the dense network, those of quantisers beside the weights that they
quantise. How many bits they have is not in it: weights of 2, 3 or 4 bits are stored as what is quantised.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from hiddencost.messages import one_line
from hiddencost.networks.formats.reading import ImportedCheckpoint, read_state_dict
from hiddencost.networks.ofq import OUTER_BITS
from hiddencost.networks.quantisers import lsq

# what no training changes, and what images of any kind set for good, by the end of the key
CONSTANTS = {"clip_val": 2.0, "signed": 1.0}
HEAD = re.compile(r"(head|head_dist)\.(\w+)(.*)")
PLAIN = ("weight", "bias")


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a network, the weights of its heads as they are quantised (8 bits, a learned step for each class).

    Raises ValueError, with file and key, if the file is damaged or none of OFQ's, a head has no step for each of its
    classes, or a constant is another one. That no other key is missing or there is checked by who loads it.
    """
    path = files["weights"]
    stored, masks = read_state_dict(path)
    for key in masks:
        raise ValueError(f"{path}: unexpected key {key}_mask; expected a network of which nothing is pruned")
    if not any(key.endswith("qk_quant.clip_val") for key in stored):
        raise ValueError(f"{path}: no attention with one quantiser of queries and keys (qk_quant.clip_val) is in it")
    constants = {key: CONSTANTS[end] for key in stored if (end := key.rpartition(".")[2]) in CONSTANTS}
    for key, expected in constants.items():
        if stored[key].tolist() != [expected]:
            raise ValueError(f"{path}: {key} is {one_line(str(stored[key].tolist()))}, expected [{expected:g}]")
    steps = {key for key in stored if re.fullmatch(r"(head|head_dist)\.lsqw_fn\.s", key)}
    state: dict[str, Tensor] = {}
    for key in stored.keys() - steps:
        match = HEAD.fullmatch(key)
        if not match:
            state[key] = stored[key]
            continue
        head, name, rest = match.groups()
        tensor = _quantised(head, stored, path) if name == "weight" else stored[key]
        state[f"{head}.{'linear' if name in PLAIN else 'input'}.{name}{rest}"] = tensor
    for key in steps:
        if (weight := key.replace("lsqw_fn.s", "weight")) not in stored:
            raise ValueError(f"{path}: missing key {weight}")
    report = {"keys": len(stored), "constants": len(constants), "quantised_where_read": len(steps)}
    return ImportedCheckpoint(state, {}, report)


def _quantised(head: str, stored: dict[str, Tensor], path: Path) -> Tensor:
    """Return the weights [classes, channels] of a head as its steps have them."""
    weight, key = stored[f"{head}.weight"], f"{head}.lsqw_fn.s"
    if key not in stored:
        raise ValueError(f"{path}: missing key {key}")
    step, expected = stored[key], list(weight.shape[:1])
    if list(step.shape) != expected or weight.dim() != 2 or not torch.is_floating_point(step):
        raise ValueError(f"{path}: {key} has shape {list(step.shape)}, expected {expected} floats, one a class")
    return lsq(weight, step[:, None], OUTER_BITS)
