"""How a network is run on a device: chosen once, on a GPU by a short measurement, and kept for the next job."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.digest import code_digest
from hiddencost.files import canonical, read_json, sha256_text, write_json
from hiddencost.machine import WORK, clear_memory, device_name, free_memory, out_of_memory
from hiddencost.networks.inference import FORWARD_BATCH
from hiddencost.networks.layers import classifier
from hiddencost.prompting.engine import Chunk, Plan, PromptedNetwork
from hiddencost.prompting.fusion import kernels_run
from hiddencost.prompting.graphs import Replayed
from hiddencost.prompting.precision import in_bf16, resolve_precision
from hiddencost.prompting.prompts import prompt_of
from hiddencost.study.recipes import PromptingProtocol

log = logging.getLogger(__name__)
T = TypeVar("T")
# How deep sharing may go; 0: the first convolution alone. On a CPU 0.75 is within the noise of the fastest for
# MobileNetV2, ResNet-18 and -50 at 32 and 128 pixels; not chosen by time, results are the same to the last digit.
COVERS = {"cpu": (0.75,), "cuda": (0.0, 0.5, 0.75, 0.99)}
MOST_IMAGES = {"cpu": 64, "cuda": 512}  # at a time: more are no faster
# What is measured: images of a run in a step, and how many runs. Few-shot runs gain least by sharing, and most by
# graphs; with a whole batch each, kernels are large. By arithmetic alone, on a CPU, the first case tells both.
CASES = {"cpu": {10: 2}, "cuda": {10: 12, 128: 3}}
ROUNDS = 3
GAIN = 0.97  # what a way must take at most of the arithmetic, or the time, of whole canvases
EXACT = 1e-6  # how far sharing may be off, relatively, in float64
SLOWER = 0.9  # of bf16's time is what float32 must take at most, for a convolution to stay in it
# For what a forward pass keeps for the backward pass, which needs as much again:
MEMORY = 0.4  # of what is free on a GPU, ...
LEAST = 0.45  # ... of a CPU job's memory, where it has less than it asks for


def choose(
    network: nn.Module,
    mean: Tensor,
    std: Tensor,
    protocol: PromptingProtocol,
    folder: str | Path,
    memory: int,
    images_a_run: float = 10,
) -> Plan:
    """Return the plan for a network, and say in the log which it is and why.

    On a GPU the fastest, on a CPU the one of least arithmetic. It is measured once for each architecture, canvas,
    image size, precision and device; the figures are kept in `folder`. images_a_run: how many images of a run a step
    takes, on average; those measured with the nearest number decide. On a CPU images go through the network as far
    as allocator.WORK reaches, or the job's own memory (bytes), if that is less: results should not depend on what
    happens to be free, on the dataset or on the attempt. A GPU is asked what is free. The other arguments are those
    of PromptedNetwork.
    """
    device, precision = mean.device, resolve_precision(protocol.precision, mean.device)
    key = {
        "network": sha256_text(str(network) + str([(name, list(p.shape)) for name, p in network.named_parameters()])),
        "canvas": protocol.canvas,
        "image_size": prompt_of(protocol).shown_side,
        "precision": precision,
        "device": device_name(device),
        "torch": torch.__version__,
        "code": code_digest(Path(__file__)),
    }
    path = Path(folder) / f"{sha256_text(canonical(key))[:16]}.json"
    if not path.exists():
        measured = measure(network, mean, std, protocol)
        if not path.exists():  # else another job was quicker, and is on its way by its own
            write_json(path, {"key": key} | measured)
    found = read_json(path)
    nearest = min(found["measured"], key=lambda images: abs(math.log(int(images) / images_a_run)))
    ways = found["measured"][nearest]
    unit = "GFLOP" if device.type == "cpu" else "ms"
    best = _best(ways, unit)
    case = f"images of {prompt_of(protocol).shown_side} on {protocol.canvas} pixels, {precision}, {key['device']}"
    log.info("%s: %s", case, _why(ways, best, unit, network, protocol))
    if device.type == "cpu":
        room = min(WORK * 1e6 / 2 * (protocol.canvas / 224) ** 2, LEAST * memory)
    else:
        room = MEMORY * free_memory()
    fitting = max(1, min(int(room / best["bytes"]), MOST_IMAGES[device.type]))
    return Plan(
        cover=best["cover"],
        # a power of two, so that small changes of the free memory do not change the rounding of sums
        chunk=2 ** (fitting.bit_length() - 1),
        graphs=best["graphs"],
        fused=best["fused"],
        in_float32=tuple(found["in_float32"]),
        forward_ms=found["forward_ms"],
    )


def _whole(ways: list[dict]) -> list[dict]:
    return [way for way in ways if way["cover"] is None]


def _best(ways: list[dict], unit: str) -> dict:
    """Return the way of least arithmetic or time; one with whole canvases, where sharing gains too little."""
    whole, quickest = (min(some, key=lambda way: way[unit]) for some in (_whole(ways), ways))
    return quickest if quickest[unit] < GAIN * whole[unit] else whole


def _why(ways: list[dict], best: dict, unit: str, network: nn.Module, protocol: PromptingProtocol) -> str:
    text = "whole canvases" if best["cover"] is None else "the border once"
    text += ", fused kernels" * best["fused"] + ", CUDA graphs" * best["graphs"]
    if shared := [way for way in ways if way["cover"] is not None]:
        whole, quickest = (min(some, key=lambda way: way[unit]) for some in (_whole(ways), shared))
        return (
            f"{text}; {unit} a trained image: {whole[unit]:.3g} with whole canvases, {quickest[unit]:.3g} with the "
            f"border once up to {quickest['until']}"
        )
    why = "the border is too small to share"
    if reason := prompt_of(protocol).not_shared:
        why = reason
    elif not isinstance(network, fx.GraphModule):
        why = "torch.fx cannot walk the network"
    return f"{text}, as {why}"


def measure(network: nn.Module, mean: Tensor, std: Tensor, protocol: PromptingProtocol) -> dict:
    """Measure how a network runs.

    Returns `measured`: for each number of images that a run has in a step (see CASES), the ways to run a training
    step. Of a way, `cover`, `graphs` and `fused` (see Plan), `until` (where sharing ends, and why), `bytes` an image
    that the forward pass keeps, and `GFLOP` and, on a GPU, `ms` a trained image. Whole canvases come first. Sharing
    that does not give the logits and prompt gradients of whole canvases, in float64, is left out, with a warning, and
    so is sharing that saves no arithmetic. Further `in_float32` and `forward_ms` (see Plan), and `rates`, in ms an
    image and GFLOP of one on whole canvases, from which the outlook of a study tells its time. Where memory runs out,
    fewer images are measured.
    """
    device, network_of = mean.device, (network, mean, std, protocol)
    covers = _exact_covers(*network_of)
    on_cpu, half = device.type == "cpu", resolve_precision(protocol.precision, device) == "bf16"
    cases = CASES[device.type]
    many, runs = max(cases.items())
    grouped = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    in_float32 = tuple(grouped) if half else ()
    if in_float32 and not on_cpu:  # there not chosen by time, so that results are the same to the last digit
        in_float32, _ = _with_memory(partial(_faster_in_float32, *network_of, in_float32), runs, many)
    measured: dict[str, list[dict]] = {}
    for images, runs in cases.items():
        ways, images = _with_memory(partial(_ways, network_of, covers, in_float32), runs, images)
        measured[str(images)] = ways
    best = _best(ways, "GFLOP" if on_cpu else "ms")
    prompted = PromptedNetwork(*network_of, Plan(best["cover"], fused=best["fused"], in_float32=in_float32))
    few = _probe(mean, protocol, 1, 10, classifier(network).out_features)
    forward_ms, _ = _with_memory(partial(_forward_ms, prompted, protocol), 1, 10 if on_cpu else FORWARD_BATCH["cuda"])
    rates = {
        "device": device_name(device),
        "kind": device.type,
        "canvas": protocol.canvas,
        "image_size": prompt_of(protocol).shown_side,
        "precision": prompted.precision,
        "gflop": ways[0]["GFLOP"],
        "training_ms": best["ms"] if "ms" in best else _milliseconds(partial(prompted.gradients, few), few),
        "forward_ms": forward_ms["fp32"],
    }
    found = {"measured": measured, "in_float32": list(in_float32), "rates": rates}
    # on a CPU mappings are always in fp32: bf16 has too many images computed again (bench/certified.py)
    return found | {"forward_ms": {} if on_cpu else forward_ms}


def _with_memory(work: Callable[[int, int], T], runs: int, images: int) -> tuple[T, int]:
    """Return work(runs, images) and the images; where memory runs out, with fewer runs, and at last fewer images."""
    while True:
        try:
            return work(runs, images), images
        except RuntimeError as error:
            if not out_of_memory(error) or runs == images == 1:
                raise
        runs, images = (runs // 2, images) if runs > 1 else (1, images // 2)
        clear_memory()


def _exact_covers(network: nn.Module, mean: Tensor, std: Tensor, protocol: PromptingProtocol) -> dict[float, str]:
    """Return how deep the border can be shared, and where that ends: as far as logits and gradients, of three images
    in two runs, are those of whole canvases.

    In float64, as it is the algebra that is in question: in bf16, and a little in float32, two right ways differ in
    gradients, where rounding moves activations over the kink of a ReLU.
    """
    if not isinstance(network, fx.GraphModule) or prompt_of(protocol).not_shared:
        return {}
    double = copy.deepcopy(network).double()
    constants, exact = (mean.double(), std.double()), protocol.model_copy(update={"precision": "fp32"})
    chunk = _probe(constants[0], protocol, 2, 2, classifier(network).out_features)
    chunk = Chunk(*(tensor[:3] for tensor in chunk.tensors()[:4]), chunk.mappings, chunk.prompts)
    covers: dict[float, str] = {}
    expected: tuple[Tensor, Tensor] | None = None
    for cover in [None, *COVERS[mean.device.type]]:
        prompted = PromptedNetwork(double, *constants, exact, Plan(cover))
        with torch.inference_mode():
            logits = prompted.logits(chunk.images, chunk.prompts, chunk.runs, "fp32")
        if (until := prompted.sharing_ends()) in covers.values():
            continue
        found = logits, prompted.gradients(chunk)[1]
        if cover is None:
            expected = found
            continue
        # a network may say nearly the same of all images: what counts is what differs
        errors = _error(found[0], expected[0], expected[0].mean(0)), _error(found[1], expected[1])
        if max(errors) <= EXACT:
            covers[cover] = until
        else:
            log.warning("border once up to %s: not used, logits are off by %.1g, gradients by %.1g", until, *errors)
    return covers


def _ways(
    network_of: tuple, covers: dict[float, str], in_float32: tuple[str, ...], runs: int, images: int
) -> list[dict]:
    """Measure a training step of some runs with some images each, in each way."""
    network, mean = network_of[:2]
    chunk = _probe(mean, network_of[3], runs, images, classifier(network).out_features)
    kernels = mean.device.type == "cuda" and isinstance(network, fx.GraphModule) and kernels_run(mean.device)
    measured: list[dict] = []
    for fused in (False, True) if kernels else (False,):
        for cover, until in ({None: "nowhere"} | covers).items():
            way = {"cover": cover, "graphs": False, "fused": fused, "until": until}
            way |= _step(network_of, Plan(cover, fused=fused, in_float32=in_float32), chunk)
            if not measured or cover is None or way["GFLOP"] <= GAIN * measured[0]["GFLOP"]:
                measured.append(way)
    return measured


def _step(network_of: tuple, plan: Plan, chunk: Chunk) -> dict:
    """Measure a training step by a plan: `GFLOP` and `bytes`, and, on a GPU, `graphs` and `ms`."""
    clear_memory()  # of what was measured before
    prompted = PromptedNetwork(*network_of, plan)
    with FlopCounterMode(display=False) as operations:
        _, gradient = prompted.gradients(chunk)
    found = {"GFLOP": operations.get_total_flops() / 1e9 / len(chunk.images), "bytes": _kept_bytes(prompted, chunk)}
    if prompted.device.type == "cuda":
        replayed = PromptedNetwork(*network_of, replace(plan, graphs=True))
        if graphs := _can_be_captured(replayed, chunk, gradient):
            prompted = replayed
        times = [_milliseconds(partial(prompted.gradients, chunk), chunk) for _ in range(ROUNDS)]
        found |= {"graphs": graphs, "ms": min(times)}
    return found


def _probe(mean: Tensor, protocol: PromptingProtocol, runs: int, images: int, source_classes: int) -> Chunk:
    """Return noise images, so many a run, of ten classes under noise prompts."""
    count, size, canvas, classes = (
        runs * images,
        prompt_of(protocol).shown_side,
        protocol.canvas,
        min(10, source_classes),
    )
    noise = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=noise)
    prompts = torch.randn(runs, 3, canvas, canvas, generator=noise, dtype=mean.dtype)
    labels = torch.arange(count) % classes
    weights = torch.full((count,), 1 / images, dtype=mean.dtype)
    mappings = torch.arange(classes).expand(runs, -1)
    tensors = pictures, labels, weights, torch.arange(runs).repeat_interleave(images), mappings, prompts
    return Chunk(*(tensor.to(mean.device) for tensor in tensors))


def _error(found: Tensor, expected: Tensor, constant: Tensor | float = 0.0) -> float:
    """Return the norm of the difference as a part of the expected's own, less what is constant in it."""
    difference = (found - expected).norm().item()
    error = difference / (expected - constant).norm().item() if difference else 0.0
    return error if math.isfinite(error) else math.inf


def _can_be_captured(prompted: PromptedNetwork, chunk: Chunk, gradient: Tensor) -> bool:
    """Capture a step as a CUDA graph, and say whether its replay on other images and back gives the gradient."""
    for _ in range(Replayed.SIGHTS):
        prompted.gradients(chunk)
    prompted.gradients(Chunk(255 - chunk.images, *chunk.tensors()[1:]))
    _, replayed = prompted.gradients(chunk)
    if prompted.why_no_graphs():
        return False
    # the same kernels on the same numbers: what differs is the order of sums
    if _error(replayed, gradient) <= (1e-2 if prompted.precision == "fp32" else 0.1):
        return True
    log.warning("no CUDA graphs, as a replay did not give the gradient")
    return False


def _faster_in_float32(
    network: nn.Module,
    mean: Tensor,
    std: Tensor,
    protocol: PromptingProtocol,
    names: tuple[str, ...],
    runs: int,
    images: int,
) -> tuple[str, ...]:
    """Return the names of those convolutions of a network that take less time in float32, conversions included, than
    in bf16; measured on whole canvases, forward and backward."""
    chunk = _probe(mean, protocol, runs, images, classifier(network).out_features)
    grouped = {name: network.get_submodule(name) for name in names}
    shapes = _input_shapes(PromptedNetwork(network, mean, std, protocol, Plan()), grouped, chunk)
    ways = in_bf16(network), in_bf16(network, names)

    def step(layer: nn.Module, maps: Tensor) -> None:
        result = layer(maps)
        torch.autograd.grad(result, maps, torch.ones_like(result))

    faster: dict[tuple, bool] = {}  # by geometry
    for name, module in grouped.items():
        geometry = shapes[name], module.weight.shape, module.stride
        if geometry not in faster:
            maps = torch.randn(shapes[name], device=mean.device).bfloat16()
            maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
            steps = [partial(step, way.get_submodule(name), maps) for way in ways]
            bf16, float32 = (min(_milliseconds(one, chunk) for _ in range(ROUNDS)) for one in steps)
            faster[geometry] = float32 < SLOWER * bf16
    return tuple(name for name, m in grouped.items() if faster[shapes[name], m.weight.shape, m.stride])


def _input_shapes(prompted: PromptedNetwork, layers: dict[str, nn.Module], chunk: Chunk) -> dict[str, torch.Size]:
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable:
        return lambda module, inputs: shapes.update({name: inputs[0].shape})

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            prompted.logits(chunk.images, chunk.prompts, chunk.runs, "fp32")
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _precisions(prompted: PromptedNetwork) -> list[str]:
    """Return the precisions of a mapping pass on a device, the full one first."""
    if prompted.device.type == "cpu":
        return ["fp32"]
    tensor_cores = torch.cuda.get_device_capability() >= (8, 0)
    return ["fp32", *(["tf32"] if tensor_cores else []), *(["bf16"] if prompted.precision == "bf16" else [])]


@torch.inference_mode()
def _forward_ms(prompted: PromptedNetwork, protocol: PromptingProtocol, runs: int, images: int) -> dict[str, float]:
    """Return what an image of a pass without gradients takes, in ms, by precision."""
    chunk, found = _probe(prompted.mean, protocol, runs, images, prompted.source_classes), {}
    for precision in _precisions(prompted):
        forward = partial(prompted.logits, chunk.images, chunk.prompts, chunk.runs, precision)
        forward()
        rounds = ROUNDS if prompted.device.type == "cuda" else 1
        found[precision] = min(_milliseconds(forward, chunk) for _ in range(rounds))
    return found


def _milliseconds(work: Callable[[], object], chunk: Chunk) -> float:
    """Return what a chunk's work takes, in ms an image."""
    on_gpu = chunk.images.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / len(chunk.images)


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
