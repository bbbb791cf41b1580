"""Datasets that are image files, and splits of them: CoOp's, folders of the user's own, and splits of our own."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hiddencost.datasets.readers.archives import unpack
from hiddencost.datasets.readers.source import Part, Source


def open_image(path: str | Path) -> Image.Image:
    """Open an image as RGB. Raises ValueError, naming the file, where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error


def own_split(
    names: Sequence[str], labels: Sequence[int], test_share: float | None = None, train_per_class: int | None = None
) -> tuple[list[int], list[int]]:
    """Split images class by class, by the SHA-256 of their names: the same on every machine and in every version.

    names: CLASS/FILE of each image. In the order of the hashes, the first round(test_share x images) of a class, at
    least one, are test images and the others training images; or its first `train_per_class` are training images and
    the others test images. Returns the indices of the training and of the test images, ascending. Raises ValueError
    for a class that would have no training or no test image.
    """
    labels = np.asarray(labels)
    train, test = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).tolist()
        order = sorted(members, key=lambda index: hashlib.sha256(names[index].encode()).digest())
        first = train_per_class or max(1, round(test_share * len(order)))
        if first >= len(order):
            raise ValueError(f"{names[order[0]]}: its class has {len(order)} images, too few for the split")
        drawn, others = (train, test) if train_per_class else (test, train)
        drawn += order[:first]
        others += order[first:]
    return sorted(train), sorted(test)


def read_folder(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read a folder of the user's own: train/CLASS/* and test/CLASS/*, or CLASS/* split by entry["test_share"].

    The classes are the folders in alphabetical order. Raises ValueError where train and test differ in them, and
    for an image that cannot be read.
    """
    from torchvision.datasets import ImageFolder  # slow to import

    folder = Path(entry["path"])
    try:
        if entry["test_share"] is not None:
            images = ImageFolder(folder, loader=open_image)
            names = [Path(path).relative_to(folder).as_posix() for path, _ in images.samples]
            train, test = own_split(names, images.targets, test_share=entry["test_share"])
            return Source(images.classes, subset(images, train), subset(images, test))
        train, test = (ImageFolder(folder / name, loader=open_image) for name in ("train", "test"))
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if odd := set(train.classes) ^ set(test.classes):
        raise ValueError(f"{folder}: train/ and test/ have different classes: {', '.join(sorted(odd))}")
    return Source(train.classes, subset(train, range(len(train))), subset(test, range(len(test))))


def read_coop(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read the images of an archive by a split file of CoOp, whose training images it has split off from its
    validation images (not used).

    The split file is JSON, {"train": [[path, label, class name], ...], "val": [...], "test": [...]}, with paths
    relative to the folder entry["image_folder"] of the archive. Source: github.com/KaiyangZhou/CoOp, DATASETS.md.
    """
    unpack(files["images"], scratch)
    folder = scratch / entry["image_folder"]
    try:
        split = json.loads(files["split"].read_text())
        parts = {name: [(str(path), int(label)) for path, label, _ in split[name]] for name in ("train", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{files['split']}: it is no split file of CoOp: {error!r}") from error
    return Source(None, **{name: _of_paths(folder, samples) for name, samples in parts.items()})


def subset(images: Sequence[tuple[Image.Image, int]], chosen: Sequence[int]) -> Part:
    """Take the images of a torchvision dataset that have the given indices."""
    return Part(len(chosen), (images[index] for index in chosen))


def _of_paths(folder: Path, samples: list[tuple[str, int]]) -> Part:
    for path, _ in samples:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} lies outside of the data set's images")

    def read() -> Iterable[tuple[Image.Image, int]]:
        for path, label in samples:
            yield open_image(folder / path), label

    return Part(len(samples), read())
