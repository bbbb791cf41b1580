"""Datasets by the split files of CoOp."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from hiddencost.datasets.readers.archives import unpack
from hiddencost.datasets.readers.raw import RawDataset, RawImages, open_image
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`image_folder`: the folder of the archive that the paths of the split file start from."""

    image_folder: str


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read the images of an archive by a split file of CoOp, whose training images it has split off from its
    validation images (not used).

    The split file is JSON, {"train": [[path, label, class name], ...], "val": [...], "test": [...]}. Source:
    github.com/KaiyangZhou/CoOp, DATASETS.md. Raises ValueError for another file, and for a path that leads out of the
    images.
    """
    unpack(files["images"], scratch)
    folder = scratch / options.image_folder
    try:
        split = json.loads(files["split"].read_text())
        parts = {name: [(str(path), int(label)) for path, label, _ in split[name]] for name in ("train", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{files['split']}: it is no split file of CoOp: {error!r}") from error
    return RawDataset(None, **{name: _of_paths(folder, samples) for name, samples in parts.items()})


def _of_paths(folder: Path, samples: list[tuple[str, int]]) -> RawImages:
    for path, _ in samples:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} lies outside of the data set's images")

    def samples_in_order() -> Iterable[tuple[Image.Image, int]]:
        for path, label in samples:
            yield open_image(folder / path), label

    return RawImages(len(samples), samples_in_order())
