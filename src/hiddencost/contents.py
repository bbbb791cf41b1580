"""What files hold: hashed once, and again where size, times or inode have changed since.

A file is known by its content alone. That it is as it was, its status tells: a file that is copied over, moved into
its place or edited has another time of its last change (ctime), whatever `cp -p`, `mv` or `touch` make of the time of
its content (mtime). Where the status is another, the content is read again, and decides.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from hiddencost.files import atomic, canonical, read_json, sha256_file, sha256_text

RECORDS = Path("resources/contents")
SEEN = ".seen.json"  # the record of files that a report beside them names
# ns. A file that is written again so soon after it was hashed may have the same times: clocks of file systems tick
SETTLED = 2 * 10**9
READERS = 8  # files that are read at a time
NO_FILE = ("ENOENT", "ENOTDIR", "no file")  # what is there in the place of a SHA-256: nothing, or a folder or pipe
Status = tuple[int, int, int, int]


def hashed(root: str | os.PathLike, files: Iterable[str], record: Path | None = None, full: bool = False) -> dict:
    """Return the SHA-256 of files by their path in `root`.

    Args:
        root: a folder, or the file itself, of which `files` is [""].
        files: paths below it.
        record: the JSON file that keeps what is known of them; by default one for each root, in `resources/contents`.
            Where it cannot be written, all are read each time.
        full: read all, whatever their status says.

    Returns:
        {path: SHA-256, or where nothing can be read why not, such as "ENOENT"}.
    """
    top = os.path.abspath(root)
    record = record or RECORDS / f"{sha256_text(top)[:16]}.json"
    before = {} if full else _read(record, top)
    paths = {name: os.path.join(top, name) if name else top for name in files}
    status = {name: _status(path) for name, path in paths.items()}
    same = {name: before[name] for name, now in status.items() if name in before and before[name][:4] == now}
    others = [name for name in paths if name not in same]
    with ThreadPoolExecutor(READERS) as pool:
        each = pool.map(sha256, [paths[name] for name in others])
        shown = tqdm(each, desc=f"reading {top}", total=len(others), unit=" files", delay=5, mininterval=5)
        read = dict(zip(others, shown, strict=True))
    settled = time.time_ns() - SETTLED
    new = {
        name: (*now, read[name])
        for name in others
        if (now := status[name]) and max(now[1:3]) < settled and len(read[name]) == 64
    }
    if full or new or before.keys() != same.keys():  # what was on record of them may be wrong
        _write(record, top, same | new)
    return {name: same[name][-1] if name in same else read[name] for name in paths}


def counted(root: str | os.PathLike, folders: Iterable[str], count: Callable[[str], int]) -> dict[str, int]:
    """Return how many of something there are in folders, by their path in `root`: counted once, and again where the
    times of a folder tell that something has come or gone since.

    count: counts, in the folder of a path.
    """
    top = os.path.abspath(root)
    record = RECORDS / f"{sha256_text(top)[:16]}.counts.json"
    before = _read(record, top)
    paths = {name: os.path.join(top, name) for name in folders}
    status = {name: _status(path) for name, path in paths.items()}
    known = {name: before[name] for name in paths if name in before and before[name][:4] == status[name]}
    new = [name for name in paths if name not in known]
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(new, pool.map(lambda name: count(paths[name]), new), strict=True))
    if new:
        known |= {name: (*now, str(found[name])) for name in new if (now := status[name])}
        _write(record, top, known)
    return {name: found[name] if name in found else int(known[name][-1]) for name in paths}


def keep(folder: str | os.PathLike, files: Mapping[str, str]) -> None:
    """Keep the SHA-256 of files, by their path in `folder`, that this process has just written, for `unlike`."""
    status = {name: _status(os.path.join(folder, name)) for name in files}
    known = {name: (*now, files[name]) for name, now in status.items() if now}
    _write(Path(folder, SEEN), os.path.abspath(folder), known)


def unlike(folder: str | os.PathLike, stated: Mapping[str, str], full: bool = False) -> dict[str, str]:
    """Return what files of a folder hold that are not of the SHA-256 that a report beside them states, by their path
    in it; see `hashed`."""
    now = hashed(folder, stated, Path(folder, SEEN), full)
    return {name: found for name, found in now.items() if found != stated[name]}


def refuse_unlike(folder: str | os.PathLike, stated: Mapping[str, str], was: str, full: bool = False) -> None:
    """Raise OSError, which fails a job and is no result, where a file of a folder is `unlike` its report; `was`: what
    was done when it was as stated, such as "prepared"."""
    for name, found in unlike(folder, stated, full).items():
        expected = f"expected {stated[name]}, as it was {was}; call again, and it is made again"
        raise OSError(f"{Path(folder, name)}: sha256 is {found}, {expected}")


def digest(root: str | os.PathLike, files: Iterable[str] = ("",), full: bool = False) -> str:
    """Return the SHA-256 over the paths and the contents of files; see `hashed`."""
    return sha256_text(canonical(hashed(root, files, full=full)))


def _status(path: str) -> Status | None:
    """Return size, mtime, ctime (ns) and inode of a file, None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def sha256(path: str) -> str:
    """Return the SHA-256 of a file that is read now, or why it cannot be: see `hashed`."""
    try:
        # before it is opened: a pipe is waited for
        return sha256_file(path) if stat.S_ISREG(os.stat(path).st_mode) else NO_FILE[-1]
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unreadable")


def _read(record: Path, top: str) -> dict[str, tuple]:
    """Return the status and the SHA-256 of files by their path in `top`."""
    try:
        known = read_json(record)
        files = known["files"] if known["root"] == top else {}
        return {name: (*map(int, one[:4]), str(one[4])) for name, one in files.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):  # none, or damaged
        return {}


def _write(record: Path, top: str, files: dict[str, tuple]) -> None:
    # where there is no room for it, or no right to write, it is done without
    with suppress(OSError), atomic(record) as temporary:
        temporary.write_text(json.dumps({"root": top, "files": files}))
