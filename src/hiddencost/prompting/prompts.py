"""The visual prompt: a learned border around the image (padding prompt) or, on CLIP, on it (additive prompt)."""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import InterpolationMode, resize

from hiddencost.prompting.maps import SharedMaps


def padding(image_size: int, canvas: int) -> tuple[int, int]:
    """Return the border's width before and after the image, ⌊(S-s+1)/2⌋ and ⌊(S-s)/2⌋ (published code of ILM-VP)."""
    return (canvas - image_size + 1) // 2, (canvas - image_size) // 2


def border_mask(image_size: int, canvas: int) -> Tensor:
    """Return M, bool [1, canvas, canvas]: true on the border, false on the image."""
    before, after = padding(image_size, canvas)
    return functional.pad(torch.zeros(1, image_size, image_size, dtype=torch.bool), (before, after) * 2, value=True)


def compose(images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor) -> SharedMaps:
    """Put images on their runs' canvases: Normalize(ZeroPad(x) + σ(W) ⊙ M), with normalisation last.

    Source: arXiv 2308.14969, section 3, and the published code of ILM-VP (arXiv 2211.11635).

    images: uint8 [N, 3, s, s]; prompts W: float32 [R, 3, S, S]; runs: int64 [N], each image's prompt; mask M:
    bool [1, S, S]; mean, std: [3, 1, 1], of images in [0, 1]. Returns the canvases in their two parts, of mean's
    dtype and in channels-last layout; `sharing.paste` makes [N, 3, S, S] of them.
    """
    before, _ = padding(images.shape[-1], mask.shape[-1])
    side = before, before + images.shape[-1]
    border = torch.where(mask, (torch.sigmoid(prompts) - mean) / std, 0)
    patch = (images.to(mean.dtype) / 255 - mean) / std
    border, patch = (part.contiguous(memory_format=torch.channels_last) for part in (border, patch))
    return SharedMaps(border, patch, (side, side), runs, is_canvas=True)


def frame_mask(border: int, canvas: int) -> Tensor:
    """Return M of an additive prompt, bool [1, canvas, canvas]: true within `border` pixels of an edge."""
    inside = torch.zeros(1, canvas - 2 * border, canvas - 2 * border, dtype=torch.bool)
    return functional.pad(inside, (border,) * 4, value=True)


def fill(images: Tensor, canvas: int, interpolation: str) -> Tensor:
    """Return uint8 images [N, 3, s, s] as large as the canvas, enlarged as PIL would where they are smaller."""
    if images.shape[-1] == canvas:
        return images
    return resize(images, [canvas, canvas], InterpolationMode(interpolation), antialias=True)


def add(
    images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor, interpolation: str
) -> Tensor:
    """Add their runs' prompts to images: Normalize(x) + W ⊙ M, with normalisation first.

    Source: AdditiveVisualPrompt of ILM-VP (arXiv 2211.11635), on CLIP in the published code of arXiv 2308.14969, too.

    images: uint8 [N, 3, s, s], which `fill` the canvas; prompts W: float32 [R, 3, S, S]; runs: int64 [N], each
    image's prompt; mask M: bool [1, S, S]; mean, std: [3, 1, 1], of images in [0, 1]. Returns the canvases,
    [N, 3, S, S], of mean's dtype and in channels-last layout.
    """
    canvases = (fill(images, mask.shape[-1], interpolation).to(mean.dtype) / 255 - mean) / std
    prompted = canvases + torch.where(mask, prompts, 0)[runs]
    return prompted.contiguous(memory_format=torch.channels_last)
