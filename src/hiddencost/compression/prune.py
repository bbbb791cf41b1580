"""One-shot pruning: magnitude, random, N:M and channel; and whether a network is pruned so."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor
from torch.nn.utils import prune

from hiddencost.networks.layers import Weight, erk_densities


def count_zeros(weights: dict[str, Weight]) -> int:
    """Return the number of zeros among all weights together."""
    return sum(map(_zeros, weights.values()))


def _zeros(weight: Weight) -> int:
    return int((weight.tensor == 0).sum())


def masked_share(weights: dict[str, Weight], masks: dict[str, Tensor]) -> float:
    """Return the share of all weights together that masks (True where kept, by key) leave out, to 4 digits."""
    left_out = sum(int((~masks[key]).sum()) for key in weights if key in masks)
    return round(left_out / sum(weight.tensor.numel() for weight in weights.values()), 4)


@contextmanager
def _masked(weights: dict[str, Weight]) -> Iterator[dict[str, Tensor]]:
    """Mask weights, for PyTorch's pruning, with their zeros; afterwards fill what it gave with the masks at the end,
    bool by key, True where kept, and leave plain weights."""
    for weight in weights.values():
        prune.custom_from_mask(*weight, weight.tensor != 0)
    masks: dict[str, Tensor] = {}
    yield masks
    for key, (module, name) in weights.items():
        masks[key] = getattr(module, f"{name}_mask").bool()
        prune.remove(module, name)


# --------------------------------------------------------------------------------------------- magnitude and random


def prune_unstructured(weights: dict[str, Weight], method: str, sparsity: float, scope: str) -> dict[str, Tensor]:
    """Prune single weights, in place, with a fixed seed.

    Args:
        weights: by key.
        method: which of them: a class of torch.nn.utils.prune, by its name.
        sparsity: share of zeros afterwards, those that are there already with them.
        scope: `global` ranks all layers together (Han et al., Learning both Weights and Connections, 2015), `layer`
            takes the same share of each, `erk` the share of `erk_densities`; with these two a layer that is sparser
            already keeps its zeros.

    Returns:
        Masks, bool by key, True where kept.

    Raises:
        ValueError: with `global`, if all together are sparser than `sparsity` already.
    """
    pruning: type[prune.BasePruningMethod] = getattr(prune, method)
    with _masked(weights) as masks, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        zeros = {key: _zeros(weight) for key, weight in weights.items()}
        if scope == "global":
            total = sum(weight.tensor.numel() for weight in weights.values())
            amount = round(sparsity * total) - sum(zeros.values())
            if amount < 0:
                raise ValueError(
                    f"{sum(zeros.values()) / total:.4f} of the weights to prune are zero already, expected at most "
                    f"compression.sparsity, {sparsity:g}"
                )
            prune.global_unstructured(weights.values(), pruning_method=pruning, amount=amount)
        else:
            for key, required in required_zeros(weights, sparsity, scope).items():
                pruning.apply(*weights[key], amount=max(0, required - zeros[key]))
    return masks


def required_zeros(weights: dict[str, Weight], sparsity: float, scope: str) -> dict[str, int]:
    """Return how many weights of each layer are to be zero, with scope `layer` or `erk`."""
    shapes = {key: weight.tensor.shape for key, weight in weights.items()}
    densities = erk_densities(shapes, 1 - sparsity) if scope == "erk" else dict.fromkeys(weights, 1 - sparsity)
    return {key: round((1 - densities[key]) * prod(shape)) for key, shape in shapes.items()}


def unstructured_violations(weights: dict[str, Weight], sparsity: float, scope: str, all_layers: str) -> list[str]:
    """Return a line for each layer with too few zeros; with scope `global` one, if all layers together, which it
    calls `all_layers`, have another number. In a single layer a sparse source may have more."""
    zeros = {key: _zeros(weight) for key, weight in weights.items()}
    if scope == "global":
        count, required = sum(zeros.values()), round(sparsity * sum(w.tensor.numel() for w in weights.values()))
        return [f"{all_layers}: {count} weights are zero, expected {required}"] if count != required else []
    return [
        f"{layer_name(key)}: {zeros[key]} weights are zero, expected {required} at least"
        for key, required in required_zeros(weights, sparsity, scope).items()
        if zeros[key] < required
    ]


# -------------------------------------------------------------------------------------------------------------- N:M


def prune_nm(weights: dict[str, Weight], n: int, m: int) -> dict[str, Tensor]:
    """Keep the n largest of each m consecutive weights, in place (N:M sparsity, Zhou et al., ICLR 2021).

    The groups lie along the inputs (at one place of a kernel), as sparse tensor cores want them (Mishra et al.,
    Accelerating Sparse Deep Neural Networks, 2021): see `groups_of_inputs`.

    Args:
        weights: by key, of layers whose inputs divide by m: a stem of 3 or a depthwise convolution of 1 does not.

    Returns:
        Masks, bool by key, True where kept.

    Raises:
        ValueError: without such a layer.
    """
    if not weights:
        raise ValueError(f"{n}:{m}: no layer has inputs in groups of {m}")
    with _masked(weights) as masks:
        for weight in weights.values():
            groups = groups_of_inputs(weight.tensor.abs(), m)
            kept = torch.zeros_like(groups).scatter_(1, groups.topk(n).indices, 1)
            shape = weight.tensor.movedim(1, -1).shape
            prune.custom_from_mask(*weight, kept.reshape(shape).movedim(-1, 1))
    return masks


def groups_of_inputs(weight: Tensor, m: int) -> Tensor:
    """Lay a weight [out, in, h, w] or [out, in] out as [out h w in / m, m]: inputs vary fastest."""
    return weight.movedim(1, -1).reshape(-1, m)


def nm_violations(weights: dict[str, Weight], n: int, m: int) -> list[str]:
    """Return a line for each layer in which more than n weights of a group of m are not zero."""
    most = {key: int((groups_of_inputs(w.tensor, m) != 0).sum(1).max()) for key, w in weights.items()}
    return [
        f"{layer_name(key)}: {count} of {m} weights kept, expected at most {n}"
        for key, count in most.items()
        if count > n
    ]


# --------------------------------------------------------------------------------------------------------- channels


def prune_channels(weights: dict[str, Weight], sparsity: float) -> dict[str, Tensor]:
    """Prune the filters of smallest L2 norm, in place, the same share of each layer (Li et al., Pruning Filters for
    Efficient ConvNets, ICLR 2017, there by L1 norm).

    The filters (of a linear layer its rows) stay in place as zeros; batch norm's shift of their channels stays.
    Returns masks, bool by key, True where kept.
    """
    with _masked(weights) as masks:
        for weight in weights.values():
            amount = required_zero_filters(weight.tensor, sparsity) - _zero_filters(weight.tensor)
            prune.ln_structured(*weight, amount=max(0, amount), n=2, dim=0)
    return masks


def required_zero_filters(weight: Tensor, sparsity: float) -> int:
    """Return how many filters of a layer's weight channel pruning sets to zero."""
    return round(sparsity * len(weight))


def _zero_filters(weight: Tensor) -> int:
    return int((weight == 0).flatten(1).all(1).sum())


def channel_violations(weights: dict[str, Weight], sparsity: float) -> list[str]:
    """Return a line for each layer with too few filters of zeros."""
    counts = {
        key: (_zero_filters(weight.tensor), required_zero_filters(weight.tensor, sparsity))
        for key, weight in weights.items()
    }
    return [
        f"{layer_name(key)}: {count} filters are zero, expected {required} at least"
        for key, (count, required) in counts.items()
        if count < required
    ]


def layer_name(key: str) -> str:
    """Return the name of a layer, by its weight's key."""
    return key.removesuffix(".weight")
