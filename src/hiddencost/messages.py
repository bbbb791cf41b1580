"""Errors of a user's input: one line each, with the place, the value and what was expected."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError, WithJsonSchema


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


def distinct(values: list) -> list:
    """Refuse a list in which something stands twice."""
    names = [getattr(value, "name", value) for value in values]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once; each must be different")
    return values


Checked = TypeVar("Checked", bound=BaseModel)


def checked(model: type[Checked], value: object, file: str) -> Checked:
    """Return a value as a model. Raises StudyError, a line for each thing that is wrong; `file` is named in it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [f"{file}: {_explain(model, problem)}" for problem in error.errors()]
        raise StudyError("\n".join(lines)) from None


def _explain(root: type[BaseModel], problem: dict) -> str:
    # a key of a mapping that is itself at fault ends in pydantic's "[key]"
    location = [part for part in problem["loc"] if part != "[key]"]
    names = [part if isinstance(part, int) or part.isprintable() else ascii(part) for part in location]
    where = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        fields = _model_at(root, location[:-1]).model_fields
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
