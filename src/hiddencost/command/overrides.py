"""Settings that a command line gives in place of a study's, in the words of `snakemake --config`."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiddencost import yaml_file

KEY = r"[a-z_]+(\.[\w-]+)*"
PLAIN = r"[\w./+-]+"  # texts that are the same in flow style
QUOTES = ('"', "'")


def of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `--seeds`, `--shots` and `--set` say: nested mappings of texts, each in YAML's flow style.

    A VALUE is read as it would be behind `KEY: ` in a study, so that a text with commas is one.

    Raises:
        ValueError: in one line, for a `--set` that is no KEY=VALUE, or sets a key and what lies below it.
        StudyError: for a VALUE that is not YAML.
    """
    told: dict[str, Any] = {}
    for given in arguments.set:
        key, equals, value = given.partition("=")
        if not equals or not re.fullmatch(KEY, key):
            raise ValueError(f"--set {given}: expected KEY=VALUE, such as protocol.epochs=3")
        *outer, last = key.split(".")
        inner = told
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"--set {given}: {name} itself is set, too; expected one of both")
        if isinstance(inner.get(last), dict):
            raise ValueError(f"--set {given}: a key below {key} is set, too; expected one of both")
        inner[last] = _in_flow(value, f"--set {given}")
    return told | {axis: f"[{given}]" for axis in ("seeds", "shots") if (given := getattr(arguments, axis))}


def _in_flow(value: str, name: str) -> str:
    """Return a value as flow style has it, where a comma, a bracket or a colon would end a plain text."""
    text = yaml_file.value(value, name)
    if not isinstance(text, str) or re.fullmatch(PLAIN, value):
        return value
    return json.dumps(text if value.lstrip().startswith(QUOTES) else value.strip(), ensure_ascii=False)


def as_config(told: Mapping[str, Any]) -> list[str]:
    """Return settings as the words behind `snakemake --config`: a key of the study each."""
    return [f"{key}={_flow(value)}" for key, value in told.items()]


def as_values(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the values that they are in a study. Raises StudyError for what is not YAML."""
    return yaml_file.value(_flow(told), "--set") or {}


def _flow(value: Any) -> str:
    if not isinstance(value, Mapping):
        return value
    return f"{{{', '.join(f'{key}: {_flow(inner)}' for key, inner in value.items())}}}"


def files(given: Sequence[str]) -> list[str]:
    """Return the files of a study. Raises FileNotFoundError, in one line, where there is none, and StudyError, in one
    line, where one is no YAML: Snakemake reads it first, and names neither file nor line."""
    for file in given:
        if not Path(file).is_file():
            near = Path("studies", Path(file).name).with_suffix(".yaml")
            hint = f"; did you mean {near}?" if near.is_file() else "; expected the YAML file of a study"
            raise FileNotFoundError(f"{file}: there is no such file{hint}")
        yaml_file.read(file)
    return list(given)
