"""A border around the image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiddencost.prompting.maps import SharedMaps
from hiddencost.prompting.prompt import Parameters, Prompt, Scaling


def padding(image_size: int, canvas: int) -> tuple[int, int]:
    """Return the border's width before and after the image, ⌊(S-s+1)/2⌋ and ⌊(S-s)/2⌋ (published code of ILM-VP)."""
    return (canvas - image_size + 1) // 2, (canvas - image_size) // 2


@dataclass(frozen=True)
class BorderPrompt(Prompt):
    """A padding prompt, around the image: Normalize(ZeroPad(x) + σ(W) ⊙ M), with normalisation last.

    Source: arXiv 2308.14969, section 3, and the published code of ILM-VP (arXiv 2211.11635).
    """

    image_size: int

    @property
    def shown_side(self) -> int:
        return self.image_size

    @property
    def inside(self) -> tuple[int, int]:
        """The rows, and columns, of the image: from, to."""
        before, _ = padding(self.image_size, self.canvas)
        return before, before + self.image_size

    def mask(self) -> Tensor:
        start, stop = self.inside
        mask = torch.ones(1, self.canvas, self.canvas, dtype=torch.bool)
        mask[:, start:stop, start:stop] = False
        return mask

    def compose(
        self, images: Tensor, prompts: Parameters, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> SharedMaps:
        """See Prompt.compose. Where neither an image nor the mask is, a canvas is 0, which is the mean."""
        border = torch.where(mask, (torch.sigmoid(prompts["prompt"]) - mean) / std, 0)
        patch = (images.to(mean.dtype) / 255 - mean) / std
        border, patch = (part.contiguous(memory_format=torch.channels_last) for part in (border, patch))
        return SharedMaps(border, patch, (self.inside, self.inside), runs, is_canvas=True)

    def in_pixels(self, learned: Parameters, scaling: Scaling | None, image: np.ndarray | None) -> np.ndarray:
        return 1 / (1 + np.exp(-learned["prompt"].numpy())) - 0.5

    def placed(self, image: np.ndarray, learned: Parameters) -> np.ndarray:
        canvas = np.full((3, self.canvas, self.canvas), 128, np.uint8)
        inside = slice(*self.inside)
        canvas[:, inside, inside] = image
        return canvas
