"""From a dataset's own files to arrays: read, checked, resized."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hiddencost.datasets import PARTS
from hiddencost.files import atomic, sha256_file, write_json

log = logging.getLogger(__name__)


def prepare(name: str, entry: dict, size: int, root: str | Path, folder: str | Path) -> None:
    """Read a dataset of the catalog, resize its images to size x size and write the arrays and dataset.json.

    root: the folder that the entry's paths are relative to. Images of another size are resized bilinearly with
    antialiasing, as torchvision's Resize does on PIL images. Raises ValueError if a file is not the catalog's, or
    a count or label is not as stated there.
    """
    folder = Path(folder)
    digests = {}
    for part in PARTS:
        images, labels = READERS[entry["reader"]](entry["files"][part], Path(root))
        _check(f"{name} {part}", labels, len(entry["classes"]), entry["counts"][part])
        arrays = {"images": resize(images, size), "labels": labels.astype(np.int64)}
        for kind, array in arrays.items():
            path = folder / f"{part}_{kind}.npy"
            with atomic(path) as temporary:
                np.save(temporary, array)
            digests[path.name] = sha256_file(path)
        log.info("%s %s: %d images of %d x %d", name, part, len(labels), size, size)
    manifest = {"dataset": name, "size": size, "classes": entry["classes"], "counts": entry["counts"]}
    write_json(folder / "dataset.json", manifest | {"sha256": digests})


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 images [N, 3, h, w] to [N, 3, size, size] (PIL, bilinear, antialiased); a copy if they fit."""
    if images.shape[2:] == (size, size):
        return np.ascontiguousarray(images)
    resized = np.empty((len(images), 3, size, size), np.uint8)
    for index, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        resized[index] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return resized


def read_cifar_binary(file: dict, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10's binary layout: records of a label byte and 3 x 32 x 32 bytes. Returns images and labels."""
    path = root / file["path"]
    if (found := sha256_file(path)) != file["sha256"]:
        raise ValueError(f"{path}: sha256 is {found}, the catalog says {file['sha256']}")
    records = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


READERS: dict[str, Callable[[dict, Path], tuple[np.ndarray, np.ndarray]]] = {"cifar_binary": read_cifar_binary}


def _check(what: str, labels: np.ndarray, classes: int, count: int) -> None:
    if len(labels) != count:
        raise ValueError(f"{what}: {len(labels)} images, the catalog says {count}")
    if (found := sorted(set(labels.tolist()))) != list(range(classes)):
        raise ValueError(f"{what}: labels are {found}, expected 0 to {classes - 1}")
