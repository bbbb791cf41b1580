"""The classes that hold the masks of a network in training, by the algorithm of a study (`study.sparsifiers`).

They are imported here by name, so that the code of each counts in the digest of the trainings, whatever its file.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hiddencost.study.sparsifiers import SPARSIFIERS, Settings
from hiddencost.upstream.sparsifiers import ACDC, GMP, FixedMasks, RigL, pruned_weights

MASKS: dict[str, type[FixedMasks]] = {"gmp": GMP, "acdc": ACDC, "rigl": RigL, "lth": FixedMasks}


def sparsifier_of(
    settings: Settings | None,
    network: nn.Module,
    optimizer: Optimizer,
    steps: int,
    generator: torch.Generator,
    masks: Mapping[str, Tensor] | None = None,
) -> FixedMasks:
    """Return what holds the masks of a training.

    Args:
        settings: all of a sparsifier (`study.sparsifiers.with_defaults`); None: nothing is pruned.
        network: before its first step.
        optimizer: of its parameters.
        steps: of the whole training.
        generator: of the CPU, for rigl's first masks.
        masks: a lottery ticket's, bool by key, True where kept.

    Raises:
        ValueError: where the training is too short for it.
    """
    if settings is None:
        return FixedMasks({}, optimizer, {})
    algorithm = settings["algorithm"]
    SPARSIFIERS[algorithm].check_steps(settings, steps)
    weights = pruned_weights(network, settings)
    return MASKS[algorithm].of_training(weights, optimizer, settings, steps, generator, masks)
