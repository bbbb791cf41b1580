"""Archives that published checkpoints come in: .tar, .tar.gz and .tgz, unpacked in memory and nowhere else."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

from hiddencost.messages import one_line

GZIP = b"\x1f\x8b"  # what a compressed file begins with
# bytes that one byte of an archive unpacks to, at most: of weights two, at best, and of masks, which are 0 and 1, ten
UNPACKED = 20


class _Stream(gzip.GzipFile):
    """Raises EOFError past what an archive can unpack to. What is there counts: a header can be as long as a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.most = UNPACKED * path.stat().st_size + (1 << 20)

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self.most:
            raise EOFError(f"it unpacks to more than {self.most:,} bytes")
        return super().read(size)


def is_archive(path: Path) -> bool:
    """Say whether a file is a .tar or a compressed file, by its bytes."""
    with open(path, "rb") as file:
        start = file.read(512)
    return start.startswith(GZIP) or start[257:262] == b"ustar"


def unpacked(path: Path, is_wanted: Callable[[PurePosixPath], bool], what: str) -> dict[PurePosixPath, bytes]:
    """Return files of an archive, by their paths in it.

    Args:
        path: of the archive.
        is_wanted: of a path in it, whether the file there is one.
        what: the archive is, for messages: "an npm package".

    Raises:
        ValueError: in one line, with `path`: the archive is damaged, or too much is in it.
    """
    parts: dict[PurePosixPath, bytes] = {}
    try:
        with _opened(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as package:
                for member in package:
                    wanted = member.isfile() and is_wanted(PurePosixPath(member.name))
                    if wanted and member.issparse():  # its size is a claim
                        raise tarfile.TarError(f"{member.name} is a sparse file")
                    if wanted and PurePosixPath(member.name) in parts:
                        raise tarfile.TarError(f"{member.name} is there twice")
                    if wanted and (packed := package.extractfile(member)):
                        parts[PurePosixPath(member.name)] = packed.read()
            while stream.read(1 << 20):  # to the end, where gzip's checksum is
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine, not of the file
            raise
        raise ValueError(f"{path}: not {what}, or a damaged one: {one_line(error)}") from error
    return parts


def _opened(path: Path) -> BufferedIOBase:
    with open(path, "rb") as file:
        is_gzip = file.read(2) == GZIP
    return _Stream(path) if is_gzip else open(path, "rb")
