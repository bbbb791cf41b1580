"""What killed processes and clocks leave behind is put in order before a call, and nothing that is in use."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import save_file
from stubbed_project import CONFIG

from hiddencost.files import TEMPORARY, atomic, scratch, sweep
from hiddencost.jobs import grid, training
from hiddencost.jobs import tidy as tidying
from hiddencost.jobs.call import read_call
from hiddencost.jobs.tidy import tidy
from hiddencost.runs import packfile

STUDY = yaml.safe_load((ROOT / "config.yaml").read_text()) | CONFIG | {"study": "quickstart"}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A call in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return read_call(STUDY, "config.yaml", "snakemake")


@pytest.fixture
def swept_beside(tmp_path):
    """Another call, which sweeps a folder over and over."""
    done = threading.Event()

    def sweep_all():
        while not done.is_set():
            for left in tmp_path.glob(".tmp-*"):
                sweep(left)

    sweeper = threading.Thread(target=sweep_all)
    sweeper.start()
    yield
    done.set()
    sweeper.join()


def moved(path, target):
    path.with_name("part").write_bytes(b"whole")
    path.with_name("part").replace(target)


WRITERS = {
    "by a writer that renames a file of its own, as safetensors": lambda path, target: save_file({"a": ONE}, target),
    "moved there, as a download": moved,
    "left to": lambda path, target: target.write_bytes(b"whole"),
}
ONE = torch.ones(1)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_being_written_is_not_swept(tmp_path, swept_beside, write):
    for index in range(30):
        path = tmp_path / f"{index}.safetensors"
        with atomic(path) as target:
            write(path, target)
            time.sleep(0.001)
        assert path.stat().st_size
    assert len(list(tmp_path.glob("*.safetensors"))) == 30


def test_a_folder_that_is_in_use_is_not_swept_and_what_was_left_is(tmp_path):
    with scratch(tmp_path) as folder:
        (folder / "unpacked").write_text("half")
        sweep(folder)
        assert (folder / "unpacked").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "mine")
    sweep(tmp_path / ".tmp-link")
    left = tmp_path / ".tmp-folder"
    left.mkdir()
    (left / "unpacked").write_text("half")
    sweep(left)
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", ".tmp-link"}


def test_what_a_killed_writer_leaves_is_swept(tmp_path):
    code = """
import os, signal, sys
from hiddencost.files import atomic
with atomic(sys.argv[1]) as target:
    # as safetensors calls its own
    target.with_name(".tmpAbCdEf").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.safetensors"]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(TEMPORARY)
    sweep(left)
    assert not list(tmp_path.iterdir())


def test_a_call_begins_without_what_killed_jobs_left_and_without_files_of_a_time_to_come(call):
    left = [
        Path("resources/datasets/a/32/.tmp-1/images"),
        Path(call.results, "ledger/a/.tmp-2/ab.safetensors"),
        Path(call.results, "ledger/unfinished/a_b_0.states"),  # by an older name
    ]
    kept = [Path("resources/backbones/a/manifest.json"), Path(call.results, "ledger/a/ab.safetensors")]
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    ahead = time.time_ns() + 10**15
    os.utime(kept[0], ns=(ahead, ahead))
    tidy(call)
    assert not any(path.exists() for path in [*left, left[0].parent, left[1].parent])
    assert [path.read_text() for path in kept] == ["kept", "kept"]
    assert kept[0].stat().st_mtime_ns <= time.time_ns()


@pytest.mark.parametrize(("days", "is_swept"), [(0, False), (6.9, False), (7.1, True)])
def test_a_temporary_file_of_an_older_version_goes_when_nobody_has_changed_it_for_a_week(
    call, monkeypatch, days, is_swept
):
    left, link = Path("resources/checkpoints/a/.tmp-ab12"), Path("resources/.tmp-link")
    left.parent.mkdir(parents=True)
    left.write_text("half")
    link.symlink_to(left.absolute())
    os.utime(left, (0, 0))  # as a file that was moved there: when it came, ctime tells
    now = tidying._now
    monkeypatch.setattr(tidying, "_now", lambda folder: now(folder) + int(days * 86_400 * 10**9))
    tidy(call)
    assert (left.exists(), link.is_symlink()) == (not is_swept, True)


def test_where_no_clock_can_be_read_no_temporary_file_goes(call, monkeypatch):
    left = Path("resources/.tmp-ab12")
    left.parent.mkdir(parents=True)
    left.write_text("half")
    monkeypatch.setattr(tidying, "_now", lambda folder: tidying.NEVER)
    tidy(call)
    assert left.exists()


def test_what_other_calls_write_meanwhile_keeps_its_time(call, monkeypatch):
    product = Path("resources/product.json")
    product.parent.mkdir()

    def files(folder):
        time.sleep(0.05)  # a tick of the clock
        product.write_text("new")
        yield str(product)

    monkeypatch.setattr(tidying, "_files", files)
    written = []
    monkeypatch.setattr(os, "utime", lambda path, ns: written.append(path))
    tidy(call)
    assert written == []


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
