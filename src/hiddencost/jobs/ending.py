"""What a call of the workflow ends with: the study's conclusion, or what was made or is missing instead."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hiddencost.jobs.call import Call

SHOWN = 5  # files that are named


def conclude_log(call: Call) -> Path:
    """Return the log of the job that concludes."""
    return Path(call.output, "logs/conclude.log")


def time_of(path: Path) -> int | None:
    """Return a file's time stamp, None where there is no file: whether it was written since is asked of two of these.

    Clocks are not compared, as a file server has its own.
    """
    return path.stat().st_mtime_ns if path.exists() else None


def success(call: Call, is_whole: bool, made: Sequence[str]) -> str:
    """Return what a call that succeeded ends with.

    Args:
        call: the call.
        is_whole: whether it was to make the whole study, so that its conclusion is up to date.
        made: the files that it made.
    """
    if is_whole:
        return Path(call.output, "conclusion.txt").read_text("utf-8")
    others = f" and {len(made) - SHOWN:,} more" if len(made) > SHOWN else ""
    products = f"Made: {', '.join(made[:SHOWN])}{others}." if made else "Nothing was to be made."
    return f"{products}\nWhether study {call.study.study} is complete, `{call.command}` tells."


def failure(call: Call, concluded_before: int | None) -> str:
    """Return what a call that failed ends with: why runs have no result, where that was all.

    Args:
        call: the call.
        concluded_before: `time_of` the log of the job that concludes, as the call began.
    """
    for folder in (call.results, "resources"):  # the log of a job is lost with the space for it
        if Path(folder).exists() and shutil.disk_usage(folder).free < 1 << 20:
            return f"The disk of {folder} is full. Make space: the next call goes on where this one ended."
    if time_of(conclude_log(call)) not in (None, concluded_before):
        return conclude_log(call).read_text("utf-8")
    return (
        f"Study {call.study.study} is not complete. Logs: {call.results}/logs/ and resources/logs/.\n"
        "The next call goes on where this one ended."
    )
