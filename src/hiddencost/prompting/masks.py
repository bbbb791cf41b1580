"""A pattern that is added to each image under a mask of its own, which a small network makes of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hiddencost.prompting.batches import WholeBatches
from hiddencost.prompting.images import fill
from hiddencost.prompting.prompt import Parameters, Prompt, Scaling
from hiddencost.study.masks import MARGIN

MOMENTUM, EPSILON = 0.1, 1e-5  # of batch norm: PyTorch's
INTERPOLATION = "bilinear"


@dataclass(frozen=True)
class MaskPrompt(Prompt):
    """Sample-specific masks: z + W ⊙ Enlarge(f(z)), z = Normalize(Resize(x)), of an image that fills the canvas.

    f has `layers` convolutions, 3 x 3, of 8, 16, 32, 64 (and 128) channels and at last 3; behind each but the last
    come batch norm and ReLU, and behind the first log2(`patch`) of them max-pooling, 2 x 2. So it gives a number for
    each patch and colour, which Enlarge repeats over the patch. W starts at zeros, f as PyTorch initialises layers.
    The batch norm of f takes each batch's own statistics in training, and their running means at the test.

    In training an image is made `MARGIN` pixels larger than the canvas, cropped at random, and half of them are
    mirrored. W and f have a learning rate each, and a factor at each milestone (`study.masks`).

    Source: SMM (arXiv 2406.03150), section 3, and its published code (instance_model.py, instancewise_vp.py, cfg.py).
    Ours: mappings are drawn of images as the test sees them, with the running means (in the published code of cropped
    ones; in its first epoch with a batch's own statistics, which says nothing while W is 0, and moves the running
    means); images larger than the canvas are made as large as it when they are prepared.

    Attributes:
        layers: 5, or 6. Published: 5 for ResNets, 6 for vision transformers.
        patch: the side of a patch, in pixels, a power of 2. Published: 8.
    """

    layers: int
    patch: int

    not_shared = "the prompt is added to the images"
    behind_normalisation = True
    not_trained = frozenset(f"norm{layer}_{part}" for layer in range(1, 6) for part in ("mean", "variance"))
    of_batches = True

    @property
    def shown_side(self) -> int:
        return self.canvas

    @property
    def widths(self) -> list[int]:
        """The channels of f: what comes in, behind each convolution but the last, and what goes out."""
        return [3, *(8 * 2**layer for layer in range(self.layers - 1)), 3]

    @property
    def grid(self) -> int:
        """The patches along a side."""
        return self.canvas // self.patch

    def mask(self) -> Tensor:
        return torch.ones(1, self.canvas, self.canvas, dtype=torch.bool)

    def new(self, generator: torch.Generator | None = None) -> Parameters:
        """Return what is learned as training begins, float32: `prompt`, W, [3, S, S], zeros; of f, by layer,
        `convolution1_weight`, [8, 3, 3, 3], and `convolution1_bias`, and of its batch norm `norm1_weight`,
        `norm1_bias`, and `norm1_mean` and `norm1_variance`, its running means."""
        generator = generator or torch.Generator().manual_seed(0)
        learned = super().new()
        for layer, (inputs, outputs) in enumerate(zip(self.widths, self.widths[1:], strict=False), 1):
            bound = 1 / math.sqrt(9 * inputs)  # torch.nn.Conv2d's
            shapes = {"weight": (outputs, inputs, 3, 3), "bias": (outputs,)}
            for part, shape in shapes.items():
                learned[f"convolution{layer}_{part}"] = torch.empty(shape).uniform_(
                    -bound, bound, generator=generator
                )
            if layer < self.layers:
                learned |= {f"norm{layer}_{part}": torch.ones(outputs) for part in ("weight", "variance")}
                learned |= {f"norm{layer}_{part}": torch.zeros(outputs) for part in ("bias", "mean")}
        return learned

    def masks(self, pictures: Tensor, prompts: Parameters, training: bool) -> tuple[Tensor, Parameters]:
        """Return f of pictures of several runs at once, each by its own run's.

        Args:
            pictures: normalised, those of run r in the channels 3 r to 3 r + 2: [B, 3 R, S, S].
            prompts: what `new` names, [R, ...].
            training: whether batch norm takes the statistics of these pictures.

        Returns:
            The masks, [B, 3 R, S / patch, S / patch], and in training the new running means, [R, ...].
        """
        maps, runs, means = pictures, len(prompts["prompt"]), Parameters()
        for layer in range(1, self.layers + 1):
            weight, bias = (prompts[f"convolution{layer}_{part}"].flatten(0, 1) for part in ("weight", "bias"))
            maps = functional.conv2d(maps, weight, bias, padding=1, groups=runs)
            if layer == self.layers:
                break
            scale, shift, mean, variance = (
                prompts[f"norm{layer}_{part}"].flatten() for part in ("weight", "bias", "mean", "variance")
            )
            if training:  # which changes them in place
                mean, variance = mean.detach().clone(), variance.detach().clone()
                means[f"norm{layer}_mean"], means[f"norm{layer}_variance"] = (
                    mean.view(runs, -1),
                    variance.view(runs, -1),
                )
            maps = functional.batch_norm(maps, mean, variance, scale, shift, training, MOMENTUM, EPSILON).relu()
            if 2**layer <= self.patch:
                maps = functional.max_pool2d(maps, 2)
        return maps, means

    def of_batch(self, images: Tensor, prompts: Parameters, mean: Tensor, std: Tensor) -> tuple[Tensor, Parameters]:
        """See Prompt.of_batch: the masks of a batch's images, [R, B, 3, S / patch, S / patch]."""
        runs, count = images.shape[:2]
        pictures = (images.to(mean.dtype) / 255 - mean) / std
        masks, means = self.masks(pictures.transpose(0, 1).flatten(1, 2), prompts, training=True)
        return masks.view(count, runs, 3, self.grid, self.grid).transpose(0, 1), means

    def whole_batches(self, *of_step: Any) -> WholeBatches:
        return WholeBatches(*of_step)

    def compose(
        self, images: Tensor, prompts: Parameters, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> Tensor:
        """See Prompt.compose. Where prompts have no `masks` of the images, [N, 3, S / patch, S / patch], f makes
        them, as at the test."""
        pictures = self._pictures(images, mean, std)
        masks = prompts["masks"] if "masks" in prompts else self._masks_at_test(pictures, prompts, runs)
        canvases = pictures + prompts["prompt"][runs] * self._enlarged(masks)
        return canvases.contiguous(memory_format=torch.channels_last)

    def _pictures(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return (fill(images, self.canvas, INTERPOLATION).to(mean.dtype) / 255 - mean) / std

    def _enlarged(self, masks: Tensor) -> Tensor:
        return masks.repeat_interleave(self.patch, -2).repeat_interleave(self.patch, -1)

    def _masks_at_test(self, pictures: Tensor, prompts: Parameters, runs: Tensor) -> Tensor:
        if len(prompts["prompt"]) > 1:  # each picture by itself, as if it were a run: shapes tell nothing of the runs
            pictures, prompts = pictures.flatten(0, 1)[None], {name: one[runs] for name, one in prompts.items()}
        return self.masks(pictures, prompts, training=False)[0].view(-1, 3, self.grid, self.grid)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See Prompt.draw: rows and columns that are cut off before an image, and whether it is mirrored."""
        corners = torch.randint(MARGIN + 1, (2, count), generator=generator)
        return torch.cat([corners, torch.randint(2, (1, count), generator=generator)])

    def view(self, images: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        rows, columns, mirrored = drawn
        side = torch.arange(self.canvas, device=images.device)
        rows = rows[:, None] + side
        columns = columns[:, None] + torch.where(mirrored[:, None] > 0, side.flip(0), side)
        larger = fill(images, self.canvas + MARGIN, INTERPOLATION)
        places = torch.arange(len(images), device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
        return larger.permute(0, 2, 3, 1)[places].permute(0, 3, 1, 2).contiguous()

    def in_chunk(self, runs: int, images: int) -> Parameters:
        patterns = torch.zeros(runs, 3, self.canvas, self.canvas)
        return {"prompt": patterns, "masks": torch.zeros(images, 3, self.grid, self.grid)}

    def in_pixels(self, learned: Parameters, scaling: Scaling | None, image: np.ndarray | None) -> np.ndarray:
        """See Prompt.in_pixels: the pattern, under the mask of the image where there is one."""
        mean, std = (torch.tensor(one).reshape(3, 1, 1) for one in scaling or ([0.0] * 3, [1.0] * 3))
        if image is None:
            return (learned["prompt"] * std).numpy()
        pictures = self._pictures(torch.from_numpy(image)[None], mean, std)
        masks, _ = self.masks(pictures, {name: tensor[None] for name, tensor in learned.items()}, training=False)
        return (learned["prompt"] * self._enlarged(masks[0]) * std).numpy()

    def placed(self, image: np.ndarray, learned: Parameters) -> np.ndarray:
        picture = Image.fromarray(image.transpose(1, 2, 0))
        size = self.canvas, self.canvas
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
