"""Corrupted images as of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261), made when needed.

Six of their fifteen corruptions, two of noise, one of blur, two of light, and compression, by the parameters of the
published code (github hendrycks/robustness, make_cifar_c.py and make_imagenet_c.py). The published images themselves
are no files here: their noise came of a generator that was not seeded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from zlib import crc32

import numpy as np

from hiddencost.digest import digest_of
from hiddencost.files import canonical, sha256_text

SEVERITIES = range(1, 6)
SMALL = 64  # pixels of a side, up to which CIFAR-10-C's parameters are taken, and ImageNet-C's of larger images


@dataclass(frozen=True)
class Corruption:
    """A corruption.

    Attributes:
        apply: of an image, float64 [s, s, 3] in [0, 1], a parameter and a random state it returns the corrupted one,
            which may lie beyond.
        small: its parameter by severity, 1 to 5, of CIFAR-10-C.
        large: the same of ImageNet-C.
    """

    apply: Callable[[np.ndarray, Any, np.random.RandomState], np.ndarray]
    small: tuple
    large: tuple


def gaussian_noise(image: np.ndarray, scale: float, random: np.random.RandomState) -> np.ndarray:
    """Add normal noise of a standard deviation."""
    return image + random.normal(size=image.shape, scale=scale)


def shot_noise(image: np.ndarray, photons: float, random: np.random.RandomState) -> np.ndarray:
    """Count so many photons, at most, a pixel and channel: Poisson noise."""
    return random.poisson(image * photons) / photons


def defocus_blur(image: np.ndarray, disk: tuple[float, float], random: np.random.RandomState) -> np.ndarray:
    """Blur by a disk of a radius, in pixels, whose edge is smoothed by a Gaussian of a standard deviation."""
    from scipy import ndimage  # here, as the Snakefile reads this module

    return ndimage.correlate(image, _disk(*disk)[..., None], mode="mirror")


def _disk(radius: float, smoothed: float) -> np.ndarray:
    """Return the kernel of `defocus_blur`, as the published code's `disk` and OpenCV's GaussianBlur make it."""
    from scipy import ndimage

    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    places = np.arange(-reach, reach + 1) ** 2
    kernel = (places[:, None] + places <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smoothed**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, weights / weights.sum(), axis, mode="mirror")
    used = (kernel > 1e-9).any(1)
    return kernel[np.ix_(used, used)] / kernel.sum()


def brightness(image: np.ndarray, added: float, random: np.random.RandomState) -> np.ndarray:
    """Add to the value of HSV, at most to 1: with hue and saturation kept all channels grow by one factor."""
    value = image.max(2, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, image / np.where(value > 0, value, 1), 1) * brighter


def contrast(image: np.ndarray, factor: float, random: np.random.RandomState) -> np.ndarray:
    """Bring each channel nearer to its mean over the image, by a factor."""
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def jpeg_compression(image: np.ndarray, quality: float, random: np.random.RandomState) -> np.ndarray:
    """Compress by JPEG of a quality."""
    from PIL import Image

    with BytesIO() as file:
        Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file, formats=["JPEG"]).convert("RGB")) / 255


CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "defocus_blur": Corruption(
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg_compression": Corruption(jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def corrupt(images: np.ndarray, corruption: str, severity: int, first: int = 0) -> np.ndarray:
    """Return corrupted images, uint8 [N, 3, s, s], the same at each call and however a test set is cut into parts.

    Args:
        images: uint8 [N, 3, s, s], RGB.
        corruption: a name of `CORRUPTIONS`.
        severity: 1 to 5; 0 leaves images as they are.
        first: the place of the first of them in the test set, which with corruption and severity seeds its noise.
    """
    if severity == 0:
        return np.array(images)
    return _applied(CORRUPTIONS[corruption], images, corruption, severity, first)


def _applied(entry: Corruption, images: np.ndarray, name: str, severity: int, first: int) -> np.ndarray:
    """Do what `corrupt` does, without the others of CORRUPTIONS, see `digest`."""
    parameter = (entry.small if images.shape[-1] <= SMALL else entry.large)[severity - 1]
    corrupted = np.empty_like(images)
    for index, image in enumerate(images):
        random = np.random.RandomState([crc32(name.encode()), severity, first + index])
        changed = entry.apply(image.transpose(1, 2, 0) / 255, parameter, random)
        # rounding errors of what is whole; what lies between is cut off, as in the published code
        corrupted[index] = (255 * np.clip(changed, 0, 1) + 1e-6).astype(np.uint8).transpose(2, 0, 1)
    return corrupted


def digest(corruption: str) -> str:
    """Return the digest of the code and the parameters of a corruption, and of no other, by its name."""
    entry = CORRUPTIONS[corruption]
    return sha256_text(canonical([digest_of(_applied), digest_of(entry.apply), entry.small, entry.large]))
