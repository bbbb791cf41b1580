"""The recipe of a pattern under masks of the images' own (`prompting.masks`)."""

from typing import ClassVar, Literal

from pydantic import Field

from hiddencost.study.recipes import CanvasProtocol

MARGIN = 32  # pixels by which an image is larger than the canvas that is cropped of it (instancewise_vp.py of SMM)
Layers = Literal[5, 6]
Patch = Literal[1, 2, 4, 8, 16, 32]


class RunMaskProtocol(CanvasProtocol):
    """The recipe of one run: the study's protocol, whose learning rate and gamma are those of the pattern. Images
    fill the canvas."""

    shape: Literal["masks"]
    layers: Layers = Field(description="of the network that makes masks")
    patch: Patch = Field(description="side of the patches that have one value of a mask, in pixels")
    mask_learning_rate: float = Field(gt=0, description="Adam's for the network that makes masks")
    mask_gamma: float = Field(gt=0, le=1, description="its factor at each milestone")

    prompt: ClassVar[str] = "masks"
    prompt_settings: ClassVar[tuple[str, ...]] = ("layers", "patch")

    def settings_of(self, parameter: str) -> dict[str, float]:
        """See `RunLength`."""
        if parameter == "prompt":
            return {}
        return {"learning_rate": self.mask_learning_rate, "gamma": self.mask_gamma}
