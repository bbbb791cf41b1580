"""The digest of the code that a result stands on: what it follows, what counts, and what does not."""

import ast
import builtins
import shutil
import sys

import pytest

from hiddencost import digest
from hiddencost.digest import APART, NO_NUMBERS, PACKAGE, code_digest, module_name, modules, read_code
from hiddencost.networks.own import OWN_MODULES

SCRIPTS = sorted((PACKAGE.parents[1] / "workflow/scripts").glob("*.py"))
A = '''"""Doc."""
import logging

from demo import b
from demo.files import write

log = logging.getLogger(__name__)


def f():
    """Doc."""
    log.info("f")
    assert b.g() != 2, "two"
    if not b.g():
        raise ValueError("no g")
    write(b.g())
'''
FILES = {
    "script.py": "from demo.a import f\n\nf()\n",
    "demo/__init__.py": "",
    "demo/a.py": A,
    "demo/b.py": "from demo import d\n\n\ndef g():\n    return 1 + d.h()\n",
    "demo/c.py": "x = 1\n",
    "demo/d.py": 'x = Field(3, description="three")\n\n\ndef h():\n    return 3\n',
    "demo/files.py": "def write(x):\n    print(x)\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `demo`: a script imports a, which imports b, which imports d. c stands alone."""
    (tmp_path / "demo").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(digest, "PACKAGE", tmp_path / "demo")
    forget()
    monkeypatch.setattr(digest, "NO_NUMBERS", frozenset({"demo.files"}))
    yield tmp_path
    forget()


def forget():
    for remembered in (code_digest, read_code, module_name, digest._file_of):
        remembered.cache_clear()


def digest_of(package, *files):
    forget()
    return code_digest(*(package / file for file in files or ["script.py"]))


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("script.py", "f()\n", "f()\nf()\n", True),
        ("demo/b.py", "return 1", "return 2", True),  # imported by what the script imports
        ("demo/d.py", "return 3", "return 4", True),
        ("demo/__init__.py", "", "x = 1\n", True),
        ("demo/__init__.py", "", '"""Doc."""\n', False),
        ("demo/c.py", "x = 1", "x = 2", False),  # imported by nothing
        ("demo/files.py", "print(x)", "print(x, x)", False),  # declared to compute nothing
        ("demo/a.py", '"""Doc."""', '"""Another."""', False),
        ("demo/b.py", "def g", "# a comment\n\n\ndef g", False),
        ("demo/b.py", "    return 1", "    return (1)", False),
        ("demo/a.py", '"f"', '"g"', False),
        ("demo/a.py", '    log.info("f")\n', "", False),
        ("demo/a.py", '"f")', '"f", extra={"ended": [(f, x) for x in b.g()]})', False),
        ("demo/a.py", "    write", '    log.warning("g: %s", b)\n    write', False),
        ("demo/a.py", "    write", '    if f:\n        log.warning("g: %s", b)\n    write', False),
        ("demo/a.py", "    write", '    if f():\n        log.warning("g: %s", b)\n    write', True),  # f may compute
        ("demo/a.py", "    write", "    if f:\n        write(b)\n    write", True),
        ("demo/a.py", "    write", "    log.write(b)\n    write", True),
        ("demo/a.py", "    write", "    other.info(b)\n    write", True),
        ("demo/b.py", "def g", "import logging\n\nlog = logging.getLogger(__name__)\n\n\ndef g", False),
        ("demo/a.py", '"no g"', 'f"there is no g: {b}"', False),
        ("demo/a.py", '"two"', '"another number"', False),
        ("demo/a.py", "!= 2", "!= 4", True),
        ("demo/a.py", "ValueError(", "KeyError(", True),
        ("demo/a.py", "if not b.g()", "if b.g()", True),
        ("demo/d.py", "Field(3", "Field(4", True),
        ("demo/d.py", '"three"', '"more"', False),
        ("demo/a.py", "from demo import b", "from demo import d as b", True),
        ("demo/a.py", "from demo.files import write", "from demo.files import write, write as print", True),
    ],
)
def test_a_digest_follows_the_code_and_nothing_else(package, file, old, new, changes):
    before = digest_of(package)
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 2) if old else new)
    assert (digest_of(package) != before) == changes


def test_a_module_that_moves_leaves_the_digest_as_it_was(package):
    before = digest_of(package)
    folder = package / "demo/zone"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A room of its own."""\n')
    (package / "demo/b.py").rename(folder / "b.py")
    text = A.replace(
        "from demo import b\nfrom demo.files import write\n",
        "from demo.files import write\nfrom demo.zone import b\n",
    )
    (package / "demo/a.py").write_text(text)
    assert digest_of(package) == before
    # what is imported by the same name from elsewhere is another thing
    (folder / "b.py").write_text(FILES["demo/b.py"].replace("1 +", "2 +"))
    assert digest_of(package) != before


def test_what_a_module_imports_counts_even_where_the_names_stay(package):
    """Two functions of one name, both followed anyway: the import alone says which is called."""
    (package / "demo/c.py").write_text("def h():\n    return 5\n")
    (package / "script.py").write_text("from demo.a import f\nfrom demo import c, d\n\nf()\n")
    (package / "demo/b.py").write_text("from demo.d import h\n\n\ndef g():\n    return h()\n")
    before = digest_of(package)
    (package / "demo/b.py").write_text("from demo.c import h\n\n\ndef g():\n    return h()\n")
    assert digest_of(package) != before


def test_a_file_that_a_job_comes_to_without_an_import_counts(package):
    before = digest_of(package, "script.py", "demo/c.py")
    assert before != digest_of(package)
    (package / "demo/c.py").write_text("x = 2\n")
    assert digest_of(package, "script.py", "demo/c.py") != before


def test_a_script_with_the_name_of_a_module_does_not_hide_it(package):
    (package / "script.py").rename(package / "b.py")
    before = digest_of(package, "b.py")
    (package / "demo" / "b.py").write_text("def g():\n    return 2\n")
    assert digest_of(package, "b.py") != before


def test_modules_apart_are_those_of_the_call_and_not_of_a_files_name(package):
    (package / "script.py").rename(package / "probe.py")
    before = digest_of(package, "probe.py")
    assert code_digest(package / "probe.py", apart=frozenset({"demo.b"})) != before
    (package / "demo/b.py").write_text("def g():\n    return 7\n")
    forget()
    assert digest_of(package, "probe.py") != before


def test_a_relative_import_would_be_overlooked_and_is_refused(package):
    (package / "demo" / "b.py").write_text("from . import c\n")
    with pytest.raises(ValueError, match=r"b\.py, line 1: relative import"):
        digest_of(package)


def test_a_module_is_parsed_once_for_all_processes_and_again_when_it_holds_something_else(package, monkeypatch):
    before = digest_of(package)
    kept = {path.name.partition(".")[0]: path for path in (package / "demo/__pycache__").iterdir()}
    assert set(kept) == {"__init__", "a", "b", "d", "files"}
    parsed, parse = [], ast.parse
    monkeypatch.setattr(digest.ast, "parse", lambda text, filename: parsed.append(filename) or parse(text, filename))

    def newly_parsed():
        parsed.clear()
        assert digest_of(package) == before
        return {path.removeprefix(f"{package}/") for path in parsed} - {"script.py"}  # which is not kept

    assert newly_parsed() == set()
    kept["a"].write_text(kept["b"].read_text())  # of another file
    kept["b"].write_text("[")
    assert newly_parsed() == {"demo/a.py", "demo/b.py"}
    assert newly_parsed() == set()
    (package / "demo/d.py").write_text(FILES["demo/d.py"] + "# a comment\n")
    assert newly_parsed() == {"demo/d.py"}


def test_modules_that_cannot_be_kept_are_read_all_the_same(package):
    before = digest_of(package)
    shutil.rmtree(package / "demo/__pycache__")
    (package / "demo/__pycache__").write_text("no folder")
    assert digest_of(package) == before


# ---------------------------------------------------------------------------------------------------- this project


def followed(script, apart=()):
    """The modules of the package that a script's imports lead to."""
    return {module_name(path) for path in modules([script], apart)} - {None}


@pytest.fixture(scope="module")
def loaded():
    """The modules of the package that each script's imports load, and theirs, by the script's name."""
    loads, load = {}, builtins.__import__  # what the import statements of each module load

    def told(name, globals=None, locals=None, fromlist=(), level=0):
        module = load(name, globals, locals, fromlist, level)
        if name.split(".")[0] == "hiddencost":
            parts = name.split(".")
            names = [".".join(parts[: end + 1]) for end in range(len(parts))]
            names += [f"{name}.{each}" for each in fromlist or ()]
            loads.setdefault((globals or {}).get("__name__"), set()).update(set(names) & sys.modules.keys())
        return module

    def imported():
        return [name for name in sys.modules if name.split(".")[0] == "hiddencost"]

    with pytest.MonkeyPatch.context() as patch:  # the package is imported anew, and what it was is put back
        for name in imported():
            patch.delitem(sys.modules, name)
        patch.setattr(builtins, "__import__", told)
        for script in SCRIPTS:
            tree = ast.parse(script.read_text())  # its imports alone, wherever they stand
            statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
            exec("\n".join(map(ast.unparse, statements)), {"__name__": script.stem})
        for name in imported():
            del sys.modules[name]

    def reached(name):
        found, pending = set(), [name]
        while pending:
            pending += loads.get(pending.pop(), set()) - found
            found |= set(pending)
        return found

    return {script.stem: reached(script.stem) for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_module_that_a_script_loads_is_followed(script, loaded):
    assert loaded[script.stem] <= followed(script)


def test_what_is_declared_is_there():
    there = {module_name(path) for path in PACKAGE.rglob("*.py")}
    assert set(NO_NUMBERS) <= there
    assert set().union(*APART.values()) <= there
    assert set(APART) <= {script.stem for script in SCRIPTS}


def test_a_job_stands_on_what_computes_its_numbers_and_on_nothing_that_comes_later():
    counted = {path.stem: followed(path, APART.get(path.stem, ())) - NO_NUMBERS for path in SCRIPTS}
    of_prompting = {f"hiddencost.prompting.{name}" for name in ("engine", "train", "plan", "sharing", "schedule")}
    assert of_prompting | {"hiddencost.runs.pack", "hiddencost.datasets.splits"} <= counted["train"]
    elsewhere = ("study.study", "results.", "figures.", "compression.", "datasets.prepare", "fetch", "runs.metrics")
    for job in ("train", "probe", "finetune"):
        later = {name for name in counted[job] if name.removeprefix("hiddencost.").startswith(elsewhere)}
        assert later <= {"hiddencost.datasets.prepared"}
        assert "hiddencost.runs.trained" not in counted[job]
    for job in APART:
        # of methods a run stands on its own, see `Method.digest`, and so does what is asked of it
        assert not {
            name for name in counted[job] if name.startswith(("hiddencost.methods.", "hiddencost.runs.metric"))
        }
    # and of shapes of prompts, see `prompts.digest`
    assert "hiddencost.prompting.batches" not in counted["train"]
    assert "hiddencost.prompting.batches" in followed(PACKAGE / "prompting/masks.py")
    # and of architectures on its own, see `networks.own`
    own = {"hiddencost.networks.quantisers", *OWN_MODULES.values()}
    assert not {job for job, names in counted.items() if names & own}
    assert "hiddencost.prompting.engine" not in counted["probe"]
    assert "hiddencost.results.tables" in counted["collect"]
    assert not counted["figure"] & {"hiddencost.prompting.engine", "hiddencost.runs.pack"}


@pytest.mark.parametrize("name", ["train", "probe", "finetune"])
def test_a_scalar_that_is_told_otherwise_trains_nothing_again(name, tmp_path, monkeypatch):
    root = tmp_path / "project"
    for folder in ("src/hiddencost", "workflow/scripts"):
        shutil.copytree(PACKAGE.parents[1] / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "PACKAGE", root / "src/hiddencost")
    script = root / f"workflow/scripts/{name}.py"

    def digest_now():
        forget()
        return code_digest(script, apart=APART[name])

    before = digest_now()
    told = {"train/loss": "loss", "train/remapped": "moved", "test/": "", "-images": " images", '"ended"': '"epochs"'}
    for path in root.rglob("*.py"):
        text = path.read_text()
        for old in [old for old in told if old in text]:
            text = text.replace(old, told[old])
            told |= {old: told[old]}
        path.write_text(text)
    assert digest_now() == before
    forget()


def test_words_for_people_do_not_count(package):
    bar = "for x in tqdm(f(), desc='some', unit=' images'):\n    bar.set_description(f'{x} of 3')\n    f()\n"
    (package / "script.py").write_text(f"from demo.a import f\n{bar}")
    before = digest_of(package)
    for old, new, same in (
        (" images", " pixels", True),
        ("'some'", "'all'", True),
        ("of 3", "of 4", True),
        ("f(),", "1,", False),
    ):
        (package / "script.py").write_text(f"from demo.a import f\n{bar.replace(old, new)}")
        assert (digest_of(package) == before) == same, old
