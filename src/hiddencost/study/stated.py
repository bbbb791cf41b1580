"""What a study states of visual prompting, beyond what its runs are told."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hiddencost.study.recipes import Protocol, is_size

NATIVE = "native"  # as a canvas: of each network its own
LEAST = 8  # pixels of a canvas


def _canvas(value: Any) -> int | str:
    if value == NATIVE or (is_size(value) and value >= LEAST):
        return value
    raise ValueError(f"{value!r} is not allowed: expected an integer from {LEAST}, or '{NATIVE}'")


class StudyProtocol(Protocol):
    """The recipe of visual prompting as a study states it."""

    canvas: Annotated[Annotated[int, Field(ge=LEAST)] | Literal["native"], BeforeValidator(_canvas)] = Field(
        description="side of the network's input in pixels: image and border. native: of each network that of its "
        "publication (of one that the study trains, its image_size), so that vision transformers, which take one "
        "size alone, stand beside others",
    )
