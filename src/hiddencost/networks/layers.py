"""The layers of a network, their weights, and how sparsity is shared among them."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn


def head_of(network: nn.Module) -> nn.Linear:
    """Return a network's last linear layer, which is over its source classes.

    Raises:
        ValueError: it has none.
    """
    head = network.get_submodule(head_name(network))
    assert isinstance(head, nn.Linear)
    return head


def head_name(network: nn.Module) -> str:
    """Return the name of the head within a network; see `head_of`."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("the network has no linear layer, which its head over the source classes should be")
    return names[-1]


class Weight(NamedTuple):
    """A weight of a layer: a parameter by its module and its name there."""

    module: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """The weight itself, [outputs, inputs, ...]."""
        return getattr(self.module, self.name)


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions of a network by name, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def layer_weights(network: nn.Module) -> dict[str, Weight]:
    """Return the weights of all convolutions, linear layers and attentions' projections, by their keys, in order."""
    weights = {}
    for name, module in network.named_modules():
        for parameter, _ in module.named_parameters(recurse=False):
            of_layer = parameter == "weight" and isinstance(module, nn.Conv2d | nn.Linear)
            if of_layer or parameter == "in_proj_weight":
                weights[f"{name}.{parameter}"] = Weight(module, parameter)
    return weights


def convolution_weights(network: nn.Module) -> dict[str, Weight]:
    """Return the weights of all convolutions, by their keys, in order."""
    return {f"{name}.weight": Weight(module, "weight") for name, module in convolutions(network).items()}


def erk_densities(shapes: dict[str, torch.Size], density: float) -> dict[str, float]:
    """Return each layer's density so that all together have `density`, by Erdos-Renyi-Kernel.

    A layer's density is proportional to (n_out + n_in + w + h) / (n_out n_in w h) of its weights' shape (Evci et al.,
    Rigging the Lottery, ICML 2020, section 3; for a grouped convolution n_in is that of a group). Layers that would
    exceed 1 are dense, and the others share what remains.

    Args:
        shapes: of the layers' weights, by name.
        density: the share of all these weights that is kept.

    Returns:
        The share of each layer's weights that is kept, by name.
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
