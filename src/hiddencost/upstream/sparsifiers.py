"""The four algorithms of the study's sparse networks: GMP, AC/DC, RigL and lottery tickets (LTH).

Each holds the masks of a network in training and keeps to one invariant: after every step, each weight that its mask
leaves out is exactly zero. A step is told by its number, counted from 1 over the whole training; all that an
algorithm does follows from that number, the weights, the gradients and its masks, so that a training that goes on
from what was kept is the training that was not interrupted.

Which layers are pruned, as in the algorithm's source (`pruned_weights`):

| algorithm | layers | sparsity is |
|---|---|---|
| gmp | convolutions but the stem | the same in each layer |
| acdc | convolutions and linear layers, stem and head too | of all together, by global magnitude |
| rigl, erk | convolutions and linear layers, stem and head too | by layer size (Erdos-Renyi-Kernel) |
| rigl, uniform | the same, but the stem | the same in each layer |
| lth | convolutions but the stem | of all together, by global magnitude |
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hiddencost.networks.families import FAMILIES
from hiddencost.networks.layers import convolutions, erk_densities
from hiddencost.study.sparsifiers import SPARSIFIERS, Settings, sparse_phases


def pruned_weights(network: nn.Module, settings: Settings) -> dict[str, nn.Parameter]:
    """Return the weights that an algorithm prunes, by their keys in the network's state.

    The stem is the first convolution. Sources: Gale et al., The State of Sparsity in Deep Neural Networks, 2019,
    section 5, leave ResNet-50's first layer dense under GMP (its head stays dense here, as in all networks of
    `compress`); AC/DC's configuration lists conv1 and fc among what is pruned; RigL's ERK reaches all layers and its
    uniform distribution all but the first (google-research/rigl, README and first_layer_sparsity = 0,
    last_layer_sparsity = -1); lottery tickets leave out conv1 and the head (VITA-Group/CV_LTH_Pre-training,
    pruning_utils.py).

    Args:
        network: a convolutional one.
        settings: all of a sparsifier.

    Raises:
        ValueError: where nothing is left to prune.
    """
    algorithm = settings["algorithm"]
    stem = next(iter(convolutions(network)), None)
    groups = FAMILIES["convolutional"].sparsity_groups(network, stem)  # no other family is trained upstream
    keys = groups[SPARSIFIERS[algorithm].sparsity_over(settings)]
    if not keys:
        raise ValueError(f"{algorithm}: the network has no convolution but its stem; expected layers to prune")
    return {key: network.get_parameter(key) for key in keys}


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest scores, bool, in the shape of `scores`."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(count).indices] = True
    return mask.view_as(scores)


def keep_largest_of_all(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks of the largest scores of all tensors together, bool, by the same keys, but for the share
    `sparsity` of them."""
    together = torch.cat([score.flatten() for score in scores.values()])
    mask = keep_largest(together, _kept(together, sparsity))
    parts = mask.split([score.numel() for score in scores.values()])
    return {key: part.view_as(score) for (key, score), part in zip(scores.items(), parts, strict=True)}


class FixedMasks:
    """Masks that do not change: those of a lottery ticket, or none, of a dense network. The other algorithms change
    them in `before` or `after`.

    A ticket is trained on from the state of the dense network after an early epoch, its optimiser's memory and its
    place in the schedule too (Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020,
    section 4). From published weights with rewind_epoch 0 it is the pre-trained ticket of Chen et al., CVPR 2021.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], optimizer: Optimizer, masks: Mapping[str, Tensor]):
        """weights: those to prune, by key. masks: bool, True where kept, by the same keys; the others are zeroed."""
        self.weights, self.optimizer = weights, optimizer
        self.masks = {key: masks[key].to(weight.device) for key, weight in weights.items()}
        self._zero_weights()

    def before(self, step: int) -> bool:
        """Act between a step's backward pass and its update, and say whether the optimiser makes the update."""
        for key, weight in self.weights.items():
            _gradient(weight).masked_fill_(~self.masks[key], 0)  # not a product: it would keep a NaN
        return True

    def after(self, step: int) -> None:
        """Act behind a step: weights that momentum or weight decay has moved are zero again."""
        self._zero_weights()

    @classmethod
    def of_training(
        cls,
        weights: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        settings: Settings,
        steps: int,
        generator: torch.Generator,
        masks: Mapping[str, Tensor] | None,
    ) -> "FixedMasks":
        """Return the masks of a training; each algorithm takes of the arguments of `sparsifier_of` what it needs."""
        assert masks is not None, "a ticket has masks"
        return cls(weights, optimizer, masks)

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Set the pruned weights of another network of the same keys to zero: of the mean of weights over steps."""
        parameters = dict(network.named_parameters())
        for key, mask in self.masks.items():
            parameters[key].masked_fill_(~mask, 0)

    @torch.no_grad()
    def _zero_weights(self) -> None:
        for key, weight in self.weights.items():
            weight.masked_fill_(~self.masks[key], 0)

    @torch.no_grad()
    def _forget(self, parameter: Tensor, where: Tensor) -> None:
        """Set the optimiser's memory of a parameter (momentum, moments) to zero where a mask is True.

        The sources train by SGD. Adam's count of steps stays, so that its first updates behind this are larger."""
        for value in self.optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.masked_fill_(where, 0)


class GMP(FixedMasks):
    """Gradual magnitude pruning: the smallest weights of each layer go, more and more of them, and stay gone.

    Zhu and Gupta, To prune, or not to prune, 2017, equation 1: after steps t = t0, t0 + Δt, ..., t0 + nΔt the
    sparsity of each layer is s_t = s_f + (s_i - s_f)(1 - (t - t0) / nΔt)^3, here with s_i = 0. t0 is the share
    `begin` of the training, t0 + nΔt the last that is not behind the share `end`, and Δt the `interval` in steps
    (there 100 to 1000; when to begin and end is ours: they say that it should be while the learning rate is high, and
    leave time behind).
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], optimizer: Optimizer, settings: Settings, steps: int):
        super().__init__(weights, optimizer, _full(weights))
        self.sparsity, self.interval = settings["sparsity"], settings["interval"]
        self.begin = round(settings["begin"] * steps)
        end = round(settings["end"] * steps)
        self.times = (end - self.begin) // self.interval

    @classmethod
    def of_training(cls, weights, optimizer, settings, steps, generator, masks):
        return cls(weights, optimizer, settings, steps)

    def sparsity_at(self, step: int) -> float | None:
        """Return the sparsity that a step sets, by equation 1; None of a step that sets none."""
        number, rest = divmod(step - self.begin, self.interval)
        if rest or not 0 <= number <= self.times:
            return None
        return self.sparsity * (1 - (1 - number / self.times) ** 3)

    def after(self, step: int) -> None:
        super().after(step)
        if sparsity := self.sparsity_at(step):
            for key, weight in self.weights.items():
                self.masks[key] = keep_largest(_scores(weight, self.masks[key]), _kept(weight, sparsity))
            self._zero_weights()


class ACDC(FixedMasks):
    """Alternating compressed and decompressed training.

    Peste et al., AC/DC, NeurIPS 2021, algorithm 1: a compressed phase begins by keeping the largest weights of all
    layers together (their code's UnstructuredMagnitudePruner) and trains these alone; a dense phase trains all, the
    others from zero. As their scripts have it (--reset_momentum_after_recycling), the optimiser's memory is set to
    zero where a dense phase begins. The last phase, the fine-tuning, is compressed. Phases: see `sparse_phases`.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], optimizer: Optimizer, settings: Settings, steps: int):
        super().__init__(weights, optimizer, _full(weights))
        self.sparsity = settings["sparsity"]
        self.phases = sparse_phases(steps, settings["warm_up"], settings["phase"], settings["fine_tuning"])

    @classmethod
    def of_training(cls, weights, optimizer, settings, steps, generator, masks):
        return cls(weights, optimizer, settings, steps)

    def after(self, step: int) -> None:
        super().after(step)
        if step in (begin for begin, _ in self.phases):
            scores = {key: weight.detach().abs() for key, weight in self.weights.items()}
            self.masks = keep_largest_of_all(scores, self.sparsity)
            self._zero_weights()
        elif step in (end for _, end in self.phases[:-1]):
            self.masks = _full(self.weights)
            for parameter in self.optimizer.state:  # of all parameters, as there
                self._forget(parameter, torch.ones_like(parameter, dtype=torch.bool))


class RigL(FixedMasks):
    """Rigged lottery: sparse from the first step; small weights are dropped, and grown where the gradient is large.

    Evci et al., Rigging the Lottery, ICML 2020, algorithm 1: each `interval` steps ΔT, until the share `end` of the
    training, T_end, the fraction f_decay(t) = drop / 2 (1 + cos(πt / T_end)) of each layer's connections is dropped,
    those of smallest magnitude, and as many are grown where the dense gradient is largest, among all that is not
    kept; that step updates no weight. Grown weights start at zero, with no momentum, and one that is dropped and
    grown at once keeps its weight (google-research/rigl, sparse_optimizers.py). Masks are drawn at random from
    `seed`, at each layer's density: that of `erk_densities`, or the same for all (uniform).
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        settings: Settings,
        steps: int,
        generator: torch.Generator,
    ):
        self.drop, self.interval = settings["drop"], settings["interval"]
        self.end = round(settings["end"] * steps)
        density = 1 - settings["sparsity"]
        densities = dict.fromkeys(weights, density)
        if settings["distribution"] == "erk":
            densities = erk_densities({key: weight.shape for key, weight in weights.items()}, density)
        noise = {key: torch.rand(weight.shape, generator=generator) for key, weight in weights.items()}
        masks = {key: keep_largest(noise[key], round(densities[key] * noise[key].numel())) for key in weights}
        super().__init__(weights, optimizer, masks)

    @classmethod
    def of_training(cls, weights, optimizer, settings, steps, generator, masks):
        return cls(weights, optimizer, settings, steps, generator)

    def fraction(self, step: int) -> float:
        """Return f_decay, the share of the connections that the update at a step replaces."""
        return self.drop / 2 * (1 + math.cos(math.pi * step / self.end))

    def before(self, step: int) -> bool:
        if step % self.interval or step >= self.end:
            return super().before(step)
        for key, weight in self.weights.items():
            mask = self.masks[key]
            connections = int(mask.sum())
            replaced = int(self.fraction(step) * connections)
            kept = keep_largest(_scores(weight, mask), connections - replaced)
            grown = keep_largest(_gradient(weight).abs().masked_fill(kept, -1), replaced)
            self.masks[key] = kept | grown
            self._forget(weight, ~self.masks[key])  # what is grown later starts without
        self._zero_weights()
        return False


@torch.no_grad()
def next_ticket(network: nn.Module, masks: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """Return the masks of the next lottery ticket: of a trained network's weights, those of largest magnitude, of all
    layers together, so that `settings["sparsity"]` of them are left out.

    Iterative magnitude pruning (Frankle and Carbin, ICLR 2019), global as in VITA-Group/CV_LTH_Pre-training: what an
    earlier round has pruned (False in `masks`, by key; a layer without a mask is dense) stays pruned.
    """
    scores = {}
    for key, weight in pruned_weights(network, settings).items():
        mask = masks.get(key)
        scores[key] = weight.abs() if mask is None else _scores(weight, mask.to(weight.device))
    return keep_largest_of_all(scores, settings["sparsity"])


def _full(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in weights.items()}


def _gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None, "behind a backward pass"
    return weight.grad


def _scores(weight: Tensor, mask: Tensor) -> Tensor:
    """Return magnitudes by which weights are kept, those that are pruned already behind all."""
    return weight.detach().abs().masked_fill(~mask, -1)


def _kept(weight: Tensor, sparsity: float) -> int:
    return weight.numel() - round(sparsity * weight.numel())
