"""How a network is run on a device: chosen once, on a GPU by a short measurement, and kept for the next job."""

import gc
import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.allocator import WORK
from hiddencost.backbone import classifier
from hiddencost.devices import device_name
from hiddencost.engine import CapturedChunk, Chunk, Plan, PromptedNetwork, resolve_precision
from hiddencost.files import canonical, code_digest, read_json, sha256_text, write_json
from hiddencost.protocol import RunClipProtocol, RunProtocol

AnyProtocol = RunProtocol | RunClipProtocol

log = logging.getLogger(__name__)

# How deep sharing may go; 0: the first convolution alone. On a CPU 0.75 is within the noise of the fastest for
# MobileNetV2, ResNet-18 and -50 at 32 and 128 pixels; not chosen by time, results are the same to the last digit.
COVERS = {"cpu": (0.75,), "cuda": (0.0, 0.5, 0.75, 0.99)}
MOST_IMAGES = {"cpu": 64, "cuda": 512}  # at a time: more are no faster
RUNS = {"cpu": 2, "cuda": 12}  # of a measurement, ...
IMAGES_A_RUN = 10  # ... with few images each, as sharing gains least there
ROUNDS = 3
GAIN = 0.97  # what sharing must take at most of the arithmetic and of the time of whole canvases
# For what a forward pass keeps for the backward pass, which needs as much again:
MEMORY = 0.4  # of what is free on a GPU, ...
LEAST = 0.45  # ... of a CPU job's memory, where it has less than it asks for


def choose(
    network: nn.Module, mean: Tensor, std: Tensor, protocol: AnyProtocol, folder: str | Path, memory: int
) -> Plan:
    """Return the plan for a network, and say in the log which it is and why.

    On a GPU the fastest, on a CPU the one of least arithmetic. It is measured once for each architecture, canvas,
    image size, precision and device; the figures are kept in `folder`. On a CPU images go through the network as far
    as allocator.WORK reaches, or the job's own memory (bytes), if that is less: results should not depend on what
    happens to be free, on the dataset or on the attempt. A GPU is asked what is free. The other arguments are those
    of PromptedNetwork.
    """
    device, precision = mean.device, resolve_precision(protocol.precision, mean.device)
    key = {
        "network": sha256_text(str(network) + str([(name, list(p.shape)) for name, p in network.named_parameters()])),
        "canvas": protocol.canvas,
        "image_size": _image_size(protocol),
        "precision": precision,
        "device": device_name(device),
        "torch": torch.__version__,
        "code": code_digest(Path(__file__)),
    }
    path = Path(folder) / f"{sha256_text(canonical(key))[:16]}.json"
    if not path.exists():
        write_json(path, {"key": key, "measured": measure(network, mean, std, protocol)})
    whole, *shared = read_json(path)["measured"]
    unit = "GFLOP" if device.type == "cpu" else "ms"
    quickest = min(shared, key=lambda way: way[unit], default=whole)
    best = quickest if quickest[unit] < GAIN * whole[unit] else whole
    case = f"images of {_image_size(protocol)} on {protocol.canvas} pixels, {precision}, {key['device']}"
    if shared:
        log.info(
            "%s: %s; %s a trained image: %.3g with whole canvases, %.3g with the border once up to %s",
            *(case, "whole canvases" if best is whole else "the border once"),
            *(unit, whole[unit], quickest[unit], quickest["until"]),
        )
    else:
        why = "the border is too small to share"
        if isinstance(protocol, RunClipProtocol):
            why = "the prompt is added to the images"
        elif not isinstance(network, fx.GraphModule):
            why = "torch.fx cannot walk the network"
        log.info("%s: whole canvases, as %s", case, why)
    if device.type == "cpu":
        room = min(WORK * 1e6 / 2 * (protocol.canvas / 224) ** 2, LEAST * memory)
    else:
        room = MEMORY * _free_memory()
    fitting = max(1, min(int(room / best["bytes"]), MOST_IMAGES[device.type]))
    # a power of two, so that small changes of the free memory do not change the rounding of sums
    return Plan(best["cover"], 2 ** (fitting.bit_length() - 1), best["graphs"])


def measure(network: nn.Module, mean: Tensor, std: Tensor, protocol: AnyProtocol) -> list[dict]:
    """Measure a training step with whole canvases (first) and with the border shared up to several depths.

    Returns for each `cover` and `graphs` (see Plan), `until` (where sharing ends, and why), `bytes` an image that the
    forward pass keeps, and `GFLOP` and, on a GPU, `ms` a trained image. Sharing that does not give the logits and
    prompt gradients of whole canvases, up to rounding, is left out, with a warning, and so is sharing that saves no
    arithmetic. Where memory runs out, fewer runs are measured.
    """
    for runs in range(RUNS[mean.device.type], 0, -1):
        try:
            chunk = _probe(mean, protocol, runs, min(IMAGES_A_RUN, classifier(network).out_features))
            return _measure(network, mean, std, protocol, chunk)
        except torch.OutOfMemoryError:
            if runs == 1:
                raise
        torch.cuda.empty_cache()
    raise AssertionError


def _image_size(protocol: AnyProtocol) -> int:
    """Return the side of the image on the canvas, which it fills on CLIP."""
    return protocol.canvas if isinstance(protocol, RunClipProtocol) else protocol.image_size


def _measure(network: nn.Module, mean: Tensor, std: Tensor, protocol: AnyProtocol, chunk: Chunk) -> list[dict]:
    walkable = isinstance(network, fx.GraphModule) and not isinstance(protocol, RunClipProtocol)
    measured: list[dict] = []
    steps: list[PromptedNetwork] = []
    for cover in [None, *COVERS[mean.device.type]] if walkable else [None]:
        prompted = PromptedNetwork(network, mean, std, protocol, Plan(cover))
        with torch.inference_mode():
            logits = prompted.logits(chunk.images, chunk.prompts, chunk.runs, exact=True)
        until = prompted.sharing_ends()
        if until in [way["until"] for way in measured]:
            continue
        with FlopCounterMode(display=False) as operations:
            _, gradient = prompted.gradients(chunk)
        flops = operations.get_total_flops()
        if cover is None:
            most = GAIN * flops
        elif flops > most:
            continue
        if cover is None:
            expected = logits, gradient
            # of the gradient: rounding moves activations over the kink of a ReLU
            tolerance = 0.1 if prompted.precision == "fp32" else 0.3
        # a network may say nearly the same of all images: what counts is what differs
        errors = _error(logits, expected[0], expected[0].mean(0)), _error(gradient, expected[1])
        if cover is not None and (errors[0] > 1e-3 or errors[1] > tolerance):
            log.warning("border once up to %s: not used, logits are off by %.1g, gradients by %.1g", until, *errors)
            continue
        kept = _kept_bytes(prompted, chunk)
        if graphs := walkable and mean.device.type == "cuda":
            prompted = PromptedNetwork(network, mean, std, protocol, Plan(cover, graphs=True))
            graphs = _can_be_captured(prompted, chunk, gradient, tolerance)
        each = flops / 1e9 / len(chunk.images)
        measured.append({"cover": cover, "graphs": graphs, "until": until, "bytes": kept, "GFLOP": each})
        steps.append(prompted)
    if mean.device.type == "cuda":
        for _ in range(ROUNDS):  # side by side, so that all meet the machine in the same state
            for way, prompted in zip(measured, steps, strict=True):
                way["ms"] = min(way.get("ms", math.inf), _seconds(prompted, chunk) * 1e3 / len(chunk.images))
    return measured


def _probe(mean: Tensor, protocol: AnyProtocol, runs: int, classes: int) -> Chunk:
    """Return noise images, of so many classes, under noise prompts."""
    count, size, canvas = runs * IMAGES_A_RUN, _image_size(protocol), protocol.canvas
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=noise)
    prompts = torch.randn(runs, 3, canvas, canvas, generator=noise, dtype=mean.dtype)
    labels = torch.arange(count) % classes
    weights = torch.full((count,), 1 / IMAGES_A_RUN, dtype=mean.dtype)
    mappings = torch.arange(classes).expand(runs, -1)
    tensors = images, labels, weights, torch.arange(runs).repeat_interleave(IMAGES_A_RUN), mappings, prompts
    return Chunk(*(tensor.to(mean.device) for tensor in tensors))


def _error(found: Tensor, expected: Tensor, constant: Tensor | float = 0.0) -> float:
    """Return the norm of the difference as a part of the expected's own, less what is constant in it."""
    error = ((found - expected).norm() / (expected - constant).norm()).item()
    return error if math.isfinite(error) else math.inf


def _can_be_captured(prompted: PromptedNetwork, chunk: Chunk, gradient: Tensor, tolerance: float) -> bool:
    """Capture a step as a CUDA graph, and say whether its replay on other images and back gives the gradient."""
    try:
        for _ in range(CapturedChunk.SIGHTS):
            prompted.gradients(chunk)
        prompted.gradients(Chunk(255 - chunk.images, *chunk.tensors()[1:]))
        _, replayed = prompted.gradients(chunk)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as reason:
        log.warning("no CUDA graphs, as the capture failed: %s", str(reason).splitlines()[0])
    else:
        if _error(replayed, gradient) <= tolerance:
            return True
        log.warning("no CUDA graphs, as a replay did not give the gradient")
    prompted.plan = Plan(prompted.plan.cover)
    return False


def _seconds(prompted: PromptedNetwork, chunk: Chunk) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    prompted.gradients(chunk)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _kept_bytes(prompted: PromptedNetwork, chunk: Chunk) -> float:
    """Return how many bytes an image a forward pass keeps for the backward pass, weights aside."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        prompted.gradients(chunk)
    return sum(kept.values()) / len(chunk.images)


def _free_memory() -> int:
    gc.collect()  # what the measurement has left
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return min(free, int(total * torch.cuda.get_per_process_memory_fraction()))
