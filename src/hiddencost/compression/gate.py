"""The gate: is a backbone what it is declared to be?"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor, nn

from hiddencost.compression.photos import Recognised, fingerprint, fixed_outputs
from hiddencost.compression.registry import COMPRESSIONS, CONTROLS
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of, family_of_network

log = logging.getLogger(__name__)


def verify(
    folder: str | Path,
    settings: dict,
    recognise: Callable[[nn.Module, dict], Recognised],
    with_masks: Callable[[nn.Module, dict], list[str]] = lambda network, manifest: [],
) -> dict:
    """Measure a backbone and hold it against its manifest.

    settings: `sparsity_tolerance` (absolute). recognise: of the network and its manifest, the images that it should
    know (see `imagenet_photos`), of which a control is exempt; a ValueError of it is a reason. with_masks: the keys
    of the weights that must have masks, beyond those that `compress` has pruned. Returns verification.json's content:
    `passed`, `reasons` (one line each), and what was measured; for a backbone that failed or cannot be loaded only
    why.

    Both the zeros and what the masks leave out must be as declared, of what the manifest's `sparsity_over` names.
    Quantisation makes zeros of small weights, too, that no mask leaves out: there the masks alone count.
    """
    try:
        network, masks, manifest = backbones.load(folder)
    except ValueError as error:
        return failed(folder, str(error))
    family = family_of(manifest["architecture"])
    removed = family.count_removed_weights(network, manifest["architecture"]) if manifest.get("widths") else 0
    measured = measure_sparsity(network, manifest["stem"], removed=removed)
    masked = measure_sparsity(network, manifest["stem"], masks, removed=removed)
    try:
        photos, count, images, least = recognise(network, manifest)
    except ValueError as error:
        return failed(folder, str(error))
    outputs = fixed_outputs(network, manifest)
    compression_settings = manifest["compression_settings"]
    compression = COMPRESSIONS[compression_settings["algorithm"]] if compression_settings else None
    quantised = compression is not None and compression.quantises
    pruned_here = list(compression.reached(network, compression_settings)) if compression else []
    pruned_here += with_masks(network, manifest)
    reasons = mask_violations(network, masks, pruned_here, kept_are_nonzero=not quantised)
    reasons += compression.check(network, compression_settings) if compression else []
    over = manifest["sparsity_over"]
    where = over.replace("_", " ")
    shares = {f"share of the {where} that the masks leave out": masked[over]}
    if not quantised:
        shares = {f"sparsity of the {where}": measured[over]} | shares
    for what, share in shares.items():
        if abs(share - manifest["sparsity_declared"]) > settings["sparsity_tolerance"]:
            reasons.append(
                f"{what} is {share:.4f}, declared {manifest['sparsity_declared']:.4f}, "
                f"tolerance {settings['sparsity_tolerance']:g}"
            )
    exempt = manifest["control"] is not None and CONTROLS[manifest["control"]].exempt
    if not exempt and photos < least:
        comma = "," if "," in images else ""
        reasons.append(f"{photos} of {count} {images}{comma} classified rightly, at least {least} expected")
    if not outputs.isfinite().all():
        reasons.append("its outputs on a fixed input are not finite")
    if not reasons:
        told = (folder, photos, count, images, measured[family.sparsity_over])
        log.info("%s passes: %d of %d %s, sparsity %.4f", *told)
    for reason in reasons:
        log.error("%s fails: %s", folder, reason)
    return {
        "passed": not reasons,
        "reasons": reasons,
        "sparsity_declared": manifest["sparsity_declared"],
        "sparsity_measured": measured[family.sparsity_over],
        "sparsity": measured,
        "masks": {
            "tensors": len(masks),
            "kept": sum(int(mask.sum()) for mask in masks.values()),
            f"share_of_{family.sparsity_over}": masked[family.sparsity_over],
        },
        "keys_matched": manifest["keys_matched"],
        "photos": {"top1": photos, "count": count, "of": images, "exempt": exempt},
        "fingerprint": fingerprint(outputs),
    }


def failed(folder: str | Path, reason: str) -> dict:
    """Return verification.json's content for a backbone that could not be measured."""
    log.error("%s fails: %s", folder, reason)
    return {"passed": False, "reasons": [reason], "sparsity_declared": None, "sparsity_measured": None}


def measure_sparsity(
    network: nn.Module, stem: str | None, masks: dict[str, Tensor] | None = None, removed: int = 0
) -> dict:
    """Return the share of exact zeros or, given masks, of what they leave out.

    Args:
        network: as `backbones.load` returns it.
        stem: the name of its first convolution, which some counts leave out.
        masks: bool by key, True where kept.
        removed: the number of weights that its architecture has and it has not, as its blocks are narrower: they
            count as zeros of what its family prunes.

    Returns:
        The share over each of `Family.sparsity_groups`, None of a group without weights, and over `all_parameters`;
        and per layer (`layers`, by name).
    """
    parameters = dict(network.named_parameters())
    tensors = parameters.items() if masks is None else masks.items()
    zeros = {key: int((tensor == 0).sum()) for key, tensor in tensors if key in parameters}

    def share(keys: Iterable[str], removed: int = 0) -> float:
        keys = list(keys)
        present = sum(parameters[key].numel() for key in keys)
        return (removed + sum(zeros.get(key, 0) for key in keys)) / (removed + present)

    family = family_of_network(network)
    return {
        **{
            name: share(keys, removed if name == family.sparsity_over else 0) if keys else None
            for name, keys in family.sparsity_groups(network, stem).items()
        },
        "all_parameters": share(parameters),
        "layers": {name: share([key]) for name, key in family.layer_keys(network).items()},
    }


def mask_violations(
    network: nn.Module, masks: dict[str, Tensor], required: Iterable[str], kept_are_nonzero: bool
) -> list[str]:
    """Hold masks (bool, True where kept, by key; of any layer) against weights bit by bit.

    Returns a line for each tensor that has a weight where its mask has none or, with `kept_are_nonzero`, none where
    it has one; and for each of `required` (keys) without a mask."""
    weights = network.state_dict()
    found = [f"{key}: a mask without a weight" for key in masks if key not in weights]
    found += [f"{key}: no mask" for key in dict.fromkeys(required) if key not in masks]
    for key, mask in masks.items():
        if key not in weights:
            continue
        nonzero = weights[key] != 0
        if count := int((nonzero != mask if kept_are_nonzero else nonzero & ~mask).sum()):
            found.append(f"{key}: mask and weights disagree in {count} places")
    return found
