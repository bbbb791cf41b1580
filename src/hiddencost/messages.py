"""Errors of a user's input: one line each, with the place, the value and what was expected."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

LONGEST, MOST = 1000, 20  # characters of a line; lines


def one_line(text: object) -> str:
    """Return a text as one line for a person: white space as single spaces, what is not printable escaped, of a long
    one the start and the end."""
    line = " ".join(str(text).split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} [... {len(line):,} characters ...] {line[-LONGEST // 4 :]}"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


class StudyError(ValueError):
    """What is wrong in a study, a line each (see `one_line`): file, key, value and what was expected."""

    def __init__(self, text: object) -> None:
        lines = str(text).splitlines()
        more = [f"and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
        super().__init__("\n".join([*map(one_line, lines[:MOST]), *more]))


class Record(BaseModel):
    """What is read from outside, with a type: immutable, without keys beyond its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def counted(count: int, word: str) -> str:
    """Return a number of things, such as "1 run" and "1,200 runs"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def listed(names: Iterable[object], last: str) -> str:
    """Return names as a sentence has them, such as "a, b or c", with `last` before the last."""
    *first, final = map(str, names)
    return f"{', '.join(first)} {last} {final}" if first else final


def describe_unknown_name(name: object, allowed: Iterable[object], told: str = "") -> str:
    """Say that a name is not one of those allowed, with the nearest of them.

    told: what is said of those allowed where they are too many for a line.
    """
    return f"{name!r} is unknown; {_instead(name, allowed, told)}"


def describe_absent_name(name: object, allowed: Iterable[object]) -> str:
    """Say that a study does not have what a name, which may be known, stands for, with the nearest that it has."""
    return f"the study has no {name!r}; {_instead(name, allowed)}"


def _instead(name: object, allowed: Iterable[object], told: str = "") -> str:
    names = [str(other) for other in allowed]
    near = _nearest(name, names, 3 if told else 1)
    hint = f"did you mean {listed(map(repr, near), 'or')}? " if near else ""
    return f"{hint}allowed: {told or ', '.join(names)}"


def _nearest(name: object, names: Iterable[str], most: int = 1) -> list:
    """Return the names that are nearest to one that is none of them: that are it but for capitals and signs, else
    that are like it, else that begin with it; of a number the nearest numbers."""
    if isinstance(name, int):
        numbers = [int(other) for other in names if other.isdecimal()]
        return sorted(numbers, key=lambda number: abs(number - name))[:most]
    if not isinstance(name, str):
        return []
    names, meant = list(names), name[:100].casefold()
    same = [other for other in names if _plain(other) == _plain(meant)]
    near = same or get_close_matches(meant, names, most, 0.7 if most > 1 else 0.6)
    return (near or [other for other in names if len(meant) > 2 and other.startswith(meant)])[:most]


def _plain(name: str) -> str:
    """Return a name without what people write otherwise: capitals, and signs but the plus of `blm+`."""
    return re.sub(r"[^a-z0-9+]", "", name.casefold().replace("plus", "+"))


def describe_mismatch(expected: Mapping[str, list[int]], given: Mapping[str, list[int]]) -> str:
    """Say how the keys and shapes of weights differ from those expected: the first five differences."""
    problems = [f"missing key {key}" for key in sorted(expected.keys() - given.keys())]
    problems += [f"unexpected key {key}" for key in sorted(given.keys() - expected.keys())]
    problems += [
        f"{key} has shape {given[key]}, expected {expected[key]}"
        for key in sorted(expected.keys() & given.keys())
        if given[key] != expected[key]
    ]
    more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more


@dataclass(frozen=True, eq=False)  # a registry has no hash
class _KnownName:
    """The check of a name, as pydantic asks for it: the names are looked up at each validation and each schema."""

    registry: Collection[str]
    others: tuple[str, ...]

    def names(self) -> list[str]:
        return [*self.registry, *self.others]

    def check(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"{describe_unknown_name(name, self.names())}{self._by_label(name)}")
        return name

    def _by_label(self, name: str) -> str:
        """Say which name stands for what was written, as figures have it: lp for a linear probe."""
        entries = {} if _nearest(name, self.names()) or not isinstance(self.registry, Mapping) else self.registry
        of_entries = {key: getattr(entry, "label", None) for key, entry in entries.items()}
        labels = {label.casefold(): key for key, label in of_entries.items() if isinstance(label, str)}
        begin = [label for label in labels if len(name) > 2 and _plain(label).startswith(_plain(name))]
        near = begin or get_close_matches(name[:100].casefold(), labels, 1)
        return f"; {near[0]} is {labels[near[0]]!r}" if near else ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict:
        return {"type": "string", "enum": self.names()}


def one_of(registry: Collection[str], *others: str) -> _KnownName:
    """Return the check of a name that is in a registry: `Annotated[str, one_of(REGISTRY)]` is its type.

    The registry is looked into when a value is validated and when a JSON schema is made, not when the class is: an
    entry that is registered later is allowed.

    Args:
        registry: a mapping by name, or any collection of names.
        others: further names that are allowed.
    """
    return _KnownName(registry, others)


@dataclass(frozen=True)
class InWords:
    """The check of a text by a pattern, which messages tell in words.

    Attributes:
        pattern: a regular expression of the whole text.
        words: what it allows, for people.
        mend: returns what a text that it does not allow may be meant to be.
    """

    pattern: str
    words: str
    mend: Callable[[str], str] = str

    def check(self, text: str) -> str:
        """Return a text as it is. Raises ValueError where the pattern does not allow it."""
        if re.fullmatch(self.pattern, text):
            return text
        meant = self.mend(text[:100])
        hint = f"; did you mean {meant!r}?" if re.fullmatch(self.pattern, meant) else ""
        raise ValueError(f"{text!r} is not allowed: expected {self.words}{hint}")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict:
        return handler(schema) | {"pattern": self.pattern}


def refuse_duplicates(values: list) -> list:
    """Return a list as it is. Raises ValueError where a value, or the `name` of one, is in it more than once."""
    names = [getattr(value, "name", value) for value in values]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once; each must be different")
    return values


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], value: object, file: str) -> Model:
    """Return a value as a model. Raises StudyError, a line for each thing that is wrong; `file` is named in it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = _misspelt_first(model, error.errors())
        lines = [one_line(f"{file}: {_explain(model, problem)}") for problem in problems]
        raise StudyError("\n".join(lines)) from None


def _misspelt_first(root: type[BaseModel], problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return problems, unknown keys first, without the missing keys that they are misspelt for."""
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    places = [(problem["loc"][:-1], problem["loc"][-1]) for problem in unknown]
    meant = {(*place, *_nearest(key, _model_at(root, list(place)).model_fields)) for place, key in places}
    others = [problem for problem in problems if problem["type"] != "extra_forbidden"]
    return unknown + [one for one in others if one["type"] != "missing" or one["loc"] not in meant]


def _explain(root: type[BaseModel], problem: ErrorDetails) -> str:
    # a key of a mapping that is itself at fault ends in pydantic's "[key]"
    location = [part for part in problem["loc"] if part != "[key]"]
    names = [part if isinstance(part, int) or part.isprintable() else ascii(part) for part in location]
    where = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        fields, key = _model_at(root, location[:-1]).model_fields, location[-1]
        if stands := _stands(root, location):
            return f"{where}: the key {key!r} is not allowed here: it stands {stands}; allowed: {', '.join(fields)}"
        return f"{where}: the key {describe_unknown_name(key, fields)}"
    if problem["type"] in ("model_type", "dict_type"):
        told = "expected a mapping of keys to values"
        return f"{where}: {problem['input']!r} is not allowed: {told}{_such_as(root, location)}"
    if problem["type"] == "missing":
        return f"{where}: the key is missing"
    if problem["type"] != "value_error":
        told = f"{message[0].lower()}{message[1:]}{_meant(root, problem)}"
        return f"{where}: {problem['input']!r} is not allowed: {told}"
    return f"{where}: {message}" if where else message


def _stands(root: type[BaseModel], location: list) -> str:
    """Return where a key stands that is written in another place: in a part of the mapping that it is in, or in one
    that this is a part of; "" of a key that there is nowhere near."""
    *place, key = location
    own = _model_at(root, place)
    parts = [
        name for name in own.model_fields if (part := _model_at(own, [name])) is not own and key in part.model_fields
    ]
    if parts:
        return f"under {listed(parts, 'or')}{_such_as(own, [parts[-1]])}"
    for depth in range(len(place) - 1, -1, -1):
        if isinstance(place[depth], str) and key in _model_at(root, place[:depth]).model_fields:
            return f"beside {place[depth]}"
    return ""


def _such_as(root: type[BaseModel], location: list) -> str:
    """Return the first example of what stands in a place, as YAML has it, as the end of a message."""
    field = _model_at(root, location[:-1]).model_fields.get(str(location[-1]))
    if field is None or not field.examples:
        return ""
    pairs = ", ".join(f"{key}: {value}" for key, value in field.examples[0].items())
    return f", such as {location[-1]}: {{{pairs}}}"


def _meant(root: type[BaseModel], problem: ErrorDetails) -> str:
    """Return what a value of another kind may be meant to be: a list of itself, the share that a percentage is, the
    number that a text has."""
    given, location = problem["input"], list(problem["loc"])
    if problem["type"] == "list_type" and isinstance(given, int | float | str):
        field = _model_at(root, location[:-1]).model_fields.get(str(location[-1]))
        examples = (field and not isinstance(given, float) and field.examples) or [[given]]
        return f", such as {examples[0]}"
    if problem["type"] in ("int_type", "float_type") and isinstance(given, str) and re.fullmatch(r"\d{1,9}", given):
        return f"; did you mean {int(given)}, without quotes?"
    if "milestones" in location and isinstance(given, int | float) and given >= 1:
        return f": it is a share of the epochs; did you mean {given:g} / epochs?"
    percent = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", given) if isinstance(given, str) else None
    value = float(percent[1]) if percent else given
    most = problem.get("ctx", {}).get("lt", problem.get("ctx", {}).get("le", 1.0 if percent else None))
    is_share = isinstance(value, int | float) and 2 <= value < 100 and isinstance(most, float) and 0.9 < most <= 1
    return f"; did you mean {value / 100:g}?" if is_share else ""


def _model_at(model: type[BaseModel], location: list) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:  # else a key of a mapping, of what it holds
            candidates = [model.model_fields[part].annotation]
            while candidates:
                candidate = candidates.pop()
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
                    break
                candidates += getattr(candidate, "__args__", ())
    return model
