"""What killed processes and clocks have left in the folders of a study, put in order before a call."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from hiddencost.files import TEMPORARY, sweep
from hiddencost.jobs import layout
from hiddencost.jobs.call import Call
from hiddencost.jobs.grid import packs
from hiddencost.jobs.training import wanted, why_made
from hiddencost.runs import packfile

AHEAD = 5 * 10**9  # ns: what is ahead of the clock by less may have been written just now
NEVER = sys.maxsize  # a time that does not come
# ns without a change of a temporary file that nobody writes any more: older versions wrote each in one go, which is
# never so long
ABANDONED = 7 * 86_400 * 10**9


def tidy(call: Call) -> None:
    """Remove temporary folders that nobody holds, abandoned temporary files and states of finished packs.

    No product is left of the future: Snakemake ends a job whose product is older than what it was made of, as what is
    made now is.

    Each file is looked at but those of the ledger, of which a study has many. To be called with the study locked.
    """
    for folder in filter(os.path.isdir, (call.results, "resources")):
        now = _now(folder)
        for path in _files(folder):
            if Path(path).name.startswith(TEMPORARY):
                sweep(path) if os.path.isdir(path) else _sweep_file(path, now)
            elif Path(call.results, layout.LEDGER) not in Path(path).parents:
                _date_back(path, folder, now)
    # as they were called when two packs could share one
    for states in Path(call.path(layout.LEDGER), "unfinished").glob("*.states"):
        states.unlink(missing_ok=True)
    for pack in packs(call, "train"):
        states = packfile.unfinished(wanted(call, "train", **pack))
        if states.exists() and why_made(call, "train", pack, is_planned=False) is None:
            states.unlink(missing_ok=True)


def _files(folder: str) -> Iterator[str]:
    """Yield the files of a folder, and temporary folders as a whole."""
    for top, folders, files in os.walk(folder):
        temporary = [name for name in folders if name.startswith(TEMPORARY)]
        folders[:] = [name for name in folders if name not in temporary]
        yield from (os.path.join(top, name) for name in [*temporary, *files])


def _sweep_file(path: str, now: int) -> None:
    """Remove a temporary file, as older versions made them without a folder of their own, or a lock, that nobody has
    changed for long."""
    with suppress(OSError):  # gone meanwhile, or another user's
        found = os.lstat(path)
        # ctime: that of the content may have come with it, as of a file that was moved there
        changed = max(found.st_mtime_ns, found.st_ctime_ns)
        if stat.S_ISREG(found.st_mode) and now != NEVER and changed < now - ABANDONED:
            os.unlink(path)


def _date_back(path: str, folder: str, earlier: int) -> None:
    with suppress(OSError):  # gone meanwhile, or another user's
        written = os.stat(path).st_mtime_ns
        # others may have written it since that look at the clock
        if written > earlier + AHEAD and written > (now := _now(folder)) + AHEAD:
            os.utime(path, ns=(now, now))


def _now(folder: str) -> int:
    """Return the time by the clock of a folder's file system, NEVER where that has no room to tell it."""
    try:
        with TemporaryFile(dir=folder) as new:
            return os.fstat(new.fileno()).st_mtime_ns
    except OSError:
        return NEVER
