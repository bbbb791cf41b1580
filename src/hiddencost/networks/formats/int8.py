"""torchvision's quantised networks (torchvision.models.quantization), brought to the names of `networks.int8`.

torch.save of a state dict of PyTorch's eager quantisation. LAYER.weight is a quantised tensor beside LAYER.bias, and
the scale of what the layer makes is LAYER.scale and LAYER.zero_point; sums have such a scale alone. The classifier's
weight and bias are a pair, LAYER._packed_params._packed_params, with a dtype beside it; in older versions two tensors
(PyTorch, torch/ao/nn/quantized/modules; torchvision/models/quantization/resnet.py and mobilenetv2.py).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint
from hiddencost.networks.formats.torch_file import read_tensors
from hiddencost.networks.formats.unpickle import ContentError, Name, StoredTensor

PACKED = re.compile(r"(.+)\._packed_params\.(_packed_params|weight|bias|dtype)")
SCALE = ("scale", "zero_point")
OF_SCALES, OF_ZEROS = "/scales", "/zero_points"  # of a weight, behind its name: no name has a slash
NAMES = {  # of a layer; behind it, its own parameters and those of its rounding
    r"conv1": "conv1",
    r"(layer\d\.\d+)\.(conv\d)": r"\1.layers.\2",
    r"(layer\d\.\d+)\.downsample\.0": r"\1.shortcut",
    r"(features\.\d+)\.0": r"\1",
    r"(features\.\d+)\.conv\.(\d)(?:\.0)?": r"\1.layers.\2",
}
SUMS = {
    r"(layer\d\.\d+)\.(?:skip_)?add_relu": r"\1.after.rounding",
    r"(features\.\d+)\.skip_add": r"\1.after.rounding",
}
HEADS = {"fc": "fc", "classifier.1": "classifier"}
BEFORE_POOLING = re.compile(r"((?:layer4\.\d\.after|features\.18)\.rounding)\.(?:scale|zero_point)")
WEIGHTS, ACTIVATIONS = (-128, 127), (0, 255)  # the integers of qint8 and of quint8


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a network, its weights as the numbers that they stand for, float32.

    Raises ValueError, with file and key, if the file is damaged, holds something else than tensors, or a key, a scale
    or a zero point is not of such a network: older files of PyTorch have no checksum of their own.
    """
    path = files["weights"]
    kinds: dict[str, Any] = {}
    stored = read_tensors(path, lambda content: _tensors(content, kinds))
    state: dict[str, Tensor] = {}
    unused = 0
    for key, tensor in stored.items():
        if key.endswith((OF_SCALES, OF_ZEROS)):
            continue
        name, parameter = key.rpartition(".")[::2]
        if parameter in SCALE:
            if tensor.numel() != 1:
                raise ValueError(f"{path}: {key} has shape {list(tensor.shape)}, expected one number")
            _check(f"{path}: {key}", parameter, tensor, ACTIVATIONS)
        if _is_unused(name, parameter, tensor):
            unused += 1
            continue
        if (ours := our_name(name, parameter)) is None:
            raise ValueError(f"{path}: unexpected key {key}; expected those of a ResNet or MobileNetV2 of 8 bits")
        if parameter == "weight" and key not in kinds:
            raise ValueError(f"{path}: {key} is not quantised; expected all weights to be")
        state[ours] = _dequantised(path, key, stored, kinds) if key in kinds else tensor.float()
        if parameter in SCALE:
            state[ours] = state[ours].reshape(())
    last = max((match[1] for key in state if (match := BEFORE_POOLING.fullmatch(key))), default=None)
    for parameter in SCALE:  # the pooling keeps the scale of what it pools
        if f"{last}.{parameter}" not in state:
            raise ValueError(f"{path}: no {parameter} of the last map is in it")
        state[f"avgpool.rounding.{parameter}"] = state[f"{last}.{parameter}"]
    return ImportedCheckpoint(state, {}, {"keys": len(stored), "dequantised": len(kinds), "unused_scales": unused})


def our_name(name: str, parameter: str) -> str | None:
    """Return our name of a layer's parameter, None for one of no such network."""
    if name == "quant" and parameter in SCALE:
        return f"quant.{parameter}"
    if name in HEADS and parameter in ("weight", "bias"):
        return f"{HEADS[name]}.{parameter}"
    for pattern, ours in (SUMS if parameter in SCALE else {}).items():
        if match := re.fullmatch(pattern, name):
            return f"{match.expand(ours)}.{parameter}"
    for pattern, ours in (NAMES if parameter in (*SCALE, "weight", "bias") else {}).items():
        if match := re.fullmatch(pattern, name):
            return f"{match.expand(ours)}.{'rounding' if parameter in SCALE else 'conv'}.{parameter}"
    return None


def _is_unused(name: str, parameter: str, value: Tensor) -> bool:
    """Return whether nothing is rounded by a scale: by that of the logits, and, in blocks of MobileNetV2 without a
    shortcut, by that of a sum (1 and 0)."""
    is_first = name.endswith(".skip_add") and parameter in SCALE and value.item() == (parameter == "scale")
    return is_first or (name in HEADS and parameter in SCALE)


def _tensors(content: Any, kinds: dict[str, Any]) -> Mapping[str, StoredTensor]:
    """Return the tensors of a state dict, those of quantised ones apart; `kinds` gets how these are quantised."""
    chosen: dict[str, StoredTensor] = {}
    for key, value in _unpacked(content).items():
        if not isinstance(value, StoredTensor):
            raise ContentError(f"expected a state dict of tensors; {key!r} is none")
        if (quantised := value.quantised) is None:
            chosen[key] = value
            continue
        if not key.endswith(".weight"):
            raise ContentError(f"{key} is quantised; expected weights alone to be")
        kinds[key] = quantised
        chosen[key] = replace(value, problem=None)
        for end, part in ((OF_SCALES, quantised.scale), (OF_ZEROS, quantised.zero_point)):
            if isinstance(part, StoredTensor):
                chosen[key + end] = part
    if not kinds:
        raise ContentError("expected a quantised network; no tensor of it is quantised")
    return chosen


def _unpacked(content: Any) -> dict[str, Any]:
    """Return a state dict, the weight and the bias of packed layers by their names."""
    state: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        match = PACKED.fullmatch(key) if isinstance(key, str) else None
        if not match:
            state[key] = value
        elif match[2] == "_packed_params":
            if not (isinstance(value, tuple) and len(value) == 2):
                raise ContentError(f"{key} is no pair of weight and bias")
            state[f"{match[1]}.weight"], state[f"{match[1]}.bias"] = value
        elif match[2] != "dtype":
            state[f"{match[1]}.{match[2]}"] = value
        elif not (isinstance(value, Name) and value.text == "torch.qint8"):
            raise ContentError(f"{key} is not torch.qint8")
    return state


def _dequantised(path: Path, key: str, stored: dict[str, Tensor], kinds: dict[str, Any]) -> Tensor:
    """Return the numbers that a quantised weight stands for, as its dequantize() does."""
    integers, quantised = stored[key], kinds[key]
    shape = [-1 if axis == quantised.axis else 1 for axis in range(integers.dim())]
    ends = {"scale": (OF_SCALES, quantised.scale), "zero_point": (OF_ZEROS, quantised.zero_point)}
    parts = {}
    for parameter, (end, part) in ends.items():
        value = stored[key + end].reshape(shape) if isinstance(part, StoredTensor) else torch.tensor(part)
        _check(f"{path}: {key}: its {parameter}", parameter, value, WEIGHTS)
        parts[parameter] = value.float()
    return (integers.float() - parts["zero_point"]) * parts["scale"]


def _check(what: str, parameter: str, value: Tensor, integers: tuple[int, int]) -> None:
    """Raise ValueError unless scales are positive, and zero points among the integers that values are stored as."""
    low, high = integers
    if parameter == "scale":
        is_right, expected = (value > 0) & value.isfinite(), "a positive number"
    else:
        is_right = (value == value.round()) & (low <= value) & (value <= high)
        expected = f"a whole number from {low} to {high}"
    if not is_right.all():
        raise ValueError(f"{what} is {value[~is_right].flatten()[0].item():g}, expected {expected}")
