"""What killed processes and clocks leave behind is put in order before a call, and nothing that is in use."""

import os
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from stubbed_project import CONFIG

from hiddencost.files import atomic, scratch, sweep
from hiddencost.jobs import grid, training
from hiddencost.jobs.call import read_call
from hiddencost.jobs.tidy import tidy
from hiddencost.runs import packfile

STUDY = yaml.safe_load((ROOT / "config.yaml").read_text()) | CONFIG | {"study": "quickstart"}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A call in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return read_call(STUDY, "config.yaml", "snakemake")


def test_what_is_being_written_is_not_swept_and_what_was_left_is(tmp_path):
    with atomic(tmp_path / "file.npy") as file, scratch(tmp_path) as folder:
        file.write_text("half")
        assert not sweep(file)
        assert not sweep(folder)
        (folder / "unpacked").write_text("half")
    assert (tmp_path / "file.npy").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["file.npy"]
    left = tmp_path / ".tmp-folder"
    left.mkdir()
    (left / "unpacked").write_text("half")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "file.npy")
    assert sweep(left)
    assert not sweep(tmp_path / ".tmp-link")
    assert (tmp_path / "file.npy").exists()
    assert not left.exists()


def test_a_call_begins_without_what_killed_jobs_left_and_without_files_of_a_time_to_come(call):
    left = [Path("resources/datasets/a/32/.tmp-1/images"), Path(call.results, "ledger/a/.tmp-2.safetensors")]
    kept = [Path("resources/backbones/a/manifest.json"), Path(call.results, "ledger/a/ab.safetensors")]
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    ahead = time.time_ns() + 10**15
    os.utime(kept[0], ns=(ahead, ahead))
    tidy(call)
    assert not any(path.exists() for path in [*left, left[0].parent])
    assert [path.read_text() for path in kept] == ["kept", "kept"]
    assert kept[0].stat().st_mtime_ns <= time.time_ns()


def test_states_of_runs_under_way_go_when_their_pack_is_finished(call):
    states = {}
    for pack in grid.packs(call, "train"):
        request = training.wanted(call, "train", **pack)
        states[pack["backbone"]] = packfile.unfinished(request)
        packfile.unfinished(request).parent.mkdir(parents=True)
        packfile.unfinished(request).touch()
        if pack["backbone"] == "dense":
            packfile.write([{"status": "not run"}], request, Path(grid.pack_table(call, "train", pack)))
    tidy(call)
    assert {name: path.exists() for name, path in states.items()} == {"dense": False, "pruned": True}


def test_packs_whose_names_are_alike_keep_their_states_apart(call):
    request = training.wanted(call, "train", **grid.packs(call, "train")[0])
    alike = [
        request.model_copy(update={"backbone": one, "dataset": two}) for one, two in (("a_b", "c"), ("a", "b_c"))
    ]
    assert packfile.unfinished(alike[0]) != packfile.unfinished(alike[1])
