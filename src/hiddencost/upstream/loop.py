"""The steps of a training: batches, loss, sparsifier, optimiser, schedule and the mean of weights."""

import logging
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.prompting.precision import resolve_precision
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream.data import TrainLoader
from hiddencost.upstream.processes import Diverged, Processes
from hiddencost.upstream.state import Training

log = logging.getLogger(__name__)


def train(
    training: Training,
    loader: TrainLoader,
    recipe: UpstreamRecipe,
    classes: int,
    seed: int,
    run: Processes,
    until: int,
    keep: Callable[[], object],
) -> None:
    """Train in place from the epoch that is done up to another one.

    bf16 is autocast, with weights in float32.

    Args:
        training: the network, and all that its next step depends on.
        loader: of the training images.
        recipe: of the training.
        classes: of the data set.
        seed: of the random streams of each epoch.
        run: this process among those that share each batch.
        until: the epoch, counted from 1, that ends it.
        keep: called after each epoch.

    Raises:
        Diverged: where the loss ceases to be finite.
        ValueError: for an image that cannot be read.
    """
    torch.backends.cudnn.deterministic = True
    # float32 is meant: cuDNN would take TF32
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch's types lack it
    mixup = None
    if recipe.mixup or recipe.cutmix:
        mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
    criterion = _criterion(recipe, mixed=mixup is not None)
    model = DistributedDataParallel(training.network) if run.count > 1 else training.network
    total, done = (epochs * loader.steps * recipe.batch_size for epochs in (until, training.epoch))
    bar = tqdm(total=total, initial=done, unit=" images", mininterval=10, disable=run.rank > 0)
    with bar, logging_redirect_tqdm():
        for epoch in range(training.epoch, until):
            start = time.monotonic()
            _seed(seed, epoch, run.rank)
            training.schedule.step_update(epoch * loader.steps)
            training.network.train()
            loss_sum = torch.zeros((), device=run.device)
            for step, (images, targets) in enumerate(loader.epoch(epoch), epoch * loader.steps + 1):
                images = images.contiguous(memory_format=torch.channels_last)
                if mixup:
                    images, targets = mixup(images, targets)
                loss_sum += _step(training, model, recipe, criterion, images, targets, step)
                bar.update(recipe.batch_size)
            mean = run.mean(loss_sum.item() / loader.steps)
            if not math.isfinite(mean):
                raise Diverged(f"the training diverged: the loss is {mean} in epoch {epoch + 1}")
            training.epoch = epoch + 1
            training.seconds += time.monotonic() - start
            bar.set_description(f"epoch {epoch + 1} of {until}, loss {mean:.3f}", refresh=False)
            if run.rank == 0:
                log.info("epoch %d of %d: loss %.4f", epoch + 1, until, mean)
            keep()


def _step(
    training: Training,
    model: nn.Module,
    recipe: UpstreamRecipe,
    criterion: nn.Module,
    images: Tensor,
    targets: Tensor,
    step: int,
) -> Tensor:
    """Do a step, counted from 1 over the whole training, and return its loss, on the device."""
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, resolve_precision(recipe.precision, device) == "bf16"):
        logits = model(images)
    loss = criterion(logits.float(), targets)
    training.optimizer.zero_grad()
    loss.backward()
    if training.sparsifier.before(step):
        if recipe.clip_gradient:
            nn.utils.clip_grad_norm_(list(training.network.parameters()), recipe.clip_gradient)
        training.optimizer.step()
    training.sparsifier.after(step)
    if training.ema:
        training.ema.update(training.network, step=step)
        training.sparsifier.apply(training.ema.module)
    training.schedule.step_update(step)
    return loss.detach()


def _criterion(recipe: UpstreamRecipe, mixed: bool) -> nn.Module:
    if recipe.loss == "bce":
        return BinaryCrossEntropy(smoothing=0.0 if mixed else recipe.label_smoothing)
    if mixed:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(recipe.label_smoothing) if recipe.label_smoothing else nn.CrossEntropyLoss()


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Begin an epoch's random streams (dropout, mixup, erasing), a function of seed, epoch and process alone."""
    number = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
