"""What a training step takes in each way of running a network: arithmetic and memory, and on a GPU time."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.machine import clear_memory, device_name, out_of_memory
from hiddencost.networks.inference import FORWARD_BATCH
from hiddencost.prompting.chunk import Chunk
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.exactness import exact_covers, furthest, noise_chunk
from hiddencost.prompting.fusion import kernels_run
from hiddencost.prompting.graphs import Replayed
from hiddencost.prompting.precision import in_bf16
from hiddencost.prompting.prompt import Parameters

log = logging.getLogger(__name__)
T = TypeVar("T")
# What is measured: images of a run in a step, and how many runs. Few-shot runs gain least by sharing, and most by
# graphs; with a whole batch each, kernels are large. By arithmetic alone, on a CPU, the first case serves for both.
CASES = {"cpu": {10: 2}, "cuda": {10: 12, 128: 3}}
ROUNDS = 3  # of a measurement of time, whose least counts
GAIN = 0.97  # what a way must take at most of the arithmetic, or the time, of whole canvases
SLOWER = 0.9  # of bf16's time is what float32 must take at most, for a convolution to stay in it


class Way(BaseModel):
    """A way to run a training step, and what it takes.

    Attributes:
        cover, graphs, fused: see Plan.
        until: where sharing ends, and why.
        GFLOP: a trained image.
        bytes: an image, that the forward pass keeps for the backward pass.
        ms: a trained image, on a GPU alone.
    """

    cover: float | None
    graphs: bool = False
    fused: bool = False
    until: str
    GFLOP: float
    bytes: float
    ms: float | None = None

    @property
    def unit(self) -> str:
        """By what ways are compared: "ms" where it is measured, else "GFLOP"."""
        return "GFLOP" if self.ms is None else "ms"

    @property
    def cost(self) -> float:
        """What a trained image takes, in that unit."""
        return getattr(self, self.unit)


class Measurements(BaseModel):
    """How a network runs on a device.

    Attributes:
        measured: by the number of images that a run has in a step (see CASES), the ways to run it. The first has
            whole canvases. Sharing that is not exact (see `exactness`) or saves no arithmetic is left out.
        in_float32: see Plan.
        forward_ms: see Plan.
        rates: ms an image, in training and in passes in "fp32", and GFLOP of a trained image on whole canvases, from
            which the outlook of a study tells its time; with what they were measured at.
    """

    measured: dict[int, list[Way]]
    in_float32: list[str]
    forward_ms: dict[str, float]
    rates: dict[str, str | int | float]


def measure(frozen: FrozenNetwork) -> Measurements:
    """Measure how a network runs; with fewer images, where memory runs out.

    On a CPU nothing that decides is measured by time, so that results are the same to the last digit.
    """
    on_cpu = frozen.device.type == "cpu"
    cases = CASES[frozen.device.type]
    covers = exact_covers(frozen)
    in_float32 = _in_float32(frozen, *reversed(max(cases.items())))
    measured: dict[int, list[Way]] = {}
    for images, runs in cases.items():
        ways, fitting = _as_memory_allows(partial(_ways, frozen, covers, in_float32), runs, images)
        measured[fitting] = ways
    best = best_way(ways)
    prompted = PromptedNetwork(*frozen, Plan(best.cover, fused=best.fused, in_float32=in_float32))
    forward_ms, _ = _as_memory_allows(
        partial(_forward_ms, frozen, prompted), 1, 10 if on_cpu else FORWARD_BATCH["cuda"]
    )
    rates = {
        "device": device_name(frozen.device),
        "kind": frozen.device.type,
        "canvas": frozen.prompt.canvas,
        "image_size": frozen.prompt.shown_side,
        "precision": prompted.precision,
        "gflop": ways[0].GFLOP,
        "training_ms": best.ms or _training_ms(frozen, prompted),
        "forward_ms": forward_ms["fp32"],
    }
    # on a CPU mappings are always in fp32: bf16 has too many images computed again (bench/certified.py)
    certifying = {} if on_cpu else forward_ms
    return Measurements(measured=measured, in_float32=list(in_float32), forward_ms=certifying, rates=rates)


def best_way(ways: list[Way]) -> Way:
    """Return the way of least arithmetic or time; one with whole canvases, where sharing gains too little."""
    whole = min((way for way in ways if way.cover is None), key=lambda way: way.cost)
    best = min(ways, key=lambda way: way.cost)
    return best if best.cost < GAIN * whole.cost else whole


def _as_memory_allows(work: Callable[[int, int], T], runs: int, images: int) -> tuple[T, int]:
    """Return work(runs, images) and the images; where memory runs out, with fewer runs, and at last fewer images."""
    while True:
        try:
            return work(runs, images), images
        except RuntimeError as error:
            if not out_of_memory(error) or runs == images == 1:
                raise
        runs, images = (runs // 2, images) if runs > 1 else (1, images // 2)
        clear_memory()


def _ways(
    frozen: FrozenNetwork, covers: dict[float, str], in_float32: tuple[str, ...], runs: int, images: int
) -> list[Way]:
    """Measure a training step of some runs with some images each, in each way."""
    chunk = noise_chunk(frozen, runs, images)
    fusing = [False]
    if frozen.device.type == "cuda" and isinstance(frozen.network, fx.GraphModule) and kernels_run(frozen.device):
        fusing.append(True)
    measured: list[Way] = []
    for fused in fusing:
        for cover, until in ({None: "nowhere"} | covers).items():
            plan = Plan(cover, fused=fused, in_float32=in_float32)
            way = Way(cover=cover, fused=fused, until=until, **_measure_step(frozen, plan, chunk))
            if not measured or cover is None or way.GFLOP <= GAIN * measured[0].GFLOP:
                measured.append(way)
    return measured


def _measure_step(frozen: FrozenNetwork, plan: Plan, chunk: Chunk) -> dict[str, float | bool]:
    """Measure a training step by a plan: `GFLOP` and `bytes`, and, on a GPU, `graphs` and `ms` of Way."""
    clear_memory()  # of what was measured before
    prompted = PromptedNetwork(*frozen, plan)
    with FlopCounterMode(display=False) as operations:
        _, gradients = prompted.gradients(chunk)
    taken = {"GFLOP": operations.get_total_flops() / 1e9 / len(chunk.images), "bytes": kept_bytes(prompted, chunk)}
    if frozen.device.type == "cuda":
        replayed = PromptedNetwork(*frozen, replace(plan, graphs=True))
        if graphs := _can_be_captured(replayed, chunk, gradients):
            prompted = replayed
        times = [milliseconds(partial(prompted.gradients, chunk), chunk) for _ in range(ROUNDS)]
        taken |= {"graphs": graphs, "ms": min(times)}
    return taken


def _can_be_captured(prompted: PromptedNetwork, chunk: Chunk, gradients: Parameters) -> bool:
    """Capture a step as a CUDA graph, and say whether its replay on other images and back gives the gradients."""
    for _ in range(Replayed.SIGHTS):
        prompted.gradients(chunk)
    prompted.gradients(replace(chunk, images=255 - chunk.images))
    _, replayed = prompted.gradients(chunk)
    if prompted.why_no_graphs():
        return False
    # the same kernels on the same numbers: what differs is the order of sums
    if furthest(replayed, gradients) <= (1e-2 if prompted.precision == "fp32" else 0.1):
        return True
    log.warning("no CUDA graphs, as a replay did not give the gradients")
    return False


def _in_float32(frozen: FrozenNetwork, runs: int, images: int) -> tuple[str, ...]:
    """Return the names of the convolutions that compute in float32 where the others do in bf16.

    On a CPU all grouped ones, on a GPU those of them that are faster so. Subclasses of nn.Conv2d stay in bf16: they
    compute what their class says, as timm's Conv2dSame, which pads its input by TensorFlow's rule.
    """
    if frozen.precision != "bf16":
        return ()
    modules = frozen.network.named_modules()
    grouped = tuple(name for name, module in modules if type(module) is nn.Conv2d and module.groups > 1)
    if frozen.device.type == "cpu" or not grouped:
        return grouped
    return _as_memory_allows(partial(faster_in_float32, frozen, grouped), runs, images)[0]


def faster_in_float32(frozen: FrozenNetwork, names: tuple[str, ...], runs: int, images: int) -> tuple[str, ...]:
    """Return the names of those convolutions of a network that take less time in float32, conversions included, than
    in bf16; measured on whole canvases, forward and backward."""
    chunk = noise_chunk(frozen, runs, images)
    layers = {name: frozen.network.get_submodule(name) for name in names}
    shapes = _input_shapes(PromptedNetwork(*frozen, Plan()), layers, chunk)
    networks = in_bf16(frozen.network), in_bf16(frozen.network, names)

    def step(layer: nn.Module, maps: Tensor) -> None:
        result = layer(maps)
        torch.autograd.grad(result, maps, torch.ones_like(result))

    faster: dict[tuple, bool] = {}  # by geometry
    for name, layer in layers.items():
        geometry = shapes[name], layer.weight.shape, layer.stride
        if geometry not in faster:
            maps = torch.randn(shapes[name], device=frozen.device).bfloat16()
            maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
            steps = [partial(step, network.get_submodule(name), maps) for network in networks]
            bf16, float32 = (min(milliseconds(work, chunk) for _ in range(ROUNDS)) for work in steps)
            faster[geometry] = float32 < SLOWER * bf16
    return tuple(name for name, layer in layers.items() if faster[shapes[name], layer.weight.shape, layer.stride])


def _input_shapes(prompted: PromptedNetwork, layers: dict[str, nn.Module], chunk: Chunk) -> dict[str, torch.Size]:
    """Return the shape of what enters each of some layers of a network, by name."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable:
        return lambda module, inputs: shapes.update({name: inputs[0].shape})

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            prompted.logits(chunk.images, chunk.parameters, chunk.runs, "fp32")
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _training_ms(frozen: FrozenNetwork, prompted: PromptedNetwork) -> float:
    chunk = noise_chunk(frozen, 1, 10)
    return milliseconds(partial(prompted.gradients, chunk), chunk)


@torch.inference_mode()
def _forward_ms(frozen: FrozenNetwork, prompted: PromptedNetwork, runs: int, images: int) -> dict[str, float]:
    """Return what an image of a pass without gradients takes, in ms, by precision, "fp32" first."""
    chunk, taken = noise_chunk(frozen, runs, images), {}
    for precision in _precisions(prompted):
        forward = partial(prompted.logits, chunk.images, chunk.parameters, chunk.runs, precision)
        forward()
        rounds = ROUNDS if prompted.device.type == "cuda" else 1
        taken[precision] = min(milliseconds(forward, chunk) for _ in range(rounds))
    return taken


def _precisions(prompted: PromptedNetwork) -> list[str]:
    """Return the precisions of a mapping pass on a device, the full one first."""
    if prompted.device.type == "cpu":
        return ["fp32"]
    tensor_cores = torch.cuda.get_device_capability() >= (8, 0)
    return ["fp32", *(["tf32"] if tensor_cores else []), *(["bf16"] if prompted.precision == "bf16" else [])]


def milliseconds(work: Callable[[], object], chunk: Chunk) -> float:
    """Return what a chunk's work takes, in ms an image."""
    on_gpu = chunk.images.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / len(chunk.images)


def kept_bytes(prompted: PromptedNetwork, chunk: Chunk) -> float:
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
