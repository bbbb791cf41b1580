"""Folders of images of the user's own: which files are images of which class, and what is left out, and why.

A class is a folder, and all images below it are its images. What is hidden, or made by a system beside the user's
files, is left out and told; so are files that are no images by their names. What cannot be meant is refused: a folder
that is met twice, by way of a link, parts (Train/, val/) where classes are expected, a class without an image,
an image of a format that is not read.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hiddencost.messages import one_line

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation", "eval", "dev")
# names of images, of the formats in `readers.image` and of others
IMAGE = re.compile(r".+\.(png|jpe?g|jpe|jfif|webp|bmp|dib|tiff?|p[pgbn]m|gif)", re.IGNORECASE | re.DOTALL)
OTHER_IMAGE = re.compile(
    r".+\.(hei[cf]|avif|jxl|jp2|j2k|jpx|tga|ico|psd|exr|hdr|dng|cr[23]|nef|arw|orf|raf)", re.IGNORECASE | re.DOTALL
)
# of macOS's archives, of Synology, of Windows, of ext4, of Python
OF_SYSTEMS = re.compile(
    r"\..*|__MACOSX|@eaDir|#recycle|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini|lost\+found"
    r"|__pycache__",
    re.IGNORECASE | re.DOTALL,
)
PSEUDO = ("/proc/", "/sys/", "/dev/")  # their files are no files, and some links there lead everywhere
NAMED = 5  # of many names in a message

Remarks = dict[str, list[str]]  # what a user should know of what was read, and of which paths


class Tree(NamedTuple):
    """What a folder of images holds.

    Attributes:
        classes: the names of their folders, in alphabetical order.
        images: of each part (of "" where there are none), the paths of each class's images, in order.
        remarks: what was left out.
    """

    classes: list[str]
    images: dict[str, list[list[str]]]
    remarks: Remarks

    @property
    def files(self) -> list[str]:
        """All images."""
        return [image for part in self.images.values() for images in part for image in images]

    def samples(self, part: str) -> list[tuple[str, int]]:
        """Return the images of a part, each with its label."""
        return [(path, label) for label, images in enumerate(self.images[part]) for path in images]


def read_tree(folder: Path, parts: Iterable[str] = ()) -> Tree:
    """List the images of a folder, PART/CLASS/* or, without parts, CLASS/*.

    Raises:
        ValueError: in a line, where the folder is not so, see the head of this module.
        OSError: where a folder cannot be listed.
    """
    remarks: Remarks = {}
    found, parts, real = {}, list(parts), Path(os.path.realpath(folder))
    seen = {str(above): str(above) for above in (real, *real.parents)}
    if parts:
        others = sorted(entry.name for entry in os.scandir(folder) if entry.name not in parts)
        for name in others:
            reason = _left_out(name) or f"left out, beside {'/ and '.join(parts)}/"
            remarks.setdefault(reason, []).append(str(folder / name))
    for part in parts or [""]:
        top = folder / part
        names = class_folders(top, remarks)
        found[part] = {name: _images(str(top / name), remarks, seen) for name in names}
    classes = list(found[parts[0] if parts else ""])
    for images in found.values():
        if odd := sorted(set(images) ^ set(classes)):
            what = f"{'/ and '.join(parts)}/ have different classes: {', '.join(odd[:NAMED])}"
            raise ValueError(f"{folder}: {what}" + (f" and {len(odd) - NAMED} more" if odd[NAMED:] else ""))
    return Tree(classes, {part: [images[name] for name in classes] for part, images in found.items()}, remarks)


def class_folders(folder: Path, remarks: Remarks) -> list[str]:
    """Return the names of the classes that a folder has, in alphabetical order; adds to `remarks`.

    Raises:
        ValueError: there is none, there are parts in their place, or a name is not printable.
        OSError: the folder cannot be listed.
    """
    names = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        is_folder = entry.is_dir()
        reason = _left_out(entry.name) or (
            None if is_folder else "left out, as a file outside of the classes' folders"
        )
        if reason:
            remarks.setdefault(reason, []).append(entry.path)
        elif not entry.name.isprintable():
            raise ValueError(f"{str(folder)!r}: the folder {entry.name!r} is a class; expected a printable name")
        else:
            names.append(entry.name)
    if len(names) < 2:
        found = f"no folder but {names[0]}" if names else "no folder"
        raise ValueError(f"{folder}: there is {found} in it; expected one for each class")
    _refuse_parts(folder, names)
    return names


def _refuse_parts(folder: Path, names: list[str]) -> None:
    """Raise ValueError where the folders that should be classes are parts of a data set, such as Train and val."""
    kinds = [[name for name in names if name.casefold() in kind] for kind in (TRAIN, TEST)]
    if all(kinds):
        given = " and ".join(name for kind in kinds for name in kind)
        raise ValueError(
            f"{folder}: {given} are parts, not classes; expected train/CLASS/* and test/CLASS/*, so called, "
            "or a test_share and CLASS/*"
        )


def lines(remarks: Mapping[str, list[str]]) -> list[str]:
    """Say what there is to know of what was read: a line a remark, with the number of paths and the first of them."""
    return [one_line(f"{what}: {len(paths)}, such as {paths[0]}") for what, paths in sorted(remarks.items())]


def _left_out(name: str) -> str | None:
    return "left out, as hidden or of the system" if OF_SYSTEMS.fullmatch(name) else None


def _images(folder: str, remarks: Remarks, seen: dict[str, str]) -> list[str]:
    """Return the images below the folder of a class, by folders and names in alphabetical order. `seen`: where the
    real paths of folders were met."""
    images, pending = [], [(folder, _enter(folder, seen))]
    while pending:
        top, real = pending.pop()
        for entry in os.scandir(top):
            if reason := _left_out(entry.name):
                remarks.setdefault(reason, []).append(entry.path)
            elif entry.is_dir():
                inner = None if entry.is_symlink() else os.path.join(real, entry.name)
                pending.append((entry.path, _enter(entry.path, seen, inner)))
            elif OTHER_IMAGE.fullmatch(entry.name):
                raise ValueError(f"{entry.path}: images of this format are not read; convert it, or take it away")
            elif not IMAGE.fullmatch(entry.name):
                remarks.setdefault("left out, as no image by its name", []).append(entry.path)
            elif entry.is_file():
                images.append((top, entry.name))
            else:
                what = "a link to nothing" if entry.is_symlink() else "a pipe or a device"
                raise ValueError(f"{entry.path}: it is {what}; expected an image")
    if not images:
        raise ValueError(f"{folder}: there is no image in it; expected some of each class")
    return [os.path.join(*image) for image in sorted(images)]


def _enter(folder: str, seen: dict[str, str], real: str | None = None) -> str:
    real = real or os.path.realpath(folder)
    if pseudo := next((top for top in PSEUDO if (real + "/").startswith(top)), None):
        raise ValueError(f"{folder}: it lies in {pseudo}, whose files hold nothing; expected images")
    # else its images would count twice, or for two classes, and a link to a folder above would lead on and on
    if (other := seen.setdefault(real, folder)) != folder:
        raise ValueError(f"{folder}: it is the folder {other} once more, by a link; expected each once")
    return real
