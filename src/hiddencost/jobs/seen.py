"""What is found of files of the user's own, kept for the jobs of a call and for calls when their disk is away."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hiddencost import contents
from hiddencost.files import atomic, canonical, is_away, sha256_text
from hiddencost.messages import one_line

log = logging.getLogger(__name__)


def seen(
    what: str,
    own: str,
    asked: Any,
    kind: Any,
    look: Callable[[], Any],
    is_job: bool,
    told: set[tuple[str, str]],
) -> Any:
    """Return what is found of files of the user's own: as they are, to a job as they were when it was planned.

    Where they are gone, as a disk that is not mounted, it is as they were when they were last seen: what was made
    of them stays, and can be shown in other colours.

    Args:
        what: they are called in messages.
        own: their path.
        asked: what is asked of them, which tells them from others.
        kind: the type of what is found.
        look: finds it.
        is_job: whether a job asks.
        told: of what it was told that it is gone; what is asked twice is told once.
    """
    record = contents.RECORDS / f"{sha256_text(canonical(asked))[:16]}.entry.json"
    known = TypeAdapter(kind)
    if is_job or is_away(own):
        try:
            found = known.validate_json(record.read_bytes())
        except (OSError, ValidationError):  # none, or damaged
            pass
        else:
            if not is_job and (what, own) not in told:
                told.add((what, own))
                log.warning("%s: there is no %s now: what was made of it is used", what, one_line(own))
            return found
    found = look()
    with suppress(OSError), atomic(record) as temporary:
        temporary.write_bytes(known.dump_json(found))
    return found
