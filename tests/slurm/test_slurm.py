"""A study on a real Slurm: one node with two pretend GPUs, started by start.sh beside this file (make test-slurm)."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations

import psutil
import pytest
import yaml
from conftest import ROOT, copy_project
from stubbed_project import RANDOM, configure, in_a_terminal, nothing_to_do, trained

FILE = "studies/smoke.yaml"
# Slurm's own, with what Torque's tells of a finished job besides
QSTAT = r"""#!/bin/sh
/usr/bin/qstat "$@" || exit
scontrol show job "$2" | awk -F '[=: ]+' '/ ExitCode=/ {print "exit_status =", $(NF-1) + $NF}'
"""


@pytest.fixture(scope="session", autouse=True)
def slurm():
    """Only on the Slurm of start.sh: jobs of this user are cancelled."""
    os.environ.pop("SLURM_CONF", None)
    told = subprocess.run("scontrol show config", shell=True, capture_output=True, text=True).stdout
    if not re.search(r"^ClusterName += hiddencost$", told, re.MULTILINE):
        pytest.exit("the tests' own Slurm does not run: tests/slurm/start.sh starts it", returncode=1)


def profile(project, name, first_look=4):
    """Write the profile as it is shipped, but for the site and how soon jobs are looked at (seconds); returns
    Snakemake's option."""
    file = project / "profiles" / name / "config.yaml"
    settings = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    settings["set-threads"] = dict.fromkeys(settings["set-threads"], 1)
    if name == "slurm":
        del settings["default-resources"]["slurm_account"]  # there is no accounting
        settings |= {"slurm-no-account": True, "slurm-status-command": "squeue"}
        settings |= {"slurm-init-seconds-before-status-checks": first_look}
    else:
        settings |= {"seconds-between-status-checks": 2}
    file.write_text(yaml.safe_dump(settings))
    return "--workflow-profile", f"profiles/{name}"


@pytest.fixture
def call():
    """Call Snakemake in a project: call(project, *arguments) gives the process. Nothing is left of it in the end."""
    called = []

    def start(project, *arguments):
        environment = os.environ | {"PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PATH"] = f"{project / 'bin'}:{environment['PATH']}"
        command = [sys.executable, "-m", "snakemake", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        called.append(subprocess.Popen(command, cwd=project, env=environment, preexec_fn=in_a_terminal, **pipes))
        return called[-1]

    yield start
    for process in called:
        process.kill()
    subprocess.run(["scancel", "--user", str(os.getuid())], check=True)


def end(process, status=0):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output
    return output


def jobs(project, *names):
    """What Slurm tells of the jobs of a project, in the order of their submission: a dict each."""
    told = subprocess.run(["scontrol", "--detail", "--oneliner", "show", "job"], capture_output=True, text=True)
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in told.stdout.splitlines()]
    found = [job for job in found if job.get("WorkDir") == str(project)]
    return sorted((job for job in found if not names or rule(job) in names), key=lambda job: int(job["JobId"]))


def rule(job):
    return re.sub(r"^rule_|_wildcards_.*", "", job.get("Comment", job["JobName"]))


def device(job):
    """Which of the GPUs a running job has."""
    return re.search(r"gpu:fake:1\(IDX:(\d)\)", job["GRES"])[1]


def processes(project):
    """The jobs' scripts that run: Slurm's job id and the process."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project) and "/scripts/" in " ".join(process.cmdline()):
                found.append((process.environ().get("SLURM_JOB_ID"), process))
        except psutil.Error:
            continue  # it has ended
    return found


def wait(until, process):
    deadline = time.monotonic() + 120
    while not (value := until()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited 120 s"
        time.sleep(0.3)
    return value


def in_the_middle(project):
    """Whether two jobs have trained their first two runs each and are at the third."""
    return sum(" flm " in run for run in trained(project)) == 2


def test_a_study_runs_to_its_figures_two_training_jobs_at_a_time_on_two_gpus(call, tmp_path):
    copy_project(tmp_path)
    configure(tmp_path, lambda config: config.update(seeds=[0, 1], methods=["ilm"]), FILE)
    output = end(call(tmp_path, "--configfile", FILE, *profile(tmp_path, "slurm")))
    assert "4 of 4 runs of study smoke have a result." in output
    for name in ("accuracy", "heatmap", "reliability"):
        assert (tmp_path / f"results/smoke/figures/{name}.pdf").stat().st_size > 10_000

    # downloads, splits, tables and figures were made here; making a backbone and verifying it was one job
    done = jobs(tmp_path)
    expected = {"import_checkpoint": 1, "backbone_compress_verify_backbone": 2, "prepare_dataset": 1, "train": 4}
    assert Counter(map(rule, done)) == expected
    assert {job["JobState"] for job in done} == {"COMPLETED"}
    used = []
    for job in jobs(tmp_path, "train"):
        backbone, dataset, seed = job["Comment"].removeprefix("rule_train_wildcards_").split("_")
        log = (tmp_path / f"results/smoke/logs/train/{backbone}/{dataset}/seed{seed}.log").read_text()
        used.append((re.search(r"computing on (\d), alone", log)[1], job["StartTime"], job["EndTime"]))
    together = [
        {gpu, other}
        for (gpu, start, stop), (other, other_start, other_stop) in combinations(used, 2)
        if max(start, other_start) < min(stop, other_stop)
    ]
    assert together
    assert all(devices == {"0", "1"} for devices in together)
    # another profile is no reason to run anything again
    assert nothing_to_do(tmp_path, "--configfile", FILE)


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_a_killed_job_comes_back_with_more_time_and_keeps_its_finished_runs(call, project, name):
    (project / "bin").mkdir()
    (project / "bin/qstat").write_text(QSTAT)
    (project / "bin/qstat").chmod(0o755)
    configure(project, lambda config: config["seeds"].append(1))
    (project / "slow").touch()
    process = call(project, *profile(project, name))
    wait(lambda: in_the_middle(project), process)
    first = jobs(project, "train")
    assert [job["JobState"] for job in first] == ["RUNNING", "RUNNING"]
    assert {device(job) for job in first} == {"0", "1"}
    (project / "slow").unlink()
    subprocess.run(["scancel", first[0]["JobId"]], check=True)
    (script,) = [script for job, script in processes(project) if job == first[1]["JobId"]]
    script.send_signal(signal.SIGKILL)
    assert "24 of 24 runs of study small have a result." in end(process)

    second = [job for job in jobs(project, "train") if job not in first and job["JobState"] == "COMPLETED"]
    ended = {job["JobId"]: job["JobState"] for job in jobs(project, "train")}
    assert [ended[job["JobId"]] for job in first] == ["CANCELLED", "FAILED"]
    assert len(second) == 2
    assert {minutes(job) for job in second} == {2 * minutes(job) for job in first}
    runs = Counter(run for run in trained(project) if run.split()[1:3] == ["1", "rlm"])
    assert runs == {f"{backbone} 1 rlm {shots}": 1 for backbone in ("dense", "pruned") for shots in (1, 2)}
    assert nothing_to_do(project)


def minutes(job):
    hours, minutes, seconds = map(int, job["TimeLimit"].split(":"))
    assert seconds == 0
    return 60 * hours + minutes


def test_an_interrupted_call_leaves_no_job_behind_and_the_next_goes_on(call, project):
    configure(project, lambda config: config["seeds"].append(1))
    (project / "slow").touch()
    # rarely, as the plugin does not cancel jobs that it is looking at
    process = call(project, *profile(project, "slurm", first_look=20))
    wait(lambda: in_the_middle(project), process)
    process.send_signal(signal.SIGINT)
    assert "Study small is not complete." in end(process, status=1)
    deadline = time.monotonic() + 30
    while processes(project) or {job["JobState"] for job in jobs(project)} - {"COMPLETED", "CANCELLED"}:
        assert time.monotonic() < deadline, jobs(project)
        time.sleep(0.3)
    assert [job["JobState"] for job in jobs(project, "train")] == ["CANCELLED", "CANCELLED"]
    before, half = jobs(project), trained(project)

    # with one more backbone, so that every kind of job is among those that are left
    (project / "slow").unlink()
    (project / "trained.log").unlink()
    configure(project, lambda config: config["backbones"].append(RANDOM))
    assert "36 of 36 runs of study small have a result." in end(call(project, *profile(project, "slurm")))
    assert not {run for run in half if " rlm " in run} & set(trained(project))
    done = [job for job in jobs(project) if job["JobId"] not in {job["JobId"] for job in before}]
    used = Counter((rule(job), job["Partition"], job["JOB_GRES"]) for job in done)
    assert used.pop(("probe", "cpu", "(null)")) >= 2  # the others may have ended before the interruption
    assert used == {
        ("backbone_compress_verify_backbone", "cpu", "(null)"): 1,
        ("extract_features", "gpu", "gpu:fake:1"): 1,
        ("train", "gpu", "gpu:fake:1"): 4,
    }
    assert nothing_to_do(project)
