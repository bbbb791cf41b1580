"""The visual prompt: a learned border around the image (padding prompt)."""

import torch
from torch import Tensor
from torch.nn import functional

from hiddencost.sharing import Split


def padding(image_size: int, canvas: int) -> tuple[int, int]:
    """Return the border's width before and after the image, ⌊(S-s+1)/2⌋ and ⌊(S-s)/2⌋ (published code of ILM-VP)."""
    return (canvas - image_size + 1) // 2, (canvas - image_size) // 2


def border_mask(image_size: int, canvas: int) -> Tensor:
    """Return M, bool [1, canvas, canvas]: true on the border, false on the image."""
    before, after = padding(image_size, canvas)
    return functional.pad(torch.zeros(1, image_size, image_size, dtype=torch.bool), (before, after) * 2, value=True)


def compose(images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor) -> Split:
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
    return Split(border, patch, (side, side), runs, is_canvas=True)
