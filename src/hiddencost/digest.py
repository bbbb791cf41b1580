"""The digest of the code that a result stands on.

It follows the imports of a job's script, so that no module is forgotten, and counts all that it finds but the modules
that NO_NUMBERS names and, of some jobs, those of APART. A module enters as its parsed tree without comments,
docstrings, log calls, the messages of errors and the descriptions of settings, and without its name: an edit of a log
line, or a module that moves, makes nothing stale.
"""

import ast
import hashlib
import inspect
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hiddencost.files import canonical, sha256_text

PACKAGE = Path(__file__).parent
# Modules that no number depends on: they carry, keep, say or name what others compute. What they import is followed.
# Entries of the catalog enter a result by their values, readers and modules of architectures that a registry names as
# `further` files.
NO_NUMBERS = frozenset(
    {
        "hiddencost",
        "hiddencost.catalog",
        "hiddencost.catalog.entries",
        "hiddencost.catalog.libraries",
        "hiddencost.compression.verification",
        "hiddencost.contents",
        "hiddencost.datasets.prepared",
        "hiddencost.datasets.readers.registry",
        "hiddencost.digest",
        "hiddencost.fetch",
        "hiddencost.files",
        "hiddencost.jobs.values",
        "hiddencost.logs",
        "hiddencost.machine",
        "hiddencost.messages",
        "hiddencost.networks.families",
        "hiddencost.networks.formats.registry",
        "hiddencost.networks.manifest",
        "hiddencost.networks.own",
        "hiddencost.packed",
        "hiddencost.prompting.prompts",
        "hiddencost.prompting.described",
        "hiddencost.runs.ledger",
        "hiddencost.runs.packfile",
        "hiddencost.seafile",
        "hiddencost.sources",
        "hiddencost.yaml_file",
    }
)
# Modules that runs do not stand on, with what they import. Metrics score what is stored, see runs/pack.py. A run
# stands on its own method and its own shape of prompt, see `Method.digest` and `prompts.digest`. Whether a pack is
# run, its inputs decide, see `jobs.training.origin`.
_OF_RUNS = frozenset(
    {
        "hiddencost.methods.method",
        "hiddencost.methods.registry",
        "hiddencost.runs.metrics",
        "hiddencost.runs.not_run",
        "hiddencost.study.protocols",
    }
)
# By the scripts of jobs, see `jobs.call.code`. What asks finished runs has their tables among its inputs, which state
# their methods and shapes; of what it scores by, the digests are among its params, see `results.analyses.Analysis`.
APART = dict.fromkeys(("train", "probe", "finetune"), _OF_RUNS) | {
    "shift": _OF_RUNS | {"hiddencost.datasets.corruptions"},
    "compare": _OF_RUNS | {"hiddencost.runs.measures"},
}
LOGGERS, LEVELS = {"log", "logging"}, {"debug", "info", "warning", "error", "exception", "critical"}
WORDS = {"Field": {"description"}, "tqdm": {"desc", "unit"}}  # arguments, by name, for people alone
BLOCKS = "body", "orelse", "finalbody"  # of statements
LEAVES = ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop  # of a parsed tree, that hold no others
EMPTY = "pass"  # what is left of a file without code, which may come or go
Parsed = tuple[str, list[tuple[str | None, str, str | None]]]  # code, and imports: from where, what, under what name


class Code(NamedTuple):
    """What counts of a file's code.

    Attributes:
        text: the code, without what it imports from this package.
        names: what it imports from this package: the file that it is from, its name there, and its name here.
        imported: all files of this package that the imports load, their packages' __init__.py included.
    """

    text: str
    names: list[tuple[Path, str, str | None]]
    imported: list[Path]


@cache
def code_digest(script: str | os.PathLike, *further: str | os.PathLike, apart: frozenset[str] = frozenset()) -> str:
    """Return the SHA-256 over a script and the modules of this package that its product stands on.

    Where a module imports from another, the code of that one stands in place of its name.

    Args:
        script: of a job, or a module.
        further: files that the job comes to without an import, such as the reader that a catalog entry names.
        apart: modules that it does not stand on, with what they alone import, see APART.
    """
    pieces = []
    for path in modules([script, *further], apart):
        if module_name(path) not in NO_NUMBERS:
            code = read_code(path)
            uncounted = NO_NUMBERS | apart
            texts = {
                file: "" if module_name(file) in uncounted else read_code(file).text for file, _, _ in code.names
            }
            pieces.append([code.text, *sorted([texts[file], name, str(to)] for file, name, to in code.names)])
    return sha256_text(canonical(sorted(piece for piece in pieces if piece != [EMPTY])))


@cache
def definition_digest(file: Path, name: str) -> str:
    """Return the SHA-256 over a definition of a file, and over those that it reaches by their names.

    Other definitions of the file do not count. What it reaches of another module of this package is followed in the
    same way; a module that is imported as a whole counts with all that it imports.

    Args:
        file: a module.
        name: of a function or a class at its top level. Of any other, such as a lambda, the whole file counts.
    """
    if name not in _definitions(file):
        return sha256_text(canonical([name, code_digest(file)]))
    pending, pieces = [(file, name)], dict[tuple[Path, str], list[Any]]()
    while pending:
        place = pending.pop()
        if place in pieces or module_name(place[0]) in NO_NUMBERS:
            continue
        file, definitions = place[0], _definitions(place[0])
        if place[1] not in definitions:  # a module
            pieces[place] = [code_digest(file)]
            continue
        imported = {str(to or of): (other, of) for other, of, to in read_code(file).names}
        text, uses = definitions[place[1]]
        reached = {use: imported.get(use, (file, use)) for use in uses if use in imported or use in definitions}
        texts = [[use, _definitions(other).get(of, ("", set()))[0]] for use, (other, of) in sorted(reached.items())]
        pieces[place] = [text, *texts]
        pending += [*reached.values(), *([(file, "")] if "" in definitions else [])]
    return sha256_text(canonical(sorted(map(canonical, pieces.values()))))


def digest_of(definition: Callable) -> str:
    """Return the `definition_digest` of a function or a class."""
    return definition_digest(Path(str(inspect.getsourcefile(definition))), definition.__qualname__)


@cache
def _definitions(file: Path) -> dict[str, tuple[str, set[str]]]:
    """Return the statements of a file by what they define, "" for what defines nothing: their text, and the names
    that they use."""
    definitions: dict[str, tuple[str, set[str]]] = {}
    tree = ast.parse(file.read_bytes())
    _strip(tree)
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        names += [part.id for each in targets if each for part in ast.walk(each) if isinstance(part, ast.Name)]
        uses = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        for name in names or [""]:
            text, used = definitions.get(name, ("", set()))
            definitions[name] = (f"{text}{ast.unparse(node)}\n", used | uses)
    return definitions


def modules(files: Iterable[str | os.PathLike], apart: Container[str | None] = ()) -> set[Path]:
    """Return some files, and those of this package that their imports lead to, but for the modules `apart`."""
    found: set[Path] = set()
    pending = [Path(file) for file in files]
    while pending:
        path = pending.pop()
        if path not in found and module_name(path) not in apart:
            found.add(path)
            pending += read_code(path).imported
    return found


@cache
def module_name(path: Path) -> str | None:
    """Return the name that a file of this package is imported by, None of any other file."""
    if not path.is_relative_to(PACKAGE):
        return None
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def read_code(path: Path) -> Code:
    """Read what counts of a file's code.

    Imports are absolute in this project; a relative one is refused (ValueError), as it would be overlooked.
    """
    content = path.read_bytes()
    text, imports = _parse(path, content) if module_name(path) is None else _parse_once(path, content)
    loaded, names = [], []
    for module, name, to in imports:
        loaded.append(f"{module}.{name}" if module else name)
        if module and (file := _file_of(loaded[-1]) or _file_of(module)):
            names.append((file, name, to))
    parts = [name.split(".") for name in loaded]
    modules = {".".join(name[: depth + 1]) for name in parts for depth in range(len(name))}
    files = {file for module in modules if (file := _file_of(module))}
    return Code(text, names, sorted(files))


def _parse_once(path: Path, content: bytes) -> Parsed:
    """Return what `_parse` does, kept beside Python's compiled modules: parsing all takes a second of each job.

    A file is known by what it holds, so that no other's is taken for it.
    """
    kept = Path(cache_from_source(path)).with_suffix(".parsed.json")
    key = hashlib.sha256(b"\0".join([sys.version.encode(), Path(__file__).read_bytes(), content])).hexdigest()
    with suppress(OSError, ValueError):
        before = json.loads(kept.read_text())
        if before[0] == key:
            return before[1]
    parsed = _parse(path, content)
    with suppress(OSError):  # a folder that is not the user's
        kept.parent.mkdir(exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_text(canonical([key, parsed]))
        temporary.replace(kept)
    return parsed


def _parse(path: Path, content: bytes) -> Parsed:
    tree = ast.parse(content, filename=str(path))
    imports: list[tuple[str | None, str, str | None]] = []
    for node in _strip(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"{path}, line {node.lineno}: relative import; write `from hiddencost... import ...`")
        module = node.module if isinstance(node, ast.ImportFrom) else None
        imports += [(module, alias.name, alias.asname) for alias in node.names]
    return ast.unparse(tree), imports


def module_file(name: str) -> Path:
    """Return the file of a module, by its name. Raises ModuleNotFoundError if there is none."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no file of a module {name}", name=name)
    return Path(spec.origin)


@cache
def _file_of(name: str) -> Path | None:
    """Return the file of a module of this package, by the module's name; None if there is none."""
    package, *parts = name.split(".")
    base = PACKAGE.joinpath(*parts)
    files = (base.with_suffix(".py"), base / "__init__.py") if package == PACKAGE.name else ()
    return next((file for file in files if file.is_file()), None)


def _strip(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Leave of a parsed module what computes: no docstrings, log calls, messages of errors, descriptions of settings,
    imports from here. Returns all imports, those that are left out included.

    It is one loop, not an ast.NodeTransformer, as each call of Snakemake waits for all modules.
    """
    imports: list[ast.Import | ast.ImportFrom] = []
    pending: deque[ast.AST] = deque([tree])
    while pending:
        node = pending.popleft()
        if isinstance(node, ast.Call):
            words = WORDS.get(node.func.id, ()) if isinstance(node.func, ast.Name) else ()
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in words]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        elif isinstance(node, ast.Assert):
            node.msg = None
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                if field in BLOCKS:
                    imports += [each for each in value if isinstance(each, ast.Import | ast.ImportFrom)]
                    value[:] = [each for each in value if _computes(each)] or [ast.Pass()] * (field == "body")
                pending.extend(each for each in value if isinstance(each, ast.AST))
            elif isinstance(value, ast.AST) and not isinstance(value, LEAVES):
                pending.append(value)
    return imports


def _computes(statement: ast.stmt) -> bool:
    """Say whether a statement counts."""
    match statement:
        case ast.Expr(value):  # docstrings are constants
            return not isinstance(value, ast.Constant) and not _is_log_call(value)
        case ast.If(test, body, []):
            logs = all(isinstance(each, ast.Expr) and _is_log_call(each.value) for each in body)
            return not logs or any(isinstance(part, ast.Call | ast.NamedExpr) for part in ast.walk(test))
        case ast.Import(names):
            return any(alias.name != "logging" for alias in names)
        case ast.ImportFrom(module):
            return str(module).split(".")[0] != PACKAGE.name
        case ast.Assign(value=ast.Call(func=ast.Attribute(value=ast.Name("logging"), attr="getLogger"))):
            return False
    return True


def _is_log_call(value: ast.expr) -> bool:
    called = value.func if isinstance(value, ast.Call) else None
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name):
        return False
    return (called.value.id in LOGGERS and called.attr in LEVELS) or called.attr == "set_description"  # of a tqdm
