"""The gate: is a backbone what it is declared to be?"""

import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost import backbone
from hiddencost.compress import UNSTRUCTURED, filters_wanted, groups_of_inputs, reached, zeros_wanted
from hiddencost.layers import convolutions

log = logging.getLogger(__name__)


class Recognised(NamedTuple):
    """How many images a network classifies rightly, of how many, of what kind, and how many are expected."""

    correct: int
    count: int
    of: str
    least: int


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
        network, masks, manifest = backbone.load(folder)
    except ValueError as error:
        return failed(folder, str(error))
    measured = measure_sparsity(network, manifest["stem"])
    masked = measure_sparsity(network, manifest["stem"], masks)
    try:
        photos, count, images, least = recognise(network, manifest)
    except ValueError as error:
        return failed(folder, str(error))
    logits = fixed_logits(network)
    made, quantised = manifest["compression_settings"], manifest["quantisation_bits"] is not None
    pruned_here = [f"{name}.weight" for name in reached(network, made)] if made and not quantised else []
    pruned_here += with_masks(network, manifest)
    reasons = mask_violations(network, masks, pruned_here, kept_are_nonzero=not quantised)
    reasons += settings_violations(network, made) if made else []
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
    if manifest["control"] is None and photos < least:
        reasons.append(f"{photos} of {count} {images} classified rightly, at least {least} expected")
    if not logits.isfinite().all():
        reasons.append("its logits on a fixed input are not finite")
    if not reasons:
        told = (folder, photos, count, images, measured["convolutions"])
        log.info("%s passes: %d of %d %s, sparsity %.4f", *told)
    for reason in reasons:
        log.error("%s fails: %s", folder, reason)
    return {
        "passed": not reasons,
        "reasons": reasons,
        "sparsity_declared": manifest["sparsity_declared"],
        "sparsity_measured": measured["convolutions"],
        "sparsity": measured,
        "masks": {
            "tensors": len(masks),
            "kept": sum(int(mask.sum()) for mask in masks.values()),
            "share_of_convolutions": masked["convolutions"],
        },
        "keys_matched": manifest["keys_matched"],
        "photos": {"top1": photos, "count": count, "of": images, "exempt": manifest["control"] is not None},
        "fingerprint": fingerprint(logits),
    }


def failed(folder: str | Path, reason: str) -> dict:
    """Return verification.json's content for a backbone that could not be measured."""
    log.error("%s fails: %s", folder, reason)
    return {"passed": False, "reasons": [reason], "sparsity_declared": None, "sparsity_measured": None}


def measure_sparsity(network: nn.Module, stem: str, masks: dict[str, Tensor] | None = None) -> dict:
    """Return the share of exact zeros or, given masks (bool by key, True where kept), of what they leave out.

    It is measured over `convolutions`, over `convolutions_without_stem` (as lottery-ticket papers count; None if the
    stem is the one convolution), over `convolutions_and_classifier` (with the linear layers, as AC/DC and RigL count;
    and `..._without_stem`, as RigL's uniform distribution), over `all_parameters`, and per layer (`layers`, by name).
    """
    parameters = dict(network.named_parameters())
    gone = parameters.items() if masks is None else masks.items()
    gone = {key: int((tensor == 0).sum()) for key, tensor in gone if key in parameters}
    kernels = [f"{name}.weight" for name in convolutions(network)]
    behind_stem = [key for key in kernels if key != f"{stem}.weight"]
    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def share(keys: Iterable[str]) -> float:
        return sum(gone.get(key, 0) for key in keys) / sum(parameters[key].numel() for key in keys)

    return {
        "convolutions": share(kernels),
        "convolutions_without_stem": share(behind_stem) if behind_stem else None,
        "convolutions_and_classifier": share([f"{name}.weight" for name in layers]),
        "convolutions_and_classifier_without_stem": share([f"{name}.weight" for name in layers if name != stem]),
        "all_parameters": share(parameters),
        "layers": {name: share([f"{name}.weight"]) for name in layers},
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


def settings_violations(network: nn.Module, settings: dict) -> list[str]:
    """Hold a network against the settings of a compression made here (the manifest's `compression_settings`).

    Returns a line for each layer that does not keep to them: too few zeros (with scope global, another number in all
    layers together; in one layer a sparse source may have more), too few zero filters, groups of m with
    more than n weights, or an output channel with more values than the bits give.
    """
    algorithm, found = settings["algorithm"], []
    if algorithm == "quantise":
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                values = module.weight.flatten(1).sort(1).values
                most = 1 + int((values[:, 1:] != values[:, :-1]).sum(1).max())
                if most > 2 ** settings["bits"]:
                    found.append(f"{name}: {most} values in an output channel, expected {settings['bits']} bits")
        return found
    layers = reached(network, settings)
    for name, layer in layers.items():
        if algorithm == "nm":
            most = int((groups_of_inputs(layer.weight, settings["m"]) != 0).sum(1).max())
            if most > settings["n"]:
                found.append(f"{name}: {most} of {settings['m']} weights kept, expected {settings['n']} at most")
        elif algorithm == "channel":
            zeros = int((layer.weight == 0).flatten(1).all(1).sum())
            if zeros < (wanted := filters_wanted(layer, settings["sparsity"])):
                found.append(f"{name}: {zeros} filters are zero, expected {wanted} at least")
    if algorithm in UNSTRUCTURED:
        sparsity, scope = settings["sparsity"], settings["scope"]
        zeros = {name: int((layer.weight == 0).sum()) for name, layer in layers.items()}
        if scope == "global":
            wanted = {"all convolutions": round(sparsity * sum(layer.weight.numel() for layer in layers.values()))}
            zeros = {"all convolutions": sum(zeros.values())}
        else:
            wanted = zeros_wanted(layers, sparsity, scope)
        found += [
            f"{name}: {zeros[name]} weights are zero, expected {count}{'' if scope == 'global' else ' at least'}"
            for name, count in wanted.items()
            if zeros[name] < count or (scope == "global" and zeros[name] > count)
        ]
    return found


def imagenet_photos(path: str | Path, entry: dict, least: int) -> Callable[[nn.Module, dict], Recognised]:
    """Return the test, for `verify`, that a network knows at least so many ImageNet photos.

    path: of the wheel that holds them; entry: the catalog's.
    """

    def recognise(network: nn.Module, manifest: dict) -> Recognised:
        return Recognised(top1_on_photos(network, manifest, path, entry), entry["count"], "ImageNet photos", least)

    return recognise


@torch.inference_mode()
def top1_on_photos(network: nn.Module, manifest: dict, path: str | Path, entry: dict) -> int:
    """Count the photos (a wheel of the catalog) whose ImageNet class the network gives first."""
    interpolation = Image.Resampling[manifest["preprocessing"]["interpolation"].upper()]
    transform = Compose([Resize(entry["resize"], interpolation), CenterCrop(entry["crop"]), PILToTensor()])
    pattern = re.compile(entry["member_pattern"].format(number=r"\d+", label=r"(\d+)"))
    mean, std = backbone.normalisation(manifest, torch.device("cpu"))
    images, labels = [], []
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if match := pattern.fullmatch(name):
                images.append(transform(Image.open(io.BytesIO(wheel.read(name))).convert("RGB")))
                labels.append(int(match[1]))
    if len(images) != entry["count"]:
        raise ValueError(f"{path}: {len(images)} photos, expected {entry['count']}")
    logits = network((torch.stack(images).float() / 255 - mean) / std)
    return int((logits.argmax(1) == torch.tensor(labels)).sum())


@torch.inference_mode()
def fixed_logits(network: nn.Module) -> Tensor:
    """Return the logits, float64 [source classes], on a fixed input, a wave [1, 3, 224, 224]."""
    wave = torch.sin(torch.arange(3 * 224 * 224, dtype=torch.float64) * 0.01).float().reshape(1, 3, 224, 224)
    return network(wave)[0].double()


def fingerprint(logits: Tensor) -> dict | None:
    """Return the mean, standard deviation and first eight of logits [source classes]; None if one is not finite."""
    if not logits.isfinite().all():
        return None
    return {
        "mean": round(logits.mean().item(), 4),
        "std": round(logits.std().item(), 4),
        "first": [round(value, 4) for value in logits[:8].tolist()],
    }
