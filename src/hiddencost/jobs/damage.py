"""Products that are made again whatever they were made for: files that are not what the report beside them says, and,
where a call is told to retry, reports of a failure."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from hiddencost import contents
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.jobs.call import Call
from hiddencost.networks.manifest import Manifest
from hiddencost.sources import FetchedReport

FETCHED = "fetched.json"
MADE: dict[str, Any] = {
    "dataset.json": PreparedReport,
    "manifest.json": Manifest,
}  # reports of what a job has made beside them


def why_again(call: Call, product: str) -> str | None:
    """Return why a product is made again, None where nothing is known against it."""
    path = Path(product)
    # whether a download is tried again, its params say
    if call.retry and path.name in MADE and getattr(_report(path), "failed", None):
        return "it has failed, and is tried again"
    if path.name in _changed(call, path.parent):
        return "files that are not what the report beside them says"
    return None


@cache
def _changed(call: Call, folder: Path) -> set[str]:
    """Return the products in a folder that are not as its report says, or which say so of others."""
    for name in MADE:
        if report := _report(folder / name):
            return set(contents.unlike(folder, report.sha256, call.check))
    if report := _report(folder / FETCHED):
        files = {os.path.relpath(file.path, folder): file.sha256 for file in report.files.values()}
        return {FETCHED} if contents.unlike(folder, files, call.check) else set()
    return set()


def _report(path: Path) -> Any:
    """Return a report, None where there is none; of one that is damaged a line tells where it is read."""
    try:
        return (MADE | {FETCHED: FetchedReport})[path.name].read(path.parent)
    except (OSError, ValueError):
        return None
