"""ImageNet photos: whether a network is the one that it says it is."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost.networks import backbones
from hiddencost.networks.clip import model
from hiddencost.networks.clip.texts import DEFAULT_TEMPLATE, classifier, embed
from hiddencost.networks.layers import is_clip


class Recognised(NamedTuple):
    """How many images a network classifies rightly, of how many, of what kind, and how many are expected."""

    correct: int
    count: int
    of: str
    least: int


def imagenet_photos(path: str | Path, entry: dict, least: int) -> Callable[[nn.Module, dict], Recognised]:
    """Return the test, for `verify`, that a network knows at least so many ImageNet photos.

    path: of the wheel that holds them; entry: the catalog's. A CLIP is asked which of the photos' own classes each
    is, by their names: of a thousand it would miss many that it was not trained to tell apart, and the question is
    whether it is really loaded.
    """

    def recognise(network: nn.Module, manifest: dict) -> Recognised:
        kind = "ImageNet photos" + (", among their classes" if is_clip(network) else "")
        return Recognised(top1_on_photos(network, manifest, path, entry), entry["count"], kind, least)

    return recognise


@torch.inference_mode()
def top1_on_photos(network: nn.Module, manifest: dict, path: str | Path, entry: dict) -> int:
    """Count the photos (a wheel of the catalog) whose class the network gives first; see `imagenet_photos`."""
    canvas = model.image_size(network) if is_clip(network) else None
    interpolation = Image.Resampling[manifest["preprocessing"]["interpolation"].upper()]
    resize, crop = Resize(canvas or entry["resize"], interpolation), CenterCrop(canvas or entry["crop"])
    transform = Compose([resize, crop, PILToTensor()])
    pattern = re.compile(entry["member_pattern"].format(number=r"\d+", label=r"(\d+)"))
    mean, std = backbones.normalisation(manifest, torch.device("cpu"))
    images, labels = [], []
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if match := pattern.fullmatch(name):
                images.append(transform(Image.open(io.BytesIO(wheel.read(name))).convert("RGB")))
                labels.append(int(match[1]))
    if len(images) != entry["count"]:
        raise ValueError(f"{path}: {len(images)} photos, expected {entry['count']}")
    if is_clip(network):
        classes = sorted(set(labels))
        names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
        texts = [DEFAULT_TEMPLATE.format(names[label]) for label in classes]
        network = classifier(network, texts, model.name_of(manifest))
        labels = [classes.index(label) for label in labels]
    logits = network((torch.stack(images).float() / 255 - mean) / std)
    return int((logits.argmax(1) == torch.tensor(labels)).sum())


@torch.inference_mode()
def fixed_outputs(network: nn.Module, manifest: dict) -> Tensor:
    """Return the logits, float64 [source classes], on a fixed input, a wave [1, 3, 224, 224]; of a CLIP the embedding
    of such a wave, at its own size, and that of a fixed text, [2 D]."""
    side = model.image_size(network) if is_clip(network) else 224
    wave = torch.sin(torch.arange(3 * side**2, dtype=torch.float64) * 0.01).float().reshape(1, 3, side, side)
    if not is_clip(network):
        return network(wave)[0].double()
    text = embed(network, [DEFAULT_TEMPLATE.format("wave")], model.name_of(manifest))
    return torch.cat([model.image_tower(network)(wave)[0], text[0]]).double()


def fingerprint(outputs: Tensor) -> dict | None:
    """Return the mean, standard deviation and first eight of a network's outputs; None if one is not finite."""
    if not outputs.isfinite().all():
        return None
    return {
        "mean": round(outputs.mean().item(), 4),
        "std": round(outputs.std().item(), 4),
        "first": [round(value, 4) for value in outputs[:8].tolist()],
    }
