"""A dataset as its files give it: an image after another, with its label."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class RawImages:
    """The training or the test images of a dataset; they are read as they are taken, once."""

    count: int
    images: Iterable[tuple[Image.Image, int]]  # an image and its label


class RawDataset(NamedTuple):
    """A dataset as its files give it.

    Attributes:
        classes: the names in them, None where they have none.
        train: the training images.
        test: the test images.
        remarks: what a user should know of what was read; whole when all images are.
    """

    classes: list[str] | None
    train: RawImages
    test: RawImages
    remarks: Mapping[str, list[str]] = MappingProxyType({})


def of_arrays(images: np.ndarray, labels: np.ndarray) -> RawImages:
    """Return images, uint8 [N, h, w, 3], with their labels, int [N]."""
    return RawImages(len(images), zip(map(Image.fromarray, images), labels.tolist(), strict=True))


class Numbered(Protocol):
    """Images with their labels, by number, as torchvision's data sets are."""

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


def subset(images: Numbered, indices: Sequence[int]) -> RawImages:
    """Return the images that have the given numbers."""
    return RawImages(len(indices), (images[index] for index in indices))


class ImageFiles:
    """Images of the user's own, read as they are taken.

    Attributes:
        samples: the path and the label of each.
        opened: reads an image, see `readers.image`.
    """

    def __init__(self, samples: list[tuple[str, int]], opened: Callable[[str], Image.Image]):
        self.samples, self.opened = samples, opened

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return self.opened(path), label
