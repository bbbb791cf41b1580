"""The ceilings of the device, and the settings of cuDNN that the engine may choose among."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from measuring import DEVICE, TINY, Case, chunk, each, error, milliseconds, normalisation, product, protocol
from stages import Stage
from torch.nn import functional

from hiddencost.compression.controls import random_network
from hiddencost.networks.inference import for_inference
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.fusion import kernels_run

SHAPES = [(64, 64, 3, 56), (256, 64, 1, 56), (64, 256, 1, 56), (512, 512, 3, 7)]  # channels in, out, kernel, side
CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


def run(stage: Stage) -> None:
    """What the device can do, then what the engine makes of it."""
    each(stage, [{"what": "ceilings"}], 10, partial(ceilings, stage.dry))
    networks = (TINY,) if stage.dry else ("resnet50", "mobilenet_v2")
    each(stage, product(network=networks), 12, partial(settings, stage.dry))
    if DEVICE.type == "cuda":
        shapes = [{"inputs": i, "outputs": o, "kernel": k, "side": s} for i, o, k, s in SHAPES]
        each(stage, shapes, 4, partial(fused, stage.dry))


def ceilings(dry: bool, what: str) -> Iterator[Case]:
    """Yield the device's rates: products of matrices in TFLOP/s, copies in TB/s."""
    side = 64 if dry else 8192
    matrix = torch.randn(side, side, device=DEVICE)
    half = matrix.bfloat16()
    # in GFLOP/s a millisecond: 2 side^3 / 1e9
    rates = {"bf16": 2 * side**3 / milliseconds(lambda: half @ half) / 1e9}
    kept = MATMUL.fp32_precision
    for how in ("ieee", "tf32"):
        MATMUL.fp32_precision = how
        rates[how] = 2 * side**3 / milliseconds(lambda: matrix @ matrix, 3, 1) / 1e9
    MATMUL.fp32_precision = kept
    source = torch.empty(2**20 if dry else 2**31, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    yield {"tflops": rates, "copy_tb_s": 2 * len(source) / milliseconds(lambda: target.copy_(source)) / 1e9}


def settings(dry: bool, network: str) -> Iterator[Case]:
    """Yield the time of a step as it is, with cuDNN's search for the fastest kernels, and with bias, residual sum and
    ReLU in one kernel; and of the pass in full precision and in TF32, with how many images change their class."""
    size = 1 if dry else 128
    recipe, images = protocol(32), chunk(3, size, 32)
    arguments, count = (for_inference(random_network(network), DEVICE), *normalisation(), recipe), 3 * size
    plan = Plan(0.75, 512, graphs=DEVICE.type == "cuda")
    ways = [("as it is", False, plan), ("cudnn.benchmark", True, plan)]
    if DEVICE.type == "cuda" and kernels_run(DEVICE):
        ways.append(("fused", False, replace(plan, fused=True)))
    for way, search, chosen in ways:
        CUDNN.benchmark = search
        prompted = PromptedNetwork(*arguments, chosen)  # anew: a graph keeps the kernels it was captured with
        for _ in range(4):
            prompted.gradients(images)
        took = milliseconds(lambda prompted=prompted: prompted.gradients(images)) / count
        yield {"way": way, "gradient_ms": took, "no graphs": prompted.why_no_graphs()}
    CUDNN.benchmark = False
    classes = {}
    for how in ("fp32", "tf32"):
        with torch.inference_mode():
            forward = partial(prompted.logits, images.images, images.parameters, images.runs, how)
            classes[how] = forward().argmax(1)
            changed = (classes[how] != classes["fp32"]).sum().item()
            yield {"pass": how, "ms": milliseconds(forward, 3, 1) / count, "changed": changed, "of": count}


def fused(dry: bool, inputs: int, outputs: int, kernel: int, side: int) -> Iterator[Case]:
    """Yield the time of convolution, bias and ReLU: as three kernels, without bias and ReLU, and as cuDNN's one."""
    count, pad = 4 if dry else 256, kernel // 2
    like = {"device": DEVICE, "dtype": torch.bfloat16}
    x = torch.randn(count, inputs, side, side, **like).to(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, kernel, kernel, **like).to(memory_format=torch.channels_last)
    bias = torch.zeros(outputs, **like)

    def three() -> torch.Tensor:
        return functional.relu_(functional.conv2d(x, weight, bias, padding=pad))

    def one() -> torch.Tensor:
        return torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (pad, pad), (1, 1), 1)

    with torch.inference_mode():
        alone = milliseconds(lambda: functional.conv2d(x, weight, None, padding=pad))
        yield {"three_ms": milliseconds(three), "convolution_ms": alone}
        yield {"cudnn_ms": milliseconds(one), "off": error(one(), three())}
