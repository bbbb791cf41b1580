"""CIFAR-10 as binary files."""

from pathlib import Path

import numpy as np

from hiddencost.datasets.readers.raw import RawDataset, RawImages, of_arrays
from hiddencost.messages import Record


class Options(Record, strict=True):
    """Nothing needs to be known of the files."""


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read CIFAR-10's binary layout: records of a label byte and the 1024 bytes of red, of green and of blue.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    train, test = (of_records(np.fromfile(files[part], np.uint8)) for part in ("train", "test"))
    return RawDataset(None, train, test)


def of_records(records: np.ndarray) -> RawImages:
    """Return the images of records, uint8 [N x 3073] in any shape."""
    records = records.reshape(-1, 1 + 3 * 32 * 32)
    return of_arrays(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
