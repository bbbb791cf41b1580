"""From a dataset's own files to arrays: read, checked, resized."""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tqdm import tqdm

from hiddencost.catalog.entries import Counts, DatasetEntry, DatasetLayout
from hiddencost.datasets.prepared import ARRAYS, PARTS, PreparedReport
from hiddencost.datasets.readers.raw import RawImages
from hiddencost.datasets.readers.registry import READERS
from hiddencost.files import atomic, canonical, fetched_files, sha256_file, sha256_text

log = logging.getLogger(__name__)


def prepare(
    name: str, layout: DatasetLayout, fetched: str | Path | None, size: int | str, folder: str | Path
) -> None:
    """Read a dataset, resize its images to squares and write the arrays (`prepared.ARRAYS`) and dataset.json.

    layout: of its entry in the catalog, or of `user_entry`. fetched: the report of its download, None for the user's
    own. size: see `pixels`. Counts, class names, labels and native size are held against the layout; what it leaves
    open (None) is taken from the data.

    A dataset whose download has failed, or whose files are not as the layout says, is written with its reason, as
    "failed" in dataset.json, and empty arrays: `prepared.load` then raises ValueError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    side, _, _ = sized(size)
    failed: str | None = None
    try:
        # beside the arrays: the folder for temporary files may be too small for an unpacked archive
        with TemporaryDirectory(dir=folder, prefix=".tmp-") as scratch:
            files = fetched_files(fetched) if fetched else {}
            raw = READERS[layout.reader](name, layout.options, files, Path(scratch))
            classes = _classes(name, raw.classes, layout.classes)
            labels = {part: _write_images(name, part, getattr(raw, part), size, layout, folder) for part in PARTS}
        # where neither the entry nor the data names the classes, the labels tell how many there are
        classes = classes or [str(label) for label in range(labels["train"].max() + 1)]
        for part in PARTS:
            _check_labels(f"{name} {part}", labels[part], len(classes))
            _save(labels[part], folder / f"{part}_labels.npy")
        counts = Counts(**{part: len(labels[part]) for part in PARTS})
    except ValueError as error:
        log.error("%s cannot be prepared: %s", name, error)
        for part in PARTS:
            _save(np.empty((0, 3, side, side), np.uint8), folder / f"{part}_images.npy")
            _save(np.empty(0, np.int64), folder / f"{part}_labels.npy")
        failed, classes, counts = str(error), [], Counts(**dict.fromkeys(PARTS, 0))
    sha256 = {array: sha256_file(folder / array) for array in ARRAYS}
    report = PreparedReport(
        dataset=name, size=str(size), failed=failed, classes=classes, counts=counts, sha256=sha256
    )
    report.write(folder)


def sized(size: int | str) -> tuple[int, str, str]:
    """Return what a size says: the side in pixels, how images come to it (squash or shortest), and by which
    interpolation (bilinear or bicubic). See `pixels`."""
    if "-" not in str(size):
        return int(size), "squash", "bilinear"
    side, resize, interpolation = str(size).split("-")
    return int(side), resize, interpolation


def pixels(image: Image.Image, size: int | str) -> np.ndarray:
    """Return an image as uint8 [3, S, S], RGB.

    size: S, as the published code for convolutional networks resizes an image as a whole to a square, bilinearly
    with antialiasing (Resize((S, S)) of torchvision on PIL images); or "S-RESIZE-INTERPOLATION", as a CLIP was
    trained: RESIZE is squash (the same) or shortest (the shorter side to S, then the central square), INTERPOLATION
    bilinear or bicubic (torchvision's Resize(S) and CenterCrop(S), as in open_clip's transform.py).
    """
    (side, resize, interpolation), image = sized(size), image.convert("RGB")
    if image.size != (side, side):
        width, height = image.size
        short = min(width, height)
        scaled = [side * one // short if resize == "shortest" else side for one in (width, height)]
        image = image.resize(scaled, Image.Resampling[interpolation.upper()])
        left, top = (round((one - side) / 2) for one in scaled)
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image).transpose(2, 0, 1)


def user_entry(
    name: str, folder: str | None = None, npz: str | None = None, test_share: float | None = None
) -> DatasetEntry:
    """Return an entry, as of the catalog, for a dataset of the user's own.

    folder: train/CLASS/* and test/CLASS/*, or CLASS/* of which `test_share` is for testing (`readers.folder`); npz:
    see `readers.npz`. `files_digest` changes with the names, sizes and time stamps of the files. Raises ValueError
    where there is no such folder or file, and where a folder has a test set and a test_share too, or neither.
    """
    own = folder or npz
    assert own is not None, "a dataset of the user's own has a folder or an npz"
    path = Path(own).expanduser()
    if not (path.is_dir() if folder else path.is_file()):
        raise ValueError(f"dataset {name}: there is no {'folder' if folder else 'file'} {path}")
    parted = bool(folder) and all((path / part).is_dir() for part in PARTS)
    if folder and parted == (test_share is not None):
        has, expected = ("has", "no test_share") if parted else ("has not", "a test_share")
        raise ValueError(f"dataset {name}: {path} {has} the folders train and test; expected {expected}")
    files = [Path(top, file) for top, _, found in os.walk(path, followlinks=True) for file in found]
    files = files if folder else [path]
    stats = sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists())
    return DatasetEntry(
        title=f"{name}, the user's own: {path}",
        reader="folder" if folder else "npz",
        options={"path": str(path)} | ({"test_share": test_share} if folder else {}),
        files_digest=sha256_text(canonical(stats)),
        files={},
        classes=None,
        counts=None,
        native_size=None,
        image_size=None,
        split=f"{test_share:.0%} of each class for testing, by SHA-256" if test_share else "the user's own",
        licence="the user's own",
        citation=None,
    )


def _classes(name: str, found: list[str] | None, stated: list[str] | None) -> list[str] | None:
    if found and stated and found != stated:
        odd = sorted(set(found) ^ set(stated))
        what = f"in one alone: {', '.join(odd)}" if odd else "in another order"
        raise ValueError(f"{name}: {len(found)} classes, the catalog says {len(stated)}; {what}")
    return stated or found


def _write_images(
    name: str, part: str, images: RawImages, size: int | str, layout: DatasetLayout, folder: Path
) -> np.ndarray:
    """Write the images of a part, and return their labels."""
    expected = getattr(layout.counts, part) if layout.counts else images.count
    if images.count != expected or not expected:
        raise ValueError(f"{name} {part}: {images.count} images, expected {expected or 'some'}")
    native, (side, _, _) = layout.native_size, sized(size)
    labels = np.empty(images.count, np.int64)
    # image by image: all may be larger than the memory, and writing to a memory map kills the process on a full disk
    with atomic(folder / f"{part}_images.npy") as temporary, open(temporary, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, 3, side, side)}
        np.lib.format.write_array_header_1_0(file, header)
        bar = tqdm(images.images, desc=f"{name} {part}", total=images.count, unit=" images", mininterval=10)
        for index, (image, label) in enumerate(bar):
            if native and image.size != (native, native):
                raise ValueError(f"{name} {part}: image {index} is {image.size}, expected {native} x {native} pixels")
            labels[index] = label
            file.write(pixels(image, size).tobytes())
    log.info("%s %s: %d images of %d x %d", name, part, len(labels), side, side)
    return labels


def _check_labels(what: str, labels: np.ndarray, classes: int) -> None:
    found = np.unique(labels)
    if not np.array_equal(found, np.arange(classes)):
        has = f"{len(found)} different labels from {found[0]} to {found[-1]}"
        raise ValueError(f"{what}: {has}, expected all from 0 to {classes - 1}")


def _save(array: np.ndarray, path: Path) -> None:
    with atomic(path) as temporary:
        np.save(temporary, array)
