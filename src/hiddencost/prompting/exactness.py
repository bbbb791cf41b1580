"""Whether the border once gives what whole canvases give: checked on noise, in float64, before it is used.

Sharing is exact in the algebra (see `sharing`); what could be wrong is the code for an operation of some network. So
each network is asked, and float64 tells a mistake from rounding: in float32 and bf16 two right ways differ in
gradients, where rounding moves an activation over the kink of a ReLU.
"""

import copy
import logging
import math

import torch
from torch import Tensor, fx

from hiddencost.prompting.chunk import Chunk
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.prompt import Parameters

log = logging.getLogger(__name__)
# How deep sharing may go (Plan.cover); 0: the first convolution alone. On a CPU 0.75 is within the noise of the
# fastest for MobileNetV2, ResNet-18 and -50 at 32 and 128 pixels; not chosen by time, results are the same to the
# last digit.
COVERS = {"cpu": (0.75,), "cuda": (0.0, 0.5, 0.75, 0.99)}
EXACT = 1e-6  # how far sharing may be off, relatively, in float64


def exact_covers(frozen: FrozenNetwork) -> dict[float, str]:
    """Return how deep the border can be shared on a network.

    Args:
        frozen: the network and its protocol.

    Returns:
        The covers of COVERS, less those that end where another does, whose logits and gradients, of three images in
        two runs, are those of whole canvases; each with where sharing ends. The log warns of the others. None, where
        nothing of a prompt is shared or torch.fx cannot walk the network.
    """
    if not isinstance(frozen.network, fx.GraphModule) or frozen.prompt.not_shared:
        return {}
    double = FrozenNetwork(
        copy.deepcopy(frozen.network).double(),
        frozen.mean.double(),
        frozen.std.double(),
        frozen.protocol.model_copy(update={"precision": "fp32"}),  # that of mean's dtype
    )
    chunk = noise_chunk(double, runs=2, images=2)
    chunk = chunk.of(*(tensor[:3] for tensor in chunk.tensors()[:4]), *chunk.tensors()[4:])
    whole = PromptedNetwork(*double, Plan())
    expected = _logits(whole, chunk), whole.gradients(chunk)[1]
    covers: dict[float, str] = {}
    for cover in COVERS[frozen.device.type]:
        prompted = PromptedNetwork(*double, Plan(cover))
        logits = _logits(prompted, chunk)
        if (until := prompted.sharing_ends()) in covers.values():
            continue
        # a network may say nearly the same of all images: what counts is what differs
        of_logits = relative_error(logits, expected[0], expected[0].mean(0))
        of_gradients = furthest(prompted.gradients(chunk)[1], expected[1])
        if max(of_logits, of_gradients) <= EXACT:
            covers[cover] = until
        else:
            log.warning(
                "border once up to %s: not used, logits are off by %.1g, gradients by %.1g",
                until,
                of_logits,
                of_gradients,
            )
    return covers


@torch.inference_mode()
def _logits(prompted: PromptedNetwork, chunk: Chunk) -> Tensor:
    return prompted.logits(chunk.images, chunk.parameters, chunk.runs, "fp32")


def noise_chunk(frozen: FrozenNetwork, runs: int, images: int) -> Chunk:
    """Return a chunk of noise, so many images a run, of ten classes at most, under prompts of noise."""
    count, side = runs * images, frozen.prompt.shown_side
    classes = min(10, frozen.source_classes)
    noise = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=noise)
    prompts = {
        name: new + torch.randn(new.shape, generator=noise, dtype=frozen.mean.dtype)
        for name, new in frozen.prompt.in_chunk(runs, count).items()
    }
    labels = torch.arange(count) % classes
    weights = torch.full((count,), 1 / images, dtype=frozen.mean.dtype)
    mappings = torch.arange(classes).expand(runs, -1)
    of_run = torch.arange(runs).repeat_interleave(images)
    chunk = Chunk(pictures, labels, weights, of_run, mappings, prompts)
    return chunk.of(*(tensor.to(frozen.device) for tensor in chunk.tensors()))


def furthest(gradients: Parameters, expected: Parameters) -> float:
    """Return the largest relative error of gradients."""
    return max(relative_error(gradients[name], of_name) for name, of_name in expected.items())


def relative_error(values: Tensor, expected: Tensor, constant: Tensor | float = 0.0) -> float:
    """Return the norm of the difference as a share of the expected's own, less what is constant in it;
    infinite, where that is not a number."""
    difference = (values - expected).norm().item()
    error = difference / (expected - constant).norm().item() if difference else 0.0
    return error if math.isfinite(error) else math.inf
