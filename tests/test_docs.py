"""What the pages show runs as it stands there, and versions are told alike."""

import json
import re
import tomllib

import numpy as np
import pytest
import yaml
from conftest import ROOT, copy_project
from PIL import Image
from stubbed_project import planned

# a whole study on a page, and the jobs that train in its plan
STUDIES = {"README.md": {"train": 6}, "docs/clip.md": {"train": 9, "probe": 9, "embed_texts": 3}}


def study_of(page):
    (study,) = re.findall(r"```yaml\n(study:.+?)```", (ROOT / page).read_text(), re.DOTALL)
    return study


@pytest.mark.parametrize("page", STUDIES)
def test_a_whole_study_of_a_page_can_be_planned(page, tmp_path):
    copy_project(tmp_path)
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.png")
    study = tmp_path / "studies/mine.yaml"
    study.write_text(study_of(page).replace("/data/photos", str(tmp_path / "photos")))
    jobs = planned(tmp_path, "--configfile", str(study))
    assert jobs.items() >= STUDIES[page].items()


def test_the_readme_keeps_its_length_and_its_study_of_ten_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    assert len(study_of("README.md").splitlines()) <= 12


def test_versions_are_told_alike():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    releases = re.findall(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == (version, str(cited["date-released"]))
    assert cited["version"] == version


def test_each_key_of_the_schema_stands_on_its_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from schema_page import tables

    schema = json.loads((ROOT / "workflow/schemas/study.schema.json").read_text())
    page = tables(schema)
    for name, part in schema["$defs"].items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        keys = re.findall(r"^\| `(\w+)`( \*)? \| (.+?) \| ", section, re.MULTILINE)
        assert [key for key, _, _ in keys] == list(part["properties"])
        assert [key for key, star, _ in keys if star] == part["required"] if "required" in part else True
    assert "| `bits` | integer, at least 2, at most 8 |" in page
