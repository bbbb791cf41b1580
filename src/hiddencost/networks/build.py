"""Networks by the name of their architecture, and what they compute."""

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.networks.architectures import ARCHITECTURES
from hiddencost.networks.clip import model
from hiddencost.networks.layers import prunable


def build(architecture: str, widths: dict | None = None) -> nn.Module:
    """Return a network, randomly initialised, in evaluation mode.

    architecture: a name of torchvision, one of this project (`architectures.ARCHITECTURES`), or timm/NAME; with :K
    behind it, the network has K classes. clip/NAME is a CLIP, both towers of it, with blocks as narrow as `widths`
    says (see `clip.build`). Raises ValueError where there is no such network, or where it cannot have other classes.
    """
    if architecture.startswith("clip/"):
        return model.build(architecture.removeprefix("clip/"), widths)
    name, _, count = architecture.partition(":")
    try:
        classes = {"num_classes": int(count)} if count else {}
        if name in ARCHITECTURES:
            return ARCHITECTURES[name](**classes).eval()
        if name.startswith("timm/"):
            import timm  # takes seconds, and only its own networks need it

            return timm.create_model(name.removeprefix("timm/"), pretrained=False, **classes).eval()
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise ValueError("torchvision has no such classifier")
        return torchvision.models.get_model(name, weights=None, **classes).eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"architecture {architecture!r}: {error}") from error


def removed(network: nn.Module, architecture: str) -> int:
    """Return how many of the weights that pruning reaches (see `prunable`) a network lacks, where its blocks are
    narrower than its architecture's."""
    with torch.device("meta"):
        whole = build(architecture)
    counts = (sum(weight.tensor.numel() for weight in prunable(one).values()) for one in (whole, network))
    return next(counts) - next(counts)


def arithmetic(architecture: str, size: int) -> tuple[float, int]:
    """Return the multiply-adds, in billions, of an image of size x size pixels, and the number of parameters.

    Raises ValueError where there is no such network (see `build`), or where it does not take such images."""
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = build(architecture)
            network(torch.empty(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"architecture {architecture!r}: images of {size} pixels: {error}") from error
    return counter.get_total_flops() / 2e9, sum(parameter.numel() for parameter in network.parameters())
