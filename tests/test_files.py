import ast
import os
import subprocess
import sys

import pytest

from hiddencost import digest, files
from hiddencost.digest import PACKAGE, _read_code, code_digest, imported_modules


def test_atomic_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "deep" / "result.csv"
    with files.atomic(path) as temporary:
        temporary.write_text("one")

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("half of tw")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "one"
    assert [entry.name for entry in path.parent.iterdir()] == ["result.csv"]


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path):
    path = tmp_path / "result.csv"
    code = f"""
import os, signal
from hiddencost.files import atomic
with atomic({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -9
    assert not path.exists()


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_canonical_does_not_depend_on_the_order_of_keys_and_refuses_nan():
    assert (
        files.canonical({"b": 1, "a": [1, 2.5]}) == files.canonical({"a": [1, 2.5], "b": 1}) == '{"a":[1,2.5],"b":1}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical(float("nan"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `demo`: a script imports a, which imports b; c stands alone."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text('"""Doc."""\nfrom demo import b\n\n\ndef f():\n    """Doc."""\n    return b.g()\n')
    (folder / "b.py").write_text("def g():\n    return 1\n")
    (folder / "c.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text("from demo.a import f\n\nf()\n")
    monkeypatch.setattr(digest, "PACKAGE", folder)
    return tmp_path


def digest_of(package, script="script.py"):
    for remembered in (code_digest, _read_code):
        remembered.cache_clear()
    return code_digest(package / script)


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("script.py", "f()\n", "f()\nf()\n", True),
        ("demo/b.py", "return 1", "return 2", True),  # imported by what the script imports
        ("demo/__init__.py", "", "x = 1\n", True),
        ("demo/c.py", "x = 1", "x = 2", False),  # imported by nothing
        ("demo/a.py", '"""Doc."""', '"""Another."""', False),
        ("demo/b.py", "def g", "# a comment\n\n\ndef g", False),
        ("demo/b.py", "    return 1", "    return (1)", False),
    ],
)
def test_a_digest_follows_the_code_and_nothing_else(package, file, old, new, changes):
    before = digest_of(package)
    path = package / file
    path.write_text(path.read_text().replace(old, new, 2) if old else new)
    assert (digest_of(package) != before) == changes


def test_a_script_with_the_name_of_a_module_does_not_hide_it(package):
    (package / "script.py").rename(package / "b.py")
    digests = set()
    for text in ("def g():\n    return 1\n", "def g():\n    return 2\n"):
        (package / "demo" / "b.py").write_text(text)
        digests.add(digest_of(package, "b.py"))
    assert len(digests) == 2


def test_a_relative_import_would_be_overlooked_and_is_refused(package):
    (package / "demo" / "b.py").write_text("from . import c\n")
    with pytest.raises(ValueError, match="line 1: relative import"):
        digest_of(package)


def followed(script):
    """The modules that the digest of a script follows."""
    seen, pending = set(), [script]
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += imported_modules(ast.parse(path.read_text()))
    modules = [path.relative_to(PACKAGE.parent) for path in seen if path.is_relative_to(PACKAGE)]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in modules}


SCRIPTS = sorted((PACKAGE.parents[1] / "workflow/scripts").glob("*.py"))


@pytest.fixture(scope="module")
def loaded():
    """The modules of the package that each script's imports load, by the script's name."""
    code = ["import sys, torch, torchvision, pandas"]  # once for all: they take seconds
    for script in SCRIPTS:
        tree = ast.parse(script.read_text())  # its imports alone, wherever they stand
        code += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        code += [
            f"own = sorted(m for m in sys.modules if m.split('.')[0] == 'hiddencost'); print('{script.stem}', *own)"
        ]
        code += ["for m in own: del sys.modules[m]", ""]
    told = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    return {name: set(modules) for name, *modules in map(str.split, told.stdout.splitlines())}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_digest_covers_what_a_script_really_loads(script, loaded):
    assert followed(script) == loaded[script.stem]


def test_what_does_not_bear_on_a_run_is_not_followed():
    scripts = {path.stem: followed(path) for path in SCRIPTS}
    assert "hiddencost.prompting.engine" in scripts["train"]
    assert "hiddencost.runs.metrics" in scripts["train"]
    later = {"hiddencost.study.study", "hiddencost.results.tables", "hiddencost.figures.draw", "hiddencost.catalog"}
    earlier = {
        "hiddencost.fetch",
        "hiddencost.networks.formats.registry",
        "hiddencost.datasets.prepare",
        "hiddencost.compression.make",
        "hiddencost.compression.gate",
    }
    for script in ("train", "probe"):
        assert not scripts[script] & (later | earlier)
    assert "hiddencost.prompting.engine" not in scripts["probe"]
    assert not scripts["figure"] & {"hiddencost.prompting.engine", "hiddencost.runs.metrics", "hiddencost.runs.pack"}
