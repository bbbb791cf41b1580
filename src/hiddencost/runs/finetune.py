"""Full fine-tuning: a new head, and every weight of the network trained but those that were pruned."""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision.transforms.functional import center_crop
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.datasets import prepared
from hiddencost.methods.registry import METHODS
from hiddencost.networks import backbones, inference, layers
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.precision import resolve_precision
from hiddencost.prompting.schedule import epoch_batches, not_finite, stream
from hiddencost.runs.pack import Runs, TrainedRun, complete, timing
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import RunFineTuning, finetuning_size

log = logging.getLogger(__name__)


@dataclass
class FineTuned:
    """How the training of a run went."""

    losses: list[float] = field(default_factory=list)  # one a step
    images: int = 0  # trained on, epoch by epoch
    diverged: str | None = None  # where the loss ceased to be finite


def with_new_head(network: nn.Module, classes: int, seed: int) -> nn.Module:
    """Return a trainable copy of a network with a new classifier over `classes`, as PyTorch initialises it."""
    network = copy.deepcopy(network).requires_grad_()
    old = layers.head_of(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "head").initial_seed())
        head = nn.Linear(old.in_features, classes)
    network.set_submodule(layers.head_name(network), head.to(old.weight))
    return network


def augment(images: Tensor, canvas: int, generator: torch.Generator) -> Tensor:
    """Crop each image [N, 3, s, s] to the canvas at a place of its own, and mirror half of them left to right.

    The generator is the CPU's: what is drawn does not depend on the device. Returns [N, 3, canvas, canvas].
    """
    count, _, size, _ = images.shape
    corners = torch.randint(size - canvas + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    rows, columns = corners + torch.arange(canvas)
    columns = torch.where(mirrored, columns.flip(1), columns)
    places = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    some, rows, columns = (place.to(images.device) for place in places)
    return images.permute(0, 2, 3, 1)[some, rows, columns].permute(0, 3, 1, 2)


def fine_tune(
    network: nn.Module,
    masks: dict[str, Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    chosen: Sequence[int],
    seed: int,
    recipe: RunFineTuning,
    mean: Tensor,
    std: Tensor,
    progress: Callable[[int], object] = lambda images: None,
) -> FineTuned:
    """Fine-tune a network in place by cross-entropy, the fine-tuning of arXiv 2308.14969's code.

    As there, and in ILM-VP's code: Adam on all weights, with weight decay; a cosine by epochs; random crops, mirrored
    by chance; and a network in training mode, so that batch norm takes the batch's statistics and adapts its own, and
    dropout acts. As there: after each backward pass and step, masked gradients and weights are set to zero. As in
    ILM-VP's: the images, of `finetuning_size`, are square. Ours: a last batch of one image joins the one before; and
    bf16 is autocast, with weights in float32.

    Args:
        network: with its new head, see `with_new_head`.
        masks: bool by the parameters' names, True where kept; the others are zero.
        images, labels: uint8 [M, 3, s, s] and int64 [M].
        chosen: the indices of the run's images.
        seed: of the random streams: order of the batches, augmentation, dropout.
        recipe: of the training.
        mean, std: [3, 1, 1] of the input in [0, 1], on the network's device and of its dtype.
        progress: is given the number of images of each step.

    Returns:
        How it went; a run whose loss is not finite ends with its epoch (`diverged`).

    Raises:
        RuntimeError: if a pruned weight is not zero at the end.
    """
    device, indices, course = mean.device, np.asarray(chosen), FineTuned()
    pruned = {key: ~mask.to(device) for key, mask in masks.items()}
    adam = _adam(network, recipe, device)
    schedule = CosineAnnealingLR(adam, recipe.epochs)
    shuffle, augmentation = stream(seed, "batches"), stream(seed, "augmentation")
    step = _stepper(network, pruned, adam, recipe, augmentation, mean, std)
    network.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream(seed, "dropout").initial_seed())
        for epoch in range(1, recipe.epochs + 1):
            losses = []
            for batch in _without_single(list(epoch_batches(len(indices), recipe, shuffle))):
                some = indices[batch.numpy()]
                losses.append(step(images[some], labels[some]))
                course.images += len(batch)
                progress(len(batch))
            schedule.step()
            course.losses += torch.stack(losses).tolist()
            log.debug("an epoch", extra={"ended": [("ft", len(indices), epoch, course.losses[-len(losses) :], ())]})
            course.diverged = not_finite(course.losses, len(course.losses) - len(losses), epoch)
            if course.diverged:
                break
    _check_pruned(dict(network.named_parameters()), pruned)
    return course


def _adam(network: nn.Module, recipe: RunFineTuning, device: torch.device) -> Adam:
    fused = device.type == "cuda"  # one kernel a step instead of a dozen
    return Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)


def _stepper(
    network: nn.Module,
    pruned: dict[str, Tensor],
    adam: Adam,
    recipe: RunFineTuning,
    augmentation: torch.Generator,
    mean: Tensor,
    std: Tensor,
) -> Callable[[np.ndarray, np.ndarray], Tensor]:
    """Return what makes a step on some images and labels, and returns the loss; `pruned` weights stay zero."""
    parameters, device = dict(network.named_parameters()), mean.device
    precision = resolve_precision(recipe.precision, device)

    def step(images: np.ndarray, labels: np.ndarray) -> Tensor:
        inputs = augment(torch.from_numpy(images).to(device), recipe.canvas, augmentation)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(_normalised(inputs, mean, std))
        loss = functional.cross_entropy(logits.to(mean.dtype), torch.from_numpy(labels).to(device))
        adam.zero_grad()
        loss.backward()
        for key, where in pruned.items():
            gradient = parameters[key].grad
            assert gradient is not None
            gradient.masked_fill_(where, 0)  # not a product: it would keep a NaN
        adam.step()
        for key, where in pruned.items():
            parameters[key].detach().masked_fill_(where, 0)
        return loss.detach()

    return step


def _check_pruned(parameters: dict[str, nn.Parameter], pruned: dict[str, Tensor]) -> None:
    for key, where in pruned.items():
        if grown := int((parameters[key][where] != 0).sum()):
            raise RuntimeError(f"{key}: {grown} of {int(where.sum())} pruned weights are not zero after fine-tuning")


@torch.inference_mode()
def logits_of(network: nn.Module, images: np.ndarray, canvas: int, mean: Tensor, std: Tensor) -> Tensor:
    """Return the logits, [N, classes], of the centre crops of uint8 images [N, 3, s, s], in evaluation mode.

    The paper's code augments test images as well; a result should not depend on the luck of a crop.
    """
    network.eval()
    size = inference.FORWARD_BATCH[mean.device.type]
    batches = (torch.tensor(images[start : start + size]) for start in range(0, len(images), size))
    return torch.cat([network(_normalised(center_crop(b.to(mean.device), canvas), mean, std)) for b in batches])


def _without_single(batches: list[Tensor]) -> list[Tensor]:
    """Join a last batch of one image to the one before: batch norm has no statistics of one."""
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((images.to(mean.dtype) / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def finetune_pack(inputs: PackInputs, request: PackRequest, output: str | Path, device: torch.device) -> None:
    """Make the pack of the runs of ft, one trained after another; see `pack.complete`.

    The ledger keeps their test logits: a network a run, 100 MB of a ResNet-50, would fill the disk. Pruned weights
    stay zero, but weights that were quantised do not stay so.

    Args:
        inputs: the pack's files; the dataset is prepared at `finetuning_size`.
        request: what the table must hold; its recipe is a RunFineTuning.
        output: the table.
        device: to train on.
    """
    recipe = RunFineTuning.model_validate(request.recipe)
    precision = resolve_precision(recipe.precision, device)
    job = FineTuningJob(inputs, request.seed, recipe, precision, device)
    masks = Manifest.read(inputs.backbone).masks_sha256
    complete(inputs, request, output, job, precision=precision, masks=masks)


@dataclass(frozen=True)
class FineTuningJob:
    """Fine-tunes a network anew for each run."""

    inputs: PackInputs
    seed: int
    recipe: RunFineTuning
    precision: str
    device: torch.device

    def train(self, dataset: prepared.Dataset, runs: Runs) -> Iterator[TrainedRun]:
        """Raises ValueError if the dataset is prepared at another size."""
        expected = finetuning_size(self.recipe.canvas)
        if (size := dataset.train_images.shape[-1]) != expected:
            raise ValueError(
                f"{self.inputs.dataset}: images of {size} pixels; expected {expected}, for a canvas of "
                f"{self.recipe.canvas}"
            )
        # float32 is meant: cuDNN would take TF32
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch's types lack it
        torch.backends.cudnn.deterministic = True
        source, masks, manifest = backbones.load(self.inputs.backbone)
        head = layers.head_name(source)
        masks = {key: mask for key, mask in masks.items() if not key.startswith(f"{head}.")}  # it is replaced
        mean, std = backbones.normalisation(manifest.preprocessing, self.device)
        total = self.recipe.epochs * sum(len(chosen) for _, chosen, _ in runs.values())
        described = tqdm(total=total, desc=f"0 of {len(runs)} runs done", unit=" images", mininterval=10)
        with described as bar, logging_redirect_tqdm():
            for done, (run, (method, chosen, _)) in enumerate(runs.items(), 1):
                start = time.perf_counter()
                network = with_new_head(source, len(dataset.classes), self.seed)
                # torch's types lack this form of `to`
                network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                images = dataset.train_images, dataset.train_labels, chosen
                inputs = network, masks, *images, self.seed, self.recipe, mean, std
                course = METHODS[method].load_function()(*inputs, bar.update)
                how = timing(time.perf_counter() - start, course.images, self.device, self.precision)
                bar.set_description(f"{done} of {len(runs)} runs done", refresh=False)
                if course.diverged:
                    yield TrainedRun(run, {}, how, None, course.diverged)
                else:
                    logits = logits_of(network, dataset.test_images, self.recipe.canvas, mean, std).cpu()
                    yield TrainedRun(run, {"logits": logits}, how, logits)

    def predict(
        self, dataset: prepared.Dataset, runs: Runs, learned: Iterable[tuple[str, dict[str, Tensor]]]
    ) -> Iterator[tuple[str, Tensor]]:
        return ((run, kept["logits"]) for run, kept in learned)
