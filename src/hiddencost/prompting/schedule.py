"""Batches, optimiser and schedule of a recipe, and the random streams of a run."""

import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from hiddencost.study.recipes import CanvasProtocol, PromptingProtocol, Recipe, RunClipProtocol, RunLength


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a run's random stream for a purpose, which is a function of its seed alone.

    Args:
        seed: the run's.
        purpose: "mapping", "batches", "augmentation", ...
    """
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def epoch_batches(count: int, recipe: RunLength, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield one epoch's batches as indices, int64 [batch]; the last may be smaller."""
    order = torch.randperm(count, generator=generator) if recipe.shuffle else torch.arange(count)
    yield from order.split(recipe.batch_size)


def _adam(parameters: list[Tensor], recipe: Recipe | CanvasProtocol, images: int) -> tuple[Optimizer, LRScheduler]:
    """Adam, whose rate falls by gamma at the start of the epochs ⌊milestone x epochs⌋, or at so many of the steps."""
    adam = Adam(parameters, lr=recipe.learning_rate, fused=parameters[0].is_cuda)
    milestones = [recipe.step_at(share, images) for share in recipe.milestones]
    return adam, MultiStepLR(adam, milestones, recipe.gamma)


def _sgd(parameters: list[Tensor], recipe: RunClipProtocol, images: int) -> tuple[Optimizer, LRScheduler]:
    """SGD with momentum, whose rate falls along a cosine over all steps."""
    sgd = SGD(parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=parameters[0].is_cuda)
    return sgd, CosineAnnealingLR(sgd, recipe.steps_on(images))


# `fused` on a GPU: one kernel a step instead of a dozen
OPTIMISERS: dict[str, Callable[..., tuple[Optimizer, LRScheduler]]] = {"adam": _adam, "sgd": _sgd}


def optimiser(
    parameters: list[Tensor], recipe: Recipe | PromptingProtocol, count: int
) -> tuple[Optimizer, LRScheduler]:
    """Return the optimiser of a recipe and its schedule, which takes a step with it.

    Args:
        parameters: what is trained.
        recipe: it names its optimiser in OPTIMISERS.
        count: of the images of an epoch.
    """
    return OPTIMISERS[recipe.optimiser](parameters, recipe, count)


def not_finite(losses: list[float], before: int, epoch: int) -> str | None:
    """Say at which step of an epoch a loss ceased to be finite; None, if none did.

    Args:
        losses: of all steps so far.
        before: how many of them are of earlier epochs.
        epoch: its number, from 1.
    """
    for step, loss in enumerate(losses[before:], before + 1):
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {step}, epoch {epoch}"
    return None
