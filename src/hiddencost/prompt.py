"""The visual prompt: a learned border around the image (padding prompt)."""

import torch
from torch import Tensor
from torch.nn import functional


def padding(image_size: int, canvas: int) -> tuple[int, int]:
    """Return the border's width before and after the image, ⌊(S-s+1)/2⌋ and ⌊(S-s)/2⌋ (published code of ILM-VP)."""
    return (canvas - image_size + 1) // 2, (canvas - image_size) // 2


def border_mask(image_size: int, canvas: int) -> Tensor:
    """Return M, float32 [1, canvas, canvas]: 1 on the border, 0 on the image."""
    before, after = padding(image_size, canvas)
    return functional.pad(torch.zeros(1, image_size, image_size), (before, after, before, after), value=1.0)


def compose(images: Tensor, prompt: Tensor, mask: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Put images on the canvas: Normalize(ZeroPad(x) + σ(W) ⊙ M), with normalisation last.

    Source: arXiv 2308.14969, section 3, and the published code of ILM-VP (arXiv 2211.11635).

    images: uint8 [N, 3, s, s]; prompt W: float32 [3, S, S]; mask M: [1, S, S]; mean, std: [3, 1, 1], of images
    in [0, 1]. Returns [N, 3, S, S], of mean's dtype, in channels-last layout.
    """
    before, after = padding(images.shape[-1], mask.shape[-1])
    canvas = functional.pad(images.to(mean.dtype) / 255, (before, after, before, after))
    canvas = (canvas + torch.sigmoid(prompt) * mask - mean) / std
    return canvas.contiguous(memory_format=torch.channels_last)
