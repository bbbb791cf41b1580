"""The recipe of a border around an image whose scale is learned (`prompting.resize`)."""

from typing import ClassVar, Literal

from pydantic import Field

from hiddencost.study.recipes import RunProtocol

SMALLEST, LARGEST = 0.1, 5.0  # of a scale (published code of AutoVP, auto_vp/training_process.py)


class RunResizeProtocol(RunProtocol):
    """The recipe of one run: the study's protocol at its dataset's image size, before it is scaled."""

    shape: Literal["resize"]
    scale: float = Field(ge=SMALLEST, le=LARGEST, description="of the image, as training begins")

    prompt: ClassVar[str] = "resize"
    prompt_settings: ClassVar[tuple[str, ...]] = ("scale",)
