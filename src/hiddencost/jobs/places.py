"""Where what is read of files lies: of published ones in a folder that studies share, of the user's own in the
study's.

So another file than was asked for, or none that can be read, is the matter of the study that names it alone.
"""

from pathlib import Path

from hiddencost.jobs import layout
from hiddencost.jobs.call import Call


def home(call: Call, kind: str, name: str) -> str:
    """Return the folder for what is read of an entry's files; kind: of `layout.FETCHED`."""
    is_own = (
        name in call.study.paths
        or (kind == "checkpoints" and call.study.own_checkpoint(name))
        or (kind == "datasets" and not call.datasets[name].files)
    )
    return call.path(layout.OWN) if is_own else layout.SHARED


def fetched(call: Call, kind: str, name: str) -> str:
    """Return the report of the download of an entry's files; kind: of `layout.FETCHED`."""
    return layout.FETCHED[kind].format(home=home(call, kind, name), name=name)


def imported_folder(call: Call, checkpoint: str) -> str:
    """Return the folder of an imported checkpoint."""
    return str(Path(imported(call, checkpoint)[0]).parent)


def imported(call: Call, checkpoint: str) -> list[str]:
    """Return the files of an imported checkpoint."""
    return layout.imported(checkpoint, home(call, "checkpoints", checkpoint))


def prepared_folder(call: Call, dataset: str, size: str | int) -> str:
    """Return the folder of a dataset that is prepared at a size."""
    return str(Path(prepared(call, dataset, size)[0]).parent)


def prepared(call: Call, dataset: str, size: str | int) -> list[str]:
    """Return the files of a dataset that is prepared at a size."""
    return layout.prepared(dataset, size, home(call, "datasets", dataset))
