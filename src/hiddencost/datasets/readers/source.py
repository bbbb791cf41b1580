"""Readers of datasets as they are published: what they read is an image after another, with its label."""

from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image


class Part(NamedTuple):
    """The training or the test images of a dataset; they are read when they are asked for, once."""

    count: int
    images: Iterable[tuple[Image.Image, int]]  # an image and its label


class Source(NamedTuple):
    """A dataset as its files give it; `classes` are the names in them, None where they have none."""

    classes: list[str] | None
    train: Part
    test: Part
