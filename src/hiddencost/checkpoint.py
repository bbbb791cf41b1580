"""From a published checkpoint to a backbone in this project's layout."""

import logging
from pathlib import Path

from hiddencost import backbone
from hiddencost.formats import READERS

log = logging.getLogger(__name__)


def import_checkpoint(name: str, entry: dict, source: str | Path, folder: str | Path) -> None:
    """Read a published checkpoint (catalog entry) and write it as a backbone, every key accounted for."""
    state = READERS[entry["format"]](Path(source))
    matched = backbone.load_strictly(backbone.build(entry["architecture"]), state, str(source))
    log.info("%s: %d keys matched, none missing, none unexpected", source, matched)
    manifest = {
        "checkpoint": name,
        "architecture": entry["architecture"],
        "preprocessing": entry["preprocessing"],
        "stem": entry["stem"],
        "upstream_top1": entry["upstream_top1"],
        "source_sha256": entry["sha256"],
    }
    backbone.save(folder, state, {}, manifest)
