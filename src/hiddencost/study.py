"""The study: one YAML file as typed objects, checked before any job starts."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hiddencost import catalog
from hiddencost.protocol import METHODS, PROMPTING, Protocol, Recipe


class StudyError(ValueError):
    """What is wrong in a study, a line each: file, key, value and what was expected."""


def unknown(name: object, allowed: Iterable[str]) -> str:
    """Say that a name is not one of those allowed, with the nearest of them."""
    allowed = [str(one) for one in allowed]
    near = get_close_matches(str(name), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{name!r} is unknown; {hint}allowed: {', '.join(allowed)}"


def one_of(*allowed: str) -> Any:
    """The type of a name out of a fixed list."""

    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(unknown(name, allowed))
        return name

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(allowed)})]


def ascending(values: list) -> list:
    """Sort shots by number, `full` last."""
    return sorted(values, key=lambda shots: float("inf") if shots == "full" else shots)


def distinct(values: list) -> list:
    """Refuse a list in which something stands twice."""
    names = [getattr(value, "name", value) for value in values]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once; each must be different")
    return values


def _shots(value: Any) -> int | str:
    if value == "full" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"{value!r} is not a number of images per class; expected an integer from 1, or 'full'")


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Shots = Annotated[int | str, BeforeValidator(_shots)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Part(BaseModel):
    """A part of the study: immutable, without keys beyond its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Compression(Part):
    """Compression made by this workflow."""

    algorithm: one_of("magnitude") = Field(
        description="magnitude: one-shot, global over all convolutions, without retraining"
    )
    sparsity: float = Field(gt=0, lt=1, description="share of the convolutions' weights set to zero")


class Backbone(Part):
    """A checkpoint as it is, compressed here, or replaced by a control."""

    name: Name
    checkpoint: one_of(*catalog.load("checkpoints")) = Field(description="a name of the catalog")
    compression: Compression | None = None
    control: one_of("random_init") | None = Field(
        None,
        description="random_init: the checkpoint's architecture without its weights; exempt from the photos",
    )

    @model_validator(mode="after")
    def _one_change(self) -> "Backbone":
        if self.compression and self.control:
            raise ValueError("a backbone has either a compression or a control, not both")
        return self


class TargetDataset(Part):
    """A target task."""

    name: one_of(*catalog.load("datasets")) = Field(description="a name of the catalog")
    image_size: int = Field(ge=1, description="side of the image within the canvas, in pixels")


class Verification(Part):
    """What a backbone must show before anything is trained on it."""

    sparsity_tolerance: float = Field(ge=0, le=1, description="largest difference of declared and measured sparsity")
    photos_top1: int = Field(ge=0, le=20, description="ImageNet photos, of 20, to classify rightly (controls exempt)")


class Figures(Part):
    """How figures look. Nothing here retrains."""

    width: float = Field(6.8, gt=0, description="inches")
    panel_height: float = Field(2.3, gt=0, description="inches")
    colours: dict[one_of(*METHODS), Colour] = Field(
        default_factory=dict, description="colour of a method, #rrggbb, where the default is not wanted"
    )


class Study(Part):
    """The grid of runs, and the recipes."""

    study: Name = Field(description="name of the study: its results are in results/{study}/")
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)]
    shots: Annotated[list[Shots], Field(min_length=1), AfterValidator(distinct), AfterValidator(ascending)] = Field(
        description="images per class, or full"
    )
    methods: Annotated[list[one_of(*METHODS)], Field(min_length=1), AfterValidator(distinct)]
    backbones: Annotated[list[Backbone], Field(min_length=1), AfterValidator(distinct)]
    datasets: Annotated[list[TargetDataset], Field(min_length=1), AfterValidator(distinct)]
    protocol: Protocol
    probe: Recipe
    verification: Verification
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _backbones_differ(self) -> "Study":
        seen: dict[tuple, str] = {}
        for one in self.backbones:
            made = (one.checkpoint, str(one.compression), one.control)
            if made in seen:
                raise ValueError(
                    f"backbones: {seen[made]} and {one.name} are the same network; expected different ones"
                )
            seen[made] = one.name
        return self

    @model_validator(mode="after")
    def _images_fit(self) -> "Study":
        for index, dataset in enumerate(self.datasets):
            if dataset.image_size >= self.protocol.canvas:
                raise ValueError(
                    f"datasets[{index}].image_size: {dataset.image_size} leaves no border on the canvas; "
                    f"expected less than protocol.canvas, {self.protocol.canvas}"
                )
        return self

    @property
    def prompting(self) -> list[str]:
        """The study's visual prompting methods."""
        return [method for method in self.methods if method in PROMPTING]

    def backbone(self, name: str) -> Backbone:
        """Return a backbone by name."""
        return next(backbone for backbone in self.backbones if backbone.name == name)

    def image_size(self, dataset: str) -> int:
        """Return the image size of a dataset."""
        return next(one.image_size for one in self.datasets if one.name == dataset)


def load_study(config: dict, file: str) -> Study:
    """Check a study's config. Raises StudyError, a line for each thing that is wrong; `file` is named in it."""
    try:
        return Study.model_validate(config)
    except ValidationError as error:
        lines = [f"{file}: {_explain(problem)}" for problem in error.errors()]
        raise StudyError("\n".join(lines)) from None


def _explain(problem: dict) -> str:
    # a key of a mapping that is itself at fault ends in pydantic's "[key]"
    location = [part for part in problem["loc"] if part != "[key]"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        fields = _model_at(Study, location[:-1]).model_fields
        return f"{where}: the key {unknown(location[-1], fields)}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{where}: {problem['input']!r} is not allowed: expected a mapping of keys to values"
    if problem["type"] == "missing":
        return f"{where}: the key is missing"
    if problem["type"] != "value_error":
        return f"{where}: {problem['input']!r} is not allowed: {message[0].lower()}{message[1:]}"
    return f"{where}: {message}" if where else message


def _model_at(model: type[BaseModel], location: list) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            candidates = [model.model_fields[part].annotation]
            while candidates:
                candidate = candidates.pop()
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
                    break
                candidates += getattr(candidate, "__args__", ())
    return model


if __name__ == "__main__":
    print(json.dumps(Study.model_json_schema(), indent=1))
