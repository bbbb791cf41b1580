"""Files: written whole or not at all, hashed, and hashed code."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile

PACKAGE = Path(__file__).parent


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`, else remove it.

    A reader, a killed job or a full disk therefore leaves either the old file or none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays: some writers (Matplotlib, NumPy) choose the format by it
    with NamedTemporaryFile(dir=path.parent, prefix=".tmp-", suffix=path.suffix, delete=False) as handle:
        temporary = Path(handle.name)
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # NamedTemporaryFile makes it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def canonical(value: object) -> str:
    """One string for one value: JSON with sorted keys. NaN is refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetched_files(fetched: str | os.PathLike) -> dict[str, Path]:
    """Return the files, by key, of a download's report (fetched.json), if they are still what they were.

    Raises ValueError if the download has failed or a file has other bytes, FileNotFoundError if it is gone.
    """
    report = read_json(fetched)
    if report["failed"]:
        raise ValueError(report["failed"])
    for file in report["files"].values():
        if (found := sha256_file(file["path"])) != file["sha256"]:
            raise ValueError(f"{file['path']}: sha256 is {found}, expected {file['sha256']}, as it was fetched")
    return {key: Path(file["path"]) for key, file in report["files"].items()}


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


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
