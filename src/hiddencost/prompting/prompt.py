"""A visual prompt: all that the rest of the code asks of a shape.

A prompt W, float32 [3, S, S], has the size of the canvas, the network's input; what is learned of it is where its
mask M is true. A shape says how images and prompts become canvases, and how a figure shows what was learned.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from hiddencost.prompting.maps import SharedMaps

Scaling = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation, by channel, of images in [0, 1]
Parameters = dict[str, Tensor]  # what a run trains, by name; those of R runs have R in front of their shapes


@dataclass(frozen=True)
class Prompt(ABC):
    """A shape of prompt, of the settings that its fields name in a run's recipe.

    Attributes:
        canvas: S, the side of the network's input, in pixels.
        not_shared: why no part of a canvas is the same for all images of a run. None: there is such a part, which the
            engine computes once, and `compose` returns SharedMaps.
        limits: of what is learned, by name: the least and the largest value that it is kept to after each step.
        not_trained: the names of what is learned without a gradient: `of_batch` returns it anew.
        behind_normalisation: whether it is added to normalised images, so that another normalisation makes other
            pixels of it.
        of_batches: whether a part of the prompt is computed from a run's whole batch, see `of_batch` and
            `whole_batches`.
    """

    canvas: int

    not_shared: ClassVar[str | None] = None
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    not_trained: ClassVar[frozenset[str]] = frozenset()
    behind_normalisation: ClassVar[bool] = False
    of_batches: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return a prompt with those of the settings, a recipe's or more, that are its fields."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})

    @property
    @abstractmethod
    def shown_side(self) -> int:
        """The side of the image on the canvas, in pixels."""

    @abstractmethod
    def mask(self) -> Tensor:
        """Return M, bool [1, S, S]: true where the prompt is learned."""

    def new(self, generator: torch.Generator | None = None) -> Parameters:
        """Return what is learned as training begins, float32: `prompt`, W, [3, S, S], zeros.

        generator: of what is drawn at random; None: as a seed of 0 would have it.
        """
        return {"prompt": torch.zeros(3, self.canvas, self.canvas)}

    def in_chunk(self, runs: int, images: int) -> Parameters:
        """Return what `compose` takes of R runs, and of their N images all together, in training: as it begins."""
        return {name: new.expand(runs, *new.shape) for name, new in self.new().items()}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return how `view` sees so many images of a batch: int64 [numbers, count], on the host."""
        return torch.empty(0, count, dtype=torch.int64)

    def view(self, images: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return images as training sees them, uint8 [N, 3, s, s], of uint8 [N, 3, s, s] and what was drawn, int64
        [N] each: as they are."""
        return images

    def of_batch(self, images: Tensor, prompts: Parameters, mean: Tensor, std: Tensor) -> tuple[Tensor, Parameters]:
        """Return what is computed from whole batches in training, where `of_batches` says so.

        Args:
            images: of a batch of each of R runs, as `view` returns them: uint8 [R, B, 3, s, s].
            prompts: of the runs, what `new` names, [R, ...].
            mean, std: [3, 1, 1], of images in [0, 1].

        Returns:
            For each image what `compose` finds as `masks`, [R, B, ...], and what is `not_trained`, [R, ...].
        """
        raise TypeError("nothing of it is computed from whole batches")

    def whole_batches(self, *of_step: Any) -> Any:
        """Return the whole batches of a step, where `of_batches` says so: a `batches.WholeBatches`, of its arguments.
        It is the shape's, so that runs of others do not stand on it."""
        raise TypeError("nothing of it is computed from whole batches")

    @abstractmethod
    def compose(
        self, images: Tensor, prompts: Parameters, runs: Tensor, mask: Tensor, mean: Tensor, std: Tensor
    ) -> SharedMaps | Tensor:
        """Return images under their runs' prompts, as the network takes them.

        Args:
            images: uint8 [N, 3, s, s].
            prompts: of the runs, what `new` names, float32 [R, ...]: W, [R, 3, S, S].
            runs: int64 [N], the run of each image.
            mask: M, as `mask` gives it, on the images' device.
            mean, std: [3, 1, 1], of images in [0, 1].

        Returns:
            Canvases [N, 3, S, S], of mean's dtype and in channels-last layout, whole or as SharedMaps.
        """

    def shown_mask(self, learned: Parameters) -> Tensor:
        """Return where a figure shows what a run has learned, bool [1, S, S]; elsewhere it shows the image."""
        return self.mask()

    @abstractmethod
    def in_pixels(self, learned: Parameters, scaling: Scaling | None, image: np.ndarray | None) -> np.ndarray:
        """Return what a learned prompt adds to grey, or to the image, as a share of a pixel's range: [3, S, S].

        Args:
            learned: of one run, what `new` names.
            scaling: of the network's input, where the catalog has it.
            image: uint8 [3, s, s]; None where there is none.
        """

    @abstractmethod
    def placed(self, image: np.ndarray, learned: Parameters) -> np.ndarray:
        """Return a canvas with an image where a run shows it, uint8 [3, S, S], for one of uint8 [3, s, s]."""
