"""The house's own rules: which package may import which, and how long a file and a function may be."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/hiddencost"
# an import goes to an earlier line only, but for the ground's among themselves
GROUND = ("contents", "files", "digest", "fetch", "logs", "machine", "memory", "messages", "packed", "seafile")
GROUND += ("sources", "yaml_file")
ORDER = [
    GROUND,
    ("catalog", "methods"),
    ("datasets", "networks"),
    ("compression",),
    ("study",),
    ("prompting",),
    ("runs",),
    ("results", "upstream"),
    ("figures",),
    ("report", "jobs"),
    ("command",),
]
NAMED = {"methods": {"runs"}}  # the entry of a method names the function of its job
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
LONGEST_FILE, LONGEST_FUNCTION = 350, 60
PYTHON = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the package, or the module of the ground, that a file is of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports, lazily or not, or names as "module:name"."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"hiddencost(\.\w+)+:\w+", str(node.value)):
            modules.add(node.value.partition(":")[0])
    return {name.split(".")[1] for name in modules if name.startswith("hiddencost.")}


@pytest.mark.parametrize("room", sorted(RANK))
def test_imports_go_one_way(room):
    files = [path for path in PYTHON if room_of(path) == room]
    assert files
    imported = {other for path in files for other in imported_rooms(path)} - {room}
    allowed = {other for other in RANK if RANK[other] < RANK[room]} | (set(GROUND) if room in GROUND else set())
    assert imported <= allowed | NAMED.get(room, set())


def test_a_name_in_a_string_is_an_import(tmp_path):
    (tmp_path / "new.py").write_text('import hiddencost.runs.pack\n\nMASKS = "hiddencost.upstream.mine:Mine"\n')
    assert imported_rooms(tmp_path / "new.py") == {"runs", "upstream"}


def imports_within(room: str) -> dict[str, set[str]]:
    """Return which modules of a room the modules of a room import."""
    graph = {}
    for path in PYTHON:
        if room_of(path) != room:
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hiddencost"):
                graph[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} - {name}
    return {name: imported & graph.keys() for name, imported in graph.items()}


@pytest.mark.parametrize("room", sorted(RANK))
def test_no_module_imports_itself_by_way_of_others(room):
    graph = imports_within(room)
    while free := [name for name, imported in graph.items() if not imported & graph.keys()]:
        graph = {name: imported for name, imported in graph.items() if name not in free}
    assert not graph, "these import each other"


def test_every_module_has_a_room():
    assert {room_of(path) for path in PYTHON} - {"__init__", "py.typed"} == set(RANK)


def test_files_are_short():
    files = [*PYTHON, *(ROOT / "workflow").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
    assert lengths["workflow/rules/common.smk"] <= 150


def test_functions_are_short():
    long = {}
    for path in [*PYTHON, *(ROOT / "workflow").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                long[f"{path.relative_to(ROOT)}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert long == {}


@pytest.mark.parametrize("init", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda path: str(path.parent.name))
def test_a_package_says_what_it_is_for(init):
    tree = ast.parse(init.read_text())
    text = ast.get_docstring(tree) or ""
    assert text.count(".") >= 3, "what the room is for, what comes in, what goes out"
    if init.parent.name != "catalog":
        assert len(tree.body) == 1, "a docstring alone"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_no_test_imports_another_test(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert not any(name.startswith("test_") for name in imported)
