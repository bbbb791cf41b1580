"""The shapes of prompts that a study asks for, in place of those of its families: all that a study asks of one.

A shape of a family's own (`Family.prompt`) needs none of this. A new one is a class here, or in a file of its own,
and its line in SHAPES, beside its recipe in `study.protocols` and its module in `prompting.prompts`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

Settings = Mapping[str, Any]


class StatedShape(ABC):
    """A shape of prompt, as a study states it.

    Attributes:
        description: for the schema of a study.
        required: its settings, of the fields of `study.stated.StatedPrompt`, all of which a study gives.
        fills: whether an image fills the canvas, whatever its dataset's image_size.
    """

    description: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    fills: ClassVar[bool] = False

    @abstractmethod
    def check(self, settings: Settings, backbone: str, canvas: int, image_sizes: Sequence[int | None]) -> None:
        """Raise ValueError where such prompts do not fit on a canvas; see `recipes.Protocol.check_prompts`, which has
        seen to it that each image leaves a border, where it does not fill the canvas."""


class Resize(StatedShape):
    """A border around an image whose scale is learned (`prompting.resize`)."""

    description = "a border around the image, whose scale is learned with it (AutoVP)"
    required = ("scale",)

    def check(self, settings: Settings, backbone: str, canvas: int, image_sizes: Sequence[int | None]) -> None:
        for index, image_size in enumerate(image_sizes):
            if image_size and int(image_size * settings["scale"]) >= canvas:
                raise ValueError(
                    f"protocol.prompt.scale: {settings['scale']:g} of the {image_size} pixels of "
                    f"datasets[{index}].image_size leaves no border on the canvas of {backbone}, {canvas}"
                )


class Masks(StatedShape):
    """A pattern under masks of the images' own (`prompting.masks`)."""

    description = "a pattern added to each image under a mask that a small network makes of it (SMM)"
    required = ("layers", "patch", "mask_learning_rate", "mask_gamma")
    fills = True

    def check(self, settings: Settings, backbone: str, canvas: int, image_sizes: Sequence[int | None]) -> None:
        layers, patch = settings["layers"], settings["patch"]
        if patch > 2 ** (layers - 1):
            most = 2 ** (layers - 1)
            raise ValueError(f"protocol.prompt.patch: {patch}; expected {most} at most, with {layers} layers")
        if canvas % patch:
            raise ValueError(
                f"protocol.prompt.patch: {patch} does not divide the canvas of {backbone}, {canvas} pixels"
            )


SHAPES: dict[str, StatedShape] = {"resize": Resize(), "masks": Masks()}
