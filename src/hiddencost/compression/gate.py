"""The gate: is a backbone what it is declared to be?"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor, nn

from hiddencost.compression.photos import Recognised, fingerprint, fixed_outputs
from hiddencost.compression.registry import COMPRESSIONS, CONTROLS, applied
from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.compression.verification import KnownImages, VerificationReport
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest

log = logging.getLogger(__name__)


def verify(
    folder: str | Path,
    settings: dict,
    recognise: Callable[[nn.Module, Manifest], Recognised],
    with_masks: Callable[[nn.Module, Manifest], list[str]] = lambda network, manifest: [],
) -> VerificationReport:
    """Measure a backbone and hold it against its manifest.

    Both the zeros and what the masks leave out must be as declared, of what the manifest's `sparsity_over` names.
    Quantisation makes zeros of small weights, too, that no mask leaves out: there the masks alone count.

    Args:
        folder: of the backbone.
        settings: `sparsity_tolerance` (absolute).
        recognise: returns, of the network and its manifest, the images that it should know (see `imagenet_photos`),
            of which a control is exempt; a ValueError of it is a reason.
        with_masks: returns the keys of the weights that must have masks, beyond those that `compress` has pruned.
    """
    try:
        network, masks, manifest = backbones.load(folder)
        known, outputs = recognise(network, manifest), fixed_outputs(network, manifest)
    except ValueError as error:
        return failed(folder, str(error))
    family, stem = family_of(manifest.architecture), manifest.stem
    removed = family.count_removed_weights(network, manifest.whole)
    measured = measure_sparsity(network, family, stem, removed=removed)
    masked = measure_sparsity(network, family, stem, masks, removed)
    settings_here = manifest.compression_settings or {}
    compression = COMPRESSIONS[settings_here["algorithm"]] if settings_here else None
    quantised = any(kind.quantises for kind in applied(manifest.compression))
    required = list(compression.pruned_weights(network, family, settings_here)) if compression else []
    required += with_masks(network, manifest)
    exempt = manifest.control is not None and CONTROLS[manifest.control].exempt
    reasons = [
        *mask_violations(network, masks, required, kept_are_nonzero=not quantised),
        *(compression.check(network, family, settings_here) if compression else []),
        *_share_violations(manifest, masked, None if quantised else measured, settings["sparsity_tolerance"]),
        *([] if exempt else _image_violations(known)),
        *([] if outputs.isfinite().all() else ["its outputs on a fixed input are not finite"]),
    ]
    _log_outcome(folder, reasons, known, measured[family.sparsity_over])
    return VerificationReport(
        passed=not reasons,
        reasons=reasons,
        sparsity_declared=manifest.sparsity_declared,
        sparsity_measured=measured[family.sparsity_over],
        sparsity=measured,
        masks={
            "tensors": len(masks),
            "kept": sum(int(mask.sum()) for mask in masks.values()),
            f"share_of_{family.sparsity_over}": masked[family.sparsity_over],
        },
        keys_matched=manifest.keys_matched,
        photos=KnownImages(top1=known.correct, count=known.count, of=known.of, exempt=exempt),
        fingerprint=fingerprint(outputs),
    )


def _log_outcome(folder: str | Path, reasons: list[str], known: Recognised, sparsity: float) -> None:
    if not reasons:
        counts = known.correct, known.count, known.of
        log.info("%s passes: %d of %d %s, sparsity %.4f", folder, *counts, sparsity)
    for reason in reasons:
        log.error("%s fails: %s", folder, reason)


def failed(folder: str | Path, reason: str) -> VerificationReport:
    """Return what is found of a backbone that could not be measured."""
    log.error("%s fails: %s", folder, reason)
    return VerificationReport(passed=False, reasons=[reason], sparsity_declared=None, sparsity_measured=None)


def _share_violations(manifest: Manifest, masked: dict, measured: dict | None, tolerance: float) -> list[str]:
    """Hold what masks leave out (`masked`) and zeros (`measured`, or None) against the declared sparsity."""
    over, declared = manifest.sparsity_over, manifest.sparsity_declared
    weights = over.replace("_", " ")
    shares = {} if measured is None else {f"sparsity of the {weights}": measured[over]}
    shares[f"share of the {weights} that the masks leave out"] = masked[over]
    return [
        f"{what} is {share:.4f}, declared {declared:.4f}, tolerance {tolerance:g}"
        for what, share in shares.items()
        if abs(share - declared) > tolerance
    ]


def _image_violations(known: Recognised) -> list[str]:
    few, comma = known.correct < known.least, "," if "," in known.of else ""
    count = f"{known.correct} of {known.count} {known.of}{comma} classified rightly, at least {known.least} expected"
    return [*([count] if few else []), *known.doubts]


def mask_violations(
    network: nn.Module, masks: dict[str, Tensor], required: Iterable[str], kept_are_nonzero: bool
) -> list[str]:
    """Hold masks (bool, True where kept, by key; of any layer) against weights bit by bit.

    Returns a line for each tensor that has a weight where its mask has none or, with `kept_are_nonzero`, none where
    it has one; and for each of `required` (keys) without a mask."""
    weights = network.state_dict()
    violations = [f"{key}: a mask without a weight" for key in masks if key not in weights]
    violations += [f"{key}: no mask" for key in dict.fromkeys(required) if key not in masks]
    for key, mask in masks.items():
        if key not in weights:
            continue
        nonzero = weights[key] != 0
        if count := int((nonzero != mask if kept_are_nonzero else nonzero & ~mask).sum()):
            violations.append(f"{key}: mask and weights disagree in {count} places")
    return violations
