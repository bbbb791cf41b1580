"""Datasets by the split files of CoOp."""

import json
import posixpath
from difflib import get_close_matches
from pathlib import Path

from hiddencost.datasets.readers.archives import unpack
from hiddencost.datasets.readers.image import open_published
from hiddencost.datasets.readers.raw import RawDataset, RawImages
from hiddencost.messages import Record, one_line

Sample = tuple[str, int, str]  # path, label, class name


class Options(Record, strict=True):
    """`image_folder`: the folder of the archive that the paths of the split file start from; `classes`: their names
    in the order of the labels, by which the file's own, of another spelling, are checked."""

    image_folder: str
    classes: list[str]


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read the images of an archive by a split file of CoOp, whose training images it has split off from its
    validation images (not used).

    The split file is JSON, {"train": [[path, label, class name], ...], "val": [...], "test": [...]}. Source:
    github.com/KaiyangZhou/CoOp, DATASETS.md and save_split of datasets/oxford_pets.py.

    Raises:
        ValueError: for another file, for a path that leads out of the images or stands there twice, and for a label
            that the file calls by the name of another class.
    """
    path = files["split"]
    try:
        split = json.loads(path.read_bytes())
        parts = {name: [_sample(*sample) for sample in split[name]] for name in ("train", "val", "test")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = one_line(repr(error))[:200]
        raise ValueError(f"{path}: it is no split file of CoOp: {what}") from error
    _check_paths(path, parts)
    check_names(path, [sample for samples in parts.values() for sample in samples], options.classes)
    unpack(files["images"], scratch)
    folder = scratch / options.image_folder
    return RawDataset(None, _of_paths(folder, parts["train"]), _of_paths(folder, parts["test"]))


def _sample(path: str, label: int, name: str) -> tuple[str, int, str]:
    if not isinstance(path, str) or type(label) is not int or not isinstance(name, str):
        raise ValueError(f"{[path, label, name]!r}; expected path, label and class name")
    return posixpath.normpath(path), label, name


def _check_paths(file: Path, parts: dict[str, list[Sample]]) -> None:
    """Raise ValueError where an image stands there more than once: it would be trained and tested on."""
    seen: dict[str, str] = {}
    for part, samples in parts.items():
        for path, _, _ in samples:
            if path in seen:
                raise ValueError(
                    f"{file}: {path} is in {seen[path]} and once more in {part}; expected each image once"
                )
            seen[path] = part


def check_names(file: Path, samples: list[Sample], classes: list[str]) -> None:
    """Raise ValueError where the file has two names for a label or two labels for a name, or calls a class by what is
    the name of another one. It spells some in its own way (Annual Crop Land, lower case): the nearest name counts."""
    names = dict(sorted({label: name for _, label, name in samples}.items()))
    for path, label, name in samples:
        if names[label] != name:
            raise ValueError(f"{file}: {path} has the label {label}, {name!r}; others of this label {names[label]!r}")
    if not names.keys() <= set(range(len(classes))) or len(set(names.values())) != len(names):
        raise ValueError(f"{file}: {len(names)} labels of {len(set(names.values()))} names; expected {len(classes)}")
    letters = [_letters(name) for name in classes]
    for label, name in names.items():
        near = get_close_matches(_letters(name), letters, n=1)
        if near and near[0] != letters[label]:
            raise ValueError(f"{file}: the label {label} is {name!r} there; expected {classes[label]!r}")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _of_paths(folder: Path, samples: list[Sample]) -> RawImages:
    for path, _, _ in samples:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} lies outside of the data set's images")
    images = ((open_published(folder / path), label) for path, label, _ in samples)
    return RawImages(len(samples), images)
