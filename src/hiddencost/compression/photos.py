"""ImageNet photos: whether a network is the one that it says it is."""

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost.catalog.entries import PhotosLayout
from hiddencost.compression.verification import Fingerprint
from hiddencost.networks import backbones, inputs
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest

# What is done to photos so that a network which is as it is declared knows them less: one in which weights or input
# are in another order knows them better.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "with red and blue swapped": lambda images: images.flip(1),
    "with rows and columns swapped": lambda images: images.transpose(2, 3),
    "turned by 180 degrees": lambda images: images.flip(2, 3),
}
TELLING = 0.25  # share of the photos: one that recognises fewer tells nothing, as it never learned or was destroyed


@dataclass(frozen=True)
class Recognised:
    """How many images a network classifies rightly, of how many, of what kind, how many are expected, and what else
    speaks against it."""

    correct: int
    count: int
    of: str
    least: int
    doubts: Sequence[str] = ()


def imagenet_photos(
    path: str | Path, layout: PhotosLayout, least: int, views: Mapping[str, Callable[[Tensor], Tensor]] = VIEWS
) -> Callable[[nn.Module, Manifest], Recognised]:
    """Return the test, for `verify`, that a network knows at least so many ImageNet photos, and that it knows them as
    they are better than in other views of them: a network with swapped colours still knows 13 of 20.

    path: of the wheel that holds them; layout: how they are in it. A network says which class each is of, as
    `Family.photo_classifier` asks it.
    """

    def recognise(network: nn.Module, manifest: Manifest) -> Recognised:
        family = family_of(manifest.architecture)
        photos, labels = _photos(path, layout, manifest, family.input_side(network))
        names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
        classifier, labels = family.photo_classifier(network, manifest.architecture, labels, names)
        truth = torch.tensor(labels)
        correct, known = _known(classifier, photos, truth, manifest)
        doubts = []
        for view, change in views.items():
            seen, better = _known(classifier, change(photos), truth, manifest)
            if better > known and seen >= TELLING * len(truth):
                doubts.append(
                    f"it knows the {family.photos} better {view}: the mean log-likelihood of their classes is "
                    f"{better:.2f}, {known:.2f} as they are; its weights or its input are not in the order declared"
                )
        return Recognised(correct, layout.count, family.photos, least, doubts)

    return recognise


def _photos(path: str | Path, layout: PhotosLayout, manifest: Manifest, side: int | None) -> tuple[Tensor, list[int]]:
    """Return the photos of a wheel of the catalog, uint8 [N, 3, S, S], and their classes; side: S, if it is fixed."""
    interpolation = Image.Resampling[manifest.preprocessing.interpolation.upper()]
    resize, crop = Resize(side or layout.resize, interpolation), CenterCrop(side or layout.crop)
    transform = Compose([resize, crop, PILToTensor()])
    pattern = re.compile(layout.member_pattern.format(number=r"\d+", label=r"(\d+)"))
    images, labels = [], []
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if match := pattern.fullmatch(name):
                images.append(transform(Image.open(io.BytesIO(wheel.read(name)), formats=["JPEG"]).convert("RGB")))
                labels.append(int(match[1]))
    if len(images) != layout.count:
        raise ValueError(f"{path}: {len(images)} photos, expected {layout.count}")
    return torch.stack(images), labels


@torch.inference_mode()
def _known(classifier: nn.Module, photos: Tensor, truth: Tensor, manifest: Manifest) -> tuple[int, float]:
    """Return how many photos are classified rightly, and the mean log-likelihood of their classes."""
    mean, std = backbones.normalisation(manifest.preprocessing, torch.device("cpu"))
    logits = inputs.run(classifier, (photos.float() / 255 - mean) / std)
    likelihoods = logits.log_softmax(1).gather(1, truth[:, None])
    return int((logits.argmax(1) == truth).sum()), likelihoods.mean().item()


@torch.inference_mode()
def fixed_outputs(network: nn.Module, manifest: Manifest) -> Tensor:
    """Return what a network says of a fixed input, a wave [1, 3, S, S] of its own size or 224 pixels: float64
    [outputs], see `Family.fingerprint_outputs`."""
    family = family_of(manifest.architecture)
    side = family.input_side(network) or 224
    wave = torch.sin(torch.arange(3 * side**2, dtype=torch.float64) * 0.01).float().reshape(1, 3, side, side)
    return inputs.run(lambda images: family.fingerprint_outputs(network, manifest.architecture, images), wave)


def fingerprint(outputs: Tensor) -> Fingerprint | None:
    """Return the mean, standard deviation and first eight of a network's outputs; None if one is not finite."""
    if not outputs.isfinite().all():
        return None
    return Fingerprint(
        mean=round(outputs.mean().item(), 4),
        std=round(outputs.std().item(), 4),
        first=[round(value, 4) for value in outputs[:8].tolist()],
    )
