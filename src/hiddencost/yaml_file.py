"""The one reader of YAML: of studies and of the catalog.

It reads YAML 1.2 (the core schema), as editors do: 1e-3 is a number, `no` and 2024-01-01 are texts. What two readers
would read differently is refused, and so is what is larger than any study.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hiddencost.messages import StudyError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000  # what an alias stands for counts each time
DEEPEST = 50
LONGEST_NUMBER = 40  # characters
TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
SCALARS = {  # by what a plain scalar begins with, as PyYAML looks them up: YAML 1.2, chapter 10.3
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
KINDS = {ScalarNode: {*SCALARS, "str"}, SequenceNode: {"seq"}, MappingNode: {"map"}}


class _Loader(yaml.CSafeLoader):  # in C: every job and every plan read a study and the catalog
    yaml_implicit_resolvers: ClassVar[dict[str, list]] = {}


for _name, (_pattern, _first) in SCALARS.items():
    _Loader.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor(f"{TAG}bool", lambda _, node: node.value.lower() == "true")
_Loader.add_constructor(f"{TAG}int", lambda _, node: int(node.value, 0))
_Loader.add_constructor(f"{TAG}float", lambda _, node: float(re.sub(r"\.(?=[a-zA-Z])", "", node.value)))


def read(path: str | Path, name: str = "") -> dict[str, Any]:
    """Return what a YAML file says: a mapping, with texts as keys at each depth.

    Args:
        path: of the file, UTF-8, of at most MOST_BYTES.
        name: what messages call it; without one, its path.

    Raises:
        StudyError: one line with the file, the line and what was expected, where it cannot be read or is not YAML;
            where a key stands twice in a mapping or is no text; where a number begins with 0 (octal in YAML 1.1);
            where it has tags of a language; or where it is larger, or deeper, than any study.
    """
    name = name or str(path)
    found = value(_text(Path(path), name), name)
    if not isinstance(found, dict):
        what = {type(None): "it is empty", list: "a sequence"}.get(type(found), repr(found))
        raise StudyError(f"{name}: {what}; expected keys, with a colon and a value behind each")
    return found


def value(text: str, name: str) -> Any:
    """Return what a text says in YAML, None if nothing. Raises StudyError as `read` does; name: for messages."""
    try:
        _check_depth(text, name)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, name)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise StudyError(f"{name}{_explain(error, text)}") from None


def typed(texts: Any) -> Any:
    """Return lists and mappings of texts, as Snakemake has those of its `--config`, with what each text is as a plain
    scalar of YAML: a number, true, false, null, or itself. Raises StudyError as `read` does."""
    if isinstance(texts, dict):
        return {key: typed(text) for key, text in texts.items()}
    if isinstance(texts, list):
        return [typed(text) for text in texts]
    patterns = (pattern for kind, (pattern, _) in SCALARS.items() if kind != "merge")
    is_other = isinstance(texts, str) and texts and any(re.fullmatch(pattern, texts) for pattern in patterns)
    return value(texts, "--config") if is_other else texts


def _text(path: Path, name: str) -> str:
    try:
        mode = path.stat().st_mode
        data = b""
        if stat.S_ISREG(mode):  # a pipe would be waited for
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise StudyError(f"{name}: {getattr(error, 'strerror', None) or error}; expected a YAML file") from None
    if not stat.S_ISREG(mode):
        raise StudyError(f"{name}: it is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}; expected a file")
    if len(data) > MOST_BYTES:
        raise StudyError(f"{name}: it has more than {MOST_BYTES:,} bytes; expected a study")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StudyError(f"{name}: its encoding is UTF-16; expected UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StudyError(
            f"{name}, line {line}: the byte {data[error.start]:#x} is not UTF-8; expected UTF-8"
        ) from None


def _check_depth(text: str, name: str) -> None:
    """Refuse what is nested so deep that building it would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise StudyError(f"{name}, line {event.start_mark.line + 1}: values are nested more than {DEEPEST} deep")


def _check(root: MappingNode, name: str) -> None:
    values = 0
    pending: list[tuple[Node, int]] = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        values += 1
        place = f"{name}, line {node.start_mark.line + 1}"
        if depth > DEEPEST:
            raise StudyError(f"{place}: values, with what aliases stand for, are nested more than {DEEPEST} deep")
        if values > MOST_VALUES:
            raise StudyError(f"{name}: it has more than {MOST_VALUES:,} values, with what aliases stand for")
        kind = node.tag.removeprefix(TAG)
        plain = kind in KINDS[type(node)] and (kind not in SCALARS or re.fullmatch(SCALARS[kind][0], node.value))
        if not plain:
            raise StudyError(f"{place}: the tag {kind!r} does not go with its value; expected YAML without tags")
        if kind in ("int", "float"):
            _check_number(kind, node.value, place)
        pending += [(part, depth + 1) for part in _parts(node, name)]


def _parts(node: Node, name: str) -> Iterator[Node]:
    """Yield the values of a list or a mapping. Raises StudyError for keys that are no texts, or stand there twice."""
    if isinstance(node, SequenceNode):
        yield from node.value
    if isinstance(node, MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            place = f"{name}, line {key.start_mark.line + 1}"
            if not isinstance(key, ScalarNode) or key.tag not in (f"{TAG}str", MERGE):
                raise StudyError(
                    f"{place}: the key {_what(key)} is no text; expected a name (in quotes, if it is one)"
                )
            if key.value in lines:
                raise StudyError(
                    f"{place}: the key {key.value!r} stands in line {lines[key.value]}, too; expected it once"
                )
            lines[key.value] = key.start_mark.line + 1
            yield value


def _check_number(kind: str, value: str, place: str) -> None:
    if len(value) > LONGEST_NUMBER:
        raise StudyError(f"{place}: a number of {len(value)} characters; expected {LONGEST_NUMBER} at most")
    if kind == "int" and re.match(r"[-+]?0[0-9]", value):
        raise StudyError(
            f"{place}: {value} is octal to some readers of YAML, and decimal to others; expected a number without 0 "
            "before it, or a text in quotes"
        )
    if kind == "int" and not -(2**63) <= int(value, 0) < 2**63:
        raise StudyError(f"{place}: {value} is out of bounds; expected an integer of 64 bits")


def _what(node: Node) -> str:
    return repr(node.value) if isinstance(node, ScalarNode) else f"a {node.id}"


def _explain(error: yaml.YAMLError, text: str) -> str:
    """Return where a text is not YAML, and why, as the end of a line that begins with the file's name."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        problem, lines = f"{error.problem}" + (f", {error.context}" if error.context else ""), text.splitlines()
        if mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
            problem += " (there is a tab: expected spaces)"
        return f", line {mark.line + 1}: not YAML: {problem}"
    line = text[: getattr(error, "position", 0)].count("\n") + 1
    return f", line {line}: not YAML: {getattr(error, 'reason', error)}"
