"""What a pack's rows say before any run: what they have in common, and why a pack is not run.

A run that is trained does not depend on it: packs count this code among what their inputs stand on, see
`jobs.training.origin`, so that an edit of a rule writes tables again, and trains what the ledger does not hold.
"""

from pathlib import Path

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


def write_not_run(inputs: PackInputs, request: PackRequest, output: Path) -> bool:
    """Write a pack's rows as not run, with the reason, where its backbone or its dataset has failed, or where label
    mapping has not a source class for each target class.

    Returns whether that was so. See `pack.complete` for the request.
    """
    verification, dataset = VerificationReport.read(inputs.verification), PreparedReport.read(inputs.dataset)
    manifest = Manifest.read(inputs.backbone)
    mapped = any(METHODS[name].prompts for name, _ in request.runs)
    sources = family_of(manifest.architecture).source_classes(manifest)
    if why := manifest.failed:
        reason = f"the backbone is not there: {why}"
    elif not verification.passed:
        reason = "the backbone failed its verification: " + "; ".join(verification.reasons)
    elif dataset.failed:
        reason = f"the dataset is not there: {dataset.failed}"
    elif mapped and sources and len(dataset.classes) > sources:
        reason = f"the dataset has {len(dataset.classes)} classes, the network {sources}: too few to map one to each"
    else:
        return False
    row = common(inputs, request) | {"status": "not run", "reason": reason}
    packfile.write([row | {"method": method, "shots": str(shots)} for method, shots in request.runs], request, output)
    return True
