"""Upstream training: networks that a study trains itself, dense or sparsified, before it adapts them.

Here is what a study says of it; `data`, `sparsifiers` and `training` do it.
"""

import math
from collections.abc import Mapping
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hiddencost.files import canonical, sha256_text
from hiddencost.protocol import Fraction, Precision, different_epochs

# What each algorithm is told beside its sparsity, with what it is where a study does not say. Sources: `sparsifiers`.
SPARSIFIERS: dict[str, dict] = {
    "gmp": {"begin": 0.2, "end": 0.75, "interval": 100},
    "acdc": {"warm_up": 0.1, "phase": 0.05, "fine_tuning": 0.15},
    "rigl": {"distribution": "erk", "drop": 0.3, "end": 0.75, "interval": 100},
    "lth": {"share": 0.2, "rewind_epoch": 1},
}


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
    scale: list[Fraction | Literal[1.0]] = Field(
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


def with_defaults(sparsify: Mapping | None) -> dict | None:
    """Return the settings of a sparsifier (`algorithm`, `sparsity`, ...) with what the study does not say; None of
    dense training."""
    if sparsify is None:
        return None
    told = {key: value for key, value in sparsify.items() if value is not None}
    return SPARSIFIERS[told["algorithm"]] | told


def label(sparsify: Mapping | None) -> str:
    """Return what the folder of a sparsifier is called: its algorithm, with a hash of settings that are not the
    defaults; "dense" where there is none."""
    if sparsify is None:
        return "dense"
    settings = with_defaults(sparsify)
    algorithm = settings["algorithm"]
    own = {key: settings[key] for key, value in SPARSIFIERS[algorithm].items() if settings[key] != value}
    return f"{algorithm}-{sha256_text(canonical(own))[:8]}" if own else algorithm


def lottery_levels(sparsity: float, share: float) -> list[float]:
    """Return the sparsity after each round of iterative pruning: 1 - (1 - share)^r, until `sparsity`, which ends it.

    Each round prunes the same share of what is left (Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019,
    section 2); the last one less, so that the declared sparsity is met. The levels before one are its own levels.
    """
    levels = (as_level(1 - (1 - share) ** number) for number in count(1))
    return [*takewhile(lambda level: level < as_level(sparsity), levels), as_level(sparsity)]


def as_level(sparsity: float) -> float:
    """Return a sparsity to the digits that its folder has: a ten-thousandth of a per cent."""
    return round(sparsity, 6)


def sparse_phases(steps: int, warm_up: float, phase: float, fine_tuning: float) -> list[tuple[int, int]]:
    """Return AC/DC's compressed phases, as steps after which each begins and ends.

    After a dense warm-up, compressed and dense phases of one length alternate, as many pairs as fit; what is left
    before the final, compressed fine-tuning is dense, too. The defaults (`SPARSIFIERS`) are the published schedule of
    ResNet-50: of 100 epochs, compressed are 10 to 15, 20 to 25, ..., 70 to 75 and 85 to 100 (Peste et al., AC/DC,
    NeurIPS 2021, section 5; github.com/IST-DASLab/ACDC, configs/neurips/iht_imagenet_resnet50_insta_cosinelr_*.yaml).
    Raises ValueError where the training is too short for them.
    """
    pairs = math.floor(round((1 - fine_tuning - warm_up) / (2 * phase), 6))
    starts = [warm_up + 2 * phase * number for number in range(pairs)]
    found = [(round(start * steps), round((start + phase) * steps)) for start in starts]
    found.append((round((1 - fine_tuning) * steps), steps))
    bounds = [step for one in found for step in one]
    if bounds[0] < 1 or any(later <= before for before, later in pairwise(bounds)):
        raise ValueError(
            f"acdc: {steps} steps are too few for {len(found)} compressed phases, dense ones between them"
        )
    return found


def check_schedule(settings: Mapping, steps: int) -> None:
    """Refuse, with ValueError, a training of too few steps for a sparsifier's settings (all of them, see
    `with_defaults`)."""
    begin, end = (round(settings.get(key, 0) * steps) for key in ("begin", "end"))
    match settings["algorithm"]:
        case "gmp":
            if settings["interval"] > end - begin:
                raise ValueError(
                    f"gmp: interval is {settings['interval']} steps; expected at most {end - begin}, the steps from "
                    f"begin to end of {steps}"
                )
        case "rigl":
            if settings["interval"] >= end:
                raise ValueError(
                    f"rigl: interval is {settings['interval']} steps; expected less than {end}, where the last "
                    f"change of {steps} steps may be"
                )
        case "acdc":
            sparse_phases(steps, *(settings[key] for key in SPARSIFIERS["acdc"]))


TEST_FOLDERS = ("val", "validation", "test")


def folder_of_tests(folder: Path) -> Path:
    """Return where the test images of a folder with train/CLASS/* are. Raises ValueError where it is none."""
    found = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not found or not (folder / "train").is_dir():
        raise ValueError(
            f"{folder}: expected folders train/ and {'/, or '.join(TEST_FOLDERS)}/ there, of a folder a class"
        )
    return found[0]


def folder_entry(name: str, folder: str) -> dict:
    """Return a folder of images as `data.load` takes it, with the names of its classes: a class more or less trains
    anew, other images do not, as ImageNet's are too many to look at. Raises ValueError where it is none."""
    path = Path(folder).expanduser().absolute()
    try:
        folder_of_tests(path)
    except ValueError as error:
        raise ValueError(f"upstream {name}: folder: {error}") from None
    return {"folder": str(path), "classes": sorted(one.name for one in (path / "train").iterdir() if one.is_dir())}
