"""The Dockerfile, held against what it says that it does, without a build."""

import re
import tomllib

import yaml
from conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COPIED = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)]
INSTALL = r"-m pip install (.+? --editable \S+)"


def test_it_installs_what_make_install_does():
    ours, theirs = (
        re.search(INSTALL, text.replace("\\\n", " "), re.DOTALL)[1].split()
        for text in (DOCKERFILE, (ROOT / "Makefile").read_text())
    )
    assert set(ours) - {"--no-cache-dir"} == set(theirs)
    tested = re.search(r"what the tests ran with \(Python (3\.\d+)\)", (ROOT / "constraints.txt").read_text())
    assert re.search(r"^FROM python:(3\.\d+)-slim$", DOCKERFILE, re.MULTILINE)[1] == tested[1]


def test_what_is_installed_from_is_copied_before():
    first = COPIED[0] + COPIED[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]["where"]
    read = ["pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]]
    assert sorted(first) == sorted([*read, *found])
    assert all((ROOT / name).exists() for name in first)
    assert COPIED[2:] == [["."]]


def test_what_is_not_committed_stays_out_of_it():
    ignored, left_out = (
        {line.strip("/").removeprefix("**/") for line in (ROOT / name).read_text().splitlines() if line[0] != "#"}
        for name in (".gitignore", ".dockerignore")
    )
    assert left_out == ignored | {".git"}


def test_continuous_integration_runs_it_as_the_page_says():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["image"]["steps"]
    build, mounted, alone = (step["run"] for step in steps if "run" in step)
    page = (ROOT / "docs/install.md").read_text()
    assert build in page
    assert mounted.replace("studies/smoke.yaml", "studies/mine.yaml") in page
    assert mounted.startswith(alone.removesuffix(" hiddencost"))
    assert f"WORKDIR {re.search(r'PWD:(/[a-z]+)', mounted)[1]}\n" in DOCKERFILE
