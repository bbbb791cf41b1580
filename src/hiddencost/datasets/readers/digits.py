"""scikit-learn's digits: a table of numbers."""

import zlib
from pathlib import Path

import numpy as np

from hiddencost.datasets.readers.hash_split import HashSplit, split_by_hash
from hiddencost.datasets.readers.raw import RawDataset, of_arrays
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`split_by_hash`: by which the images, called DIGIT/ROW, are parted."""

    split_by_hash: HashSplit


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read scikit-learn's digits: a row of CSV an image, 64 values from 0 to 16 and the digit.

    Raises ValueError for another table.
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
    parts = split_by_hash(names, labels.tolist(), options.split_by_hash)
    train, test = (of_arrays(grey[indices], labels[indices]) for indices in parts)
    return RawDataset(None, train, test)
