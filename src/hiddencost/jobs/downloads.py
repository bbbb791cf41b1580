"""Downloads: what they depend on, whether one that has failed is tried again, and what is left out without it."""

from pathlib import Path

from hiddencost.catalog.entries import DatasetEntry, NetworkEntry, PhotosEntry
from hiddencost.jobs import layout
from hiddencost.jobs.call import Call
from hiddencost.messages import StudyError
from hiddencost.sources import FetchedReport, download_digest

Entry = NetworkEntry | DatasetEntry | PhotosEntry


def report_of(kind: str, name: str) -> FetchedReport:
    """Return the report of an earlier download; kind: of `layout.FETCHED`. Raises StudyError where it is damaged."""
    try:
        return FetchedReport.read(Path(layout.FETCHED[kind].format(name)).parent)
    except FileNotFoundError:
        return FetchedReport()
    except (OSError, ValueError) as error:
        raise StudyError(error) from None


def is_retried(call: Call, report: FetchedReport, name: str, entry: Entry) -> bool:
    """Return whether a download that has failed is tried again: the call says so, or what to fetch has changed."""
    return bool(report.failed) and (call.retry or report.asked != download_digest(name, entry.files, call.offline))


def why_left_out(call: Call, kind: str, name: str, entry: NetworkEntry | DatasetEntry) -> str | None:
    """Return why nothing can be made of a checkpoint or dataset: it is not public, or its download has failed.

    None if it can. Its runs are rows without a result. A download that fails while the workflow runs is carried to
    them by files.
    """
    report, folder = report_of(kind, name), Path(layout.FETCHED[kind].format(name)).parent
    if report.failed and not is_retried(call, report, name, entry):
        again = f"to try again: {call.command} --config retry=true; or give files of your own: paths"
        return f"{report.failed} ({again})"
    if call.offline:
        for file in entry.files.values():
            if not file.user_paths and not Path(folder, file.name).exists():
                return f"offline, and {folder / file.name} is not there"
    return entry.unavailable


def checksums(call: Call, entry: Entry) -> dict:
    """Return what a download depends on, by file: its name and sums, and the user's own paths (`own`) with what is
    there (`holds`); not its other sources, as another one gives the same bytes."""
    return {
        key: file.expected() | {"own": file.user_paths, "holds": [call.own_contents[path] for path in file.own_paths]}
        for key, file in entry.files.items()
    }


def settings(call: Call, kind: str, name: str, entry: Entry) -> dict:
    """Return the settings of a download: its `files` and, as a job runs again when they change, how often it has been
    tried (`attempt`)."""
    report = report_of(kind, name)
    return {"files": checksums(call, entry), "attempt": report.attempt + is_retried(call, report, name, entry)}
