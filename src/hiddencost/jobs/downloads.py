"""Downloads: what they depend on, whether one that has failed is tried again, and what is left out without it."""

from collections.abc import Mapping
from pathlib import Path

from hiddencost.catalog.entries import CheckpointEntry, DatasetEntry, NetworkEntry, PhotosEntry
from hiddencost.jobs import places
from hiddencost.jobs.call import Call
from hiddencost.messages import StudyError
from hiddencost.sources import FetchedReport, download_digest

Entry = NetworkEntry | DatasetEntry | PhotosEntry


def report_of(folder: Path) -> FetchedReport:
    """Return the report of an earlier download into a folder. Raises StudyError where it is damaged."""
    try:
        return FetchedReport.read(folder)
    except FileNotFoundError:
        return FetchedReport()
    except (OSError, ValueError) as error:
        raise StudyError(error) from None


def is_retried(call: Call, report: FetchedReport, name: str, entry: Entry) -> bool:
    """Return whether a download that has failed is tried again: the call says so, what to fetch has changed, or it is
    of the user's own files, whose content its job is asked for."""
    own = any(file.user_paths for file in entry.files.values())
    asked = own or report.asked != download_digest(name, entry.files, call.offline)
    return bool(report.failed) and (call.retry or asked)


def why_left_out(call: Call, kind: str, name: str, entry: NetworkEntry | DatasetEntry) -> str | None:
    """Return why nothing can be made of a checkpoint or dataset: it is not public, or its download has failed.

    None if it can. Its runs are rows without a result. A download that fails while the workflow runs is carried to
    them by files.
    """
    folder = Path(places.fetched(call, kind, name)).parent
    report = report_of(folder)
    if report.failed and not is_retried(call, report, name, entry):
        again = f"to try again: {call.command} --config retry=true; or give files of your own: paths"
        return f"{report.failed} ({again})"
    if call.offline:
        for file in entry.files.values():
            if not file.user_paths and not Path(folder, file.name).exists():
                return f"offline, and {folder / file.name} is not there"
    return entry.unavailable


def checksums(call: Call, entry: Entry) -> dict:
    """Return what a download depends on, by file: its name and sums, its paths in this project (`own`), and what is
    in the user's own files (`holds`), wherever these lie (see `own_paths`); not its other sources, as another one
    gives the same bytes."""
    return {
        key: file.expected()
        | {
            "own": [path for path in file.user_paths if path not in file.own_paths],
            "holds": [call.own_contents[path] for path in file.own_paths],
        }
        for key, file in entry.files.items()
    }


def own_paths(call: Call) -> dict[str, dict[str, list[str]]]:
    """Return where the user's own files are, by their keys, for the jobs that fetch an entry, by its report: no
    setting of these, as a file that moves is the same."""
    entries: dict[str, Mapping[str, CheckpointEntry | DatasetEntry | PhotosEntry]]
    photos = {call.study.verification.photos: call.study.photos_entry()}
    entries = {"checkpoints": call.published, "datasets": call.datasets, "photos": photos}
    return {
        places.fetched(call, kind, name): {key: file.own_paths for key, file in entry.files.items() if file.own_paths}
        for kind, of_kind in entries.items()
        for name, entry in of_kind.items()
        if any(file.own_paths for file in entry.files.values())
    }


def settings(call: Call, kind: str, name: str, entry: Entry) -> dict:
    """Return the settings of a download: its `files` and, as a job runs again when they change, how often it has been
    tried (`attempt`)."""
    report = report_of(Path(places.fetched(call, kind, name)).parent)
    return {"files": checksums(call, entry), "attempt": report.attempt + is_retried(call, report, name, entry)}
