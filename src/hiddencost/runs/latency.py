"""What a network costs to run: how long an image takes on a device, and the bytes that its weights take.

Each network computes as it does in this project: densely, in float32. Zeros that lie anywhere make no convolution of
PyTorch faster, nor do weights that are rounded and computed as float32. The bytes say what a file, or a memory, could
do with zeros and integers all the same.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddencost.compression.registry import applied
from hiddencost.files import write_json
from hiddencost.machine import device_name
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.layers import layer_weights
from hiddencost.networks.manifest import Manifest

BATCH_SIZES = 1, 64
WARM_UP, FEWEST, MOST = 2, 5, 25  # calls before the first that is timed, and those that are
SECONDS = 10.0  # of the timed calls of a batch size, beyond the fewest
FLOAT = 32  # bits


def write(folder: Path, canvas: int, output: Path, device: torch.device) -> None:
    """Measure a backbone and write what was measured: JSON, the columns of `results.latency` by their names. Of one
    that could not be made there is none but its name.

    Args:
        folder: of the backbone.
        canvas: side of its input, in pixels.
        output: the file.
        device: to compute on.
    """
    row: dict[str, Any] = {"backbone": folder.name}
    if not Manifest.read(folder).failed:
        network, _, manifest = backbones.load(folder)
        row |= count_bytes(network, manifest)
        family = family_of(manifest.architecture)
        network = family.for_inference(family.classifier(network, manifest.architecture), device)
        for size in BATCH_SIZES:
            row |= measure(network, size, canvas, device)
        row |= {"canvas": canvas, "device": device_name(device), "threads": torch.get_num_threads()}
    write_json(output, row)


@torch.inference_mode()
def measure(network: nn.Module, batch_size: int, canvas: int, device: torch.device) -> dict[str, float]:
    """Return how long an image takes in a batch, ms: the median over calls, the quartiles, and the number of calls.

    Args:
        network: images [N, 3, S, S] to logits, on the device.
        batch_size: N.
        canvas: S, in pixels.
        device: to compute on.
    """
    images = torch.randn(batch_size, 3, canvas, canvas, device=device).to(memory_format=torch.channels_last)
    seconds: list[float] = []
    for call in range(WARM_UP + MOST):
        start = _now(device)
        network(images)
        if call >= WARM_UP:
            seconds.append(_now(device) - start)
        if len(seconds) >= FEWEST and sum(seconds) > SECONDS:
            break
    low, median, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75]) / batch_size
    name = f"ms_{batch_size}"
    return {name: median, f"{name}_low": low, f"{name}_high": high, f"calls_{batch_size}": len(seconds)}


def _now(device: torch.device) -> float:
    """Return the time, in seconds, when a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def count_bytes(network: nn.Module, manifest: Manifest) -> dict[str, Any]:
    """Return the bytes of a network's weights, batch norm's running statistics included.

    Args:
        network: as `backbones.load` returns it.
        manifest: its manifest, which says whether it is quantised.

    Returns:
        `parameters` and how many are not zero (`nonzero`); `bytes_dense`, of all values as float32; `bits` of a
        weight that is stored, 32 where none is rounded; `bytes_compressed`: each tensor as its values, or, where that
        is less, as a bit for each value that says whether it is zero, and the others. Rounded weights (those of
        `layer_weights`) are integers of `bits`, with a float32 scale for each output channel.
    """
    parameters = [tensor for _, tensor in network.named_parameters()]
    layers = layer_weights(network)
    bits = stored_bits(network, manifest)
    compressed = 0
    state = backbones.weights_of(network.state_dict())
    for key, tensor in state.items():
        rounded = bits < FLOAT and key in layers
        compressed += stored_bytes(tensor, bits if rounded else FLOAT) + (4 * len(tensor) if rounded else 0)
    return {
        "parameters": sum(tensor.numel() for tensor in parameters),
        "nonzero": sum(int(tensor.count_nonzero()) for tensor in parameters),
        "bytes_dense": 4 * sum(tensor.numel() for tensor in state.values()),
        "bytes_compressed": compressed,
        "bits": bits,
    }


def stored_bits(network: nn.Module, manifest: Manifest) -> int:
    """Return the bits that a network's rounded weights need: as it was quantised here, or, of a published one, those
    of the most values in an output channel; 32 of one that is not quantised."""
    if manifest.quantisation_bits:
        return manifest.quantisation_bits
    if not any(kind.quantises for kind in applied(manifest.compression)):
        return FLOAT
    channels = (channel for weight in layer_weights(network).values() for channel in weight.tensor.flatten(1))
    most = max(len(channel.unique()) for channel in channels)
    return min(math.ceil(math.log2(most)), FLOAT)


def stored_bytes(tensor: Tensor, bits: int) -> int:
    """Return the bytes of a tensor whose values take so many bits: all values, or those that are not zero behind a
    mask of one bit a value, whichever is less."""
    masked = tensor.numel() + bits * int(tensor.count_nonzero())
    return math.ceil(min(bits * tensor.numel(), masked) / 8)
