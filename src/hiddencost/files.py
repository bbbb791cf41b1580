"""Files: written whole or not at all, read, hashed; paths that the user gives; errors of a moment and of a path."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from hiddencost.messages import one_line

TEMPORARY = ".tmp-"  # what names of folders begin with that files are made in, before they get their place
LOCK = ".lock"  # of such a folder: an open file of its own, as writers may put another in the place of theirs


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all: a reader, a killed job or a full disk leaves either the old file or none.

    Args:
        path: of the file; its folder is made where there is none.

    Yields:
        A path of its name in a temporary folder beside it, to write to or to move a file to. On success that file is
        fsynced and renamed to `path`, else removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.parent) as folder:
        temporary = folder / path.name
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # some writers make it private
        temporary.replace(path)


@contextmanager
def scratch(folder: str | os.PathLike) -> Iterator[Path]:
    """Make a temporary folder in one, which `sweep` leaves alone, and remove it with all that is in it."""
    temporary, lock = _held(folder)
    try:
        yield temporary
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def _held(folder: str | os.PathLike) -> tuple[Path, int]:
    """Make a temporary folder, and hold it: its lock, which others on the file system see, ends with the process."""
    temporary = Path(mkdtemp(dir=folder, prefix=TEMPORARY))
    try:
        lock = _open_lock(temporary)
    except FileNotFoundError:  # swept before it was held
        return _held(folder)
    except OSError:  # as of a full disk
        temporary.rmdir()
        raise
    with suppress(OSError):  # a file system without locks, where nothing is swept
        fcntl.flock(lock, fcntl.LOCK_SH)
    if temporary.exists():
        return temporary, lock
    os.close(lock)
    return _held(folder)


def _open_lock(temporary: Path) -> int:
    # not of the folder itself: over NFS that lock is seen on this machine alone
    return os.open(temporary / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def sweep(temporary: str | os.PathLike) -> None:
    """Remove a temporary folder that a killed process has left; none that a process holds."""
    swept = Path(f"{temporary}-swept")
    if os.path.islink(temporary):
        return
    try:
        lock = _open_lock(Path(temporary))
    except OSError:  # gone, or another user's
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # who has made it and is about to hold it sees that it is gone
        os.rename(temporary, swept)
    except OSError:
        return
    finally:
        os.close(lock)
    shutil.rmtree(swept, ignore_errors=True)


def own_path(text: str, is_folder: bool = False) -> Path:
    """Return a path of the user's own, absolute. Raises ValueError, in a line, where no such file or folder is."""
    expected = "folder" if is_folder else "file"
    path = Path(os.path.expanduser(text)).absolute()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no {expected} {one_line(path)}") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero; no right to look
        why = getattr(error, "strerror", error)
        raise ValueError(f"{one_line(path)}: {why}; expected a {expected}") from None
    kinds = {stat.S_IFDIR: "folder", stat.S_IFREG: "file"}
    if (kind := kinds.get(stat.S_IFMT(mode), "pipe or a device")) != expected:
        raise ValueError(f"{one_line(path)} is a {kind}; expected a {expected}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{one_line(path)} cannot be read; expected a {expected} that can")
    return path


def is_away(path: str) -> bool:
    """Return whether nothing of the user's own is at a path: no file, also where a link leads to none, or an empty
    folder, as of a disk that is not mounted."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode) and next(os.scandir(path), None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # it may be there, and reading it tells what is wrong
        return False


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object from a file. Raises ValueError, in a line, where it holds none."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object; delete it, and it is made again")
    return value


def canonical(value: object) -> str:
    """Return one string for one value: JSON with sorted keys.

    Raises:
        ValueError: for NaN and infinity, which JSON has not.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# what is wrong with a path stays so until somebody mends it
OF_THE_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
    *(errno.EACCES, errno.EPERM, errno.EINVAL),
}


def refuse_of_a_moment(error: BaseException, numbers: Container[int] | None = None) -> None:
    """Raise the error of the machine or the file system that an error came of, if it did, as of a disk that does not
    answer.

    What fails of that is not recorded as a result: it would stay one when the moment is over. numbers: of such
    errors, in place of all but those OF_THE_PATH.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is not None and (number in numbers if numbers else number not in OF_THE_PATH):
            raise cause
        cause = cause.__cause__ or cause.__context__


def fetched_files(fetched: str | os.PathLike) -> dict[str, Path]:
    """Return the files of a download, by key, if they are still what they were.

    Args:
        fetched: path of its report, fetched.json.

    Raises:
        ValueError: if the download has failed or a file has other bytes.
        FileNotFoundError: if a file is gone.
    """
    report = read_json(fetched)
    if report["failed"]:
        raise ValueError(report["failed"])
    for file in report["files"].values():
        if (sha256 := sha256_file(file["path"])) != file["sha256"]:
            expected = f"expected {file['sha256']}, as it was fetched; call again, and it is fetched again"
            raise ValueError(f"{file['path']}: sha256 is {sha256}, {expected}")
    return {key: Path(file["path"]) for key, file in report["files"].items()}


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
