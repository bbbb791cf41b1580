"""The digest of the code that a result stands on."""

import ast
import os
from functools import lru_cache
from pathlib import Path

from hiddencost.files import canonical, sha256_text

PACKAGE = Path(__file__).parent


@lru_cache
def code_digest(script: str | os.PathLike) -> str:
    """SHA-256 over a script and every module of this package that it imports, directly or not.

    The imports are read from the code. Comments, docstrings and layout do not count: each file enters as its
    parsed tree, written out again.
    """
    closure: dict[str, str] = {}
    pending = [Path(script)]
    while pending:
        path = pending.pop()
        # a script may have the name of a module
        name = path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else path.name
        if name not in closure:
            closure[name], imported = _read_code(path)
            pending += imported
    return sha256_text(canonical(closure))


@lru_cache
def _read_code(path: Path) -> tuple[str, list[Path]]:
    """Return a file's code without comments and docstrings, and the files of this package that it imports."""
    tree = ast.parse(path.read_text(), filename=str(path))
    imported = imported_modules(tree)
    return ast.unparse(_without_docstrings(tree)), imported


def imported_modules(tree: ast.AST) -> list[Path]:
    """Return the files of this package that a parsed module imports, their packages' __init__.py included.

    Imports are absolute in this project; a relative one is refused (ValueError), as it would be overlooked.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: relative import; write `from hiddencost... import ...`")
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    files: set[Path] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        for depth in range(len(parts)):
            base = PACKAGE.joinpath(*parts[1 : depth + 1])
            files |= {file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()}
    return sorted(files)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
