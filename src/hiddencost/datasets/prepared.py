"""Prepared target tasks: uint8 images [N, 3, s, s] and int64 labels [N], memory-mapped."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiddencost.files import canonical, read_json, sha256_text

PARTS = ("train", "test")
ARRAYS = [f"{part}_{kind}.npy" for part in PARTS for kind in ("images", "labels")]


class Dataset(NamedTuple):
    """A prepared dataset; the images are memory-mapped uint8 [N, 3, s, s], the labels int64 [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]
    digest: str  # SHA-256 over the arrays' own


def load(folder: str | Path) -> Dataset:
    """Open a prepared dataset. Raises ValueError, with the reason, for one that could not be prepared."""
    folder = Path(folder)
    manifest = read_json(folder / "dataset.json")
    if manifest["failed"]:
        raise ValueError(manifest["failed"])
    arrays = {name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r") for name in ARRAYS}
    return Dataset(classes=manifest["classes"], digest=digest(manifest), **arrays)


def digest(manifest: dict) -> str:
    """Return the SHA-256 over those of a dataset's arrays, which its dataset.json tells."""
    return sha256_text(canonical(manifest["sha256"]))
