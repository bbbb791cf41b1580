"""What a network costs to run: how long an image takes on a device, and the bytes that its weights take.

Each network computes as it does in this project: densely, in float32. Zeros that lie anywhere make no convolution of
PyTorch faster, nor do weights that are rounded and computed as float32. The bytes say what a file, or a memory, could
do with zeros and integers all the same.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
# quantisers of weights in `networks.ofq`, and the layer of the module that they are in: its own, or one by its name
WEIGHT_QUANTISERS = {"statsq_fn": "", "lsqw_fn": "", "v_quant": "v."}


@dataclass(frozen=True)
class Measured:
    """A network to measure.

    Attributes:
        folder: of the backbone.
        canvas: side of its input, in pixels.
    """

    folder: Path
    canvas: int

    def load(self, device: torch.device) -> tuple[nn.Module, Tensor]:
        """Return it as it computes in this project, on a device, and an image for it, [1, 3, S, S]."""
        network, _, manifest = backbones.load(self.folder)
        family = family_of(manifest.architecture)
        classifier = family.classifier(network, manifest.architecture)
        return family.for_inference(classifier, device), torch.randn(1, 3, self.canvas, self.canvas, device=device)


def write(backbone: Measured, dense: Measured | None, output: Path, device: torch.device) -> None:
    """Measure a backbone and write what was measured: JSON, the columns of `results.latency` by their names. Of one
    that could not be made there is none but its name.

    Args:
        backbone: the network.
        dense: the one that it is compared with, measured in turn with it; None: there is none, or it is that itself.
        output: the file.
        device: to compute on.
    """
    row: dict[str, Any] = {"backbone": backbone.folder.name}
    if not Manifest.read(backbone.folder).failed:
        network, _, manifest = backbones.load(backbone.folder)
        row |= count_bytes(network, manifest)
        with_dense = dense is not None and not Manifest.read(dense.folder).failed
        each = [one.load(device) for one in ([backbone, dense] if with_dense else [backbone]) if one]
        for size in BATCH_SIZES:
            row |= measure(each, size, device)
        row |= {"canvas": backbone.canvas, "device": device_name(device), "threads": torch.get_num_threads()}
    write_json(output, row)


@torch.inference_mode()
def measure(each: Sequence[tuple[nn.Module, Tensor]], batch_size: int, device: torch.device) -> dict[str, float]:
    """Return how long an image takes in a batch, ms: the median over calls, the quartiles, and the number of calls.

    Two networks are called in turn, as what else a machine does changes from one second to the next: `relative_...`
    is the time of the first by that of the second, call by call, with its quartiles.

    Args:
        each: a network, [N, 3, S, S] to logits, and an image for it, on the device; and the one to hold it against.
        batch_size: N.
        device: to compute on.
    """
    inputs = [image.expand(batch_size, -1, -1, -1).contiguous(memory_format=torch.channels_last) for _, image in each]
    seconds: list[list[float]] = []
    for call in range(WARM_UP + MOST):
        times = []
        for (network, _), images in zip(each, inputs, strict=True):
            start = _now(device)
            network(images)
            times.append(_now(device) - start)
        if call >= WARM_UP:
            seconds.append(times)
        if len(seconds) >= FEWEST and np.sum(seconds) > SECONDS:
            break
    first, *others = np.array(seconds).T
    told = {f"ms_{batch_size}": 1e3 * first / batch_size}
    told |= {f"relative_{batch_size}": first / other for other in others}
    quantiles = {"_low": 0.25, "": 0.5, "_high": 0.75}
    found = {
        f"{name}{end}": float(np.quantile(values, one))
        for name, values in told.items()
        for end, one in quantiles.items()
    }
    return found | {f"calls_{batch_size}": len(seconds)}


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
        `parameters` and how many are not zero (`nonzero`); `bytes_dense`, of all values as float32; `bits`, of the
        most weights of layers (see `stored_layers`), 32 where none is rounded; `bytes_compressed`: each tensor as its
        values, or, where that is less, as a bit for each value that says whether it is zero, and the others. Rounded
        weights are integers of their layer's bits, with a float32 scale for each output channel.
    """
    parameters = [tensor for _, tensor in network.named_parameters()]
    layers = stored_layers(network, manifest)
    state = backbones.weights_of(network.state_dict())
    stored = {key: (tensor, FLOAT) for key, tensor in state.items() if key not in layers} | layers
    weights: Counter[int] = Counter()
    for tensor, bits in layers.values():
        weights[bits] += tensor.numel()
    return {
        "parameters": sum(tensor.numel() for tensor in parameters),
        "nonzero": sum(int(tensor.count_nonzero()) for tensor in parameters),
        "bytes_dense": 4 * sum(tensor.numel() for tensor in state.values()),
        "bytes_compressed": sum(stored_bytes(*one) for one in stored.values()),
        "bits": max(weights, key=lambda bits: (weights[bits], -bits), default=FLOAT),
    }


@torch.no_grad()
def stored_layers(network: nn.Module, manifest: Manifest) -> dict[str, tuple[Tensor, int]]:
    """Return what is stored of the weights of `layer_weights`, by their keys, and the bits of a value.

    Of a layer with a quantiser of its own that is what this makes of it, of its bits. Other layers have the bits that
    the network was quantised to here; or, of a published quantised one, those of the most values in an output channel
    of any; or 32. Of OFQ's queries and keys the product alone is rounded: it is stored in the place of the queries'
    weights, or both as float32, whichever is less.
    """
    layers = {key: weight.tensor for key, weight in layer_weights(network).items()}
    own: dict[str, tuple[Tensor, int]] = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        for quantiser, layer in WEIGHT_QUANTISERS.items():
            if quantise := getattr(module, quantiser, None):
                key = f"{prefix}{layer}weight"
                own[key] = quantise(layers[key]), quantise.bits
        if quantise := getattr(module, "qk_quant", None):
            both = f"{prefix}q.weight", f"{prefix}k.weight"
            queries, keys = (layers[key].unflatten(0, (module.heads, -1)) for key in both)
            product = quantise((queries.transpose(1, 2) @ keys).flatten(0, 1)), quantise.bits
            plain = {key: (layers[key], FLOAT) for key in both}
            less = stored_bytes(*product) < sum(stored_bytes(*one) for one in plain.values())
            own |= {both[0]: product, both[1]: (product[0][:0], quantise.bits)} if less else plain
    others = {key: tensor for key, tensor in layers.items() if key not in own}
    bits = FLOAT
    if manifest.quantisation_bits:
        bits = manifest.quantisation_bits
    elif others and any(kind.quantises for kind in applied(manifest.compression)):
        most = max(len(channel.unique()) for tensor in others.values() for channel in tensor.flatten(1))
        bits = min(math.ceil(math.log2(most)), FLOAT)
    return own | {key: (tensor, bits) for key, tensor in others.items()}


def stored_bytes(tensor: Tensor, bits: int) -> int:
    """Return the bytes of a tensor whose values take so many bits: all values, or those that are not zero behind a
    mask of one bit a value, whichever is less; of rounded values with a float32 scale for each output channel."""
    masked = tensor.numel() + bits * int(tensor.count_nonzero())
    scales = 4 * len(tensor) if bits < FLOAT else 0
    return math.ceil(min(bits * tensor.numel(), masked) / 8) + scales
