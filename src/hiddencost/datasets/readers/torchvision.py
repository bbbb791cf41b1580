"""Datasets as they are published, read by torchvision's own classes."""

from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field, model_validator

from hiddencost.datasets.readers.archives import SUFFIXES, unpack
from hiddencost.datasets.readers.hash_split import HashSplit, split_by_hash
from hiddencost.datasets.readers.image import forget_other_formats
from hiddencost.datasets.readers.raw import RawDataset, subset
from hiddencost.files import OF_THE_PATH
from hiddencost.messages import Record


class Options(Record, strict=True):
    """A class of torchvision.datasets, and where it expects its files."""

    class_name: str = Field(alias="class", description="in torchvision.datasets")
    home: str = Field(description="the folder in which its archives are unpacked")
    inner: str | None = Field(None, description="an archive in them, unpacked too")
    parts: dict[str, dict[str, Any]] | None = Field(
        None, description="the arguments that give the training and the test images"
    )
    split_by_hash: HashSplit | None = Field(None, description="where torchvision has no split")
    renamed: bool = Field(False, description="the catalog calls the classes, in their order, by other names")

    @model_validator(mode="after")
    def _one_split(self) -> "Options":
        if (self.parts is None) == (self.split_by_hash is None):
            raise ValueError("expected either parts or split_by_hash")
        return self


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Lay a dataset's files out under `scratch` as torchvision does after its own download, and let it read them.

    Raises ValueError where torchvision finds something amiss, such as a file within the archive that has not the md5
    it knows.
    """
    from torchvision import datasets  # slow to import

    forget_other_formats()  # it opens images itself
    home = scratch / options.home
    home.mkdir(parents=True, exist_ok=True)
    for path in files.values():
        if path.name.endswith(SUFFIXES):
            unpack(path, home)
        else:
            (home / path.name).symlink_to(path.resolve())
    if options.inner:
        unpack(home / options.inner, home)
    opened = {}
    for name, arguments in (options.parts or {"all": {}}).items():
        try:
            opened[name] = getattr(datasets, options.class_name)(scratch, download=False, **arguments)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"torchvision's {options.class_name}: {error}") from error
    if options.parts:
        parts = {name: subset(_Told(images), range(len(images))) for name, images in opened.items()}
        classes = None if options.renamed else getattr(opened["train"], "classes", None)
        return RawDataset(classes, parts["train"], parts["test"])
    assert options.split_by_hash, "see `_one_split`"
    names, labels, classes = _names(opened["all"])
    train, test = split_by_hash(names, labels, options.split_by_hash)
    images = _Told(opened["all"])
    return RawDataset(None if options.renamed else classes, subset(images, train), subset(images, test))


class _Told:
    """Images of torchvision, which are told in a line where they cannot be read."""

    def __init__(self, images: Any):
        self.images = images

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        try:
            return self.images[index]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            if getattr(error, "errno", None) not in (None, *OF_THE_PATH):
                raise
            raise ValueError(f"image {index} of torchvision's {type(self.images).__name__}: {error}") from error


def _names(images: Any) -> tuple[list[str], list[int], list[str]]:
    """Return CLASS/FILE and the label of each image, and the classes."""
    if hasattr(images, "samples"):  # EuroSAT
        return ["/".join(Path(path).parts[-2:]) for path, _ in images.samples], images.targets, images.classes
    numbered = zip(images.y, images.index, strict=True)  # Caltech101
    names = [f"{images.categories[label]}/image_{number:04d}.jpg" for label, number in numbered]
    return names, images.y, images.categories
