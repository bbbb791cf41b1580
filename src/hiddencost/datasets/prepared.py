"""Prepared target tasks: uint8 images [N, 3, s, s] and int64 labels [N], memory-mapped."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from hiddencost import contents
from hiddencost.catalog.entries import Counts
from hiddencost.files import canonical, read_json, sha256_text, write_json
from hiddencost.messages import Record, validate

PARTS = ("train", "test")
ARRAYS = [f"{part}_{kind}.npy" for part in PARTS for kind in ("images", "labels")]


class PreparedReport(Record):
    """dataset.json: what a prepared dataset is.

    Attributes:
        dataset: its name.
        size: of its images, see `prepare.sized`.
        failed: why it could not be prepared: its arrays are empty then, and there are no classes.
        classes: their names.
        counts: of its images.
        sha256: of its arrays, by the names of their files.
        remarks: what a user should know of what was read, a line each: what was left out, and why; what was done to
            images.
    """

    dataset: str
    size: str
    failed: str | None
    classes: list[str]
    counts: Counts
    sha256: dict[str, str]
    remarks: list[str] = Field([])

    @classmethod
    def read(cls, folder: str | Path) -> "PreparedReport":
        """Read it from a prepared dataset's folder. Raises ValueError, with the file and the key, if it is none."""
        path = Path(folder) / "dataset.json"
        return validate(cls, read_json(path), str(path))

    def write(self, folder: str | Path) -> None:
        """Write it into a prepared dataset's folder, atomically, where the arrays have just been written."""
        write_json(Path(folder) / "dataset.json", self.model_dump())
        contents.keep(folder, self.sha256)

    @property
    def digest(self) -> str:
        """The SHA-256 over those of the arrays."""
        return sha256_text(canonical(self.sha256))


class Dataset(NamedTuple):
    """A prepared dataset; the images are memory-mapped uint8 [N, 3, s, s], the labels int64 [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]
    digest: str  # SHA-256 over the arrays' own


def load(folder: str | Path) -> Dataset:
    """Open a prepared dataset.

    Raises:
        ValueError: with the reason, for one that could not be prepared.
        OSError: an array is not as it was prepared. It fails the job; the next call prepares the dataset again.
    """
    report = PreparedReport.read(folder)
    if report.failed:
        raise ValueError(report.failed)
    contents.refuse_unlike(folder, report.sha256, "prepared")
    arrays = {name.removesuffix(".npy"): np.load(Path(folder, name), mmap_mode="r") for name in ARRAYS}
    return Dataset(classes=report.classes, digest=report.digest, **arrays)
