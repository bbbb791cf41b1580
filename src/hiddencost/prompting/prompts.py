"""The shapes of visual prompts, by name: a learned border around the image, or one that is added to it on CLIP.

A prompt W, float32 [3, S, S], has the size of the canvas, the network's input; what is learned of it is where its
mask M is true. A shape says how images and prompts become canvases, and how a figure shows what was learned.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import InterpolationMode, resize

from hiddencost.prompting.maps import SharedMaps
from hiddencost.study.recipes import PromptingProtocol


@dataclass(frozen=True)
class Prompt(ABC):
    """A shape of prompt, of the settings that its fields name in a run's recipe.

    Attributes:
        canvas: S, the side of the network's input, in pixels.
        not_shared: why no part of a canvas is the same for all images of a run. None: there is such a part, which the
            engine computes once, and `compose` returns SharedMaps.
    """

    canvas: int

    not_shared: ClassVar[str | None] = None

    @property
    @abstractmethod
    def shown_side(self) -> int:
        """The side of the image on the canvas, in pixels."""

    @abstractmethod
    def mask(self) -> Tensor:
        """Return M, bool [1, S, S]: true where the prompt is learned."""

    def new(self) -> Tensor:
        """Return W as training begins, float32 [3, S, S]: zeros."""
        return torch.zeros(3, self.canvas, self.canvas)

    @abstractmethod
    def compose(
        self, images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> SharedMaps | Tensor:
        """Return images under their runs' prompts, as the network takes them.

        Args:
            images: uint8 [N, 3, s, s].
            prompts: W of each run, float32 [R, 3, S, S].
            runs: int64 [N], the run of each image.
            mask: M, as `mask` gives it, on the images' device.
            mean, std: [3, 1, 1], of images in [0, 1].

        Returns:
            Canvases [N, 3, S, S], of mean's dtype and in channels-last layout, whole or as SharedMaps.
        """

    @staticmethod
    @abstractmethod
    def in_pixels(prompt: np.ndarray, std: Sequence[float] | None) -> np.ndarray:
        """Return what a learned prompt adds to grey, or to the image, as a share of a pixel's range: [3, S, S].

        Args:
            prompt: W, float32 [3, S, S].
            std: of the network's input, by channel, where the catalog has it.
        """

    @abstractmethod
    def placed(self, image: np.ndarray) -> np.ndarray:
        """Return a canvas with an image where it is shown, uint8 [3, S, S], for one of uint8 [3, s, s]."""


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
        self, images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> SharedMaps:
        """See Prompt.compose. Where neither an image nor the mask is, a canvas is 0, which is the mean."""
        border = torch.where(mask, (torch.sigmoid(prompts) - mean) / std, 0)
        patch = (images.to(mean.dtype) / 255 - mean) / std
        border, patch = (part.contiguous(memory_format=torch.channels_last) for part in (border, patch))
        return SharedMaps(border, patch, (self.inside, self.inside), runs, is_canvas=True)

    @staticmethod
    def in_pixels(prompt: np.ndarray, std: Sequence[float] | None) -> np.ndarray:
        return 1 / (1 + np.exp(-prompt)) - 0.5

    def placed(self, image: np.ndarray) -> np.ndarray:
        canvas = np.full((3, self.canvas, self.canvas), 128, np.uint8)
        inside = slice(*self.inside)
        canvas[:, inside, inside] = image
        return canvas


def fill(images: Tensor, canvas: int, interpolation: str) -> Tensor:
    """Return uint8 images [N, 3, s, s] as large as the canvas, enlarged as PIL would where they are smaller."""
    if images.shape[-1] == canvas:
        return images
    return resize(images, [canvas, canvas], InterpolationMode(interpolation), antialias=True)


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

    @property
    def shown_side(self) -> int:
        return self.canvas

    def mask(self) -> Tensor:
        inside = torch.zeros(1, self.canvas - 2 * self.border, self.canvas - 2 * self.border, dtype=torch.bool)
        return functional.pad(inside, (self.border,) * 4, value=True)

    def compose(
        self, images: Tensor, prompts: Tensor, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> Tensor:
        canvases = (fill(images, self.canvas, self.interpolation).to(mean.dtype) / 255 - mean) / std
        prompted = canvases + torch.where(mask, prompts, 0)[runs]
        return prompted.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def in_pixels(prompt: np.ndarray, std: Sequence[float] | None) -> np.ndarray:
        return prompt * np.array(std, np.float32)[:, None, None]

    def placed(self, image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image.transpose(1, 2, 0))
        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(picture.resize((self.canvas, self.canvas), method)).transpose(2, 0, 1)


PROMPTS: dict[str, type[Prompt]] = {"border": BorderPrompt, "additive": AdditivePrompt}


def make_prompt(shape: str, settings: dict) -> Prompt:
    """Return a prompt of a shape, with those of the settings, a recipe's or more, that are its fields."""
    made = PROMPTS[shape]
    return made(**{field.name: settings[field.name] for field in fields(made) if field.name in settings})


def prompt_of(protocol: PromptingProtocol) -> Prompt:
    """Return the prompt of a run's recipe."""
    return make_prompt(protocol.prompt, dict(protocol))
