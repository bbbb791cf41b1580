"""Images on a canvas."""

from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, resize


def fill(images: Tensor, canvas: int, interpolation: str) -> Tensor:
    """Return uint8 images [N, 3, s, s] as large as the canvas, enlarged as PIL would where they are smaller."""
    if images.shape[-1] == canvas:
        return images
    return resize(images, [canvas, canvas], InterpolationMode(interpolation), antialias=True)
