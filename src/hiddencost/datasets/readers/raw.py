"""A dataset as its files give it: an image after another, with its label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class RawImages:
    """The training or the test images of a dataset; they are read as they are taken, once."""

    count: int
    images: Iterable[tuple[Image.Image, int]]  # an image and its label


class RawDataset(NamedTuple):
    """A dataset as its files give it; `classes` are the names in them, None where they have none."""

    classes: list[str] | None
    train: RawImages
    test: RawImages


def of_arrays(images: np.ndarray, labels: np.ndarray) -> RawImages:
    """Return images, uint8 [N, h, w, 3], with their labels, int [N]."""
    return RawImages(len(images), zip(map(Image.fromarray, images), labels.tolist(), strict=True))


def subset(images: Sequence[tuple[Image.Image, int]], indices: Sequence[int]) -> RawImages:
    """Return the images of a torchvision dataset that have the given indices."""
    return RawImages(len(indices), (images[index] for index in indices))


def open_image(path: str | Path) -> Image.Image:
    """Open an image as RGB. Raises ValueError, naming the file, where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
