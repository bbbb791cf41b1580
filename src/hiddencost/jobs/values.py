"""Settings as the params of a rule: one text each, "name=value", the value as canonical JSON.

Snakemake runs a job again where the set of its params' values is another, and tells which values came and which went;
what a param is called does not count. So each value has its name with it: that two have been swapped is seen, and the
reason that a person reads says what changed. No key of a mapping has another place for the same value.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hiddencost.files import canonical

ABSENT = ""  # the text of a setting that this recipe does not have


def text(name: str, value: Any) -> str:
    """Return a setting as the text of a param."""
    return f"{name}={canonical(value)}"


def texts(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return the texts of settings by their names, which a rule states: "recipe.epochs" is the key `epochs` of the
    mapping `recipe`.

    Raises ValueError where the settings have a key that is no name: nothing that a job depends on is left out.
    """
    parts = {name.partition(".")[0] for name in names if "." in name}
    flat = {name: value for name, value in settings.items() if name not in parts}
    flat |= {f"{part}.{key}": value for part in parts for key, value in settings.get(part, {}).items()}
    if surplus := sorted(flat.keys() - set(names)):
        raise ValueError(f"settings {', '.join(surplus)} are none of the params {', '.join(names)}")
    return {name: text(name, flat[name]) if name in flat else ABSENT for name in names}


def read(params: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that params tell: what `texts` was given."""
    settings: dict[str, Any] = {}
    for _, param in params.items():  # as Snakemake's params have it, too
        if param == ABSENT:
            continue
        name, _, value = param.partition("=")
        part, _, key = name.partition(".")
        if key:
            settings.setdefault(part, {})[key] = json.loads(value)
        else:
            settings[name] = json.loads(value)
    return settings
