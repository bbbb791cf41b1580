"""Products that are made again whatever they were made for: files that are not what the report beside them says, and,
where a call is told to retry, reports of a failure."""

import os
from functools import cache
from pathlib import Path

from hiddencost import contents
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.files import read_json
from hiddencost.jobs.call import Call

FETCHED, PREPARED, IMPORTED = "fetched.json", "dataset.json", "manifest.json"


def why_again(call: Call, product: str) -> str | None:
    """Return why a product is made again, None where nothing is known against it."""
    path = Path(product)
    if path.name in (PREPARED, IMPORTED) and call.retry and _read(path).get("failed"):
        return "it has failed, and is tried again"
    if path.name in _changed(call, path.parent):
        return "files that are not what the report beside them says"
    return None


@cache
def _changed(call: Call, folder: Path) -> set[str]:
    """Return the products in a folder that are not as its report says, or which say so of others."""
    if (folder / PREPARED).exists():
        try:
            return set(PreparedReport.read(folder).damaged(folder, call.check))
        except ValueError:  # in a line, where it is read
            return set()
    files = _read(folder / FETCHED).get("files", {})
    stated = {os.path.relpath(file["path"], folder): file["sha256"] for file in files.values()}
    now = contents.hashed(folder, stated, folder / contents.SEEN, call.check) if stated else {}
    return {FETCHED} if now != stated else set()


def _read(report: Path) -> dict:
    try:
        return read_json(report)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
