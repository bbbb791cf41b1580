"""Upstream training with timm: a network from scratch or from published weights, dense or with a sparsifier.

`make` does one training, from its settings to a backbone on disk, in one process or as one of several that torchrun
has started; `__main__` is its command line.
"""

import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.data import Mixup
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost import backbone, ledger
from hiddencost.layers import convolutions
from hiddencost.schedule import resolve_precision, stream
from hiddencost.upstream import UpstreamRecipe, as_level, sparsifiers
from hiddencost.upstream.data import TrainLoader, Upstream, load
from hiddencost.upstream.testing import correct_of

log = logging.getLogger(__name__)

PREPROCESSING = {"mean": list(IMAGENET_DEFAULT_MEAN), "std": list(IMAGENET_DEFAULT_STD), "interpolation": "bilinear"}


class Diverged(ValueError):
    """The loss of a training has ceased to be finite, in all of its processes."""


@dataclass
class Processes:
    """The processes of a training: which of how many this is, and its device."""

    rank: int
    count: int
    device: torch.device

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.item() / self.count


@dataclass
class Training:
    """A network in training, and all that its next step depends on."""

    network: nn.Module
    optimizer: Optimizer
    schedule: Scheduler
    sparsifier: sparsifiers.Held
    ema: ModelEmaV3 | None
    epoch: int = 0  # done

    def state(self) -> dict:
        """Return what a training goes on from: `epoch`, and the states of network, optimiser, mean and masks."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "masks": self.sparsifier.masks,
        }

    def restore(self, state: dict, masks: bool = True) -> None:
        """Go on from a state; without its masks where those of this training stay (a ticket's, after rewinding)."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        if masks:
            self.sparsifier.masks = dict(state["masks"])
        self.sparsifier.apply(self.network)
        if self.ema:
            self.sparsifier.apply(self.ema.module)
        self.epoch = state["epoch"]


def processes(device: torch.device) -> Processes:
    """Return this process among those that torchrun has started, joined with them; alone where it started none."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return Processes(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), count, device)


def make(job: dict, device: torch.device, workers: int) -> None:
    """Train a network upstream and write it as a backbone, or write why that could not be.

    job: `checkpoint` (its name in the study), `architecture` (None where it starts from a checkpoint), `start` (the
    folder of an imported checkpoint, or None), `data` (see `data.load`), `image_size` in pixels, `recipe`
    (UpstreamRecipe), `sparsify` (None, or all settings of a sparsifier), `seed`, `unfinished` (the file that keeps
    the state at each epoch's end, from which an interrupted training goes on), `output` (the backbone's folder); of a
    lottery ticket `ticket` (the folder of the network that the round prunes, None in the first of a network that is
    not trained before) and `rewind` (the file of `rewind_point`). workers: processes of this one that read images.

    On the CPU the result is a function of the job alone, to the bit; several processes share each batch, and as each
    normalises its own part, their number matters. An interrupted training that goes on gives what it would have
    given. The manifest holds the top-1 on the upstream test images, all of them, which training never sees before.
    """
    run = processes(device)
    output, unfinished = Path(job["output"]), Path(job["unfinished"])
    settings, start = job["sparsify"], time.monotonic()
    manifest = {
        "checkpoint": job["checkpoint"],
        "architecture": job["architecture"],
        "preprocessing": PREPROCESSING,
        "stem": None,
        "upstream_top1": None,
        "compression": settings["algorithm"] if settings else "none",
        "sparsity_declared": settings["sparsity"] if settings else 0.0,
        "sparsity_over": sparsifiers.sparsity_over(settings) if settings else "convolutions",
        "source_sha256": {},
        "upstream": {key: job[key] for key in ("data", "image_size", "recipe", "sparsify", "seed")}
        | {"processes": run.count},
    }
    try:
        recipe, data = UpstreamRecipe.model_validate(job["recipe"]), load(job["data"])
        network, about = first_network(job, len(data.classes))
        manifest |= about
        loader = _loader(job, recipe, data, manifest["preprocessing"], run, workers)
        masks = _ticket(job, network, settings)
        training = prepare(network, recipe, settings, loader.steps, job["seed"], run.device, masks)
        if settings and settings["algorithm"] == "lth":
            (state,) = ledger.states(job["rewind"], run.device).values() or [None]
            if state is None:
                raise ValueError(f"{job['rewind']}: damaged; delete it, and it is made again")
            training.restore(state, masks=False)
        if stored := ledger.states(unfinished, run.device).get("training"):
            training.restore(stored)
            log.info("going on after epoch %d of %d, where it was interrupted", training.epoch, recipe.epochs)

        def keep() -> None:
            if run.rank == 0:
                ledger.keep_states(unfinished, {"training": training.state()})

        try:
            train(training, loader, recipe, len(data.classes), job["seed"], run, keep)
        except ValueError as error:
            if run.count > 1 and not isinstance(error, Diverged):  # of this process: the others would wait for it
                raise RuntimeError(f"process {run.rank} of {run.count} fails: {error}") from error
            raise
    except ValueError as error:
        reason = str(error).splitlines()[-1]  # of a process that reads images: its traceback comes before
        if run.rank == 0:
            log.error("%s: cannot be trained: %s", output, reason)
            backbone.save_failure(output, reason, manifest)
        return
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    if run.rank:
        return
    final = training.ema.module if training.ema else training.network
    count = len(data.test)
    correct = correct_of(final, data, range(count), job, manifest["preprocessing"], run.device, workers)
    top1 = 100 * correct / count
    state = {key: tensor.cpu() for key, tensor in final.state_dict().items()}
    # a weight that happens to be zero is none: masks and weights say the same
    masks = {key: (mask.cpu() & (state[key] != 0)) for key, mask in training.sparsifier.masks.items()}
    seconds = time.monotonic() - start
    told = {"device": str(run.device), "precision": resolve_precision(recipe.precision, run.device)}
    manifest["upstream"] |= told | {"seconds": round(seconds, 1), "test_images": count}
    manifest |= {"upstream_top1": round(top1, 4), "classes": data.classes, "keys": len(backbone.weights_of(state))}
    backbone.save(output, state, masks, manifest)
    for stale in output.glob("unfinished-*.state"):  # of other settings, too
        stale.unlink()
    log.info("%s: %.2f %% of %d upstream test images, in %.0f s", output, top1, count, seconds)


def rewind_point(job: dict, device: torch.device, workers: int) -> None:
    """Train a dense network up to an early epoch and keep its state: what lottery tickets are rewound to.

    job: as of `make`, of dense training, with `until`, the epochs to train, and `output`, the file of the state. It
    is the state that the dense training passes through: on the CPU to the bit. Raises ValueError as `make` would
    tell.
    """
    run = processes(device)
    recipe, data = UpstreamRecipe.model_validate(job["recipe"]), load(job["data"])
    network, about = first_network(job, len(data.classes))
    loader = _loader(job, recipe, data, about.get("preprocessing", PREPROCESSING), run, workers)
    training = prepare(network, recipe, None, loader.steps, job["seed"], run.device)
    train(training, loader, recipe, len(data.classes), job["seed"], run, until=job["until"])
    if run.rank == 0:
        ledger.keep_states(job["output"], {"rewind": training.state()})
    if distributed.is_initialized():
        distributed.destroy_process_group()


def first_network(job: dict, classes: int) -> tuple[nn.Module, dict]:
    """Return the network before its first step, in training mode, and what its manifest says of it: `architecture`,
    `stem` and, of published weights, `preprocessing` and `source_sha256`.

    From scratch it is as its library initialises it, by the seed. Of published weights the head is a new one where
    the upstream data set has another number of classes. Raises ValueError where the checkpoint could not be imported.
    """
    about: dict = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job["seed"], "init").initial_seed())
        if job["start"] is None:
            about["architecture"] = f"{job['architecture']}:{classes}"
            network = backbone.build(about["architecture"])
        else:
            network, _, manifest = backbone.load(job["start"])
            about = {key: manifest[key] for key in ("architecture", "preprocessing", "source_sha256")}
            old = backbone.classifier(network)
            if old.out_features != classes:
                network.set_submodule(backbone.classifier_name(network), nn.Linear(old.in_features, classes))
                about["architecture"] = f"{about['architecture'].partition(':')[0]}:{classes}"
    about["stem"] = next(iter(convolutions(network)), None)
    return network.requires_grad_().train(), about


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
    weights, and the sparsifier. steps: of an epoch; masks: a lottery ticket's."""
    network = network.to(device, memory_format=torch.channels_last)
    about = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "momentum": recipe.momentum}
    optimizer = create_optimizer_v2(network, opt=recipe.optimiser, **about)
    schedule, _ = create_scheduler_v2(
        optimizer,
        recipe.schedule,
        num_epochs=recipe.epochs,
        decay_epochs=max(1, recipe.epochs // 3),  # of schedule step: thirds, a tenth each
        decay_milestones=[math.floor(fraction * recipe.epochs) for fraction in recipe.milestones],
        decay_rate=0.1,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    total = recipe.epochs * steps
    sparsifier = sparsifiers.make(settings, network, optimizer, total, stream(seed, "masks"), masks)
    ema = ModelEmaV3(network, decay=recipe.ema) if recipe.ema else None
    return Training(network, optimizer, schedule, sparsifier, ema)


def train(
    training: Training,
    loader: TrainLoader,
    recipe: UpstreamRecipe,
    classes: int,
    seed: int,
    run: Processes,
    keep: Callable[[], object] = lambda: None,
    until: int | None = None,
) -> None:
    """Train in place from the epoch that is done to the last, or to the epoch `until`; `keep` is called after each.

    bf16 is autocast, with weights in float32. Raises Diverged where the loss ceases to be finite, ValueError for an
    image that cannot be read.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # float32 is meant: cuDNN would take TF32
    precision = resolve_precision(recipe.precision, run.device)
    mixup = None
    if recipe.mixup or recipe.cutmix:
        mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
    criterion = _criterion(recipe, mixed=mixup is not None)
    network, parameters = training.network, list(training.network.parameters())
    model = DistributedDataParallel(network) if run.count > 1 else network
    last = recipe.epochs if until is None else until
    total, done = last * loader.steps * recipe.batch_size, training.epoch * loader.steps * recipe.batch_size
    bar = tqdm(total=total, initial=done, unit=" images", mininterval=10, disable=run.rank > 0)
    with bar, logging_redirect_tqdm():
        for epoch in range(training.epoch, last):
            _seed(seed, epoch, run.rank)
            training.schedule.step_update(epoch * loader.steps)
            network.train()
            loss_sum = torch.zeros((), device=run.device)
            for step, (images, targets) in enumerate(loader.epoch(epoch), epoch * loader.steps + 1):
                images = images.contiguous(memory_format=torch.channels_last)
                if mixup:
                    images, targets = mixup(images, targets)
                with torch.autocast(run.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    logits = model(images)
                loss = criterion(logits.float(), targets)
                training.optimizer.zero_grad()
                loss.backward()
                if training.sparsifier.before(step):
                    if recipe.clip_gradient:
                        nn.utils.clip_grad_norm_(parameters, recipe.clip_gradient)
                    training.optimizer.step()
                training.sparsifier.after(step)
                if training.ema:
                    training.ema.update(network, step=step)
                    training.sparsifier.apply(training.ema.module)
                training.schedule.step_update(step)
                loss_sum += loss.detach()
                bar.update(recipe.batch_size)
            mean = run.mean(loss_sum.item() / loader.steps)
            if not math.isfinite(mean):
                raise Diverged(f"the training diverged: the loss is {mean} in epoch {epoch + 1}")
            training.epoch = epoch + 1
            bar.set_description(f"epoch {epoch + 1} of {last}, loss {mean:.3f}", refresh=False)
            log.info("epoch %d of %d: loss %.4f", epoch + 1, last, mean)
            keep()


def _loader(
    job: dict, recipe: UpstreamRecipe, data: Upstream, preprocessing: dict, run: Processes, workers: int
) -> TrainLoader:
    size, seed = job["image_size"], job["seed"]
    return TrainLoader(data.train, recipe, size, preprocessing, seed, run.device, workers, run.rank, run.count)


def _ticket(job: dict, network: nn.Module, settings: dict | None) -> dict[str, Tensor] | None:
    """Return the masks of a lottery ticket: of the network that the round before has trained; None of anything else.

    Raises ValueError where that round failed."""
    if not settings or settings["algorithm"] != "lth":
        return None
    trained, masks, _ = backbone.load(job["ticket"])
    return sparsifiers.next_ticket(trained, masks, settings | {"sparsity": as_level(settings["sparsity"])})


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
