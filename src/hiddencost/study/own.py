"""Files of one's own: those that stand for files of the catalog, and networks that no catalog has."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, WrapValidator, field_validator

from hiddencost.catalog.entries import Preprocessing
from hiddencost.messages import Record
from hiddencost.study.names import CLOSED, NAME, NAME_LENGTH, Name


def _user_files(value: Any) -> str | dict[str, str]:
    paths = value if isinstance(value, dict) else {"file": value}
    if paths and all(isinstance(path, str) for path in paths.values()):
        for key in paths:
            if not (isinstance(key, str) and re.fullmatch(NAME, key) and len(key) <= NAME_LENGTH):
                raise ValueError(f"{key!r} is not the name of a file of the catalog's entry")
        return value
    raise ValueError(f"{value!r} is not allowed: expected a path, or a path for each file of the catalog's entry")


UserFiles = Annotated[
    str | Annotated[dict[Name, str], Field(min_length=1, json_schema_extra=CLOSED)], BeforeValidator(_user_files)
]


class OwnNetwork(Record):
    """A network of one's own: a file of its weights, over ImageNet-1k's 1000 classes.

    Weights that are 0, or that masks beside them remove, are pruned; how many there are is measured.
    """

    file: str = Field(
        min_length=1,
        description="its path: a state dict of torch.save or safetensors, also nested, behind prefixes such as "
        "`module.`, in half precision, or with the masks of torch.nn.utils.prune",
    )
    architecture: str = Field(
        pattern=r"^[A-Za-z0-9_./-]+$", description="a name of torchvision, timm/NAME, or one of this project"
    )
    preprocessing: Preprocessing | None = Field(
        None, description="of its images; without it torchvision's or timm's own for the architecture"
    )

    @field_validator("preprocessing")
    @classmethod
    def _of_no_clip(cls, preprocessing: Preprocessing | None) -> Preprocessing | None:
        if preprocessing and preprocessing.resize:
            raise ValueError("resize is of a CLIP alone; expected mean, std and interpolation")
        return preprocessing


def _checkpoint(value: Any, _: Callable) -> str | OwnNetwork:
    return OwnNetwork.model_validate(value) if isinstance(value, dict) else TypeAdapter(Name).validate_python(value)


if TYPE_CHECKING:
    Checkpoint = str  # as a study names them, see `name_own`
else:
    Checkpoint = Annotated[Name | OwnNetwork, WrapValidator(_checkpoint)]


def name_own(backbones: list) -> list:
    """Return the backbones of a study whose networks of one's own have names: each that of the first backbone which
    it is the checkpoint of. Others may say so: `checkpoint: NAME`."""
    networks: dict[str, OwnNetwork] = {}
    for one in backbones:
        if isinstance(one.checkpoint, OwnNetwork) and one.checkpoint not in networks.values():
            networks[one.name] = one.checkpoint
    return [_named(one, networks) for one in backbones]


def _named(backbone: Any, networks: dict[str, OwnNetwork]) -> Any:
    name = next((name for name, own in networks.items() if backbone.checkpoint in (name, own)), None)
    if name is None:
        return backbone
    named = backbone.model_copy(update={"checkpoint": name})
    named._own = networks[name]
    return named
