"""Folders of images of the user's own."""

from pathlib import Path

from hiddencost.datasets.readers.hash_split import HashSplit, split_by_hash
from hiddencost.datasets.readers.raw import RawDataset, open_image, subset
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`path` has train/CLASS/* and test/CLASS/*, or CLASS/* of which `test_share` is for testing."""

    path: str
    test_share: float | None


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read a folder of the user's own. The classes are the folders in alphabetical order.

    Raises:
        ValueError: train and test differ in their classes, or an image cannot be read.
    """
    from torchvision.datasets import ImageFolder  # slow to import

    folder = Path(options.path)
    try:
        if options.test_share is not None:
            images = ImageFolder(folder, loader=open_image)
            names = [Path(path).relative_to(folder).as_posix() for path, _ in images.samples]
            train, test = split_by_hash(names, images.targets, HashSplit(test_share=options.test_share))
            return RawDataset(images.classes, subset(images, train), subset(images, test))
        train, test = (ImageFolder(folder / name, loader=open_image) for name in ("train", "test"))
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if odd := set(train.classes) ^ set(test.classes):
        raise ValueError(f"{folder}: train/ and test/ have different classes: {', '.join(sorted(odd))}")
    return RawDataset(train.classes, subset(train, range(len(train))), subset(test, range(len(test))))
