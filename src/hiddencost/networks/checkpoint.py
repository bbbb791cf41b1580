"""From a published checkpoint to a backbone in this project's layout."""

import logging
from pathlib import Path

from torch import Tensor, nn

from hiddencost.catalog.entries import UNCOMPRESSED, CheckpointLayout
from hiddencost.files import fetched_files, read_json, refuse_of_a_moment
from hiddencost.messages import one_line
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.formats.registry import READERS
from hiddencost.networks.manifest import Manifest

log = logging.getLogger(__name__)


def import_checkpoint(name: str, layout: CheckpointLayout, fetched: str | Path, folder: str | Path) -> None:
    """Read a published checkpoint and write it as a backbone, every key accounted for.

    Where its download failed, or the files are not what the layout says, the backbone that is written says why, and
    the error is logged; nothing is raised.

    Args:
        name: in the catalog.
        layout: of its entry there.
        fetched: fetched.json, the report of its download (`fetch.fetch_all`).
        folder: of the backbone to write.
    """
    report, family = read_json(fetched), family_of(layout.architecture)
    manifest = Manifest(
        checkpoint=name,
        architecture=layout.architecture,
        preprocessing=layout.preprocessing.model_dump(exclude_none=True),
        stem=layout.stem,
        upstream_top1=layout.upstream_top1,
        compression=layout.compression,
        sparsity_declared=layout.sparsity,
        sparsity_over=layout.sparsity_over,
        source_sha256={key: file["sha256"] for key, file in report["files"].items()},
    )
    try:
        files = fetched_files(fetched)
        state, masks, counts, widths, upstream = READERS[layout.format](files)
        more = {"widths": widths, "narrowed_from": layout.narrowed_from, "upstream": upstream}
        network = family.build(layout.architecture, widths)
        keys = backbones.load_strictly(network, state, str(files["weights"]))
        _check_numbers(network, state, str(files["weights"]))
        parameters, over = dict(network.named_parameters()), layout.sparsity_over
        weights = [parameters[key] for key in family.sparsity_groups(network, layout.stem)[over]]
        manifest = manifest.replace(**{key: value for key, value in more.items() if value})
        narrowed = family.count_removed_weights(network, manifest.whole)
        zeros = narrowed + sum(int((weight == 0).sum()) for weight in weights)
        sparsity = zeros / (narrowed + sum(weight.numel() for weight in weights))
        if layout.compression != UNCOMPRESSED and layout.sparsity != 0 and not sparsity:  # 0: of one that rounds
            raise ValueError(
                f"{files['weights']}: no weight is 0 or gone, expected a network pruned by {layout.compression}"
            )
    except ValueError as error:
        refuse_of_a_moment(error)
        log.error("checkpoint %s cannot be used: %s", name, reason := one_line(error))
        backbones.save_failure(folder, reason, manifest)
        return
    log.info("%s: %d keys matched, none missing, none unexpected; %s", files["weights"], keys, counts)
    log.info("%s: sparsity of the %s is %.4f", name, over.replace("_", " "), sparsity)
    if layout.sparsity is None:
        log.warning("%s: no sparsity is published for it: what the file has is taken as declared", name)
        manifest = manifest.replace(sparsity_declared=sparsity)
    backbones.save(folder, network.state_dict(), masks, manifest.replace(keys=keys, report=counts))


def _check_numbers(network: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Raise ValueError, with the key, where what a network was loaded with is of another kind of number, or none."""
    for key, tensor in backbones.weights_of(network.state_dict()).items():
        if state[key].is_floating_point() != tensor.is_floating_point():
            given, wanted = (str(each.dtype).removeprefix("torch.") for each in (state[key], tensor))
            raise ValueError(f"{origin}: {key} is of {given}, expected {wanted}")
        if not tensor.isfinite().all():
            raise ValueError(f"{origin}: {key} holds numbers that are NaN or infinite")
