"""Upstream training with timm: a network from scratch or from published weights, dense or with a sparsifier.

`make` does one training, from its settings to a backbone on disk, in one process or as one of several that torchrun
has started (`launch`).
"""

import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from timm.data import Mixup
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

from hiddencost.machine import device_name
from hiddencost.networks import backbones, build, layers
from hiddencost.networks.layers import convolutions
from hiddencost.prompting.precision import resolve_precision
from hiddencost.prompting.schedule import stream
from hiddencost.runs import interrupted
from hiddencost.study.recipes import UpstreamRecipe
from hiddencost.upstream import sparsifiers
from hiddencost.upstream.data import PREPROCESSING, TrainLoader, Upstream, load
from hiddencost.upstream.testing import correct_of

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


class Diverged(ValueError):
    """The loss of a training has ceased to be finite, in all of its processes."""


class Alone(ValueError):
    """One of several processes cannot go on, while the others do not know."""


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
    seconds: float = 0.0  # that its epochs took

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
        """Go on from a state; without its masks where those of this training stay (a ticket's, after rewinding)."""
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
    lottery ticket `ticket` (the folder of the network that the round prunes) and `rewind` (the file of
    `rewind_point`). workers: processes of this one that read images.

    On the CPUs of one machine the result is a function of the job and the number of threads, to the bit; several
    processes share each batch, and as each normalises its own part, their number matters. An interrupted training
    that goes on gives what it would have given, if as many processes go on; else it starts anew. The manifest holds
    the top-1 on the upstream test images, all of them, which training never sees before.

    Raises RuntimeError in a process that fails alone, of several, once it has written why.
    """
    run = processes(device)
    output, settings = Path(job["output"]), job["sparsify"]
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
    with _told(run, lambda reason: backbones.save_failure(output, reason, manifest)):
        begun = begin(job, run, workers)
        manifest |= begun.about
        go_on(begun, job, run, begun.recipe.epochs)
        if run.rank:
            return
        training, data = begun.training, begun.data
        final, count = (training.ema.module if training.ema else training.network), len(data.test)
        correct = correct_of(final, data, range(count), job, manifest["preprocessing"], run.device, workers)
        state = {key: tensor.cpu() for key, tensor in final.state_dict().items()}
        # a weight that happens to be zero is none: masks and weights say the same
        masks = {key: (mask.cpu() & (state[key] != 0)) for key, mask in training.sparsifier.masks.items()}
        top1 = 100 * correct / count
        precision = resolve_precision(begun.recipe.precision, run.device)
        told = {"device": device_name(run.device), "precision": precision}
        told |= {"seconds": round(training.seconds, 1), "test_images": count, "images_sha256": data.digest}
        manifest["upstream"] |= told
        manifest |= {
            "upstream_top1": round(top1, 4),
            "classes": data.classes,
            "keys": len(backbones.weights_of(state)),
        }
        backbones.save(output, state, masks, manifest)
        for stale in output.glob("unfinished-*.state"):  # of other settings, too
            stale.unlink()
        log.info("%s: %.2f %% of %d upstream test images, trained in %.0f s", output, top1, count, training.seconds)


def rewind_point(job: dict, device: torch.device, workers: int) -> None:
    """Train a dense network up to an early epoch and keep its state: what lottery tickets are rewound to.

    job: as of `make`, of dense training, with `until`, the epochs to train, and `output`, the file of the state, or
    of why there is none. It is the state that the dense training of as many processes passes through: on the CPU to
    the bit.
    """
    run = processes(device)
    with _told(run, lambda reason: interrupted.keep_states(job["output"], {"failed": reason})):
        begun = begin(job, run, workers)
        go_on(begun, job, run, job["until"])
        if run.rank == 0:
            interrupted.keep_states(job["output"], {"rewind": begun.training.state()})
            Path(job["unfinished"]).unlink(missing_ok=True)


@contextmanager
def _told(run: Processes, fail: Callable[[str], None]) -> Iterator[None]:
    """Let what cannot be trained be a result: `fail` is told why, in a line. What goes wrong in one of several
    processes ends it, with RuntimeError, and torchrun the others, which would wait for it."""
    try:
        yield
    except ValueError as error:
        reason = str(error).splitlines()[-1]  # of a process that reads images: its traceback comes before
        alone = isinstance(error, Alone)
        if run.rank == 0 or alone:
            log.error("it cannot be trained: %s", reason)
            fail(reason)
        if alone:
            raise RuntimeError(f"process {run.rank} of {run.count} fails: {reason}") from error
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Begun(NamedTuple):
    """A training that has begun, with its images, and what its manifest says of the network."""

    training: Training
    loader: TrainLoader
    recipe: UpstreamRecipe
    data: Upstream
    about: dict


def begin(job: dict, run: Processes, workers: int) -> Begun:
    """Prepare the training of a job of `make` or `rewind_point`; a lottery ticket is rewound.

    Raises ValueError where something that it takes has failed, is damaged, or does not go together.
    """
    recipe, data = UpstreamRecipe.model_validate(job["recipe"]), load(job["data"])
    network, about = first_network(job, len(data.classes))
    images = data.train, recipe, job["image_size"], about["preprocessing"], job["seed"]
    loader = TrainLoader(*images, run.device, workers, run.rank, run.count)
    settings, masks = job["sparsify"], None
    is_ticket = bool(settings) and settings["algorithm"] == "lth"
    if is_ticket:
        trained, before, _ = backbones.load(job["ticket"])
        masks = sparsifiers.next_ticket(trained, before, settings)
    training = prepare(network, recipe, settings, loader.steps, job["seed"], run.device, masks)
    if is_ticket:
        rewound = interrupted.states(job["rewind"], CPU) or {"failed": "damaged; delete it, and it is made again"}
        if "failed" in rewound:
            raise ValueError(f"{job['rewind']}: {rewound['failed']}")
        training.restore(rewound["rewind"], masks=False)
    return Begun(training, loader, recipe, data, about)


def go_on(begun: Begun, job: dict, run: Processes, until: int) -> None:
    """Train up to an epoch, from where an interrupted training of as many processes was, if there is one.

    Raises what `train` raises, and Alone for what goes wrong in this process of several.
    """
    training, unfinished = begun.training, Path(job["unfinished"])
    stored = interrupted.states(unfinished, CPU)
    if stored and stored["processes"] == run.count:
        training.restore(stored["training"])
        if run.rank == 0:
            log.info("going on after epoch %d of %d, where it was interrupted", training.epoch, until)

    def keep() -> None:
        if run.rank == 0:
            interrupted.keep_states(unfinished, {"training": training.state(), "processes": run.count})

    try:
        train(training, begun.loader, begun.recipe, len(begun.data.classes), job["seed"], run, until, keep)
    except Diverged:
        raise
    except ValueError as error:
        raise (Alone if run.count > 1 else ValueError)(str(error)) from error


def first_network(job: dict, classes: int) -> tuple[nn.Module, dict]:
    """Return the network before its first step, in training mode, and what its manifest says of it: `architecture`,
    `stem`, `preprocessing` and `source_sha256` (of published weights).

    From scratch it is as its library initialises it, by the seed. Of published weights the head is a new one where
    the upstream data set has another number of classes. Raises ValueError where the checkpoint could not be imported.
    """
    about = {"preprocessing": PREPROCESSING, "source_sha256": {}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job["seed"], "init").initial_seed())
        if job["start"] is None:
            about["architecture"] = f"{job['architecture']}:{classes}"
            network = build.build(about["architecture"])
        else:
            network, _, manifest = backbones.load(job["start"])
            about = {key: manifest[key] for key in ("architecture", "preprocessing", "source_sha256")}
            name = layers.head_name(network)
            if network.get_submodule(name).out_features != classes:
                about["architecture"] = f"{about['architecture'].partition(':')[0]}:{classes}"
                other = build.build(about["architecture"])
                head = other.get_submodule(name).state_dict(prefix=f"{name}.")
                backbones.load_strictly(other, network.state_dict() | head, str(job["start"]))
                network = other
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
    until: int,
    keep: Callable[[], object],
) -> None:
    """Train in place from the epoch that is done up to another one; `keep` is called after each.

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
    total, done = (epochs * loader.steps * recipe.batch_size for epochs in (until, training.epoch))
    bar = tqdm(total=total, initial=done, unit=" images", mininterval=10, disable=run.rank > 0)
    with bar, logging_redirect_tqdm():
        for epoch in range(training.epoch, until):
            start = time.monotonic()
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
            training.seconds += time.monotonic() - start
            bar.set_description(f"epoch {epoch + 1} of {until}, loss {mean:.3f}", refresh=False)
            if run.rank == 0:
                log.info("epoch %d of %d: loss %.4f", epoch + 1, until, mean)
            keep()


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
