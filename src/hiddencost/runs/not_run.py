"""What a pack's rows say before any run: what they have in common, and why a pack is not run.

A run that is trained does not depend on it: packs count this code among what their inputs stand on, see
`jobs.training.origin`, so that an edit of a rule writes tables again, and trains what the ledger does not hold.
"""

from pathlib import Path

import pyarrow.parquet as pq
from safetensors import safe_open

from hiddencost.compression.verification import VerificationReport
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest
from hiddencost.runs import packfile
from hiddencost.runs.packfile import PackInputs, PackRequest


def common(inputs: PackInputs, request: PackRequest) -> dict:
    """Return what the rows of a pack have in common."""
    manifest, verification = (
        Manifest.read(inputs.backbone),
        VerificationReport.read(inputs.verification),
    )
    return {
        "study": request.study,
        "checkpoint": manifest.checkpoint,
        "backbone": request.backbone,
        "compression": manifest.compression,
        "control": manifest.control,
        "sparsity_declared": verification.sparsity_declared,
        "sparsity_measured": verification.sparsity_measured,
        "dataset": request.dataset,
        "seed": request.seed,
        "canvas": request.canvas,
    }


def write_not_run(inputs: PackInputs, request: PackRequest, output: Path, names: str | Path | None = None) -> bool:
    """Write a pack's rows as not run, with the reason, where its backbone or its dataset has failed, or where none of
    its methods can map labels, see `without_mapping`.

    Returns whether that was so. See `pack.complete` for the request.
    """
    verification, dataset = VerificationReport.read(inputs.verification), PreparedReport.read(inputs.dataset)
    if why := Manifest.read(inputs.backbone).failed:
        reason = f"the backbone is not there: {why}"
    elif not verification.passed:
        reason = "the backbone failed its verification: " + "; ".join(verification.reasons)
    elif dataset.failed:
        reason = f"the dataset is not there: {dataset.failed}"
    elif (unmapped := without_mapping(inputs, request, names)).keys() == {method for method, _ in request.runs}:
        reason = next(iter(unmapped.values()))
    else:
        return False
    row = common(inputs, request) | {"status": "not run", "reason": reason}
    packfile.write([row | {"method": method, "shots": str(shots)} for method, shots in request.runs], request, output)
    return True


def without_mapping(inputs: PackInputs, request: PackRequest, names: str | Path | None) -> dict[str, str]:
    """Return why methods of a pack are not run, by method: those that map labels one to one, where the network has
    fewer classes than the dataset, and those that map by names, where nothing has read these.

    names: the file of `clip.names.write_names`, for methods that read names.
    """
    asked = dict.fromkeys(method for method, _ in request.runs)
    manifest, classes = Manifest.read(inputs.backbone), len(PreparedReport.read(inputs.dataset).classes)
    sources = family_of(manifest.architecture).source_classes(manifest)
    if sources and classes > sources:
        reason = f"the dataset has {classes} classes, the network {sources}: too few to map one to each"
        return {method: reason for method in asked if METHODS[method].is_one_to_one}
    if names and (failed := _failed(names)):
        reason = f"nothing has read the names of classes: {failed}"
        return {method: reason for method in asked if METHODS[method].reads_names}
    return {}


def _failed(names: str | Path) -> str | None:
    with safe_open(names, "np") as stored:
        return (stored.metadata() or {}).get("failed")


def add_not_run(inputs: PackInputs, request: PackRequest, reasons: dict[str, str], output: Path) -> None:
    """Write the rows of methods that are not run, for these reasons, into the table of the others, which then answers
    the request."""
    ran = {(row["method"], row["shots"]): row for row in pq.read_table(output).to_pylist()}
    left_out = common(inputs, request) | {"status": "not run"}
    rows = [
        ran.get((method, str(shots))) or left_out | {"reason": reasons[method], "method": method, "shots": str(shots)}
        for method, shots in request.runs
    ]
    packfile.write(rows, request, output)
