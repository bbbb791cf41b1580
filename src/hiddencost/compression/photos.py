"""ImageNet photos: whether a network is the one that it says it is.

The bounds below follow from what published networks, and these compressed in one shot, say of the 20 photos:
bench/README.md, "The gate's photos".
"""

import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost.catalog.entries import PhotosLayout, Preprocessing
from hiddencost.compression.verification import Fingerprint
from hiddencost.messages import one_line
from hiddencost.networks import backbones, inputs
from hiddencost.networks.families import family_of
from hiddencost.networks.inference import FORWARD_BATCH
from hiddencost.networks.manifest import Manifest

# What is done to photos so that a network which is as it is declared knows them less: one in which weights or input
# are in another order knows them better.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "with red and blue swapped": lambda images: images.flip(1),
    "with green and blue swapped": lambda images: images[:, [0, 2, 1]],
    "with red and green swapped": lambda images: images[:, [1, 0, 2]],
    "with the colours in the order green, blue, red": lambda images: images[:, [1, 2, 0]],
    "with the colours in the order blue, red, green": lambda images: images[:, [2, 0, 1]],
    "with rows and columns swapped": lambda images: images.transpose(2, 3),
    "turned by 180 degrees": lambda images: images.flip(2, 3),
}
# Mean and deviation of each colour that networks are trained with. Pixels up to 255 need no look: of a network that
# wants them, or does not, the other makes nothing.
NORMALISATIONS = {
    "normalised as ImageNet's": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "normalised to -1 to 1": ([0.5] * 3, [0.5] * 3),
    "of 0 to 1": ([0.0] * 3, [1.0] * 3),
}
TELLING = 0.25  # share of the photos: one that recognises fewer tells nothing, as it never learned or was destroyed
CLEARLY = 0.1  # in the mean log-likelihood of the photos' classes: by so much is another look better, not by chance
LOOKED = (
    100  # of more photos about so many, evenly of all, are also looked at otherwise, and shown to the dense network
)
LARGEST = 50_000_000  # bytes of a photo
# what zipfile, tarfile and the decompressors raise: RuntimeError of what is encrypted, OSError of gzip and bzip2
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)
ALIKE = 0.2  # mean correlation of the photos' logits with the dense network's: less has another order of classes


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
    path: str | Path,
    layout: PhotosLayout,
    least: int,
    dense: str | Path | None = None,
    views: Mapping[str, Callable[[Tensor], Tensor]] = VIEWS,
    normalisations: Mapping[str, tuple[list[float], list[float]]] = NORMALISATIONS,
) -> Callable[[nn.Module, Manifest], Recognised]:
    """Return the test, for `verify`, that a network knows at least so many ImageNet photos.

    It also must not know them clearly better in other views and by other normalisations (one with swapped colours
    still knows 13 of 20), and its logits, over all classes, must have to do with those of the dense network.

    Args:
        path: of the file that holds the photos: a wheel or another zip, or a tar.
        layout: how they are in it. A network says which class each is of, as `Family.photo_classifier` asks it.
        least: how many it must know.
        dense: the folder of the dense backbone that it is compared with. One that cannot be used, or knows fewer
            photos itself, says nothing.
        views: what is done to photos, by what messages call it.
        normalisations: mean and deviation of each colour, by what messages call them.
    """

    def recognise(network: nn.Module, manifest: Manifest) -> Recognised:
        classifier, photos, truth = _asked(network, manifest, path, layout)
        answers = _answers(classifier, photos, manifest.preprocessing)
        photos_of = family_of(manifest.architecture).photos
        correct, _ = _known(answers, truth)
        some = slice(None, None, -(-len(truth) // LOOKED))
        photos, truth, answers = photos[some], truth[some], answers[some]
        (as_declared, known), doubts = _known(answers, truth), []
        called = photos_of if len(truth) == layout.count else f"{len(truth)} {photos_of}"
        for look, seen_as in _looks(classifier, photos, manifest.preprocessing, views, normalisations):
            seen, better = _known(seen_as, truth)
            if seen > as_declared and better > known + CLEARLY and seen >= TELLING * len(truth):
                doubts.append(
                    f"it knows the {called} better {look}, {seen} of them and {as_declared} as declared (the mean "
                    f"log-likelihood of their classes is {better:.2f} and {known:.2f}): its weights or its input are "
                    "not in the order, or normalised, as declared"
                )
        if dense is not None and as_declared >= TELLING * len(truth):
            with suppress(ValueError):  # what is wrong with the dense network its own verification says
                of_dense, its_truth = _answers_of(dense, path, layout, some)
                enough = least * len(its_truth) / layout.count
                if of_dense.isfinite().all() and _known(of_dense, its_truth)[0] >= enough:
                    doubts += _unlike(answers, of_dense, called)
        return Recognised(correct, layout.count, photos_of, least, doubts)

    return recognise


def _asked(
    network: nn.Module, manifest: Manifest, path: str | Path, layout: PhotosLayout
) -> tuple[nn.Module, Tensor, Tensor]:
    """Return what classifies photos, these (uint8 [N, 3, S, S]), and their labels among its classes (int64 [N])."""
    family = family_of(manifest.architecture)
    photos, labels = _photos(path, layout, manifest, family.input_side(network))
    names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    classifier, labels = family.photo_classifier(network, manifest.architecture, labels, names)
    return classifier, photos, torch.tensor(labels)


def _answers_of(
    folder: str | Path, path: str | Path, layout: PhotosLayout, some: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Return the logits of a backbone's network for some of the photos, and their labels among its classes. Raises
    ValueError where it has none."""
    network, _, manifest = backbones.load(folder)
    classifier, photos, truth = _asked(network, manifest, path, layout)
    return _answers(classifier, photos[some], manifest.preprocessing), truth[some]


@torch.inference_mode()
def _answers(
    classifier: nn.Module,
    photos: Tensor,
    preprocessing: Preprocessing,
    normalisation: tuple[list[float], list[float]] | None = None,
) -> Tensor:
    """Return logits [N, classes] for photos, uint8, normalised as declared or by a mean and deviation of colours."""
    cpu = torch.device("cpu")
    mean, std = backbones.normalisation(preprocessing, cpu)
    if normalisation:
        mean, std = (backbones.per_channel(values, cpu) for values in normalisation)
    batches = photos.split(FORWARD_BATCH["cpu"])
    return torch.cat([inputs.run(classifier, (batch.float() / 255 - mean) / std) for batch in batches])


def _looks(
    classifier: nn.Module,
    photos: Tensor,
    preprocessing: Preprocessing,
    views: Mapping[str, Callable[[Tensor], Tensor]],
    normalisations: Mapping[str, tuple[list[float], list[float]]],
) -> Iterator[tuple[str, Tensor]]:
    """Yield the logits for photos that look otherwise, with what messages call the look."""
    for look, change in views.items():
        yield look, _answers(classifier, change(photos), preprocessing)
    for look, normalisation in normalisations.items():
        if normalisation != (preprocessing.mean, preprocessing.std):
            yield look, _answers(classifier, photos, preprocessing, normalisation)


def _unlike(answers: Tensor, of_dense: Tensor, photos: str) -> list[str]:
    """Return a line where logits for the photos have nothing to do with the dense network's, of the same classes."""
    if answers.shape != of_dense.shape:
        return []
    centred = [functional.normalize(each - each.mean(1, keepdim=True), dim=1) for each in (answers, of_dense)]
    correlation = (centred[0] * centred[1]).sum(1).mean().item()
    if correlation >= ALIKE:
        return []
    return [
        f"its logits for the {photos} correlate with those of the dense network by {correlation:.2f}, at least "
        f"{ALIKE:g} expected: its classes may be in another order"
    ]


def _photos(path: str | Path, layout: PhotosLayout, manifest: Manifest, side: int | None) -> tuple[Tensor, list[int]]:
    """Return the photos of a file of the catalog, uint8 [N, 3, S, S], by their names, and their classes; side: S, if
    it is fixed. Raises ValueError, in a line, where the file cannot be read or has not these photos."""
    interpolation = Image.Resampling[manifest.preprocessing.interpolation.upper()]
    resize, crop = Resize(side or layout.resize, interpolation), CenterCrop(side or layout.crop)
    transform, found = Compose([resize, crop, PILToTensor()]), list[tuple[str, dict[str, str], Tensor]]()
    for named, content in _members(path, re.compile(layout.member_pattern)):
        try:
            image = Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a stream that is cut raises either
            raise ValueError(f"{path}: {one_line(named[0])} is no JPEG that can be read: {error}") from error
        if len(found) == layout.count:
            raise ValueError(f"{path}: more than {layout.count} photos, expected {layout.count}")
        found.append((named[0], named.groupdict(), transform(image)))
    if len(found) != layout.count:
        raise ValueError(f"{path}: {len(found)} photos, expected {layout.count}")
    found.sort(key=lambda one: one[0])
    groups = [group for _, group, _ in found]
    ids = sorted({group["wordnet"] for group in groups if "wordnet" in group})
    if ids and len(ids) != layout.count:
        raise ValueError(
            f"{path}: photos of {len(ids)} classes by their WordNet ids, expected one of each of {layout.count}"
        )
    labels = [ids.index(group["wordnet"]) if ids else int(group["label"]) for group in groups]
    return torch.stack([image for _, _, image in found]), labels


def _members(path: str | Path, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the files of a zip or a tar (the content tells which) whose paths match, and what is in them. Raises
    ValueError where it is neither, damaged or encrypted, or a file is larger than a photo."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                for entry in packed.infolist():
                    if match := pattern.fullmatch(entry.filename):
                        with packed.open(entry) as content:
                            yield match, _read(path, entry.filename, content)
        else:
            with tarfile.open(path) as packed:
                for member in packed:
                    if (match := pattern.fullmatch(member.name)) and (unpacked := packed.extractfile(member)):
                        yield match, _read(path, member.name, unpacked)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the machine, and not of what is in the file
        raise ValueError(f"{path}: cannot be unpacked: {one_line(error)}") from error


def _read(path: str | Path, name: str, file: IO[bytes]) -> bytes:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path}: {one_line(name)}: expected a photo, of {LARGEST:,} bytes at most")
    return content


def _known(logits: Tensor, truth: Tensor) -> tuple[int, float]:
    """Return how many photos are classified rightly, and the mean log-likelihood of their classes."""
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
