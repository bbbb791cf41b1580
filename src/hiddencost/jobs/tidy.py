"""What killed processes and clocks have left in the folders of a study, put in order before a call."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from hiddencost.files import TEMPORARY, sweep
from hiddencost.jobs import layout
from hiddencost.jobs.call import Call
from hiddencost.jobs.grid import packs
from hiddencost.jobs.training import wanted, why_made
from hiddencost.runs import packfile


def tidy(call: Call) -> None:
    """Remove temporary files that nobody writes and states of finished packs, and let no product be of the future.

    Snakemake ends a job whose product is older than what it was made of, as what is made now is.

    Each file is looked at but those of the ledger, of which a study has many.
    """
    for folder in filter(os.path.isdir, (call.results, "resources")):
        with NamedTemporaryFile(dir=folder, prefix=TEMPORARY) as new:
            now = os.stat(new.name).st_mtime_ns  # by the clock of the file system
        for path in _files(folder):
            if Path(path).name.startswith(TEMPORARY):
                sweep(path)
            elif Path(call.results, layout.LEDGER) not in Path(path).parents:
                _date_back(path, now)
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


def _date_back(path: str, now: int) -> None:
    with suppress(OSError):  # gone meanwhile, or another user's
        if os.stat(path).st_mtime_ns > now:
            os.utime(path, ns=(now, now))
