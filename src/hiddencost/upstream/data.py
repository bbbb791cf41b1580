"""The images that a network is trained on upstream: prepared arrays, or a folder as large as ImageNet's."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.loader import PrefetchLoader, fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from torchvision import transforms

from hiddencost.catalog.entries import Preprocessing
from hiddencost.datasets import prepared
from hiddencost.datasets.readers.image import open_published
from hiddencost.datasets.readers.raw import ImageFiles
from hiddencost.datasets.tree import lines, read_tree
from hiddencost.prompting.schedule import stream
from hiddencost.study.upstream import folder_of_tests
from hiddencost.study.upstream_recipe import UpstreamRecipe

log = logging.getLogger(__name__)

# of networks from scratch
PREPROCESSING = Preprocessing(
    mean=list(IMAGENET_DEFAULT_MEAN), std=list(IMAGENET_DEFAULT_STD), interpolation="bilinear"
)


class Images(Protocol):
    """PIL images and labels, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


class Arrays:
    """Prepared arrays as PIL images and labels."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Keep the arrays.

        Args:
            images: uint8 [N, 3, s, s].
            labels: int64 [N].
        """
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.ascontiguousarray(self.images[index].transpose(1, 2, 0))), int(self.labels[index])


class Upstream(NamedTuple):
    """An upstream data set.

    Attributes:
        train: PIL images and labels.
        test: the same, of the test images.
        classes: their names.
        digest: the SHA-256 over its prepared arrays'; None of a folder.
    """

    train: Images
    test: Images
    classes: list[str]
    digest: str | None


def load(source: dict) -> Upstream:
    """Open an upstream data set.

    Args:
        source: {"arrays": folder of a prepared dataset} or {"folder": path}, which has train/CLASS/* and val/CLASS/*
            (or validation/, or test/), as ImageNet-1k has.

    Raises:
        ValueError: where it has failed, or is not so.
    """
    if "arrays" in source:
        dataset = prepared.load(source["arrays"])
        train, test = (
            Arrays(dataset.train_images, dataset.train_labels),
            Arrays(dataset.test_images, dataset.test_labels),
        )
        return Upstream(train, test, dataset.classes, dataset.digest)
    folder = Path(source["folder"])
    parts = ("train", folder_of_tests(folder).name)
    tree = read_tree(folder, parts)
    for line in lines(tree.remarks):
        log.info("%s: %s", folder, line)
    # as torchvision and timm read them, without EXIF: some photos of ImageNet have it, and published top-1 ignores it
    images = [ImageFiles(tree.samples(part), open_published) for part in parts]
    return Upstream(images[0], images[1], tree.classes, None)


class Augmented(Dataset):
    """Training images, each augmented by a random stream of its own: a function of seed, epoch and index alone, so
    that neither the number of worker processes nor of GPUs, nor an interruption, changes an image."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], Any], seed: int):
        self.images, self.transform, self.seed, self.epoch = images, transform, seed, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images[index]
        # the transforms of timm and torchvision draw from these three; in this process others draw from them, too
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        seed = int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed does CUDA's too, and slowly
        try:
            return self.transform(image), label
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


class Tested(Dataset):
    """Test images, without augmentation."""

    def __init__(self, images: Images, indices: Sequence[int], transform: Callable):
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images[self.indices[index]]
        return self.transform(image), label


def train_transform(recipe: UpstreamRecipe, size: int, preprocessing: Preprocessing) -> Callable[[Image.Image], Any]:
    """Return timm's training transform of a recipe.

    Args:
        recipe: of the training.
        size: side of the images that the network sees, in pixels.
        preprocessing: of its manifest: mean, std and interpolation.

    Returns:
        From a PIL image to uint8 [3, size, size].

    Raises:
        ValueError: for an `auto_augment` that timm does not know.
    """
    augmentation: dict[str, Any] = {
        "scale": tuple(recipe.scale),
        "hflip": 0.5 * recipe.mirror,
        "color_jitter": recipe.colour_jitter or None,
        "auto_augment": recipe.auto_augment,
        "interpolation": preprocessing.interpolation,
        "mean": tuple(preprocessing.mean),
    }
    try:
        crop, *rest = create_transform(size, is_training=True, use_prefetcher=True, separate=True, **augmentation)
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"auto_augment {recipe.auto_augment!r}: timm does not know it: {error}") from error
    if recipe.crop == "padded":  # what the CIFAR networks of the sparsity papers have, and timm has not
        mirror = [transforms.RandomHorizontalFlip()] if recipe.mirror else []
        resize = [transforms.Resize(size), transforms.CenterCrop(size)]
        crop = transforms.Compose([*resize, transforms.RandomCrop(size, padding=size // 8), *mirror])
    return transforms.Compose([crop, *rest])


def eval_transform(recipe: UpstreamRecipe, size: int, preprocessing: Preprocessing) -> Callable[[Image.Image], Any]:
    """Return timm's test transform of a recipe, from a PIL image to uint8 [3, size, size]; arguments as of
    `train_transform`."""
    return create_transform(
        size,
        is_training=False,
        use_prefetcher=True,
        crop_pct=recipe.test_crop,
        interpolation=preprocessing.interpolation,
    )


class TrainLoader:
    """The training batches of an epoch: images float32 [B, 3, size, size], normalised, and labels int64 [B], on the
    device. The order is a function of seed and epoch, and of each process its own part where there are several."""

    def __init__(
        self,
        images: Images,
        recipe: UpstreamRecipe,
        size: int,
        preprocessing: Preprocessing,
        seed: int,
        device: torch.device,
        workers: int,
        rank: int = 0,
        processes: int = 1,
    ):
        """Open the loader.

        Args:
            images: all training images.
            recipe: of the training.
            size: side of the images that the network sees, in pixels.
            preprocessing: of its manifest: mean, std and interpolation.
            seed: of the order and of augmentation.
            device: that the batches are on.
            workers: processes that read and augment; 0: none but this one.
            rank: which this process is of those that share each batch.
            processes: how many share it.

        Raises:
            ValueError: for a batch size that does not divide among the processes (evenly, with mixup, which pairs
                images), or that the images do not fill.
        """
        share, rest = divmod(recipe.batch_size, processes)
        if rest or ((recipe.mixup or recipe.cutmix) and share % 2):
            raise ValueError(
                f"batch_size is {recipe.batch_size}; expected one that {processes} GPUs can share evenly"
            )
        if len(images) < recipe.batch_size:
            raise ValueError(f"batch_size is {recipe.batch_size}; expected at most the {len(images)} training images")
        self.data = Augmented(images, train_transform(recipe, size, preprocessing), seed)
        # it adds the epoch to its seed: neighbouring seeds would give neighbouring orders
        order = stream(seed, "order").initial_seed() % 2**31
        self.sampler: DistributedSampler[Any] = DistributedSampler(
            self.data, processes, rank, shuffle=True, seed=order, drop_last=True
        )
        loader = DataLoader(
            self.data,
            share,
            sampler=self.sampler,
            num_workers=workers,
            collate_fn=fast_collate,
            pin_memory=device.type == "cuda",
            drop_last=True,
            generator=stream(seed, "workers"),  # else it would draw from the stream of the training
        )
        mean, std, erased = tuple(preprocessing.mean), tuple(preprocessing.std), recipe.random_erase
        self.loader = PrefetchLoader(loader, mean, std, device=device, re_prob=erased, re_mode="pixel")
        self.steps = len(loader)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's batches, `steps` of them; epochs count from 0."""
        self.data.epoch = number  # before the workers start, which they do each epoch
        self.sampler.set_epoch(number)
        yield from self.loader


def in_order(
    images: Dataset, size: int, preprocessing: Preprocessing, device: torch.device, workers: int
) -> PrefetchLoader:
    """Return a loader of images in their order, in batches as `TrainLoader` gives them.

    Args:
        images: each uint8 [3, s, s], with its label.
        size: of a batch.
        preprocessing: of the network's manifest: mean and std.
        device: that the batches are on.
        workers: processes that read images.
    """
    loader = DataLoader(images, size, num_workers=workers, collate_fn=fast_collate, pin_memory=device.type == "cuda")
    return PrefetchLoader(loader, mean=tuple(preprocessing.mean), std=tuple(preprocessing.std), device=device)
