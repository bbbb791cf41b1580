"""The reader of image files: which formats and pixels it takes, and how each comes to be RGB of 8 bits.

| what | becomes |
|---|---|
| PNG, JPEG, WebP, BMP, TIFF, PPM and its kin, GIF, whatever the file's name says | read; anything else is refused |
| several frames or pages | the first, and told |
| 8 bits and less, grey, palette, CMYK | RGB, as Pillow converts it |
| 16 bits of grey | scaled by the format's range: 65535 is white, and 4095 in a TIFF of 12 bits |
| 32 bits and floating point | refused: their range is not known |
| an orientation in EXIF | turned upright, as every viewer shows it |
| transparent pixels | put on white |
| no pixels, too many of them, a side 100 times the other, a gigabyte | refused |
| what takes long: a JPEG of many scans; run lengths in a BMP, or a PPM not of 255, of over 2^24 pixels | refused |
| and: a BMP of many runs without pixels, a PPM of many comments | refused |
| a pipe, a device, a folder | refused, without waiting for it |

Nothing is handed to another program: Pillow would let Ghostscript run a PostScript file of any name.
"""

import os
import re
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hiddencost.files import OF_THE_PATH
from hiddencost.messages import one_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF")
EXPECTED = "PNG, JPEG, WebP, BMP, TIFF, PPM or GIF"
MOST_BYTES = 2**30
MOST_PIXELS = 2**27  # up to 16 bytes each, with the file: jobs.cost.OWN_IMAGE
MOST_STRETCHED = 100  # longer to shorter side: a line of pixels, resized by its shorter side, fills any memory
# of a JPEG, as libtiff allows in a TIFF; Pillow writes 10. Each passes over all pixels, and may have few bytes
MOST_SCANS, MOST_DECODED = 100, 2**31  # and the pixels of all scans
MARKER = re.compile(rb"\xff([^\x00-\xbf\xd0-\xd7\xff])")  # of a JPEG, before the length of what it marks
START_OF_SCAN, END_OF_IMAGE = b"\xda", b"\xd9"  # of ITU-T T.81, table B.1
IN_PYTHON = {"bmp_rle", "ppm", "ppm_plain"}  # Pillow's decoders that take a sample, or a run, at a time
MOST_IN_PYTHON = 2**24  # pixels
# of a BMP of run lengths, where ends of lines may follow each other without a pixel: a run and such an end, for each
# pixel, and for what is around them
MOST_OF_RUNS, AROUND_RUNS = 4, 2**16
MOST_COMMENTS = 1000  # of a PPM of numbers as text: Pillow copies up to a megabyte for each
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF 6.0, section 3
UPRIGHT = "turned upright, by the orientation in EXIF"

Note = Callable[[str], object]  # takes what was done to an image, beyond what its pixels say


def open_image(path: str | Path, note: Note = lambda what: None) -> Image.Image:
    """Read an image of the user's own, as in the table above.

    Args:
        path: of the file.
        note: called with each thing that was done to it.

    Returns:
        The image, RGB.

    Raises:
        ValueError: in a line that names the file, where it is not as the table wants it.
        OSError: for what is wrong with the machine or the file system, and not with the file.
    """
    try:
        return _decoded(_bytes_of(path), lambda image, turned: _as_rgb(image, turned, note))
    except ValueError as error:
        raise ValueError(f"{one_line(path)}: cannot be read as an image: {error}") from error


def open_published(path: str | Path) -> Image.Image:
    """Read an image of a published data set, as the code that published it does: RGB, as Pillow converts it, without
    a look at EXIF and transparency. Formats, sizes, errors and pixels of 16 bits are those of `open_image`."""
    try:
        return _decoded(_bytes_of(path), lambda image, _: _of_8_bits(image).convert("RGB"))
    except ValueError as error:
        raise ValueError(f"{one_line(path)}: cannot be read as an image: {error}") from error


def forget_other_formats() -> None:
    """Let Pillow know the formats of the table alone, in this process: for libraries that open images themselves."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an image of no pixels, of too many, or of a side too long for the other."""
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels; expected one at least, and at most {MOST_PIXELS}")
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise ValueError(
            f"it has {width} x {height} pixels; expected a side at most {MOST_STRETCHED} times the other"
        )


def _check_time(image: Image.Image, data: bytes) -> None:
    """Raise ValueError for an image that would be decoded for long: the others' time is bounded by their pixels."""
    pixels, tiles = image.width * image.height, getattr(image, "tile", [])
    decoder = tiles[0][0] if tiles else None
    if decoder in IN_PYTHON and pixels > MOST_IN_PYTHON:
        raise ValueError(
            f"it has {pixels:,} pixels; expected at most {MOST_IN_PYTHON:,} in a {image.format} of its kind"
        )
    if decoder == "bmp_rle" and len(data) > (most := MOST_OF_RUNS * pixels + AROUND_RUNS):
        raise ValueError(f"it has {len(data):,} bytes; expected at most {most:,} of {pixels:,} pixels in run lengths")
    if decoder == "ppm_plain" and (comments := data.count(b"#")) > MOST_COMMENTS:
        raise ValueError(f"it has {comments:,} signs of comments; expected at most {MOST_COMMENTS:,}")
    if image.format in ("JPEG", "MPO"):
        scans, most = _scans(data), min(MOST_SCANS, MOST_DECODED // pixels)
        if scans > most:
            raise ValueError(f"it has {scans:,} scans; expected at most {most} of {pixels:,} pixels")


def _scans(data: bytes) -> int:
    """Return how many scans a JPEG has, as libjpeg finds them (jdmarker.c, next_marker and jpeg_resync_to_restart).

    Codes below those of frames have no length: within a scan it passes over them, and elsewhere refuses the file."""
    place, scans = 2, 0
    while (found := MARKER.search(data, place)) and found[1] != END_OF_IMAGE:
        scans += found[1] == START_OF_SCAN
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return scans


def _bytes_of(path: str | Path) -> bytes:
    try:
        # a pipe is opened without waiting for who writes to it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in OF_THE_PATH:
            raise ValueError(error.strerror) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise ValueError(f"it is {'a folder' if stat.S_ISDIR(found.st_mode) else 'a pipe or a device'}")
    with open(descriptor, "rb") as file:
        if found.st_size > MOST_BYTES:
            raise ValueError(f"it has {found.st_size} bytes; expected at most {MOST_BYTES}")
        return file.read(MOST_BYTES)


def _decoded(data: bytes, convert: Callable[[Image.Image, bool], Image.Image]) -> Image.Image:
    """Return an image as `convert` makes it, which is told whether Pillow turned it upright, as it does a TIFF."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it reads all the same
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                check_size(*image.size)
                _check_time(image, data)
                turned = getattr(image, "tag_v2", {}).get(ExifTags.Base.Orientation) in range(2, 9)
                image.load()
                check_size(*image.size)  # a few formats tell only now
                return convert(image, turned)
        except UnidentifiedImageError:
            raise ValueError(f"it is none, or damaged; expected {EXPECTED}" if data else "it is empty") from None
        except MemoryError:
            raise
        except Exception as error:  # its decoders raise nearly all there is
            raise ValueError(one_line(error)[:200] or type(error).__name__) from error


def _as_rgb(image: Image.Image, turned: bool, note: Note) -> Image.Image:
    """Return an image as RGB, upright; see the table above. Raises ValueError for pixels of unknown range."""
    if _has_frames(image):
        note("several frames or pages, of which the first was read")
    if turned:
        note(UPRIGHT)
    image = _upright(image, note)
    if image.mode.startswith(("I", "F")):
        return _of_8_bits(image, note).convert("RGB")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")  # without a copy: it may be large
        if image.getchannel("A").getextrema() != (255, 255):
            note("transparent pixels, put on white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _of_8_bits(image: Image.Image, note: Note = lambda what: None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):  # PNG and PPM: 16 bits
        note("16 bits a pixel, scaled by the range of the format")
        return _from_16_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, and no range is known; expected 8 or 16 bits")
    return image


def _has_frames(image: Image.Image) -> bool:
    try:
        # a phone's JPEG may have a map of light beside the picture
        return image.format != "MPO" and getattr(image, "is_animated", False)
    except Exception:  # of what follows the first, which is damaged
        return True


def _upright(image: Image.Image, note: Note) -> Image.Image:
    form = image.format
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
            image.format = form
            note(UPRIGHT)
    except Exception:  # of EXIF that is damaged: the pixels are whole
        note("EXIF that cannot be read, taken as upright")
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    grey = np.rint(np.arange(2**16) * (255 / white)).clip(0, 255).astype(np.uint8)
    table = 255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey
    return image.convert("I").point(table.tolist(), "L")
