"""Archives, unpacked into a folder and nowhere else."""

import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path

SUFFIXES = (".zip", ".tar.gz", ".tgz")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or a tar file (the content tells which) into `folder`.

    Raises ValueError for a damaged archive, for a member that would come to lie outside `folder`, and for a link.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for name in packed.namelist():
                    if not (folder / name).resolve().is_relative_to(folder.resolve()):
                        raise ValueError(f"{archive}: the member {name!r} would come to lie outside the folder")
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter=_data_without_links)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: cannot be unpacked: {error}") from error


def _data_without_links(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Python's own filter, and no links: long chains of them lead out of the folder past it (CVE-2025-4517)."""
    if member.issym() or member.islnk():
        raise tarfile.FilterError(f"the member {member.name!r} is a link; expected files and folders")
    return tarfile.data_filter(member, folder)
