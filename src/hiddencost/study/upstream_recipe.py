"""The recipe of upstream training, apart from those of runs: no run stands on how it is stated."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hiddencost.study.recipes import Fraction, Precision, different_epochs


class UpstreamRecipe(BaseModel):
    """The recipe of upstream training, in the words of timm's recipes, whose code trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    epochs: int = Field(ge=1, description="passes over the training images")
    batch_size: int = Field(
        ge=1, description="training images a step, of all GPUs together; a last, smaller one is left"
    )
    optimiser: Literal["sgd", "adam", "adamw", "nadamw", "lamb", "rmsproptf"] = Field(
        "sgd", description="timm's; sgd is with Nesterov momentum"
    )
    learning_rate: float = Field(gt=0, description="at its highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="of optimisers that have it")
    weight_decay: float = Field(ge=0, description="on weights alone, not on biases and batch norm")
    schedule: Literal["cosine", "multistep"] = Field("cosine", description="of the rate, by steps; timm's")
    milestones: list[Fraction] = Field(
        [],
        description="of schedule multistep: fractions of the epochs, rounded down, where the rate falls to a tenth",
    )
    warmup_epochs: int = Field(0, ge=0, description="in which the rate rises linearly")
    clip_gradient: float | None = Field(None, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    loss: Literal["cross_entropy", "bce"] = Field("cross_entropy", description="bce: binary, a class at a time")
    mixup: float = Field(0.0, ge=0, description="alpha of Mixup; 0: none")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix; 0: none")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the mean of weights that is kept in place of the last; none: no mean"
    )
    crop: Literal["resized", "padded"] = Field(
        description="how training images are cropped: resized, a random part of `scale` made as large as the image; "
        "padded, shifted by up to an eighth"
    )
    scale: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.08, 1.0], min_length=2, max_length=2, description="of crop resized: the least and the largest share"
    )
    mirror: bool = Field(True, description="half of the training images left to right: not for letters and digits")
    colour_jitter: float = Field(0.0, ge=0, description="of brightness, contrast and saturation; 0: none")
    auto_augment: str | None = Field(
        None, description="timm's words: rand-m7-mstd0.5-inc1, augmix-m5-w4-d2, original"
    )
    random_erase: float = Field(0.0, ge=0, lt=1, description="share of the training images of which a part is erased")
    test_crop: float = Field(1.0, gt=0, le=1, description="share of a test image's side that is seen: its centre")
    precision: Precision

    @model_validator(mode="after")
    def _fits(self) -> "UpstreamRecipe":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; expected less than epochs, {self.epochs}")
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise ValueError("milestones go with schedule multistep, and it needs them")
        different_epochs(self.milestones, self.epochs)
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {self.scale}; expected the least share before the largest")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"batch_size is {self.batch_size}; expected an even number, as mixup pairs images")
        return self
