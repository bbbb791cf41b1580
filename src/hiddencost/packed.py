"""A folder of files of the user's own as one file, in the place of a published archive."""

from pathlib import Path
from zipfile import ZipFile, ZipInfo


def files_of(folder: str | Path) -> list[str]:
    """Return the names of the files that are directly in a folder, without those that are hidden, in order."""
    return sorted(path.name for path in Path(folder).glob("[!.]*") if path.is_file())


def pack(folder: str | Path, path: Path) -> Path:
    """Write the files that are directly in a folder into a zip, and return its path: the same bytes for the same
    names and contents."""
    with ZipFile(path, "w") as archive:  # without compression, and with the date that ZipInfo gives
        for name in files_of(folder):
            archive.writestr(ZipInfo(name), Path(folder, name).read_bytes())
    return path
