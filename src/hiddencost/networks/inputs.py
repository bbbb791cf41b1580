"""Which images a network takes: asked of its architecture, before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from hiddencost.files import refuse_of_a_moment
from hiddencost.networks.families import family_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiddencost.networks.family import Family

# Both by names of `architectures` and `own`, apart from them as the Snakefile asks here, and does without PyTorch.
# What sides are multiples of, else a network computes something else than the one that was published: see
# `architectures.resnet50_rigl`
MULTIPLES = {"resnet50_rigl": 4}
# The one side that a published network takes: see `ofq.SIDE`, timm's `fixed_input_size`, and
# `image_size` of torchvision's VisionTransformer
SIDES = {
    f"ofq_{name}_w{bits}a{bits}": 224
    for name in ("deit_tiny", "deit_tiny_distilled", "swin_tiny")
    for bits in (2, 3, 4)
} | dict.fromkeys(
    ("timm/vit_base_patch16_224", "timm/deit_small_patch16_224", "timm/swin_tiny_patch4_window7_224", "vit_b_16"), 224
)


def why_not_published(architecture: str, side: int) -> str | None:
    """Return why a published network is another one on images of a size, None where it is not: at once, as PyTorch is
    not asked."""
    if side % (multiple := MULTIPLES.get(architecture, 1)):
        return (
            f"the network {architecture} takes images of a multiple of {multiple} pixels, and the canvas has {side}: "
            "it would pad otherwise than the one that was trained"
        )
    if side != SIDES.get(architecture, side):
        return _takes_alone(architecture, SIDES[architecture], side)
    return None


def _takes_alone(architecture: str, own: int, side: int) -> str:
    return (
        f"the network {architecture} takes images of {own} pixels alone, and the canvas has {side}: with "
        "protocol.canvas: native each network has its own"
    )


def outputs(network: nn.Module, family: Family, side: int) -> Tensor:
    """Return what a network on the meta device makes of an image: its shape alone.

    Args:
        network: of the family.
        family: its.
        side: of the image, in pixels.

    Raises:
        ValueError: it does not take such images, or makes something else than a vector of each.
    """
    import torch

    made = run(family.image_encoder(network), torch.empty(1, 3, side, side, device="meta"))
    if not isinstance(made, torch.Tensor) or made.ndim != 2:
        raise ValueError("it makes something else than a vector of an image")
    return made


def run(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return what a network makes of images.

    Raises:
        ValueError: it does not take images of their size. Networks of libraries raise anything then.
        Exception: as it is raised, where memory was short: that is no property of the network.
    """
    try:
        return network(images)
    except Exception as error:
        refuse_of_the_machine(error)
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"it does not take images of {images.shape[-1]} pixels: {lines[0]}") from None


def refuse_of_the_machine(error: Exception) -> None:
    """Raise an error of a network, or its cause, where memory was short or a disk did not answer: it is none of the
    network's."""
    refuse_of_a_moment(error)
    if isinstance(error, MemoryError) or "memory" in str(error):
        raise error


@cache
def why_not(architecture: str, side: int) -> str | None:
    """Return why a network cannot be prompted or probed on images of a size, None where it can.

    PyTorch, and the library of the network, take seconds to import.

    Args:
        architecture: see `build.build`.
        side: of the images, in pixels.
    """
    import torch

    from hiddencost.networks.layers import head_of

    family = family_of(architecture)
    try:
        with torch.device("meta"):
            network = family.build(architecture)
        own = family.input_side(network)
        if own not in (None, side):
            return _takes_alone(architecture, own, side)
        classes = outputs(network, family, side).shape[1]
        if not family.has_texts and head_of(network).out_features != classes:
            return f"the network {architecture} has no linear layer over its {classes} classes as its last one"
    except ValueError as error:
        return f"the network {architecture}: {error}"
    return None
