"""The JSON schema of a study as tables in Markdown: a section for each part, a row for each key."""

import json

LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def tables(schema: dict) -> str:
    """Return the tables of a schema of objects, as pydantic writes it: the study's own keys, then each part's."""
    parts = {"Study": schema, **schema["$defs"]}
    return "\n".join(_table(name, part) for name, part in parts.items())


def _table(name: str, part: dict) -> str:
    required = part.get("required", ())
    rows = [
        f"| `{key}`{' *' if key in required else ''} | {_cell(kind(value))} | {_default(value)} "
        f"| {_cell(value.get('description', ''))} |"
        for key, value in part["properties"].items()
    ]
    head = ["| key | values | default | what |", "|---|---|---|---|"]
    return "\n".join(["", f"## {name}", "", part.get("description", ""), "", *head, *rows, ""])


def kind(value: dict) -> str:
    """Return which values a schema allows, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(kind(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value["type"] == "array":
        return f"list of {kind(value['items'])}" if "items" in value else "list"
    if value["type"] == "object":
        return (
            "by name: " + " or ".join(map(kind, value["patternProperties"].values()))
            if "patternProperties" in value
            else "keys and values"
        )
    limits = [f"{words} {value[key]}" for key, words in LIMITS.items() if key in value]
    return ", ".join([value["type"], *limits])


def _default(value: dict) -> str:
    default = value.get("default")
    return "" if default is None or "$ref" in value else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
