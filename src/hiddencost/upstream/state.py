"""A network in training, before its first step and after any."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from hiddencost.networks import backbones, build, layers
from hiddencost.networks.layers import convolutions
from hiddencost.prompting.schedule import stream
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream.data import PREPROCESSING
from hiddencost.upstream.job import UpstreamJob
from hiddencost.upstream.registry import sparsifier_of
from hiddencost.upstream.sparsifiers import FixedMasks


@dataclass
class Training:
    """A network in training, and all that its next step depends on.

    Attributes:
        network: on the device.
        optimizer: timm's, of its weights.
        schedule: timm's, of the learning rate.
        sparsifier: holds its masks.
        ema: the mean of weights; None where the recipe has none.
        epoch: how many are done.
        seconds: that its epochs took.
    """

    network: nn.Module
    optimizer: Optimizer
    schedule: Scheduler
    sparsifier: FixedMasks
    ema: ModelEmaV3 | None
    epoch: int = 0
    seconds: float = 0.0

    def state(self) -> dict:
        """Return what a training goes on from: `epoch`, `seconds`, states of network, optimiser and mean, masks."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "masks": self.sparsifier.masks,
        }

    def restore(self, state: dict, masks: bool = True) -> None:
        """Go on from a state.

        Args:
            state: as `state` returned it.
            masks: whether to take its masks; not where those of this training stay (a ticket's, after rewinding).
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        if masks:
            weights = self.sparsifier.weights
            self.sparsifier.masks = {key: mask.to(weights[key].device) for key, mask in state["masks"].items()}
        self.sparsifier.apply(self.network)
        if self.ema:
            self.sparsifier.apply(self.ema.module)
        self.epoch, self.seconds = state["epoch"], state["seconds"]


def first_network(job: UpstreamJob, classes: int) -> tuple[nn.Module, dict]:
    """Return the network before its first step.

    From scratch it is as its library initialises it, by the seed. Of published weights the head is a new one where
    the upstream data set has another number of classes.

    Args:
        job: what the training is asked for.
        classes: of the upstream data set.

    Returns:
        The network, in training mode, and what its manifest says of it: `architecture`, `stem`, `preprocessing` and
        `source_sha256` (of published weights).

    Raises:
        ValueError: where the checkpoint could not be imported.
    """
    origin: dict[str, Any] = {"preprocessing": PREPROCESSING, "source_sha256": {}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job.seed, "init").initial_seed())
        if job.start is None:
            origin["architecture"] = f"{job.architecture}:{classes}"
            network = build.build(origin["architecture"])
        else:
            network, _, manifest = backbones.load(job.start)
            origin = manifest.model_dump(include={"architecture", "source_sha256"}, exclude_unset=True)
            origin["preprocessing"] = manifest.preprocessing
            name = layers.head_name(network)
            if network.get_submodule(name).out_features != classes:
                origin["architecture"] = f"{origin['architecture'].partition(':')[0]}:{classes}"
                resized = build.build(origin["architecture"])
                head = resized.get_submodule(name).state_dict(prefix=f"{name}.")
                backbones.load_strictly(resized, network.state_dict() | head, str(job.start))
                network = resized
    origin["stem"] = next(iter(convolutions(network)), None)
    return network.requires_grad_().train(), origin


def prepare(
    network: nn.Module,
    recipe: UpstreamRecipe,
    settings: dict | None,
    steps: int,
    seed: int,
    device: torch.device,
    masks: dict[str, Tensor] | None = None,
) -> Training:
    """Return a training before its first step: the network on the device, timm's optimiser and schedule, the mean of
    weights, and the sparsifier.

    Args:
        network: before its first step.
        recipe: of the training.
        settings: all of a sparsifier, None of a dense training.
        steps: of an epoch.
        seed: of the sparsifier's random masks.
        device: to train on.
        masks: a lottery ticket's, by the key of the weights; None of any other training.
    """
    # torch's types lack this form of `to`
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(
        network,
        opt=recipe.optimiser,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        recipe.schedule,
        num_epochs=recipe.epochs,
        decay_milestones=[math.floor(fraction * recipe.epochs) for fraction in recipe.milestones],
        decay_rate=0.1,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    total = recipe.epochs * steps
    sparsifier = sparsifier_of(settings, network, optimizer, total, stream(seed, "masks"), masks)
    ema = ModelEmaV3(network, decay=recipe.ema) if recipe.ema else None
    return Training(network, optimizer, schedule, sparsifier, ema)
