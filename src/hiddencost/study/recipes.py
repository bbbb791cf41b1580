"""The recipe of a run, as the study states it."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(gt=0, lt=1)]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the device computes in it, else fp32")
]


def different_epochs(milestones: list[float], epochs: int) -> None:
    """Refuse, with ValueError, milestones (fractions of the epochs, rounded down) that do not fall on epochs of their
    own, behind the first."""
    found = [math.floor(fraction * epochs) for fraction in milestones]
    if 0 in found or len(set(found)) < len(found):
        raise ValueError(
            f"milestones {milestones} of {epochs} epochs fall on the epochs {found}; expected each on another one, "
            "none on 0"
        )


class Training(BaseModel):
    """What all methods share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    epochs: int = Field(ge=1, description="passes over the chosen training images")
    batch_size: int = Field(ge=1, description="training images a step")
    shuffle: bool = Field(description="a new order each epoch")
    test_batch_size: int = Field(
        ge=1, description="enters ece_published alone, whose formula depends on the batch size of the test"
    )


class Recipe(Training):
    """What visual prompting and the linear probe share: Adam, and a step-wise schedule over epochs."""

    learning_rate: float = Field(gt=0, description="Adam's")
    milestones: list[Fraction] = Field(
        description="as fractions of the epochs, rounded down: there the learning rate is multiplied by gamma"
    )
    gamma: float = Field(gt=0, le=1, description="factor at each milestone")

    optimiser: ClassVar[str] = "adam"  # of prompting.schedule.OPTIMISERS

    @model_validator(mode="after")
    def _milestones_differ(self) -> "Recipe":
        different_epochs(self.milestones, self.epochs)
        return self


class Protocol(Recipe):
    """The recipe of visual prompting (rlm, flm, ilm)."""

    canvas: int = Field(ge=8, description="side of the network's input in pixels: image and border")
    mapping_interval: int = Field(ge=1, description="epochs from one label mapping of ilm to the next")
    precision: Precision

    def check_prompts(self, backbone: str, canvas: int, image_sizes: list[int | None]) -> None:
        """Refuse images that leave no border on a canvas.

        Args:
            backbone: its name, for messages.
            canvas: its side, in pixels.
            image_sizes: the side of the images, in pixels, dataset by dataset; None where the study states none.

        Raises:
            ValueError: with key, value and what is expected.
        """
        for index, image_size in enumerate(image_sizes):
            where = f"datasets[{index}].image_size"
            if image_size is None:
                raise ValueError(f"{where}: the key is missing: {backbone} is prompted by a border around it")
            if image_size >= canvas:
                raise ValueError(
                    f"{where}: {image_size} leaves no border on the canvas; expected less than protocol.canvas, "
                    f"{canvas}"
                )


class RunProtocol(Protocol):
    """The recipe of one run: the study's protocol at its dataset's image size."""

    image_size: int = Field(ge=1, description="side of the image within the canvas, in pixels")

    prompt: ClassVar[str] = "border"  # of prompting.prompts.PROMPTS
    prompt_settings: ClassVar[tuple[str, ...]] = ()  # what its prompt takes of it, beside canvas and image_size


PUBLISHED_TEMPLATES = 81


def _templates(value: Any) -> list[str] | str:
    if value == "published":
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{value!r} is not allowed: expected a list of texts with {{}} for a class, or 'published'")
    for text in value:
        if not isinstance(text, str) or text.count("{}") != 1 or set("{}") & set(text.replace("{}", "")):
            raise ValueError(
                f"{text!r} is not allowed: expected one {{}}, for the name of a class, and no other brace"
            )
    return value


class ClipRecipe(Training):
    """What a study and a run state of visual prompting on CLIP: a border added to the image, and SGD along a cosine.

    Source: the published code of arXiv 2308.14969 (experiments/ilm_clip.py) and of ILM-VP (experiments/clip).
    """

    learning_rate: float = Field(gt=0, description="SGD's at the start; a cosine, by steps, takes it to zero")
    momentum: float = Field(ge=0, lt=1, description="SGD's")
    border: int = Field(ge=1, description="width of the prompt, in pixels; the canvas is the network's own input")
    mapping_interval: int = Field(ge=1, description="epochs from one label mapping of ilm to the next")
    precision: Precision

    optimiser: ClassVar[str] = "sgd"


class ClipProtocol(ClipRecipe):
    """The recipe of visual prompting on CLIP, whose source classes are texts."""

    templates: Annotated[list[str] | Literal["published"], BeforeValidator(_templates)] = Field(
        description="texts with {} for the name of a class: each with each class of the dataset is a source class. "
        "published: the 81 of the paper's code, one of its own and the 80 of CLIP's authors for ImageNet"
    )

    def check_prompts(self, backbone: str, canvas: int, image_sizes: list[int | None]) -> None:
        """Refuse a border that is wider than a canvas; see `Protocol.check_prompts`. Images fill the canvas."""
        if 2 * self.border > canvas:
            raise ValueError(
                f"clip.border: {self.border} on either side is more than the {canvas} pixels of {backbone}"
            )


class RunClipProtocol(ClipRecipe):
    """The recipe of one run on CLIP: the study's on the network's canvas. Its texts are an input of their own."""

    canvas: int = Field(ge=8, description="side of the network's input in pixels")
    interpolation: Literal["bilinear", "bicubic"] = Field(description="of images that are smaller than the canvas")

    prompt: ClassVar[str] = "additive"
    prompt_settings: ClassVar[tuple[str, ...]] = ("border", "interpolation")


PromptingProtocol = RunProtocol | RunClipProtocol


class FineTuning(Training):
    """The recipe of full fine-tuning (ft): Adam, whose rate falls to zero along a cosine."""

    learning_rate: float = Field(gt=0, description="Adam's at the start; a cosine, by epochs, takes it to zero")
    weight_decay: float = Field(ge=0, description="Adam's, on all weights: added to the gradient, times the weight")
    precision: Precision


class RunFineTuning(FineTuning):
    """The recipe of one run: the study's fine-tuning on its canvas."""

    canvas: int = Field(ge=8, description="side of the network's input in pixels, cropped from a larger image")


def finetuning_size(canvas: int) -> int:
    """Return the side in pixels of the images that are cropped to the canvas: 256 for 224, as published."""
    return round(canvas * 256 / 224)
