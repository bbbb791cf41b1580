"""The kit for a GPU, bench/gpu, in its dry mode: tiny sizes, on a CPU where there is nothing else."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from conftest import ROOT

KIT = ROOT / "bench/gpu"
MEASURED = ["machine", "parity", "precision", "speed", "clip", "kernels"]


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(KIT))
    import check

    return check


@pytest.mark.slow
def test_every_stage_measures_what_its_page_shows(check, tmp_path, threads):
    for name in MEASURED:
        check.run_stage(name, tmp_path, dry=True, seconds=600)
    records = check.publish(tmp_path)
    assert [record for record in records if check.is_bad(record) or "skipped" in record] == []
    page = (tmp_path / "gpu.md").read_text()
    for title in ("float32 against float64", "Lower precisions", "Beside the published loop", "CLIP", "The device"):
        assert f"\n## {title}" in page
    # the columns of each table have a cell each
    tables = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    assert len(tables) >= 9
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    parity = [record for record in records if record["stage"] == "parity" and "off" in record]
    assert {record["cover"] for record in parity} == {None, 0.75}
    assert all(0 < record["off"]["gradient"] < 3e-2 and record["prompts repeat"] for record in parity)
    (ratios,) = (record for record in records if record.get("what") == "ratios")
    assert all(value > 0 for key, value in ratios.items() if key.startswith("step"))


def test_the_script_goes_on_from_stage_to_stage(tmp_path):
    """A stage that fails, or that is left out, does not stop the next; the exit code tells."""
    python = tmp_path / "python"  # one that has the packages, without a look, which is an import for seconds
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    command = ["bash", KIT / "run.sh", tmp_path / "out", "--dry", "--only", "small", "machine"]
    done = subprocess.run(command, env=os.environ | {"PYTHON": str(python)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "out/records.json").read_text())
    assert [(one["stage"], one.get("what")) for one in records] == [
        *(("small", None), ("small", "stage")),
        *(("machine", None), ("machine", "stage")),
    ]
    assert records[2]["packages"]["torch"]
    done = subprocess.run([*command[:3]], env=os.environ | {"PYTHON": "false"}, capture_output=True)
    assert done.returncode


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def test_a_stage_is_ended_when_its_time_is_over(check, tmp_path, monkeypatch):
    """With all that it has started, and the page says so."""
    import stages

    monkeypatch.setattr(stages, "PATIENCE", 0.2)
    code = stages.bounded([sys.executable, "-c", STUBBORN], 1, tmp_path / "log")
    assert code == -signal.SIGKILL
    child = int((tmp_path / "log").read_text())
    for _ in range(100):  # it has been killed, and may not have noticed yet
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the command has started goes on")
    monkeypatch.setattr(check, "bounded", lambda *_: code)
    records = check.run_all(["machine"], tmp_path, dry=False, limit=100)
    assert check.is_bad(records[0])
    assert "- machine: exit code -9 after 0 s: see machine.txt" in (tmp_path / "gpu.md").read_text()


def test_the_quickstart_is_set_beside_the_cpu_that_ran_it(check):
    import studies

    there = pd.read_csv(studies.QUICKSTART_CPU)
    assert set(there["method"]) == {"rlm", "flm", "ilm", "lp"}
    here = there.assign(accuracy=there["accuracy"] + 0.01, shots=there["shots"].astype(str))
    beside = studies.beside(here[here["method"] != "lp"], there)
    assert set(beside["method"]) == {"rlm", "flm", "ilm"}
    assert len(beside) == 3 * there["backbone"].nunique() * there["shots"].nunique()
    assert beside["difference"].tolist() == pytest.approx([0.01] * len(beside))


def test_every_wheel_has_a_version_in_constraints():
    named = re.search(r"packages='([^']+)'", (KIT / "wheels.sh").read_text())[1].split()
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {name.lower() for name in named} <= pinned
    assert len(named) == len(set(named)) == 44
