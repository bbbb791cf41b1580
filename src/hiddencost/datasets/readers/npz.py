"""Arrays of the user's own: which files, types and shapes the reader of arrays takes.

| what | becomes |
|---|---|
| x_train, y_train, and x_test, y_test or x_val, y_val | read; other arrays are left out, and told |
| images uint8 [N, h, w, 3] or [N, 3, h, w], h and w as of an image file (`readers.image`) | read, one after another |
| labels of any integer type that int64 holds, [N] or [N, 1] | read |
| more than 2^24 images | refused: their labels are held |
| members neither stored nor deflated, encrypted ones, two of one name | refused |
| a header that states more than its member holds, or can hold | refused, before memory is taken |
| objects, records, floating point, truth values | refused: nothing is unpickled, and nothing rounded |
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from hiddencost.datasets.readers.image import check_size
from hiddencost.datasets.readers.raw import RawDataset, RawImages
from hiddencost.files import OF_THE_PATH
from hiddencost.messages import Record, one_line

METHODS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # how far each can shrink, at most
# of NumPy's file format; 3.0 differs by names of fields alone, which no array here has
HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MOST_IMAGES = 2**24
MOST_AT_ONCE = 2**32  # bytes of an array in Fortran's order, whose images do not lie one after another


class Options(Record, strict=True):
    """`path`: a file with x_train, y_train, and x_test, y_test or x_val, y_val."""

    path: str


class Stored(NamedTuple):
    """An array in a file: what its header says."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read arrays of the user's own, see the table above. Raises ValueError where they are not so."""
    path = options.path
    if not Path(path).is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: there is no such file")
    with _opened(path) as archive:
        arrays = _arrays(archive)
        part_of = {"train": "train", "test": "test" if "x_test" in arrays else "val"}
        names = {part: (f"x_{key}", f"y_{key}") for part, key in part_of.items()}
        for name in [name for pair in names.values() for name in pair]:
            if name not in arrays:
                raise ValueError(f"it holds {', '.join(arrays)[:200]} and no {name}")
        parts = {part: _images(path, archive, *pair) for part, pair in names.items()}
    others = sorted(arrays.keys() - {name for pair in names.values() for name in pair})
    remarks = {"left out, as no array that is read": others} if others else {}
    return RawDataset(None, parts["train"], parts["test"], remarks)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        if error.errno not in (None, *OF_THE_PATH):
            raise
        raise ValueError(f"{path}: cannot be read as an npz of arrays: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise nearly all there is for damaged files
        what = one_line(error)[:400] or type(error).__name__
        known = isinstance(error, ValueError)
        raise ValueError(f"{path}: {'' if known else 'cannot be read as an npz of arrays: '}{what}") from error


def _arrays(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the members of a file by the names of their arrays."""
    members: dict[str, str] = {}
    for member in archive.namelist():
        if (name := member.removesuffix(".npy")) in members:
            raise ValueError(f"it holds {name} more than once")
        members[name] = member
    return members


def _head(file: IO[bytes], name: str, info: zipfile.ZipInfo) -> Stored:
    """Read the header of a member, and hold it against what the archive says of its size."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"{name} is of version {version} of NumPy's format; expected 1.0 or 2.0")
    stored = Stored(*HEADERS[version](file))
    if any(length < 0 for length in stored.shape) or stored.dtype.hasobject:
        raise ValueError(f"{name} is {stored}; expected numbers")
    size = math.prod(stored.shape) * stored.dtype.itemsize
    if (
        file.tell() + size != info.file_size
        or info.file_size > METHODS[info.compress_type] * info.compress_size + 1000
    ):
        raise ValueError(f"{name} says it is {stored}; its {info.compress_size} bytes do not hold that")
    return stored


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], Stored]]:
    """Open an array of a file behind its header."""
    info = archive.getinfo(_arrays(archive)[name])
    if info.flag_bits & 1 or info.compress_type not in METHODS:
        raise ValueError(f"{name} is {'encrypted' if info.flag_bits & 1 else 'packed in a way NumPy has not'}")
    with archive.open(info) as file:
        yield file, _head(file, name, info)


def _images(path: str, archive: zipfile.ZipFile, x: str, y: str) -> RawImages:
    with _member(archive, x) as (_, images):
        channels = [axis for axis in (1, 3) if len(images.shape) == 4 and images.shape[axis] == 3]
        if images.dtype != np.uint8 or len(channels) != 1:
            raise ValueError(f"{x} is {images}, expected uint8 [N, h, w, 3] or [N, 3, h, w]")
        if images.shape[0] > MOST_IMAGES:
            raise ValueError(f"{x} has {images.shape[0]} images; expected at most {MOST_IMAGES}")
    height, width = (length for axis, length in enumerate(images.shape) if axis not in (0, channels[0]))
    check_size(width, height)
    with _member(archive, y) as (file, labels):
        count = images.shape[0]
        if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
            raise ValueError(f"{y} is {labels}, expected integers [{count}]")
        values = np.frombuffer(_exactly(file, None), labels.dtype)
        if count and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{y} has the label {values.max()}; expected all from 0 on")
    return RawImages(count, zip(_in_order(path, x, channels[0]), map(int, values), strict=True))


def _in_order(path: str, name: str, channels: int) -> Iterator[Image.Image]:
    """Yield the images of an array, one in memory at a time where they lie one after another."""
    with _opened(path) as archive, _member(archive, name) as (file, stored):
        count, *shape = stored.shape
        if stored.fortran:
            if math.prod(stored.shape) > MOST_AT_ONCE:
                raise ValueError(f"{name} is in Fortran's order; expected it in C's (numpy.ascontiguousarray)")
            array = np.frombuffer(_exactly(file, None), np.uint8).reshape(stored.shape, order="F")
            images: Iterator[np.ndarray] = iter(array)
        else:
            size = math.prod(shape)
            images = (np.frombuffer(_exactly(file, size), np.uint8).reshape(shape) for _ in range(count))
        for image in images:
            yield Image.fromarray(np.ascontiguousarray(np.moveaxis(image, channels - 1, 2)))
        if file.read(1):  # reads to the end, where the checksum is
            raise ValueError(f"{name} goes on behind its images")


def _exactly(file: IO[bytes], size: int | None) -> bytes:
    data = file.read() if size is None else file.read(size)
    if size is not None and len(data) != size:
        raise ValueError("it is cut off")
    return data
