"""What a study states of visual prompting, beyond what its runs are told."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hiddencost.messages import Record, one_of
from hiddencost.study.masks import Layers, Patch
from hiddencost.study.recipes import Protocol, is_size
from hiddencost.study.resize import LARGEST, SMALLEST
from hiddencost.study.shapes import SHAPES

NATIVE = "native"  # as a canvas: of each network its own
LEAST = 8  # pixels of a canvas


def _canvas(value: Any) -> int | str:
    if value == NATIVE or (is_size(value) and value >= LEAST):
        return value
    raise ValueError(f"{value!r} is not allowed: expected an integer from {LEAST}, or '{NATIVE}'")


class StatedPrompt(Record):
    """The prompt of a study, in place of a border around the image."""

    shape: Annotated[str, one_of(SHAPES)] = Field(
        description="; ".join(f"{name}: {entry.description}" for name, entry in SHAPES.items())
    )
    scale: float | None = Field(
        None, ge=SMALLEST, le=LARGEST, description="resize: of the image, as training begins (AutoVP: 0.5, 1 or 1.5)"
    )
    layers: Layers | None = Field(
        None, description="masks: of the network that makes them (SMM: 5 for ResNets, 6 for vision transformers)"
    )
    patch: Patch | None = Field(
        None, description="masks: side of the patches that have one value of a mask, in pixels (SMM: 8)"
    )
    mask_learning_rate: float | None = Field(
        None,
        gt=0,
        description="masks: Adam's for that network (SMM: 0.01 for ResNets, 0.001 for transformers)",
    )
    mask_gamma: float | None = Field(
        None, gt=0, le=1, description="masks: its factor at each milestone (SMM: 0.1 for ResNets, 1 for transformers)"
    )

    @model_validator(mode="after")
    def _what_the_shape_takes(self) -> Self:
        given, entry = self.model_dump(exclude_none=True, exclude={"shape"}), SHAPES[self.shape]
        if missing := set(entry.required) - set(given):
            raise ValueError(f"{self.shape} needs {' and '.join(sorted(missing))}")
        if surplus := set(given) - set(entry.required):
            raise ValueError(f"{self.shape} takes {', '.join(entry.required)}, not {' and '.join(sorted(surplus))}")
        return self

    def settings(self) -> dict[str, Any]:
        """Return the shape and its settings, as a run's recipe states them."""
        return self.model_dump(exclude_none=True)


class StudyProtocol(Protocol):
    """The recipe of visual prompting as a study states it."""

    canvas: Annotated[Annotated[int, Field(ge=LEAST)] | Literal["native"], BeforeValidator(_canvas)] = Field(
        description="side of the network's input in pixels: image and border. native: of each network that of its "
        "publication (of one that the study trains, its image_size), so that vision transformers, which take one "
        "size alone, stand beside others",
    )
    prompt: StatedPrompt | None = Field(None, description="a shape of prompt in place of a border around the image")

    def check_prompts(self, backbone: str, canvas: int, image_sizes: list[int | None]) -> None:
        """Refuse images that leave no border on a canvas, and what the stated shape does not allow."""
        if not (self.prompt and SHAPES[self.prompt.shape].fills):
            super().check_prompts(backbone, canvas, image_sizes)
        if self.prompt:
            SHAPES[self.prompt.shape].check(self.prompt.settings(), backbone, canvas, image_sizes)
