"""Data sets of the user's own, as entries of the catalog."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiddencost import contents
from hiddencost.catalog.entries import Counts, DatasetEntry
from hiddencost.datasets.prepared import PARTS
from hiddencost.datasets.readers.registry import READERS
from hiddencost.datasets.tree import NAMED, class_folders, read_tree
from hiddencost.files import own_path
from hiddencost.messages import one_line

Names = Mapping[str, str] | Sequence[str]


def user_entry(
    name: str,
    folder: str | None = None,
    npz: str | None = None,
    test_share: float | None = None,
    classes: Names | None = None,
    check: bool = False,
) -> DatasetEntry:
    """Return an entry, as of the catalog, for a dataset of the user's own.

    Args:
        name: of the dataset.
        folder: train/CLASS/* and test/CLASS/*, or CLASS/* of which `test_share` is for testing (`datasets.tree`).
        npz: see `readers.npz`.
        test_share: of a folder of classes.
        classes: names of the classes: of a folder by its folders' names, of an npz in the order of the labels.
        check: whether all files are read, also those that seem to be as they were: see `contents.hashed`.

    Returns:
        The entry. Its `files_digest` changes with the names of the files and with what they hold; its `classes` are
        None where the labels alone tell how many there are.

    Raises:
        ValueError: where there is no such folder or file, where it is not as `datasets.tree` or `readers.npz` want
            it, where a folder has a test set and a test_share too, or neither, and where `classes` are not its own.
    """
    own = folder or npz
    assert own is not None, "a dataset of the user's own has a folder or an npz"
    try:
        own_path(own, is_folder=bool(folder))
        path = Path(os.path.expanduser(own))
        options: dict[str, Any] = {"path": str(path)}
        files, names = [str(path)], list(classes) if classes else None
        if folder:
            _check_parts(path, test_share)
            tree = read_tree(path, PARTS if test_share is None else ())
            files, names = tree.files, _named(path, tree.classes, classes)
            options |= {"test_share": test_share} | ({"classes": classes} if classes else {})
        raw = READERS["folder" if folder else "npz"](name, options, {}, path)  # all but the pixels
        files_digest = contents.digest(path, [file[len(str(path)) + 1 :] for file in files], check)
    except (ValueError, OSError) as error:
        raise ValueError(one_line(f"dataset {name}: {error}")) from None
    return DatasetEntry(
        title=f"{name}, the user's own: {path}",
        reader="folder" if folder else "npz",
        options=options,
        files_digest=files_digest,
        files={},
        classes=names,
        counts=Counts(train=raw.train.count, test=raw.test.count),
        native_size=None,
        image_size=None,
        split=f"{test_share:.0%} of each class for testing, by SHA-256" if test_share else "the user's own",
        licence="the user's own",
        citation=None,
    )


def _check_parts(folder: Path, test_share: float | None) -> None:
    """Raise ValueError where a folder has a test set and a test_share, or neither."""
    if all((folder / part).is_dir() for part in PARTS):
        if test_share is not None:
            raise ValueError(f"{folder} has the folders train and test; expected no test_share")
    elif test_share is None:
        names = class_folders(folder, {})
        shown = ", ".join(names[:NAMED]) + (", ..." if names[NAMED:] else "")
        raise ValueError(f"{folder} has not the folders train and test, but {shown}; expected a test_share, or these")


def _named(folder: Path, found: list[str], given: Names | None) -> list[str]:
    """Return the names of a folder's classes, which its folders are called by but for those `given`."""
    if given is None:
        return found
    if not isinstance(given, Mapping):
        raise ValueError(f"classes: a list; expected names by the folders of {folder}, such as {found[0]}: its name")
    if odd := sorted(set(given) ^ set(found)):
        raise ValueError(
            f"classes: {', '.join(odd[:NAMED])}: in one alone, of classes and the folders of {folder}; "
            f"expected a name for each of its {len(found)} folders"
        )
    return [given[name] for name in found]
