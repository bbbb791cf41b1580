"""From a dataset's own files to arrays: read, checked, resized."""

import hashlib
import logging
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hiddencost.catalog.entries import Counts, DatasetLayout
from hiddencost.datasets.prepared import ARRAYS, PARTS, PreparedReport
from hiddencost.datasets.readers.raw import RawImages
from hiddencost.datasets.readers.registry import READERS
from hiddencost.datasets.tree import lines
from hiddencost.files import atomic, fetched_files, is_away, refuse_of_a_moment, scratch, sha256_file
from hiddencost.messages import one_line

log = logging.getLogger(__name__)


def prepare(
    name: str, layout: DatasetLayout, fetched: str | Path | None, size: int | str, folder: str | Path
) -> None:
    """Read a dataset, resize its images to squares and write the arrays (`prepared.ARRAYS`) and dataset.json.

    layout: of its entry in the catalog, or of `user_entry`. fetched: the report of its download, None for the user's
    own. size: see `pixels`. Counts, class names, labels and native size are held against the layout; what it leaves
    open (None) is taken from the data. What was read, left out and why, is logged and in dataset.json.

    A dataset whose download has failed, or whose files are not as the layout says, is written with its reason, as
    "failed" in dataset.json, and empty arrays: `prepared.load` then raises ValueError. Images of the user's own that
    are gone are no result: FileNotFoundError, and nothing is written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    side, _, _ = sized(size)
    failed, remarks = None, list[str]()
    try:
        # beside the arrays: the folder for temporary files may be too small for an unpacked archive
        with scratch(folder) as unpacked:
            files = fetched_files(fetched) if fetched else {}
            raw = READERS[layout.reader](name, layout.options, files, unpacked)
            classes = _classes(name, raw.classes, layout.classes)
            written = {part: _write_images(name, part, getattr(raw, part), size, layout, folder) for part in PARTS}
            labels = {part: of_part for part, (of_part, _) in written.items()}
        # where neither the entry nor the data names the classes, the labels tell how many there are
        count = len(classes) if classes else int(labels["train"].max()) + 1
        for part in PARTS:
            _check_labels(f"{name} {part}", labels[part], count)
            _save(labels[part], folder / f"{part}_labels.npy")
        classes = classes or [str(label) for label in range(count)]
        remarks = [*lines(raw.remarks), *_shared(*(digests for _, digests in written.values()))]
        counts = Counts(**{part: len(labels[part]) for part in PARTS})
    except ValueError as error:
        refuse_of_a_moment(error)
        own = None if fetched else layout.options.get("path")
        if own and is_away(own):
            raise FileNotFoundError(
                f"{one_line(own)} is gone since the call was planned; expected the images"
            ) from error
        log.error("%s cannot be prepared: %s", name, one_line(error))
        for part in PARTS:
            _save(np.empty((0, 3, side, side), np.uint8), folder / f"{part}_images.npy")
            _save(np.empty(0, np.int64), folder / f"{part}_labels.npy")
        failed, classes, counts, remarks = one_line(error), [], Counts(**dict.fromkeys(PARTS, 0)), []
    sha256 = {array: sha256_file(folder / array) for array in ARRAYS}
    for remark in remarks:
        log.info("%s: %s", name, remark)
    report = PreparedReport(
        dataset=name, size=str(size), failed=failed, classes=classes, counts=counts, sha256=sha256, remarks=remarks
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


def _classes(name: str, found: list[str] | None, stated: list[str] | None) -> list[str] | None:
    if found and stated and found != stated:
        odd = sorted(set(found) ^ set(stated))
        what = f"in one alone: {', '.join(odd)}" if odd else "in another order"
        raise ValueError(f"{name}: {len(found)} classes, the catalog says {len(stated)}; {what}")
    return stated or found


def _write_images(
    name: str, part: str, images: RawImages, size: int | str, layout: DatasetLayout, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Write the images of a part, and return their labels, and a digest of each, uint64."""
    expected = getattr(layout.counts, part) if layout.counts else images.count
    if images.count != expected or not expected:
        raise ValueError(f"{name} {part}: {images.count} images, expected {expected or 'some'}")
    native, (side, _, _) = layout.native_size, sized(size)
    labels, digests = np.empty(images.count, np.int64), np.empty(images.count, np.uint64)
    # image by image: all may be larger than the memory, and writing to a memory map kills the process on a full disk
    with atomic(folder / f"{part}_images.npy") as temporary, open(temporary, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, 3, side, side)}
        np.lib.format.write_array_header_1_0(file, header)
        bar = tqdm(images.images, desc=f"{name} {part}", total=images.count, unit=" images", mininterval=10)
        for index, (image, label) in enumerate(bar):
            if native and image.size != (native, native):
                raise ValueError(f"{name} {part}: image {index} is {image.size}, expected {native} x {native} pixels")
            labels[index], written = label, pixels(image, size).tobytes()
            digests[index] = int.from_bytes(hashlib.blake2b(written, digest_size=8).digest(), "little")
            file.write(written)
    log.info("%s %s: %d images of %d x %d, %d classes", name, part, len(labels), side, side, len(np.unique(labels)))
    return labels, digests


def _check_labels(what: str, labels: np.ndarray, classes: int) -> None:
    found = np.unique(labels)
    if classes < 2:
        raise ValueError(f"{what}: all images are of one class; expected two at least")
    if len(found) != classes or found[0] or found[-1] != classes - 1:  # a label may be as large as int64 takes
        has = f"{len(found)} different labels from {found[0]} to {found[-1]}"
        raise ValueError(f"{what}: {has}, expected all from 0 to {classes - 1}")


def _shared(train: np.ndarray, test: np.ndarray) -> list[str]:
    """Say how many test images are training images, too: a model that remembers these is right of them."""
    shared = np.isin(test, train).sum()
    return [f"test images that are training images, too, pixel by pixel at this size: {shared}"] if shared else []


def _save(array: np.ndarray, path: Path) -> None:
    with atomic(path) as temporary:
        np.save(temporary, array)
