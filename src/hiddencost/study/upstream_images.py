"""How many images are in a folder that networks are trained on upstream: for plans, and no training."""

import os

from hiddencost import contents
from hiddencost.datasets.tree import IMAGE, NAMED, class_folders
from hiddencost.files import own_path
from hiddencost.study.upstream import folder_of_tests


def count_images(name: str, folder: str) -> int:
    """Return how many training images a folder has, by their names: see `contents.counted`.

    Args:
        name: of the network that is trained on them, for errors.
        folder: a path of the user's.

    Raises:
        ValueError: where it cannot be listed, or its parts have different classes.
    """
    try:
        path = own_path(folder, is_folder=True)
        train, tests = path / "train", folder_of_tests(path)
        classes = class_folders(train, {})
        if odd := sorted(set(classes) ^ set(class_folders(tests, {}))):
            more = f" and {len(odd) - NAMED} more" if odd[NAMED:] else ""
            raise ValueError(
                f"{path}: train/ and {tests.name}/ have different classes: {', '.join(odd[:NAMED])}{more}"
            )
        return sum(contents.counted(train, classes, _count).values())
    except (ValueError, OSError) as error:
        raise ValueError(f"upstream {name}: folder: {error}") from None


def _count(folder: str) -> int:
    return sum(IMAGE.fullmatch(file) is not None for _, _, files in os.walk(folder) for file in files)
