"""Whether a training can begin, before any job does."""

import torch
from torch import Tensor

from hiddencost.networks import build, inputs
from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream.data import PREPROCESSING, train_transform


def arithmetic(architecture: str, size: int, recipe: UpstreamRecipe) -> tuple[float, int]:
    """Return what `count_multiply_adds` does of a network that is to be trained by a recipe.

    Args:
        architecture: of the network.
        size: side of the images, in pixels.
        recipe: of the training.

    Raises:
        ValueError: where there is no such network, where it gives something else than logits in training mode, or
            where timm does not know the recipe's augmentation.
    """
    train_transform(recipe, size, PREPROCESSING)
    counts = count_multiply_adds(architecture, size)
    with torch.device("meta"):
        network = build.build(architecture).train()
    try:
        logits = inputs.run(network, torch.empty(2, 3, size, size, device="meta"))
    except ValueError as error:
        raise ValueError(f"architecture {architecture!r}: in training mode {error}") from None
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f"architecture {architecture!r}: in training mode it gives something else than logits")
    return counts
