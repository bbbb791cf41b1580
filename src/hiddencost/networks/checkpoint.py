"""From a published checkpoint to a backbone in this project's layout."""

import logging
from pathlib import Path

from hiddencost import catalog
from hiddencost.files import fetched_files, read_json
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.formats.registry import READERS

log = logging.getLogger(__name__)


def import_checkpoint(name: str, entry: dict, fetched: str | Path, folder: str | Path) -> None:
    """Read a published checkpoint and write it as a backbone, every key accounted for.

    entry: its `architecture`, `format`, `preprocessing`, `stem` and `upstream_top1` and, for a sparse network,
    `compression`, `sparsity` and `sparsity_over` (catalog); fetched: the report of its download (fetch.fetch_all),
    fetched.json. Where the download failed, or the files are not what the entry says, the backbone that is
    written says why, and the error is logged; nothing is raised.
    """
    entry = catalog.DEFAULTS | entry
    report, family = read_json(fetched), family_of(entry["architecture"])
    manifest = {
        "checkpoint": name,
        "architecture": entry["architecture"],
        "preprocessing": entry["preprocessing"],
        "stem": entry["stem"],
        "upstream_top1": entry["upstream_top1"],
        "compression": entry["compression"],
        "sparsity_declared": entry["sparsity"],
        "sparsity_over": entry["sparsity_over"],
        "source_sha256": {key: file["sha256"] for key, file in report["files"].items()},
    }
    try:
        files = fetched_files(fetched)
        state, masks, counts, widths = READERS[entry["format"]](files)
        network = family.build(entry["architecture"], widths)
        keys = backbones.load_strictly(network, state, str(files["weights"]))
        weights = [weight.tensor for weight in family.prunable_weights(network).values()]
        narrowed = family.count_removed_weights(network, entry["architecture"]) if widths else 0
        gone = narrowed + sum(int((weight == 0).sum()) for weight in weights)
        sparsity = gone / (narrowed + sum(weight.numel() for weight in weights))
        if entry["compression"] != "none" and not sparsity:
            raise ValueError(
                f"{files['weights']}: no weight is 0 or gone, expected a network pruned by {entry['compression']}"
            )
    except ValueError as error:
        log.error("checkpoint %s cannot be used: %s", name, error)
        backbones.save_failure(folder, str(error), manifest)
        return
    log.info("%s: %d keys matched, none missing, none unexpected; %s", files["weights"], keys, counts)
    log.info("%s: sparsity of the %s is %.4f", name, family.sparsity_over, sparsity)
    if entry["sparsity"] is None:
        log.warning("%s: no sparsity is published for it: what the file has is taken as declared", name)
        manifest["sparsity_declared"] = sparsity
    if widths:
        manifest["widths"] = widths
    backbones.save(folder, network.state_dict(), masks, manifest | {"keys": keys, "report": counts})
