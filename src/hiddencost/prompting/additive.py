"""A prompt that is added to the image, on CLIP."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hiddencost.prompting.images import fill
from hiddencost.prompting.prompt import Parameters, Prompt, Scaling


@dataclass(frozen=True)
class AdditivePrompt(Prompt):
    """A prompt that is added to the image, at its edges: Normalize(x) + W ⊙ M, with normalisation first.

    Source: AdditiveVisualPrompt of ILM-VP (arXiv 2211.11635), on CLIP in the published code of arXiv 2308.14969, too.

    Attributes:
        interpolation: how smaller images are enlarged to the canvas, which they fill.
        border: its width, in pixels; 0: there is none, as with a linear probe.
    """

    interpolation: str
    border: int = 0

    not_shared = "the prompt is added to the images"
    behind_normalisation = True

    @property
    def shown_side(self) -> int:
        return self.canvas

    def mask(self) -> Tensor:
        inside = torch.zeros(1, self.canvas - 2 * self.border, self.canvas - 2 * self.border, dtype=torch.bool)
        return functional.pad(inside, (self.border,) * 4, value=True)

    def compose(
        self, images: Tensor, prompts: Parameters, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> Tensor:
        canvases = (fill(images, self.canvas, self.interpolation).to(mean.dtype) / 255 - mean) / std
        prompted = canvases + torch.where(mask, prompts["prompt"], 0)[runs]
        return prompted.contiguous(memory_format=torch.channels_last)

    def in_pixels(self, learned: Parameters, scaling: Scaling | None, image: np.ndarray | None) -> np.ndarray:
        assert scaling is not None, "a CLIP's entry has it"
        return learned["prompt"].numpy() * np.array(scaling[1], np.float32)[:, None, None]

    def placed(self, image: np.ndarray, learned: Parameters) -> np.ndarray:
        picture = Image.fromarray(image.transpose(1, 2, 0))
        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(picture.resize((self.canvas, self.canvas), method)).transpose(2, 0, 1)
