"""The readers of what a user gives as images: files, folders and arrays. Tables of cases, and damaged files."""

import io
import os
import random
import re
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import settings
from PIL import Image, ImageFile

from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.prepared import PreparedReport, load
from hiddencost.datasets.readers import image, npz
from hiddencost.datasets.readers.image import FORMATS, open_image, open_published

pytestmark = pytest.mark.usefixtures("records")
LONGER = settings.default.max_examples // 100  # times as many damaged files, see conftest
COLOURS = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
GREY16 = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
ORIENTATION = 274


def file_of(pixels, form="PNG", orientation=None, **options):
    """Return an image file, as bytes."""
    image, packed = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels), io.BytesIO()
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    image.save(packed, form, **options)
    return packed.getvalue()


def png(width, height, depth=8, colour=2, data=b"\0" * 100, interlace=0, empty=0):
    """Return a PNG that says what it likes of itself."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    header += chunk(b"IDAT", b"") * empty
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pgm(white, *values):
    return f"P5 {len(values)} 1 {white}\n".encode() + struct.pack(f">{len(values)}H", *values)


def rgba(alpha):
    return Image.fromarray(np.dstack([COLOURS, np.full((8, 6), alpha, np.uint8)]))


def tiff(**tags):
    """Return a TIFF of 16 bits of grey, with other tags than Pillow writes."""
    data = bytearray(file_of(GREY16, "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    for index in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * index
        (tag,) = struct.unpack_from("<H", data, place)
        if str(tag) in tags:
            struct.pack_into("<H", data, place + 8, tags[str(tag)])
    return bytes(data)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n%%EndComments\nshowpage\n%%EOF\n"
NONE = "it is none, or damaged; expected PNG, JPEG, WebP, BMP, TIFF, PPM or GIF"
SCALED, UPRIGHT, ON_WHITE = (
    "16 bits a pixel, scaled by the range of the format",
    "turned upright, by the orientation in EXIF",
    "transparent pixels, put on white",
)
grey8 = np.rint(GREY16 / 257).astype(np.uint8)[..., None].repeat(3, 2)
# a file, the pixels that it is, and what is told of it
READ = {
    "png": (file_of(COLOURS), COLOURS, []),
    "bmp": (file_of(COLOURS, "BMP"), COLOURS, []),
    "ppm": (file_of(COLOURS, "PPM"), COLOURS, []),
    "tiff": (file_of(COLOURS, "TIFF"), COLOURS, []),
    "webp": (file_of(COLOURS, "WEBP", lossless=True), COLOURS, []),
    "gif, the first of its frames": (
        file_of(COLOURS, "GIF", save_all=True, append_images=[Image.new("RGB", (6, 8), "red")]),
        COLOURS,
        ["several frames or pages, of which the first was read"],
    ),
    "grey": (file_of(COLOURS[..., 0]), COLOURS[..., :1].repeat(3, 2), []),
    "black and white": (png(8, 1, 1, 0, b"\0\xf0"), np.array([[[255] * 3] * 4 + [[0] * 3] * 4], np.uint8), []),
    "palette": (file_of(Image.fromarray(COLOURS).quantize(64)), COLOURS, []),
    "cmyk": (file_of(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), np.full((2, 2, 3), (255, 0, 0)), []),
    "opaque": (file_of(rgba(255)), COLOURS, []),
    "transparent": (file_of(rgba(0)), np.full((8, 6, 3), 255), [ON_WHITE]),
    "transparent palette": (
        file_of(Image.new("RGB", (2, 2), "blue").quantize(2), transparency=0),
        np.full((2, 2, 3), 255),
        [ON_WHITE],
    ),
    "16-bit png": (file_of(GREY16), grey8, [SCALED]),
    "16-bit tiff": (file_of(GREY16, "TIFF"), grey8, [SCALED]),
    "16-bit tiff, 0 is white": (tiff(**{"262": 0}), 255 - grey8, [SCALED]),
    "16-bit ppm": (file_of(GREY16, "PPM"), grey8, [SCALED]),
    "12-bit ppm": (pgm(4095, 0, 4095, 2048), np.array([[[0] * 3, [255] * 3, [128] * 3]], np.uint8), [SCALED]),
    "16-bit colours": (png(1, 1, 16, 2, b"\0\xff\xff\x80\0\0\0"), np.array([[[255, 128, 0]]]), []),
    "on its side": (file_of(COLOURS, orientation=6), np.rot90(COLOURS, -1), [UPRIGHT]),
    "on its head": (file_of(COLOURS, "WEBP", 3, lossless=True), np.rot90(COLOURS, 2), [UPRIGHT]),
    "mirrored": (file_of(COLOURS, "PNG", 2), COLOURS[:, ::-1], [UPRIGHT]),
    "a tiff on its side": (file_of(COLOURS, "TIFF", 6), np.rot90(COLOURS, -1), [UPRIGHT]),
    "a tiff of 16 bits on its head": (file_of(GREY16, "TIFF", 3), np.rot90(grey8, 2), [UPRIGHT, SCALED]),
    "a tiff of two pages": (
        file_of(COLOURS, "TIFF", save_all=True, append_images=[Image.new("RGB", (6, 8), "red")]),
        COLOURS,
        ["several frames or pages, of which the first was read"],
    ),
    "upright": (file_of(COLOURS, "PNG", 1), COLOURS, []),
    "damaged exif": (file_of(COLOURS, "WEBP", lossless=True, exif=b"Exif\0\0MM\0\0\0\0"), COLOURS, None),
    "a jpeg on its side": (file_of(np.full((8, 6), 7, np.uint8), "JPEG", 8), np.full((6, 8, 3), 7), [UPRIGHT]),
}
REFUSED = {
    "nothing": (b"", "it is empty"),
    "text": (b"no image", NONE),
    "PostScript": (POSTSCRIPT, NONE),
    "an icon": (file_of(np.zeros((16, 16, 3), np.uint8), "ICO", sizes=[(16, 16)]), NONE),
    "JPEG 2000": (file_of(COLOURS, "JPEG2000"), NONE),
    "no pixels": (png(0, 5), NONE),
    "10^10 pixels": (png(100_000, 100_000), "10000000000 pixels"),
    "144 million pixels": (png(12_000, 12_000), "12000 x 12000 pixels; expected one at least, and at most 134217728"),
    "a line": (png(1, 5000), "1 x 5000 pixels; expected a side at most 100 times the other"),
    "floating point": (file_of(np.ones((4, 4), np.float32), "TIFF"), "32 bits, and no range is known; expected 8 or"),
    "32 bits": (file_of(np.ones((4, 4), np.int32), "TIFF"), "32 bits, and no range is known; expected 8 or 16"),
    "half a png": (file_of(COLOURS)[:-60], "runcated"),
    "half a jpeg": (file_of(COLOURS, "JPEG")[:-60], "runcated"),
    "half a webp": (file_of(COLOURS, "WEBP")[:-20], "could not create decoder object"),
    "half a bmp": (file_of(COLOURS, "BMP")[:-60], "truncated"),
    "half a tiff": (file_of(COLOURS, "TIFF")[:-60], "truncated"),
}


@pytest.mark.parametrize(("data", "pixels", "told"), READ.values(), ids=READ)
def test_an_image_is_read_as_it_was_meant(data, pixels, told, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(data)
    notes = []
    image = open_image(tmp_path / "photo.jpg", notes.append)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert told is None or notes == told


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_told_in_a_line(data, message, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(data)
    for read in (open_image, open_published):
        with pytest.raises(ValueError, match=r"photo\.jpg: cannot be read as an image: ") as raised:
            read(tmp_path / "photo.jpg")
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


def progressive(scans, side=1000):
    """Return a grey JPEG of so many scans, of which most say nothing new: a small file that passes over all pixels
    again and again."""
    data = file_of(Image.new("L", (side, side)), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * (scans - data.count(b"\xff\xda")) + data[end:]


def behind_restarts(scans, side=1000):
    """Return a JPEG whose scans seem to be within a segment, by a code that libjpeg passes over at restarts."""
    data = file_of(Image.new("L", (side, side)), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    one, restarts = data[first : first + 10], b"\xff\xdd\0\4\0\1"
    segment = b"\xff\2" + struct.pack(">H", 10 * (scans - 1)) + one * (scans - 1)
    return data[:first] + restarts + one + segment + b"\xff\xd9"


def interlaced(side):
    """Return an interlaced PNG of RGB, by the seven passes of its specification (section 8.2)."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [
        b"\4" + bytes(3 * len(range(left, side, across)))  # filtered by Paeth's predictor
        for left, top, across, down in passes
        for _ in range(top, side, down)
    ]
    return png(side, side, data=b"".join(rows), interlace=1)


def run_lengths(side, ends=0):
    """Return a BMP of 4 bits a pixel, each line a run after a run; ends: of lines without pixels."""
    row = b"\xff\x12" * (side // 255) + bytes([side % 255, 0x12]) + b"\0\0"
    palette, body = b"".join(bytes([grey] * 3 + [0]) for grey in range(16)), row * side + b"\0\0" * ends + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 4, 2, len(body), 0, 0, 16, 0) + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def frames(form, count):
    return file_of(
        Image.new("L", (2, 2)),
        form,
        save_all=True,
        append_images=[Image.new("L", (2, 2), 1 + number % 2) for number in range(count)],
    )


WORST = {  # of small files
    "JPEG of scans": lambda: progressive(100),
    "JPEG of segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000 + file_of(COLOURS, "JPEG")[2:],
    "interlaced PNG": lambda: interlaced(2000),
    "PNG of chunks": lambda: png(1, 1, data=b"\0\0\0\0", empty=100_000),
    "WebP": lambda: file_of(Image.new("RGB", (2000, 2000)), "WEBP", lossless=True, method=0),
    "BMP of run lengths": lambda: run_lengths(1000),
    "GIF of frames": lambda: frames("GIF", 300),
    "TIFF of pages": lambda: frames("TIFF", 300),
}


@pytest.mark.parametrize("data", WORST.values(), ids=WORST)
def test_the_worst_of_small_files_take_no_longer_than_their_pixels(data, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(data())
    began = time.process_time()
    open_image(path)
    assert time.process_time() - began < 3  # of the CPU: here these take tenths


LONG = {
    "scans": (lambda: progressive(10_000), "it has 10,000 scans; expected at most 100 of 1,000,000 pixels"),
    "scans behind restarts": (
        lambda: behind_restarts(3000),
        "it has 3,000 scans; expected at most 100 of 1,000,000 pixels",
    ),
    "scans of a large image": (
        lambda: progressive(90, 5000),
        "it has 90 scans; expected at most 85 of 25,000,000 pixels",
    ),
    "run lengths": (
        lambda: run_lengths(5000),
        "it has 25,000,000 pixels; expected at most 16,777,216 in a BMP of its kind",
    ),
    "run lengths of nothing": (
        lambda: run_lengths(100, ends=10**6),
        "it has 2,000,520 bytes; expected at most 105,536 of 10,000 pixels in run lengths",
    ),
    "comments": (
        lambda: b"P3 2 2 255\n" + b"#\n" * 10**6 + b"0 " * 12,
        "it has 1,000,000 signs of comments; expected at most 1,000",
    ),
    "numbers as text": (
        lambda: b"P3 5000 5000 255 0",
        "it has 25,000,000 pixels; expected at most 16,777,216 in a PPM of its kind",
    ),
}


@pytest.mark.parametrize(("data", "message"), LONG.values(), ids=LONG)
def test_what_would_be_decoded_for_long_is_refused_at_once(data, message, tmp_path, monkeypatch):
    path = tmp_path / "image"
    path.write_bytes(data())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("was decoded"))
    for read in (open_image, open_published):
        with pytest.raises(ValueError, match=f": {re.escape(message)}$"):
            read(path)


def test_scans_are_counted_of_the_image_alone():
    """Not what looks like one within EXIF, or in what cameras write behind the image."""
    exif = Image.Exif()
    exif[270] = "\xff\xda" * 200
    data = file_of(Image.new("L", (8, 8)), "JPEG", exif=exif.tobytes() + b"\xff\xda" * 200, progressive=True)
    assert image._scans(data + b"\xff\xda" * 200) == image._scans(data) == 6
    assert image._scans(data[:40]) == image._scans(data[: data.index(b"\xff\xc4") + 3]) == 0


def test_a_pipe_a_folder_and_nothing_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, message in {
        "pipe.jpg": "it is a pipe or a device",
        "": "it is a folder",
        "none.jpg": "No such file or directory",
        "loop.jpg": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(ValueError, match=f"cannot be read as an image: {message}"):
            open_image(tmp_path / name)


def test_a_name_cannot_write_on_the_terminal(tmp_path):
    (tmp_path / "a\n\x1b[31m.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a \\x1b\[31m\.jpg: cannot be read as an image"):
        open_image(tmp_path / "a\n\x1b[31m.jpg")


def test_pillow_is_never_left_to_choose_what_it_opens():
    for path in (ROOT / "src").rglob("*.py"):
        for call in re.findall(r"Image\.open\((.*)", path.read_text()):
            assert "formats=" in call, path


def test_an_error_of_the_file_system_is_none_of_the_image(tmp_path, monkeypatch):
    def busy(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(OSError, match="Input/output error"):
        open_image(tmp_path / "photo.jpg")


def test_published_images_are_read_as_by_the_code_that_published_them(tmp_path):
    (tmp_path / "a.png").write_bytes(file_of(rgba(0), orientation=6))
    np.testing.assert_array_equal(np.asarray(open_published(tmp_path / "a.png")), COLOURS)
    (tmp_path / "a.png").write_bytes(file_of(GREY16))  # which that code would make white
    np.testing.assert_array_equal(np.asarray(open_published(tmp_path / "a.png")), grey8)


def damaged(whole, seed):
    """Return a file with some of its bytes changed, cut off, doubled or exchanged for another's."""
    draw, data = random.Random(seed), bytearray(whole[seed % len(whole)])
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(data) or 1)
        kind = draw.randrange(5)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", draw.randbytes(4)))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[: draw.randrange(20)]
        else:
            data[at:] = draw.choice(whole)[at:]
    return bytes(data)


def tried(read, path):
    """Return what a reader gives, or the line in which it refuses."""
    try:
        return read(path), None
    except ValueError as error:
        return None, str(error)


def test_damaged_images_are_read_or_told_in_a_line(tmp_path):
    whole = [file_of(COLOURS, form) for form in FORMATS] + [data for data, _, _ in READ.values()]
    whole += [data for data, _ in REFUSED.values() if data]
    path, read = tmp_path / "photo.jpg", 0
    for seed in range(500 * LONGER):
        path.write_bytes(damaged(whole, seed))
        image, refused = tried(open_image, path)
        if refused:
            assert refused.startswith(f"{path}: cannot be read as an image: "), seed
            assert len(refused) < len(str(path)) + 300, seed
            assert refused.isprintable(), seed
        else:
            assert image.mode == "RGB", seed
            read += 1
    assert 50 * LONGER < read < 450 * LONGER


# Folders


def own(to, **arguments):
    """Prepare a dataset of the user's own."""
    prepare("mine", user_entry("mine", **arguments), None, 8, to / "out")
    return load(to / "out")


def lay(folder, *paths):
    """Write images of different colours; a path with another suffix than an image's is a text."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        colours = np.full((8, 8, 3), (number, *os.fsencode(path).rjust(6)[-6:-4]), np.uint8)
        image = path.lower().endswith((".jpg", ".png", ".gif", ".jfif"))
        (folder / path).write_bytes(file_of(colours, "GIF" if "gif" in path.lower() else "PNG") if image else b"text")
    return folder


TWO = ("a/1.jpg", "a/2.png", "b/1.jpg", "b/2.jpg")
LEFT_OUT = {
    "nothing": ((), []),
    "other image formats": (("a/3.GIF", "b/3.jfif"), []),
    "hidden folders": (
        (".ipynb_checkpoints/1.jpg", ".git/x.png", "__MACOSX/a/._1.jpg", "a/.thumbs/1.jpg"),
        ["left out, as hidden or of the system: 4, such as {}/.git"],
    ),
    "AppleDouble": (("a/._1.png", "b/.DS_Store"), ["left out, as hidden or of the system: 2, such as {}/a/._1.png"]),
    "texts": (("a/labels.csv", "b/3"), ["left out, as no image by its name: 2, such as {}/a/labels.csv"]),
    "files beside": (
        ("readme.txt", "0.jpg"),
        ["left out, as a file outside of the classes' folders: 2, such as {}/0.jpg"],
    ),
}


@pytest.mark.parametrize(("others", "told"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_read_of_a_folder_and_what_is_left_out_is_told(others, told, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = lay(tmp_path / "mine", *TWO, *others)
    dataset = own(tmp_path, folder=str(folder), test_share=0.5)
    assert dataset.classes == ["a", "b"]
    more = 2 * (others == ("a/3.GIF", "b/3.jfif"))
    assert len(dataset.train_labels) + len(dataset.test_labels) == 4 + more
    expected = [line.format(folder) for line in told]
    assert PreparedReport.read(tmp_path / "out").remarks == expected
    assert all(f"mine: {line}" in caplog.messages for line in expected)
    assert f"mine train: {len(dataset.train_labels)} images of 8 x 8, 2 classes" in caplog.messages


def test_a_link_to_another_file_is_its_image_and_a_set_beside_the_two_is_told(tmp_path):
    folder = lay(tmp_path / "mine", *(f"{part}/{path}" for part in ("train", "test", "val") for path in TWO))
    (folder / "train/a/3.jpg").symlink_to(lay(tmp_path, "3.jpg") / "3.jpg")
    dataset = own(tmp_path, folder=str(folder))
    assert np.bincount(dataset.train_labels).tolist() == [3, 2]
    assert PreparedReport.read(tmp_path / "out").remarks == [
        f"left out, beside train/ and test/: 1, such as {folder}/val"
    ]


def linked(link, to):
    return lambda folder: (folder / link).symlink_to(to)


def pipe(path):
    return lambda folder: os.mkfifo(folder / path)


FOLDERS = {
    "train and val": (("train/a/1.jpg", "val/a/1.jpg"), None, 0.5, "train and val are parts, not classes; expected"),
    "Train and Test": (
        ("Train/a/1.jpg", "Test/a/1.jpg"),
        None,
        0.5,
        "Train and Test are parts, not classes; expected",
    ),
    "no share": (("Train/a/1.jpg", "Test/a/1.jpg"), None, None, "Train and Test are parts, not classes; expected"),
    "a class train is one": (("train/1.jpg", "train/2.jpg", "car/1.jpg", "car/2.jpg"), None, 0.5, None),
    "its own folder": (TWO, linked("a/self", "."), 0.5, r"mine/a/self: it is the folder .*/mine/a once more"),
    "a folder above": (TWO, linked("a/up", "../.."), 0.5, "mine/a/up: it is the folder .* once more, by a link"),
    "two": (TWO, linked("c", "a"), 0.5, "mine/c: it is the folder .*mine/a once more, by a link; expected each once"),
    "test = train": (
        tuple(f"train/{path}" for path in TWO),
        linked("test", "train"),
        None,
        "mine/test/a: it is the folder .*mine/train/a once more",
    ),
    "the system's": (
        TWO,
        linked("a/fd", "/proc/self"),
        0.5,
        "mine/a/fd: it lies in /proc/, whose files hold nothing",
    ),
    "a pipe": (TWO, pipe("a/3.jpg"), 0.5, r"a/3\.jpg: it is a pipe or a device; expected an image"),
    "a link to nothing": (TWO, linked("a/3.jpg", "none"), 0.5, r"a/3\.jpg: it is a link to nothing; expected an"),
    "a loop": (TWO, linked("a/3.jpg", "3.jpg"), 0.5, "Too many levels of symbolic links"),
    "photos of a phone": (
        (*TWO, "a/3.HEIC"),
        None,
        0.5,
        r"a/3\.HEIC: images of this format are not read; convert it",
    ),
    "an empty class": ((*TWO, "c/readme.txt"), None, 0.5, "mine/c: there is no image in it; expected some of each"),
    "one class": (("a/1.jpg", "a/2.jpg"), None, 0.5, "mine: there is no folder but a in it; expected one for each"),
    "no class": (("1.jpg",), None, 0.5, "mine: there is no folder in it; expected one for each class"),
    "a line break": ((*TWO, "c\nd/1.jpg"), None, 0.5, r"mine': the folder 'c\\nd' is a class; expected a printable"),
    "no text": ((*TWO, "c\udcff/1.jpg"), None, 0.5, r"the folder 'c\\udcff' is a class; expected a printable name"),
}


@pytest.mark.parametrize(("paths", "change", "share", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_read_as_it_was_meant_or_refused_before_any_job(paths, change, share, message, tmp_path):
    folder = lay(tmp_path / "mine", *paths)
    if change:
        change(folder)
    if message is None:
        assert own(tmp_path, folder=str(folder), test_share=share).classes == ["car", "train"]
        return
    with pytest.raises(ValueError, match=message) as raised:
        user_entry("mine", str(folder), test_share=share)
    assert str(raised.value).startswith("dataset mine: ")
    assert "\n" not in str(raised.value)


def test_the_system_s_folders_are_refused_at_once():
    with pytest.raises(ValueError, match=r"dataset mine: .*: it lies in /proc/, whose files hold nothing"):
        user_entry("mine", "/proc", test_share=0.5)


def test_a_name_that_is_no_text_is_one_of_an_image(tmp_path):
    folder = lay(tmp_path / "mine", *TWO, "a/\udcff.jpg")
    dataset = own(tmp_path, folder=str(folder), test_share=0.5)
    assert np.bincount([*dataset.train_labels, *dataset.test_labels]).tolist() == [3, 2]


def test_what_is_done_to_images_is_counted_and_images_of_both_parts_too(tmp_path):
    folder = lay(tmp_path / "mine", *(f"{part}/{path}" for part in ("train", "test") for path in TWO))
    colours = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    (folder / "train/a/1.jpg").write_bytes(file_of(colours, orientation=6))
    for copy in ("1.jpg", "3.jpg"):  # two test images, of one training image
        (folder / "test/b" / copy).write_bytes(file_of(np.rot90(colours, -1)))
    dataset = own(tmp_path, folder=str(folder))
    assert PreparedReport.read(tmp_path / "out").remarks == [
        f"turned upright, by the orientation in EXIF: 1, such as {folder}/train/a/1.jpg",
        "test images that are training images, too, pixel by pixel at this size: 2",
    ]
    np.testing.assert_array_equal(dataset.train_images[0], np.rot90(colours, -1).transpose(2, 0, 1))


# Arrays

IMAGES, LABELS = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3), np.array([0, 1, 0, 1])
ARRAYS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[::-1], "y_test": LABELS}


def member(shape, descr="|u1", fortran=False, data=b""):
    """Return an array as a file of NumPy's, whose header says what it likes."""
    packed = io.BytesIO()
    np.lib.format.write_array_header_1_0(packed, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return packed.getvalue() + data


def archive(path, members=(), pack=zipfile.ZIP_DEFLATED, **arrays):
    """Write arrays, and members that are bytes already."""
    with zipfile.ZipFile(path, "w", pack) as packed:
        for name, array in (ARRAYS | arrays).items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            packed.writestr(f"{name}.npy", dict(members).get(name, buffer.getvalue()))
    return path


@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["uint8", "<i2", ">i4", "uint64"])
def test_arrays_are_read_in_each_order_and_type(kind, order, pack, tmp_path):
    mine = {"x_train": np.asarray(IMAGES, order=order), "y_train": LABELS.astype(kind)[:, None], "x_val": IMAGES}
    dataset = own(tmp_path, npz=str(archive(tmp_path / "mine.npz", pack=pack, **mine)))
    np.testing.assert_array_equal(dataset.train_images, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.test_images, IMAGES[::-1].transpose(0, 3, 1, 2))
    assert dataset.train_labels.tolist() == LABELS.tolist()
    remarks = PreparedReport.read(tmp_path / "out").remarks
    assert remarks[0] == "left out, as no array that is read: 1, such as x_val"


HUGE = 10**14
NO_ARRAYS = {
    "one class": ({"y_train": LABELS * 0, "y_test": LABELS * 0}, (), "all images are of one class; expected two at"),
    "labels of 2^62": (
        {"y_train": np.array([0, 1, 0, 2**62])},
        (),
        "3 different labels from 0 to 4611686018427387904",
    ),
    "labels of 2^64": ({"y_train": np.array([0, 1, 0, 2**64 - 1], np.uint64)}, (), "label 18446744073709551615"),
    "negative labels": ({"y_train": np.array([0, 1, 0, -1])}, (), "labels from -1 to 1, expected all from 0 to 1"),
    "truth values": ({"y_train": LABELS == 1}, (), r"y_train is bool \[4\], expected integers \[4\]"),
    "no pixels": ({"x_train": IMAGES[:, :0]}, (), "it has 8 x 0 pixels; expected one at least"),
    "a line": ({"x_train": np.zeros((4, 1, 500, 3), np.uint8)}, (), "500 x 1 pixels; expected a side at most 100"),
    "objects": ({"x_train": np.array([{}, 1])}, (), r"x_train is object \[2\]; expected numbers"),
    "records": ({"y_train": np.zeros(4, [("a", int)])}, (), r"y_train is .*\[4\], expected integers"),
    "a header of 10^14": ({}, {"x_train": member((HUGE, 8, 8, 3))}, "its [0-9]+ bytes do not hold that"),
    "labels of 10^14": ({}, {"y_train": member((HUGE,), "<i8")}, "bytes do not hold that"),
    "less than nothing": ({}, {"x_train": member((-1, 8, 8, 3))}, "x_train is uint8 .*; expected numbers"),
    "too short": ({}, {"x_train": member((4, 8, 8, 3), data=b"\0" * 767)}, "bytes do not hold that"),
    "too long": ({}, {"x_train": member((4, 8, 8, 3), data=b"\0" * 769)}, "bytes do not hold that"),
    "no header": ({}, {"x_train": b"x" * 100}, "magic string is not correct"),
    "nesting": ({}, {"x_train": member((1,)).replace(b"(1,)", b"(" * 4)}, "mine.npz: "),
    "a version": ({}, {"x_train": b"\x93NUMPY\3\0" + member((1,))[8:]}, r"version \(3, 0\) of NumPy's format"),
}


@pytest.mark.parametrize(("arrays", "members", "message"), NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_of_images_or_labels_is_told_in_a_line(arrays, members, message, tmp_path):
    archive(tmp_path / "mine.npz", members, **arrays)
    with pytest.raises(ValueError, match=message) as raised:
        own(tmp_path, npz=str(tmp_path / "mine.npz"))
    assert "\n" not in str(raised.value)


def test_members_that_are_encrypted_or_doubled_or_cut_off_are_told(tmp_path):
    path = archive(tmp_path / "mine.npz", pack=zipfile.ZIP_STORED)
    whole = path.read_bytes()
    flag = bytearray(whole)
    flag[6] |= 1  # of the first member, and in the directory
    flag[whole.index(b"PK\1\2") + 8] |= 1
    changed = bytearray(whole)
    changed[300] ^= 1  # a pixel: the checksum comes when all are read
    for data, message in (
        (flag, "x_train is encrypted"),
        (changed, "Bad CRC-32 for file 'x_train.npy'"),
        (whole[:-100], "cannot be read as an npz of arrays: File is not a zip file"),
        (whole.replace(b"x_test.npy", b"y_test.npy"), "it holds y_test more than once"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            own(tmp_path, npz=str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("x_train.npy", member((4, 8, 8, 3), data=bytes(768)))
        for name in ("y_train", "x_test", "y_test"):
            packed.writestr(f"{name}.npy", member((4,), data=bytes(4)))
    with pytest.raises(ValueError, match="x_train is packed in a way NumPy has not"):
        own(tmp_path, npz=str(path))


def test_labels_are_taken_as_images_are_and_never_all_as_numbers_of_python(tmp_path):
    count = 10**5
    pixels, labels = np.zeros((count, 1, 1, 3), np.uint8), np.arange(count, dtype=np.int32)
    path = archive(tmp_path / "mine.npz", x_train=pixels, y_train=labels)
    tracemalloc.start()
    try:
        raw = npz.read(npz.Options(path=str(path)), {}, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 * labels.nbytes
    finally:
        tracemalloc.stop()
    assert [label for _, (_, label) in zip(range(3), raw.train.images, strict=False)] == [0, 1, 2]


def test_arrays_of_more_images_than_can_be_held_the_labels_of_are_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "mine.npz")
    monkeypatch.setattr(npz, "MOST_IMAGES", 4)
    pixels_and_labels(path)
    monkeypatch.setattr(npz, "MOST_IMAGES", 3)
    with pytest.raises(ValueError, match="x_train has 4 images; expected at most 3"):
        pixels_and_labels(path)


def pixels_and_labels(path):
    raw = npz.read(npz.Options(path=str(path)), {}, path.parent)
    return [[(np.asarray(image), label) for image, label in part.images] for part in (raw.train, raw.test)]


def test_damaged_arrays_are_read_or_told_in_a_line(tmp_path):
    whole = [archive(tmp_path / "a.npz", pack=pack).read_bytes() for pack in (0, 8)]
    path, read = tmp_path / "mine.npz", 0
    for seed in range(500 * LONGER):
        path.write_bytes(damaged(whole, seed))
        images, refused = tried(pixels_and_labels, path)
        if refused:
            assert refused.startswith(f"{path}: "), seed
            assert len(refused) < len(str(path)) + 450, seed
            assert "\n" not in refused, seed
            continue
        read += 1
        # what is not refused is what was written: each member has a checksum
        for part, (x, y) in zip(images, (("x_train", "y_train"), ("x_test", "y_test")), strict=True):
            np.testing.assert_array_equal([image for image, _ in part], ARRAYS[x], err_msg=str(seed))
            assert [label for _, label in part] == ARRAYS[y].tolist(), seed
    assert 0 < read < 150 * LONGER
