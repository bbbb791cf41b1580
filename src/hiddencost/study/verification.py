"""What a study asks of backbones before anything is trained on them."""

from typing import Annotated

from pydantic import Field, model_validator

from hiddencost import catalog
from hiddencost.messages import Record, one_of


class Verification(Record):
    """What a backbone must show before anything is trained on it."""

    sparsity_tolerance: float = Field(ge=0, le=1, description="largest difference of declared and measured sparsity")
    photos: Annotated[str, one_of(catalog.photos())] = Field(
        "imagenet20",
        description="ImageNet photos that published networks are shown; what they know of 100 or more is an upstream "
        "accuracy: " + "; ".join(f"{name}: {entry.title}" for name, entry in catalog.photos().items()),
    )
    photos_top1: int = Field(ge=0, description="how many of the photos to classify rightly (controls exempt)")
    upstream_top1: float | None = Field(
        None,
        ge=0,
        le=100,
        description="instead of the photos, of networks that the study trains itself: least top-1, %, on 1000 test "
        "images (or all, if fewer) of their upstream data set (controls exempt)",
    )

    @model_validator(mode="after")
    def _as_many_as_there_are(self) -> "Verification":
        if self.photos_top1 > (count := catalog.photos()[self.photos].count):
            raise ValueError(f"photos_top1: {self.photos_top1}; expected at most the {count} photos of {self.photos}")
        return self
