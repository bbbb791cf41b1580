"""A border around an image whose size on the canvas is learned with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiddencost.prompting.border import padding
from hiddencost.prompting.prompt import Parameters, Prompt, Scaling
from hiddencost.study.resize import LARGEST, SMALLEST


@dataclass(frozen=True)
class ResizePrompt(Prompt):
    """A padding prompt around an image whose scale a is learned with it: Normalize(Scale(ZeroPad(x), a) + σ(W) ⊙ M).

    Scale magnifies the canvas around its centre, with bilinear interpolation and zeros beyond its edges; the loss
    reaches a through it. M is false on the ⌊a s⌋ pixels in the middle of a canvas, S at most, of an image of s pixels
    (what reaches over them, by interpolation, is added to the border); no gradient goes through M. After each step a
    is kept within 0.1 and 5.

    Source: AutoVP (arXiv 2310.08381), section 3, Input Scaling and Visual Prompt, and its published code
    (auto_vp/programs.py, Trainable_Resize and InputPadding; auto_vp/training_process.py, Training). One optimiser
    trains W and a, with one rate.

    Attributes:
        image_size: s, before it is scaled.
        scale: a, as training begins. Published: 0.5, 1 or 1.5, for s = 128 on S = 224.
    """

    image_size: int
    scale: float

    not_shared = "the scale of the images is learned"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"scale": (SMALLEST, LARGEST)}

    @property
    def shown_side(self) -> int:
        return self.image_size

    def mask(self) -> Tensor:
        """Return where W can ever be learned: where the border is depends on a run's scale, see `border`."""
        return torch.ones(1, self.canvas, self.canvas, dtype=torch.bool)

    def new(self, generator: torch.Generator | None = None) -> Parameters:
        """Return what is learned as training begins, float32: `prompt`, W, [3, S, S], zeros, and `scale`, a, []."""
        return super().new() | {"scale": torch.tensor(self.scale)}

    def border(self, scales: Tensor) -> Tensor:
        """Return M of each scale [R]: bool [R, 1, S, S]."""
        side = (self.image_size * scales.detach()).long().clamp(max=self.canvas)[:, None]
        places = torch.arange(self.canvas, device=scales.device)
        inside = (places >= (self.canvas - side) // 2) & (places < (self.canvas + side) // 2)
        return ~(inside[:, None, :, None] & inside[:, None, None, :])

    def scaled(self, images: Tensor, scales: Tensor, runs: Tensor) -> Tensor:
        """Return images, of values in [0, 1], on canvases of zeros, as large as their runs' scales make them.

        Args:
            images: [N, 3, s, s].
            scales: a of each run, [R].
            runs: int64 [N], the run of each image.
        """
        before, after = padding(self.image_size, self.canvas)
        canvases = functional.pad(images, (before, after, before, after))
        # places are counted from the centre: what stands at p of the result is at p / a
        back = torch.eye(2, 3, dtype=scales.dtype, device=scales.device) / scales[:, None, None]
        grids = functional.affine_grid(back, [len(scales), 3, self.canvas, self.canvas], align_corners=True)
        return functional.grid_sample(canvases, grids[runs], "bilinear", "zeros", align_corners=True)

    def compose(
        self, images: Tensor, prompts: Parameters, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> Tensor:
        scales = prompts["scale"]
        border = torch.where(self.border(scales), torch.sigmoid(prompts["prompt"]), 0)
        canvases = self.scaled(images.to(mean.dtype) / 255, scales, runs) + border[runs]
        return ((canvases - mean) / std).contiguous(memory_format=torch.channels_last)

    def shown_mask(self, learned: Parameters) -> Tensor:
        return self.border(learned["scale"][None])[0]

    def in_pixels(self, learned: Parameters, scaling: Scaling | None, image: np.ndarray | None) -> np.ndarray:
        return (torch.sigmoid(learned["prompt"]) - 0.5).numpy()

    def placed(self, image: np.ndarray, learned: Parameters) -> np.ndarray:
        runs, pixels = torch.zeros(1, dtype=torch.int64), torch.from_numpy(image)[None] / 255
        return (255 * self.scaled(pixels, learned["scale"][None], runs)[0]).round().byte().numpy()
