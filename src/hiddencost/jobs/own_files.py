"""What files of the user's own hold, which a study names by `paths`."""

import os
import re

from hiddencost import contents
from hiddencost.catalog.entries import CheckpointEntry, DatasetEntry, PhotosEntry
from hiddencost.files import own_path
from hiddencost.messages import one_line
from hiddencost.packed import files_of


def content(path: str, entry: CheckpointEntry | DatasetEntry | PhotosEntry, full: bool) -> str:
    """Return the digest of what a path of the user's own holds: a file, or of photos also a folder.

    Args:
        path: absolute.
        entry: of the catalog, whose file it is.
        full: see `contents.hashed`.

    Raises:
        ValueError: in a line, where there is no such file, or the folder has not the entry's photos.
    """
    if not isinstance(entry, PhotosEntry) or not os.path.isdir(path):
        return contents.digest(own_path(path), full=full)
    names, pattern = files_of(path), re.compile(entry.member_pattern)
    if (found := sum(map(bool, map(pattern.fullmatch, names)))) != entry.count:
        raise ValueError(
            f"{one_line(path)} has {found} photos, by their names; expected {entry.count} directly in it"
        )
    return contents.digest(path, names, full)
