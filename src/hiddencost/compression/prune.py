"""One-shot pruning: magnitude, random, N:M and channel."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from hiddencost.networks.layers import Weight, erk_densities, prunable

UNSTRUCTURED = {"magnitude": prune.L1Unstructured, "random": prune.RandomUnstructured}


def _zeros(network: nn.Module) -> int:
    return sum(int((weight.tensor == 0).sum()) for weight in prunable(network).values())


def masked_share(network: nn.Module, masks: dict[str, Tensor]) -> float:
    """Return the share of all prunable weights that masks (True where kept, by key) leave out, to 4 digits."""
    found = prunable(network)
    left_out = sum(int((~masks[key]).sum()) for key in found if key in masks)
    return round(left_out / sum(weight.tensor.numel() for weight in found.values()), 4)


def prune_weights(network: nn.Module, settings: dict) -> dict[str, Tensor]:
    """Prune a network in place, once and without retraining; weights that are zero already stay so.

    settings: as for `compress`. Returns the masks of the weights that the algorithm reaches, bool by their keys, True
    where kept. Raises ValueError if the network is sparser than asked already, or nothing is reached.
    """
    found = reached(network, settings)
    if not found:
        raise ValueError(f"{settings['n']}:{settings['m']}: no layer has inputs in groups of {settings['m']}")
    for weight in found.values():
        prune.custom_from_mask(*weight, weight.tensor != 0)
    if settings["algorithm"] == "nm":
        prune_nm(found, settings["n"], settings["m"])
    elif settings["algorithm"] == "channel":
        prune_channels(found, settings["sparsity"])
    else:
        prune_unstructured(found, settings["algorithm"], settings["sparsity"], settings["scope"])
    masks = {key: getattr(module, f"{name}_mask").bool() for key, (module, name) in found.items()}
    for weight in found.values():
        prune.remove(*weight)
    return masks


def reached(network: nn.Module, settings: dict) -> dict[str, Weight]:
    """Return the weights that a pruning algorithm reaches: all, or for N:M those with whole groups of inputs."""
    found = prunable(network)
    if settings["algorithm"] != "nm":
        return found
    return {key: weight for key, weight in found.items() if weight.tensor.shape[1] % settings["m"] == 0}


def prune_unstructured(found: dict[str, Weight], algorithm: str, sparsity: float, scope: str) -> None:
    """Prune single weights of masked layers: the smallest (`magnitude`) or, with a fixed seed, any (`random`).

    scope: `global` ranks all layers together (Han et al., Learning both Weights and Connections, 2015), `layer` takes
    the same share of each, `erk` the share of `erk_densities`; a layer that is sparser already keeps its zeros.
    Raises ValueError if, with `global`, all together are sparser than asked.
    """
    method = UNSTRUCTURED[algorithm]
    zeros = {key: int((weight.tensor == 0).sum()) for key, weight in found.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        if scope == "global":
            total = sum(weight.tensor.numel() for weight in found.values())
            amount = round(sparsity * total) - sum(zeros.values())
            if amount < 0:
                raise ValueError(
                    f"{sum(zeros.values()) / total:.4f} of the weights to prune are zero already, expected at most "
                    f"compression.sparsity, {sparsity:g}"
                )
            prune.global_unstructured(found.values(), pruning_method=method, amount=amount)
        else:
            for key, wanted in zeros_wanted(found, sparsity, scope).items():
                method.apply(*found[key], amount=max(0, wanted - zeros[key]))


def zeros_wanted(found: dict[str, Weight], sparsity: float, scope: str) -> dict[str, int]:
    """Return how many weights of each layer are to be zero, with scope `layer` or `erk`."""
    shapes = {key: weight.tensor.shape for key, weight in found.items()}
    densities = erk_densities(shapes, 1 - sparsity) if scope == "erk" else dict.fromkeys(found, 1 - sparsity)
    return {key: round((1 - densities[key]) * prod(shape)) for key, shape in shapes.items()}


def prune_nm(found: dict[str, Weight], n: int, m: int) -> None:
    """Keep the n largest of each m consecutive weights of masked layers (N:M sparsity, Zhou et al., ICLR 2021).

    The groups lie along the inputs (at one place of a kernel), as sparse tensor cores want them (Mishra et al.,
    Accelerating Sparse Deep Neural Networks, 2021): see `groups_of_inputs`. A layer whose inputs do not divide by m,
    such as a stem of 3 or a depthwise convolution of 1, is not reached and stays dense.
    """
    for weight in found.values():
        groups = groups_of_inputs(weight.tensor.abs(), m)
        kept = torch.zeros_like(groups).scatter_(1, groups.topk(n).indices, 1)
        shape = weight.tensor.movedim(1, -1).shape
        prune.custom_from_mask(*weight, kept.reshape(shape).movedim(-1, 1))


def groups_of_inputs(weight: Tensor, m: int) -> Tensor:
    """Lay a weight [out, in, h, w] or [out, in] out as [out h w in / m, m]: inputs vary fastest."""
    return weight.movedim(1, -1).reshape(-1, m)


def prune_channels(found: dict[str, Weight], sparsity: float) -> None:
    """Prune the filters of smallest L2 norm of masked layers, the same share of each (Li et al., Pruning Filters for
    Efficient ConvNets, ICLR 2017, there by L1 norm).

    The filters (of a linear layer its rows) stay in place as zeros; batch norm's shift of their channels stays.
    """
    for weight in found.values():
        gone = int((weight.tensor == 0).flatten(1).all(1).sum())
        amount = filters_wanted(weight.tensor, sparsity) - gone
        prune.ln_structured(*weight, amount=max(0, amount), n=2, dim=0)


def filters_wanted(weight: Tensor, sparsity: float) -> int:
    """Return how many filters of a layer's weight channel pruning sets to zero."""
    return round(sparsity * len(weight))
