"""The recipe of a run, as the study states it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(gt=0, lt=1)]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the device computes in it, else fp32")
]


def different_epochs(milestones: list[float], epochs: int, unit: str = "epochs") -> None:
    """Refuse, with ValueError, milestones (fractions of the epochs, rounded down) that do not fall on epochs of their
    own, behind the first. unit: "steps", where a training is of so many of these."""
    found = [math.floor(fraction * epochs) for fraction in milestones]
    if 0 in found or len(set(found)) < len(found):
        raise ValueError(
            f"milestones {milestones} of {epochs} {unit} fall on the {unit} {found}; expected each on another one, "
            "none on 0: fewer of them, or more epochs"
        )


DEFAULT = "default"  # of batch sizes by shots, the key of all that are not named


def is_size(value: Any) -> bool:
    """Say whether a value of a study is a whole number from 1."""
    return type(value) is int and value >= 1


def _batch_sizes(value: Any) -> int | dict[str, int]:
    if is_size(value):
        return value
    by_shots = value if isinstance(value, dict) else {}
    named = all(shots in ("full", DEFAULT) or is_size(shots) or str(shots).isdecimal() for shots in by_shots)
    if not (named and DEFAULT in by_shots and all(map(is_size, by_shots.values()))):
        raise ValueError(
            f"{value!r} is not allowed: "
            + (f"'{DEFAULT}', of all other shots, is missing; " if by_shots and DEFAULT not in by_shots else "")
            + f"expected an integer from 1, or such integers by shots, '{DEFAULT}' for others"
        )
    sizes = {str(shots): size for shots, size in by_shots.items()}
    if len(sizes) < len(by_shots):
        raise ValueError(f"{value!r} is not allowed: a number of shots stands there twice")
    return sizes


Size = Annotated[int, Field(ge=1)]
BatchSizes = Annotated[Size | dict[str, Size], BeforeValidator(_batch_sizes)]


def recipe_of_run(recipe: Mapping[str, Any], shots: int | str) -> dict[str, Any]:
    """Return a pack's recipe as it is for a run: of batch sizes by shots its own."""
    sizes = recipe.get("batch_size")
    own = {"batch_size": sizes.get(str(shots), sizes[DEFAULT])} if isinstance(sizes, Mapping) else {}
    return {**recipe, **own}


class Training(BaseModel):
    """What all methods share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    shuffle: bool = Field(description="a new order each epoch")
    test_batch_size: int = Field(
        ge=1, description="enters ece_published alone, whose formula depends on the batch size of the test"
    )


class RunLength(Training):
    """How long a run is trained."""

    batch_size: int = Field(ge=1, description="training images a step")

    def step_at(self, share: float, images: int) -> int:
        """Return how many steps a share of a run on so many images takes: of its epochs, or steps, rounded down."""
        raise NotImplementedError

    def steps_of_pass(self, images: int) -> int:
        """Return how many steps a pass over so many images takes."""
        return max(1, math.ceil(images / self.batch_size))

    def steps_on(self, images: int) -> int:
        """Return how many steps a run on so many images takes."""
        return self.step_at(1, images)

    def passes_on(self, images: int) -> int:
        """Return how many passes over so many images a run begins."""
        return math.ceil(self.steps_on(images) / self.steps_of_pass(images))

    def settings_of(self, parameter: str) -> dict[str, float]:
        """Return what is trained otherwise of a parameter of a prompt, by its name, in place of the recipe's own."""
        return {}

    def images_on(self, images: int) -> int:
        """Return how many images a run on so many is trained on, pass by pass."""
        passes, rest = divmod(self.steps_on(images), self.steps_of_pass(images))
        return passes * images + min(rest * self.batch_size, images)


class ByEpochs(RunLength):
    """A training of some epochs."""

    epochs: int = Field(ge=1, description="passes over the chosen training images")

    def step_at(self, share: float, images: int) -> int:
        """See `RunLength`."""
        return math.floor(share * self.epochs) * self.steps_of_pass(images)

    def at(self, shots: int | str) -> Self:
        """Return what it is for runs with so many shots: as it is."""
        return self


class AdamRecipe(Training):
    """What visual prompting and the linear probe share: Adam, and a step-wise schedule."""

    learning_rate: float = Field(gt=0, description="Adam's")
    milestones: list[Fraction] = Field(
        description="as fractions of the epochs (or steps), rounded down: there gamma multiplies the learning rate"
    )
    gamma: float = Field(gt=0, le=1, description="factor at each milestone")

    optimiser: ClassVar[str] = "adam"  # of prompting.schedule.OPTIMISERS


class Recipe(ByEpochs, AdamRecipe):
    """The recipe of the linear probe."""

    @model_validator(mode="after")
    def _milestones_differ(self) -> Self:
        different_epochs(self.milestones, self.epochs)
        return self


class Protocol(AdamRecipe):
    """The recipe of visual prompting, by all label mappings.

    A published run takes `epochs`: at batches of 128, 100 steps with one image of each of 10 classes, and 39,100 with
    the 50,000 of CIFAR-10. With `steps` in their place every run takes as many, whatever its number of images.
    """

    epochs: int | None = Field(None, ge=1, description="passes over the chosen training images; this or steps")
    steps: int | None = Field(
        None,
        ge=1,
        description="in place of epochs, as a sensitivity analysis: optimisation steps of each run, whatever its "
        "number of images. Milestones are shares of the steps. A mapping of ilm is drawn anew, as with epochs, at "
        "the start of each mapping_interval-th pass over the images; a run of one pass, or less, keeps its first",
    )
    batch_size: BatchSizes = Field(
        description='training images a step; or by shots, such as {"1": 8, default: 128}, default for all others',
    )
    mapping_interval: int = Field(ge=1, description="epochs from one label mapping of ilm to the next")
    precision: Precision

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("either epochs or steps; expected one of them")
        if self.steps:
            different_epochs(self.milestones, self.steps, "steps")
        elif self.epochs:
            different_epochs(self.milestones, self.epochs)
        return self

    def at(self, shots: int | str) -> "OneBatchSize":
        """Return what it is for runs with so many shots."""
        return OneBatchSize(**recipe_of_run(self.model_dump(include=set(Protocol.model_fields)), shots))

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


class OneBatchSize(Protocol, RunLength):
    """The recipe of visual prompting at one number of shots."""

    batch_size: int = Field(ge=1, description="training images a step")

    def step_at(self, share: float, images: int) -> int:
        """See `RunLength`."""
        if self.steps:
            return math.floor(share * self.steps)
        return math.floor(share * (self.epochs or 0)) * self.steps_of_pass(images)


class CanvasProtocol(OneBatchSize):
    """The recipe of one run: the study's protocol, on a network's canvas."""

    canvas: int = Field(ge=8, description="side of the network's input in pixels: image and border")

    prompt: ClassVar[str]  # of prompting.prompts.PROMPTS
    prompt_settings: ClassVar[tuple[str, ...]] = ()  # what its prompt takes of it, beside canvas and image_size


class RunProtocol(CanvasProtocol):
    """The recipe of one run: the study's protocol at its dataset's image size."""

    image_size: int = Field(ge=1, description="side of the image within the canvas, in pixels")

    prompt: ClassVar[str] = "border"


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


class ClipRecipe(ByEpochs):
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


PromptingProtocol = CanvasProtocol | RunClipProtocol


class FineTuning(ByEpochs):
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
