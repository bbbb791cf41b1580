"""What breaks around a study: killed calls, two calls at once, full and read-only disks, clocks that differ."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from functools import partial

import psutil
import pyarrow.parquet as pq
import pytest
from stubbed_project import NEW_BACKBONE, TRAINING, call, configure, nothing_to_do, replace, snakemake, trained

pytestmark = pytest.mark.slow
LOCKED = "Error: Directory cannot be locked."
END = "results/small/conclusion.txt"  # of what is trained; figures and report have jobs that no fault here is of
TRAINED = [f"{b} 1 {m} {n}" for b in ("dense", "pruned") for m in ("flm", "lp", "rlm") for n in (1, 2)]


def until(condition, process, seconds=300):
    """Wait until a condition holds while a call runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the call has ended"
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.2)


def jobs_of(process):
    """The training jobs of a call."""
    jobs = psutil.Process(process.pid).children(recursive=True)
    return [job for job in jobs if "train.py" in " ".join(job.cmdline())]


@pytest.fixture
def training(project):
    """A call of the study, with a new seed, that stays in its two training jobs until the file `slow` is gone."""
    configure(project, lambda config: config["seeds"].append(1))
    (project / "slow").touch()
    with open(project / "first.log", "w") as output:  # no pipe, which jobs that outlive the call would hold open
        process = call(project, END, stdout=output, start_new_session=True)
    until(lambda: sum(" flm " in run for run in trained(project)) == 2, process)
    jobs = jobs_of(process)
    assert len(jobs) == 2
    yield process
    (project / "slow").unlink(missing_ok=True)
    for one in (process, *jobs):
        if psutil.pid_exists(one.pid):
            one.kill()


def test_after_a_killed_call_unlock_is_asked_for_and_no_run_is_trained_twice(project, training):
    jobs, half = jobs_of(training), trained(project)
    left = project / "resources/.tmp-left"
    left.mkdir()
    training.kill()
    training.wait()
    assert all(job.is_running() for job in jobs)
    _, output = snakemake(project, status=1)
    assert f"LockException:\n{LOCKED}" in output
    assert "It can be removed with the --unlock argument." in output
    assert trained(project) == half
    assert "Unlocked working directory." in snakemake(project, "--unlock")[1]
    assert left.exists()  # nothing is put in order without the lock
    with call(project, END) as again:  # while the jobs of the killed call still train
        until(lambda: len(jobs_of(again)) == 2, again)
        assert not left.exists()
        time.sleep(3)  # what would be trained twice has begun by now
        (project / "slow").unlink()
        output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert "24 of 24 runs of study small have a result." in output
    assert trained(project) == TRAINED
    assert nothing_to_do(project, END)


def test_a_closed_terminal_leaves_no_lock_and_the_next_call_goes_on(project, training):
    half = trained(project)
    os.killpg(training.pid, signal.SIGHUP)  # a shell tells all processes of its jobs
    assert training.wait(timeout=300) == 1
    (project / "slow").unlink()
    (project / "trained.log").unlink()
    snakemake(project, END)
    assert not [run for run in trained(project) if run in half and " flm " not in run]
    assert nothing_to_do(project, END)


def test_nohup_outlives_its_terminal(project):
    configure(project, lambda config: config["seeds"].append(1))
    (project / "slow").touch()
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with open(project / "first.log", "w") as output:
        process = call(project, END, stdout=output, start_new_session=True, preexec_fn=ignore)
    until(lambda: sum(" flm " in run for run in trained(project)) == 2, process)
    os.killpg(process.pid, signal.SIGHUP)
    (project / "slow").unlink()
    assert process.wait(timeout=300) == 0, (project / "first.log").read_text()
    assert trained(project) == TRAINED


def test_a_second_call_of_a_study_stops_and_does_no_harm_and_none_listens(project, training):
    processes = [psutil.Process(training.pid), *psutil.Process(training.pid).children(recursive=True)]
    assert len(processes) >= 3
    for process in processes:
        assert [one for one in process.net_connections("all") if one.status == psutil.CONN_LISTEN] == []
        assert [one for one in process.net_connections("udp") if one.laddr] == []
    half = trained(project)
    _, output = snakemake(project, status=1)
    assert LOCKED in output
    assert "Building DAG of jobs" in snakemake(project, "--dry-run")[1]  # a plan is no harm
    assert trained(project) == half
    assert LOCKED in snakemake(project, status=1)[1]  # the lock is still there
    (project / "slow").unlink()
    assert training.wait(timeout=300) == 0, (project / "first.log").read_text()
    assert trained(project) == TRAINED
    assert nothing_to_do(project, END)


def other_study(project):
    shutil.copy(project / "config.yaml", project / "studies/other.yaml")
    configure(project, lambda config: config.update(study="other", seeds=[0]), "studies/other.yaml")
    return "--configfile", "studies/other.yaml"


def test_two_studies_run_at_once_where_what_they_share_is_made(project, training):
    half = trained(project)
    (project / "slow").unlink()
    other = call(project, "results/other/conclusion.txt", *other_study(project))
    output, _ = other.communicate(timeout=300)
    assert "12 of 12 runs of study other have a result." in output
    assert training.wait(timeout=300) == 0, (project / "first.log").read_text()
    assert len(trained(project)) == 24
    assert len(half) < 12
    assert nothing_to_do(project, END)
    assert nothing_to_do(project, "results/other/conclusion.txt", *other_study(project))


def test_a_study_that_needs_what_another_one_is_making_stops(project):
    configure(project, lambda config: config["protocol"].update(canvas=120))
    (project / "slow").touch()
    with open(project / "first.log", "w") as log:
        first = call(project, END, stdout=log)
    until(lambda: list((project / ".snakemake/locks").glob("*.output.lock")), first)
    _, output = snakemake(project, *other_study(project), status=1)
    assert LOCKED in output
    assert not (project / "results/other").exists()
    (project / "slow").unlink()
    assert first.wait(timeout=300) == 0, (project / "first.log").read_text()


@contextmanager
def mounted(*command):
    """Mount something on a folder, the last argument; skip the test where that is not permitted."""
    if not shutil.which("mount"):
        pytest.skip("there is no command to mount a small or read-only disk")
    done = subprocess.run(["mount", *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small or read-only disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", command[-1]], check=True)


def entries(project):
    return {path: path.stat().st_ino for path in (project / "results/small/ledger").rglob("*.safetensors")}


def test_a_full_disk_is_told_and_costs_what_was_not_written(project):
    configure(project, lambda config: config["seeds"].append(1))
    results = project / "results"
    before = results.rename(project / "before")
    results.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=16m", "none", results):
        shutil.copytree(before, results, dirs_exist_ok=True)
        old = entries(project)
        (results / "filler").write_bytes(bytes(shutil.disk_usage(results).free - 50_000))
        _, output = snakemake(project, status=1)
        assert "No space left on device" in output
        assert "The disk of results/small is full. Make space: the next call goes on where" in output
        assert not list(results.rglob(".tmp-*"))
        kept = entries(project)
        assert len(old) == 12
        assert kept.items() > old.items()
        for folder in ("runs", "probes"):
            for table in (results / "small" / folder).rglob("*.parquet"):
                assert pq.read_table(table).num_rows
        (results / "filler").unlink()
        (project / "trained.log").unlink()
        _, output = snakemake(project)
        assert "24 of 24 runs of study small have a result." in output
        assert entries(project).items() >= kept.items()
        assert len(trained(project)) == 24 - len(kept)
        assert nothing_to_do(project)


def test_a_disk_too_small_for_a_dataset_is_told(project):
    folder = project / "resources/datasets/cifar10-part/88"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m", "none", folder):
        _, output = snakemake(project, folder.relative_to(project) / "dataset.json", status=1)
        assert "No space left on device" in output
        assert list(folder.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
        ran, _ = snakemake(project, folder.relative_to(project) / "dataset.json")
        assert ran == {"prepare_dataset": 1}


@contextmanager
def read_only(folder):
    with mounted("--bind", folder, folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield


def test_a_read_only_folder_is_told_before_any_job_and_a_plan_can_be_made(project):
    study = other_study(project)
    for folder, where in (("results", "results/other"), ("resources", "resources")):
        with read_only(project / folder):
            ran, output = snakemake(project, *study, status=1)
            assert f"{where}: {project / folder} cannot be written to; expected a folder that can" in output
            assert "Traceback" not in output
            assert ran == {}
            assert "Building DAG" not in output
            _, output = snakemake(project, *study, "--dry-run")
            assert "Study other: 12 runs" in output


def test_the_time_stamps_of_the_ledger_do_not_matter(project):
    for index, path in enumerate([*entries(project), *(project / "results/small/ledger").iterdir()]):
        os.utime(path, ((0, 0), (2**32, 2**32))[index % 2])  # in 1970, in 2106
    assert nothing_to_do(project)
    for folder in ("runs", "probes", "tables"):
        shutil.rmtree(project / "results/small" / folder)
    (project / "results/small/conclusion.txt").unlink()
    ran, output = snakemake(project)
    assert ran == {"probe": 2, **TRAINING}
    assert "12 of 12 runs of study small have a result." in output
    assert trained(project) == []
    assert nothing_to_do(project)


def set_clock(project, seconds):
    """Let the clock of every process differ from that of the file system, as it may on a file server."""
    text = f"import time\nnow = time.time\ntime.time = lambda: now() + {seconds}\n"
    (project / "src/sitecustomize.py").write_text(text)


def test_the_clock_of_a_file_server_may_differ(project):
    compression = {"algorithm": "magnitude", "sparsity": 0.5}
    broken = {"name": "broken", "checkpoint": "mobilenetv2", "compression": compression}
    configure(project, lambda config: config["backbones"].append(broken))
    set_clock(project, 3600)
    ran, output = snakemake(project, status=1)
    assert ran == {key: count for key, count in NEW_BACKBONE.items() if key != "conclude"}
    assert "12 of 18 runs of study small have a result." in output
    set_clock(project, -3600)
    replace(project, "src/hiddencost/prompting/engine.py", "return prompt + 1", "raise RuntimeError('out of luck')")
    _, output = snakemake(project, status=1)
    assert "Study small is not complete." in output
    assert "12 of 18 runs" not in output
    replace(project, "src/hiddencost/prompting/engine.py", "raise RuntimeError('out of luck')", "return prompt + 1")
    configure(project, lambda config: config["backbones"].pop())
    _, output = snakemake(project)
    assert "12 of 12 runs of study small have a result." in output
    assert trained(project) == []
    assert nothing_to_do(project)
