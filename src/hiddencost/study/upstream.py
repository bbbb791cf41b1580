"""A folder of images that a study trains networks on upstream, as it lies on the user's disk."""

from pathlib import Path

from hiddencost.datasets.tree import class_folders
from hiddencost.files import own_path

TEST_FOLDERS = ("val", "validation", "test")


def folder_of_tests(folder: Path) -> Path:
    """Return where the test images of a folder with train/CLASS/* are. Raises ValueError where it is none."""
    candidates = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not candidates or not (folder / "train").is_dir():
        raise ValueError(
            f"{folder}: expected folders train/ and {'/, or '.join(TEST_FOLDERS)}/ there, of a folder a class"
        )
    return candidates[0]


def folder_entry(name: str, folder: str) -> dict:
    """Return a folder of images as `upstream.data.load` takes it, with the names of its classes: a class more or less
    trains anew, other images do not, as ImageNet's are too many to look at.

    Args:
        name: of the network that is trained on them, for errors.
        folder: a path of the user's.

    Returns:
        `folder`, an absolute path, and `classes`, their names, sorted.

    Raises:
        ValueError: where it is no such folder.
    """
    try:
        path = own_path(folder, is_folder=True)
        folder_of_tests(path)
        classes = class_folders(path / "train", {})
    except (ValueError, OSError) as error:
        raise ValueError(f"upstream {name}: folder: {error}") from None
    return {"folder": str(path), "classes": classes}
