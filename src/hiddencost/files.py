"""Files: written whole or not at all, hashed, and hashed code."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`, else remove it.

    A reader, a killed job or a full disk therefore leaves either the old file or none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays: some writers (Matplotlib, NumPy) choose the format by it
    with NamedTemporaryFile(dir=path.parent, prefix=".tmp-", suffix=path.suffix, delete=False) as handle:
        temporary = Path(handle.name)
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # NamedTemporaryFile makes it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def canonical(value: object) -> str:
    """One string for one value: JSON with sorted keys. NaN is refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetched_files(fetched: str | os.PathLike) -> dict[str, Path]:
    """Return the files, by key, of a download's report (fetched.json), if they are still what they were.

    Raises ValueError if the download has failed or a file has other bytes, FileNotFoundError if it is gone.
    """
    report = read_json(fetched)
    if report["failed"]:
        raise ValueError(report["failed"])
    for file in report["files"].values():
        if (found := sha256_file(file["path"])) != file["sha256"]:
            raise ValueError(f"{file['path']}: sha256 is {found}, expected {file['sha256']}, as it was fetched")
    return {key: Path(file["path"]) for key, file in report["files"].items()}


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
