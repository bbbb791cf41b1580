"""uv.lock, for `uv sync`: what pip installs, and from PyPI alone."""

import re
import tomllib

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
REMEDY = "after a change of pyproject.toml or constraints.txt: make lock"


def test_it_has_the_versions_of_constraints_txt():
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {canonicalize_name(name): {version} for name, version in pinned.items()}
    locked: dict[str, set] = {}
    for package in LOCK["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version"))
    assert {name: versions for name, versions in locked.items() if name in pinned} == pinned, REMEDY


def test_it_answers_the_requirements_of_pyproject_toml():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = {None: project["dependencies"]} | project["optional-dependencies"]
    expected = {
        (extra, canonicalize_name(one.name), tuple(sorted(one.extras)), one.specifier)
        for extra, texts in stated.items()
        for one in map(Requirement, texts)
    }
    (own,) = (package for package in LOCK["package"] if package["name"] == "hiddencost")
    found = set()
    for one in own["metadata"]["requires-dist"]:
        extra = re.fullmatch("extra == '(.+)'", one.get("marker", ""))
        extras = tuple(sorted(one.get("extras", [])))
        found.add((extra and extra[1], one["name"], extras, SpecifierSet(one.get("specifier", ""))))
    assert found == expected, REMEDY


def test_all_of_it_is_of_pypi():
    sources = [package["source"] for package in LOCK["package"] if package["name"] != "hiddencost"]
    assert {tuple(source.items()) for source in sources} == {(("registry", "https://pypi.org/simple"),)}
    files = [
        file for package in LOCK["package"] for file in [package.get("sdist"), *package.get("wheels", [])] if file
    ]
    assert all(file["url"].startswith("https://files.pythonhosted.org/packages/") for file in files)
    assert all(file["hash"].startswith("sha256:") for file in files)
