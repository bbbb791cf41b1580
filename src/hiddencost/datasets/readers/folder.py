"""Folders of images of the user's own."""

from pathlib import Path

from PIL import Image

from hiddencost.datasets.prepared import PARTS
from hiddencost.datasets.readers.hash_split import HashSplit, split_by_hash
from hiddencost.datasets.readers.image import open_image
from hiddencost.datasets.readers.raw import ImageFiles, RawDataset, subset
from hiddencost.datasets.tree import read_tree
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`path` has train/CLASS/* and test/CLASS/*, or CLASS/* of which `test_share` is for testing; `classes` are names
    for classes that their folders do not name, by the folders' names."""

    path: str
    test_share: float | None
    classes: dict[str, str] | None = None


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read a folder of the user's own. The classes are the folders in alphabetical order.

    Raises ValueError where the folder is not as `datasets.tree` wants it, or an image cannot be read.
    """
    folder, share = Path(options.path), options.test_share
    tree = read_tree(folder, PARTS if share is None else ())
    names = [(options.classes or {}).get(name, name) for name in tree.classes]

    def opened(path: str) -> Image.Image:
        return open_image(path, lambda what: tree.remarks.setdefault(what, []).append(path))

    images = {part: ImageFiles(tree.samples(part), opened) for part in tree.images}
    if share is None:
        train, test = (subset(images[part], range(len(images[part]))) for part in PARTS)
    else:
        samples = images[""].samples
        paths = [Path(path).relative_to(folder).as_posix() for path, _ in samples]
        indices = split_by_hash(paths, [label for _, label in samples], HashSplit(test_share=share))
        train, test = (subset(images[""], part) for part in indices)
    return RawDataset(names, train, test, tree.remarks)
