"""The layers of a network that can be pruned, and how sparsity is shared among them."""

from math import prod

import torch
from torch import nn


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions of a network by name, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def erk_densities(shapes: dict[str, torch.Size], density: float) -> dict[str, float]:
    """Return each layer's density so that all together have `density`, by Erdos-Renyi-Kernel.

    A layer's density is proportional to (n_out + n_in + w + h) / (n_out n_in w h) of its weights' shape (Evci et al.,
    Rigging the Lottery, ICML 2020, section 3; for a grouped convolution n_in is that of a group). Layers that would
    exceed 1 are dense, and the others share what remains.
    """
    dense: set[str] = set()
    while True:
        budget = density * sum(map(prod, shapes.values())) - sum(prod(shapes[name]) for name in dense)
        factor = budget / sum(sum(shape) for name, shape in shapes.items() if name not in dense)
        densities = {name: 1.0 if name in dense else factor * sum(s) / prod(s) for name, s in shapes.items()}
        exceeding = {name for name, value in densities.items() if value > 1}
        if not exceeding:
            return densities
        dense |= exceeding
