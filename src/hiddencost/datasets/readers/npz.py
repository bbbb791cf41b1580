"""Arrays of the user's own."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from hiddencost.datasets.readers.raw import RawDataset, RawImages, of_arrays
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`path`: a file with x_train, y_train, and x_test, y_test or x_val, y_val."""

    path: str


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read arrays of the user's own.

    Images are uint8 [N, h, w, 3] or [N, 3, h, w], labels are integers, [N] or [N, 1]. Raises ValueError where they
    are not.
    """
    path = options.path
    try:
        stored = dict(np.load(path, allow_pickle=False))
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as an npz of arrays: {error}") from error
    keys = {"train": "train", "test": "test" if "x_test" in stored else "val"}
    return RawDataset(None, **{part: _images(path, stored, f"x_{key}", f"y_{key}") for part, key in keys.items()})


def _images(path: str, stored: dict[str, np.ndarray], x: str, y: str) -> RawImages:
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
    return of_arrays(np.moveaxis(images, channels[0], 3), labels.reshape(-1))
