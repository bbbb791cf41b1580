"""Datasets as they are published, read by torchvision's own classes."""

from pathlib import Path
from typing import Any

from hiddencost.datasets.readers.archives import SUFFIXES, unpack
from hiddencost.datasets.readers.folders import own_split, subset
from hiddencost.datasets.readers.source import Source


def read_torchvision(entry: dict, files: dict[str, Path], scratch: Path) -> Source:
    """Lay a dataset's files out under `scratch` as torchvision does after its own download, and let it read them.

    entry: `class` in torchvision.datasets; `home`, the folder in which its archives are unpacked (and `inner`, an
    archive in them); `parts`, the arguments that give the training and the test images, or `own_split`, the arguments
    of `own_split` where torchvision has no split. Raises ValueError where torchvision finds something amiss, such as
    a file within the archive that has not the md5 it knows.
    """
    from torchvision import datasets  # slow to import

    home = scratch / entry["home"]
    home.mkdir(parents=True, exist_ok=True)
    for key, file in entry["files"].items():
        if file["name"].endswith(SUFFIXES):
            unpack(files[key], home)
        else:
            (home / file["name"]).symlink_to(files[key].resolve())
    if "inner" in entry:
        unpack(home / entry["inner"], home)
    opened = {}
    for name, arguments in entry.get("parts", {"all": {}}).items():
        try:
            opened[name] = getattr(datasets, entry["class"])(scratch, download=False, **arguments)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"torchvision's {entry['class']}: {error}") from error
    if "own_split" not in entry:
        parts = {name: subset(images, range(len(images))) for name, images in opened.items()}
        return Source(getattr(opened["train"], "classes", None), **parts)
    names, labels, classes = _names(opened["all"])
    train, test = own_split(names, labels, **entry["own_split"])
    return Source(classes, subset(opened["all"], train), subset(opened["all"], test))


def _names(images: Any) -> tuple[list[str], list[int], list[str]]:
    """Return CLASS/FILE and the label of each image, and the classes."""
    if hasattr(images, "samples"):  # EuroSAT
        return ["/".join(Path(path).parts[-2:]) for path, _ in images.samples], images.targets, images.classes
    numbered = zip(images.y, images.index, strict=True)  # Caltech101
    names = [f"{images.categories[label]}/image_{number:04d}.jpg" for label, number in numbered]
    return names, images.y, images.categories
