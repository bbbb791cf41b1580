"""Which jobs run after which edit: real calls of Snakemake on the real rules, with the science stubbed."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT
from stubbed_project import (
    NEW_BACKBONE,
    NEW_SEED,
    RESULTS,
    TRAINING,
    WHOLE_BRANCH,
    call,
    configure,
    nothing_to_do,
    planned,
    replace,
    snakemake,
    touch_everything,
    trained,
)

from hiddencost.files import read_json
from hiddencost.jobs import requests


def open_in_an_editor(project):
    (project / "workflow/report/.report.css.swp").write_bytes(b"b0VIM\x00\xff")
    (project / "workflow/report/.idea").mkdir()


def swap_learning_rate_and_gamma(config):
    protocol = config["protocol"]
    assert protocol["learning_rate"] != protocol["gamma"]
    protocol["learning_rate"], protocol["gamma"] = protocol["gamma"], protocol["learning_rate"]


def move_the_training_code(project):
    folder = project / "src/hiddencost/prompting"
    (folder / "engine.py").rename(folder / "updates.py")
    replace(project, "src/hiddencost/runs/prompting.py", "prompting.engine", "prompting.updates")


LARGE_INPUT = "resources/datasets/cifar10-part/104/train_images.npy"


def touch_all_that_was_made(project):
    assert (project / LARGE_INPUT).stat().st_size > requests.LARGE
    for folder in ("results", "resources"):
        for path in sorted((project / folder).rglob("*"), key=lambda path: path.suffix == ".npy"):
            os.utime(path)  # inputs after what was made of them, the images last


def zero_an_image(project):
    path = project / LARGE_INPUT
    times = path.stat()
    with open(path, "r+b") as file:
        file.seek(-104 * 104 * 3, os.SEEK_END)
        file.write(bytes(104 * 104 * 3))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


ALL_PROMPTS = [f"{b} 0 {m} {n}" for b in ("dense", "pruned") for m in ("flm", "rlm") for n in (1, 2)]
ALL_PROBES = [f"{b} 0 lp {n}" for b in ("dense", "pruned") for n in (1, 2)]
EDITS = {
    "every file touched as a git checkout would, and an editor's files beside the page": (
        lambda p: (open_in_an_editor(p), touch_everything(p)),
        {},
        [],
    ),
    "all that was made touched, inputs after what was made of them": (touch_all_that_was_made, {}, []),
    "a colour, and what a backbone is called": (
        lambda p: configure(p, lambda c: c["figures"].update(colours={"flm": "#000000"}, labels={"pruned": "less"})),
        {"figure": 3, "report": 1},
        [],
    ),
    "a format of the figures": (
        lambda p: configure(p, lambda c: c["figures"].update(formats=["svg"])),
        {"figure": 3, "report": 1},
        [],
    ),
    "fewer backbones in the figures": (
        lambda p: configure(p, lambda c: c["figures"].update(backbones=["pruned"])),
        {"learned": 1, "matched": 1, "figure": 3, "report": 1},
        [],
    ),
    "a seed added": (
        lambda p: configure(p, lambda c: c["seeds"].append(1)),
        NEW_SEED,
        [f"{b} 1 {m} {n}" for b in ("dense", "pruned") for m in ("flm", "lp", "rlm") for n in (1, 2)],
    ),
    "a shots value added": (
        lambda p: configure(p, lambda c: c["shots"].append(3)),
        {"probe": 2, **TRAINING},
        [f"{b} 0 {m} 3" for b in ("dense", "pruned") for m in ("flm", "lp", "rlm")],
    ),
    "a method added": (
        lambda p: configure(p, lambda c: c["methods"].append("ilm")),
        {**TRAINING, "figure": 4},
        [f"{b} 0 ilm {n}" for b in ("dense", "pruned") for n in (1, 2)],
    ),
    "a backbone added": (
        lambda p: configure(
            p,
            lambda c: c["backbones"].append(
                {"name": "random", "checkpoint": "mobilenetv2", "control": "random_init"}
            ),
        ),
        NEW_BACKBONE,
        [f"random 0 {m} {n}" for m in ("flm", "lp", "rlm") for n in (1, 2)],
    ),
    "a shots value removed": (lambda p: configure(p, lambda c: c["shots"].pop()), RESULTS, []),
    "a backbone removed": (
        lambda p: configure(p, lambda c: c["backbones"].pop()),
        {**RESULTS, "figure": 2},  # the dense one alone has nothing to be compared with
        [],
    ),
    "learning rate and gamma swapped": (
        lambda p: configure(p, swap_learning_rate_and_gamma),
        TRAINING,
        ALL_PROMPTS,
    ),
    "a docstring and a comment in the training code": (
        lambda p: (
            replace(p, "src/hiddencost/prompting/engine.py", "The training code.", "The code that trains."),
            replace(p, "src/hiddencost/prompting/engine.py", "# step", "# one step"),
        ),
        {},
        [],
    ),
    "a line of the training's log, and the text of an error": (
        lambda p: (
            replace(p, "src/hiddencost/runs/pack.py", "runs to train,", "runs are to be trained,"),
            replace(p, "src/hiddencost/study/recipes.py", "fall on the {unit}", "are the {unit}"),
        ),
        {},
        [],
    ),
    "a module of the training code moved": (move_the_training_code, {}, []),
    "the reader of a format that no checkpoint of the study has": (
        lambda p: replace(p, "src/hiddencost/networks/formats/keras.py", "def read(", "ANOTHER = 1\n\n\ndef read("),
        {},
        [],
    ),
    "a metric added": (
        lambda p: replace(
            p,
            "src/hiddencost/runs/metrics.py",
            '    "brier": Metric(',
            '    "new": Metric("New", brier),\n    "brier": Metric(',
        ),
        {"probe": 2, **TRAINING},
        [],
    ),
    "the update rule in the training code": (
        lambda p: replace(p, "src/hiddencost/prompting/engine.py", "prompt + 1", "prompt + 2"),
        TRAINING,
        ALL_PROMPTS,
    ),
    "the look of the report": (
        lambda p: replace(p, "workflow/report/report.css", "font-size: 1.8rem", "font-size: 1.9rem"),
        {"report": 1},
        [],
    ),
    "a claim": (
        lambda p: replace(p, "src/hiddencost/catalog/claims.yaml", "more_than: 50", "more_than: 40"),
        {"claims": 1, "report": 1, "conclude": 1},
        [],
    ),
    "another source and licence of a checkpoint": (
        lambda p: (
            replace(p, "src/hiddencost/catalog/checkpoints.yaml", "https://download", "https://mirror"),
            replace(p, "src/hiddencost/catalog/checkpoints.yaml", "BSD-3-Clause", "another one"),
        ),
        {},
        [],
    ),
    "shots removed and the sparsity changed": (
        lambda p: configure(
            p, lambda c: (c["shots"].remove(2), c["backbones"][1]["compression"].update(sparsity=0.3))
        ),
        NEW_BACKBONE,
        ["pruned 0 flm 1", "pruned 0 lp 1", "pruned 0 rlm 1"],
    ),
    "an image of a prepared array zeroed, its times kept": (zero_an_image, {"prepare_dataset": 1, **NEW_SEED}, []),
    "the figures code": (
        lambda p: replace(p, "src/hiddencost/figures/style.py", '"font.size": 8', '"font.size": 9'),
        {"figure": 3, "report": 1},
        [],
    ),
    "the catalog's sha256 of a checkpoint": (
        lambda p: replace(p, "src/hiddencost/catalog/checkpoints.yaml", "sha256: b035", "sha256: b036"),
        WHOLE_BRANCH,
        sorted([*ALL_PROMPTS, *ALL_PROBES]),
    ),
    "epochs of the probe": (
        lambda p: configure(p, lambda c: c["probe"].update(epochs=7)),
        {"probe": 2, **RESULTS},
        ALL_PROBES,
    ),
    "the ledger deleted": (
        lambda p: shutil.rmtree(p / "results/small/ledger"),
        {"probe": 2, **TRAINING},
        sorted([*ALL_PROMPTS, *ALL_PROBES]),
    ),
    "the table of a pack replaced by another one": (
        lambda p: shutil.copy(
            *(p / f"results/small/runs/{name}/cifar10-part/seed0.parquet" for name in ("dense", "pruned"))
        ),
        {**TRAINING, "train": 1},
        [],
    ),
}


# an edit of each kind; the others are called below, and what those of the study change, tests/test_jobs.py tells
PLANNED = [
    *("a colour, and what a backbone is called", "learning rate and gamma swapped", "a metric added"),
    *("the update rule in the training code", "the look of the report", "a claim", "the figures code"),
    *("an image of a prepared array zeroed, its times kept", "the catalog's sha256 of a checkpoint"),
    *("the ledger deleted", "the table of a pack replaced by another one"),
]
STALE = [pytest.param(*EDITS[name][:2], id=name) for name in PLANNED]


@pytest.mark.parametrize(("edit", "jobs"), STALE)
def test_an_edit_makes_stale_what_depends_on_it_and_no_more(project, edit, jobs):
    shutil.rmtree(project / ".snakemake")  # as it is where the folder was copied, or cleaned
    edit(project)
    assert planned(project) == jobs


def test_edits_on_which_nothing_depends_make_nothing_stale_together(project):
    shutil.rmtree(project / ".snakemake")
    for edit, jobs, _ in EDITS.values():
        if not jobs:  # in their order: the training code is moved after it was edited
            edit(project)
    assert nothing_to_do(project)


ROWS = [
    pytest.param(*row, id=name, marks=[] if name == "a shots value added" else pytest.mark.slow)
    for name, row in EDITS.items()
    if row[1]
]


@pytest.mark.parametrize(("edit", "jobs", "runs"), ROWS)
def test_a_call_runs_what_an_edit_made_stale_and_trains_the_runs_that_are_not_there(project, edit, jobs, runs):
    edit(project)
    ran, _ = snakemake(project)
    assert ran == jobs
    assert trained(project) == sorted(runs)
    assert nothing_to_do(project)


@pytest.mark.slow
def test_a_call_after_edits_on_which_nothing_depends_runs_nothing(project):
    for edit, jobs, _ in EDITS.values():
        if not jobs:
            edit(project)
    ran, _ = snakemake(project)
    assert ran == {}
    assert trained(project) == []


def test_a_dry_run_says_which_values_changed_and_which_packs_are_made_again(project):
    configure(project, swap_learning_rate_and_gamma)
    _, output = snakemake(project, "--dry-run")
    (reason, *_) = re.findall(r"Params have changed since last execution: .*recipe.*", output)
    before, now = reason.split(" now: ")
    for text, rate, gamma in ((before, 0.01, 0.1), (now, 0.1, 0.01)):
        assert f"recipe.learning_rate={rate}" in text
        assert f"recipe.gamma={gamma}" in text
    assert "epochs" not in reason
    assert "12 runs in 4 packs, of which 2 are up to date" in output
    assert "stale      2: packs that do not hold what the study asks for" in output
    # a call that makes one pack ends with that
    pack = "results/small/runs/dense/cifar10-part/seed0.parquet"
    _, output = snakemake(project, pack)
    assert f"Made: {pack}.\nWhether study small is complete, `snakemake` tells." in output


@pytest.mark.slow
def test_what_is_touched_is_no_less_stale(project):
    configure(project, swap_learning_rate_and_gamma)
    snakemake(project, "--touch")
    assert planned(project) == TRAINING


@pytest.mark.slow
def test_figures_have_the_order_of_the_study(project):
    compression = {"algorithm": "magnitude", "sparsity": 0.3}
    another = {"name": "another", "checkpoint": "mobilenetv2", "compression": compression}
    configure(project, lambda c: c["backbones"].append(another))
    figure = "results/small/figures/accuracy.png"
    snakemake(project, figure)
    assert (project / figure).read_text().endswith(" dense pruned another")


@pytest.mark.slow
def test_a_removed_seed_and_what_comes_back_cost_no_training(project):
    configure(project, lambda c: c["seeds"].append(1))
    snakemake(project)
    (project / "trained.log").unlink()
    configure(project, lambda c: c["seeds"].remove(0))
    assert snakemake(project)[0] == RESULTS
    configure(project, lambda c: (c["seeds"].append(0), c["shots"].remove(1), c["shots"].append(3)))
    snakemake(project)
    configure(project, lambda c: c["shots"].append(1))
    snakemake(project)
    assert all(run.endswith(" 3") for run in trained(project))
    assert len(trained(project)) == 12


@pytest.mark.slow
def test_a_killed_training_job_goes_on_with_the_runs_that_were_not_finished(project):
    configure(project, lambda c: c["seeds"].append(1))
    (project / "slow").touch()
    process = call(project)
    deadline = time.monotonic() + 120
    while sum(" flm " in run for run in trained(project)) < 2:
        assert time.monotonic() < deadline, process.communicate(timeout=1)
        time.sleep(0.2)
    jobs = [
        job for job in psutil.Process(process.pid).children(recursive=True) if "train.py" in " ".join(job.cmdline())
    ]
    assert jobs
    for job in jobs:
        job.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 1
    half = trained(project)
    (project / "trained.log").unlink()
    (project / "slow").unlink()
    snakemake(project)
    again = trained(project)
    finished_runs = [run for run in half if " rlm " in run]
    assert len(finished_runs) == 4
    assert not set(again) & set(finished_runs)
    assert [run for run in again if " flm " in run] == [f"{b} 1 flm {n}" for b in ("dense", "pruned") for n in (1, 2)]
    assert nothing_to_do(project)


UPSTREAM = {
    "name": "own",
    "architecture": "resnet20_cifar",
    "dataset": "cifar10-part",
    "image_size": 32,
    "recipe": {
        **{"epochs": 400, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 0.0},
        **{"crop": "padded", "precision": "fp32"},
    },
}


@pytest.mark.slow
def test_networks_are_trained_upstream_once_each_and_rounds_of_tickets_are_shared(project):
    def add(name, **settings):
        configure(
            project,
            lambda c: c["backbones"].append({"name": name, "checkpoint": "own", **settings}),
            "own.yaml",
        )

    def ran(*arguments):
        log = project / "upstream.log"
        log.unlink(missing_ok=True)
        jobs, _ = snakemake(project, *arguments, "--configfile", "own.yaml")
        told = sorted(log.read_text().splitlines()) if log.exists() else []
        assert jobs.get("sparsify", 0) + jobs.get("rewind_point", 0) == len(told)
        return jobs, told

    config = yaml.safe_load((project / "config.yaml").read_text()) | {"study": "own", "upstream": [UPSTREAM]}
    config |= {"methods": ["flm"], "verification": config["verification"] | {"upstream_top1": 20}}
    dense = {"name": "dense", "checkpoint": "own"}
    gmp = {"name": "gmp80", "checkpoint": "own", "sparsify": {"algorithm": "gmp", "sparsity": 0.8}}
    (project / "own.yaml").write_text(yaml.safe_dump(config | {"backbones": [dense, gmp]}, sort_keys=False))
    jobs, told = ran()
    assert told == ["own/dense/0/seed0", "own/gmp/0.8/seed0"]
    assert (jobs["prepare_dataset"], jobs["compress"], jobs["verify_trained"], jobs["train"]) == (1, 2, 2, 2)
    assert "fetch_photos" not in jobs
    touch_everything(project)
    assert nothing_to_do(project, "--configfile", "own.yaml")
    lth = {"algorithm": "lth", "share": 0.5}
    add("lth75", sparsify={**lth, "sparsity": 0.75})
    jobs, told = ran()
    (folder,) = {path.split("/")[1] for path in told if "/lth" in path}
    assert told == [f"own/{folder}/0.5/seed0", f"own/{folder}/0.75/seed0", "own/rewind/epoch1/seed0.state"]
    assert jobs["compress"] == 1
    add("lth90", sparsify={**lth, "sparsity": 0.9})
    assert ran()[1] == [f"own/{folder}/0.875/seed0", f"own/{folder}/0.9/seed0"]
    add("other", upstream_seed=1)
    add("other80", upstream_seed=1, sparsify={"algorithm": "gmp", "sparsity": 0.8, "interval": 7})
    told = ran()[1]
    assert told[0] == "own/dense/0/seed1"
    assert re.fullmatch(r"own/gmp-\w{8}/0\.8/seed1", told[1])
    assert len(told) == 2
    # less of it costs nothing, and other settings of prompting train no network
    configure(project, lambda c: c["backbones"].pop(1), "own.yaml")
    configure(project, swap_learning_rate_and_gamma, "own.yaml")
    assert ran("results/own/tables/runs.csv")[1] == []
    configure(project, lambda c: c["upstream"][0]["recipe"].update(epochs=500), "own.yaml")
    jobs, told = ran("results/own/tables/runs.csv")
    assert len(told) == 1 + 4 + 1 + 2  # dense, rounds, rewinding, the other seed's; not GMP, which nobody asks for
    replace(project, "src/hiddencost/upstream/launch.py", "state of", "the state of")
    assert len(ran("results/own/tables/runs.csv")[1]) == 8


@pytest.mark.slow
def test_where_disks_of_ones_own_are_away_figures_are_drawn_and_nothing_is_trained(project):
    def change(edit):
        configure(project, edit, "own.yaml")

    config = yaml.safe_load((project / "config.yaml").read_text()) | {"study": "own", "methods": ["flm"]}
    network = {key: value for key, value in UPSTREAM.items() if key != "dataset"} | {"folder": "disk/images"}
    config |= {"upstream": [network], "paths": {"mobilenetv2": "disk/w.pth"}}
    config["backbones"] = [{"name": "dense", "checkpoint": "own"}, {"name": "other", "checkpoint": "mobilenetv2"}]
    config["verification"] |= {"upstream_top1": 20}
    (project / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (project / "disk/images" / name).mkdir(parents=True)
    (project / "disk/w.pth").write_text("weights")
    snakemake(project, "--configfile", "own.yaml")
    (project / "disk").rename(project / "away")
    change(lambda c: c["figures"].update(colours={"flm": "#000000"}))
    ran, _ = snakemake(project, "--configfile", "own.yaml")
    assert set(ran) == {"figure", "report"}
    change(lambda c: c["seeds"].append(1))
    assert (
        not {"sparsify", "fetch_checkpoint", "verify_trained"} & planned(project, "--configfile", "own.yaml").keys()
    )
    change(lambda c: c["upstream"][0]["recipe"].update(epochs=500))
    _, output = snakemake(project, "--dry-run", "--configfile", "own.yaml", status=1)
    weights = "results/own/upstream/own/dense/0/seed0/weights.safetensors"
    gone = f"there is no {project}/disk/images; expected it, as {weights} has to be made"
    assert f"own.yaml: upstream own: {gone}\n" in output


@pytest.mark.slow
def test_a_partial_call_shows_the_study_so_far_beside_one_that_runs(project):
    configure(project, lambda c: c["seeds"].append(1))
    (project / "slow").touch()
    running = call(project)
    deadline = time.monotonic() + 120
    while sum(" flm " in run for run in trained(project)) < 2:
        assert time.monotonic() < deadline, running.communicate(timeout=1)
        time.sleep(0.2)
    before, whole = trained(project), project / "results/small/tables/runs.csv"
    told = whole.read_bytes()
    figures = ("figures", "--nolock", "--config", "partial=true")
    left = project / "results/small/.tmp-left"
    left.mkdir()
    ran, _ = snakemake(project, *figures)
    assert left.exists()  # nothing is put in order beside a call that runs
    assert ran == {"collect": 1, "learned": 1, "matched": 1, "figure": 3, "figures": 1}
    table = (project / "results/small/partial/tables/runs.csv").read_text()
    assert table.count(",ok,") in (12, 14, 16)  # seed 0's, and seed 1's probes where they came first
    assert "not finished yet" in table
    assert (project / "results/small/partial/figures/accuracy.pdf").exists()
    assert whole.read_bytes() == told
    assert running.poll() is None
    assert trained(project) == before
    for job in psutil.Process(running.pid).children(recursive=True):
        job.kill()
    running.communicate(timeout=120)
    (project / "slow").unlink()
    snakemake(project)
    assert not left.exists()
    assert nothing_to_do(project)
    # what is made later is seen; with all of it the state so far is the whole
    ran, output = snakemake(project, *figures)
    assert ran == {"collect": 1, "learned": 1, "matched": 1, "figure": 3, "figures": 1}
    assert "Made: results/small/partial/" in output
    assert "Whether study small is complete, `snakemake` tells." in output
    assert "runs of study small have a result" not in output  # that is told of the whole study, in its own folder
    assert (project / "results/small/partial/tables/runs.csv").read_bytes() == whole.read_bytes()
    assert "Nothing to be done" in snakemake(project, *figures)[1]


def test_a_backbone_that_fails_its_gate_stops_its_own_branch_and_the_exit_status_tells(project):
    compression = {"algorithm": "magnitude", "sparsity": 0.5}
    broken = {"name": "broken", "checkpoint": "mobilenetv2", "compression": compression}
    configure(project, lambda c: c["backbones"].append(broken))
    ran, output = snakemake(project, "--retries", "2", status=1)
    assert output.count("Error in rule conclude") == 1  # another try would give no other result
    assert trained(project) == []
    assert ran == {key: count for key, count in NEW_BACKBONE.items() if key != "conclude"}
    assert "broken: 6 runs not run: the backbone failed its verification: 5 of 20 photos" in output
    assert "12 of 18 runs of study small have a result." in output
    assert (project / "results/small/report.html").exists()
    table = (project / "results/small/tables/runs.csv").read_text()
    assert table.count(",not run,") == 6


def add_dead(config):
    config["backbones"] += [
        {"name": "dead", "checkpoint": "resnet18-v1"},
        {"name": "ticket", "checkpoint": "resnet50-lth8", "dense": "dense"},
    ]
    config["datasets"].append({"name": "svhn", "image_size": 32})


@pytest.mark.slow
def test_a_source_that_is_gone_costs_its_own_branch_and_is_told(project):
    configure(project, add_dead)
    for name in ("resnet18-v1", "svhn"):
        (project / f"{name}.dead").touch()
    _, output = snakemake(project, "--dry-run")
    assert "Study small: 48 runs = 4 backbones x 2 datasets x 3 methods x 2 budgets x 1 seed" in output
    assert "to run     36 runs in 12 packs, of which 4 are up to date" in output
    assert "ticket (12 runs): never made public" in output
    ran, output = snakemake(project, status=1)
    assert trained(project) == []
    assert ran["fetch_checkpoint"] == 1  # for the lottery ticket there is nothing to fetch
    assert ran["train"] == 4  # rows alone: dead on both, the others on svhn
    assert "12 of 48 runs of study small have a result." in output
    assert "dead: 12 runs not run: the backbone is not there: no source gave resnet18-v1" in output
    assert "dense: 6 runs not run: the dataset is not there: no source gave svhn" in output
    assert "ticket: 12 runs not run: never made public" in output
    assert (project / "results/small/report.html").exists()
    # the next call does not try again by itself, and needs no jobs for what is gone
    ran, output = snakemake(project, status=1)
    assert set(ran) <= set(RESULTS)
    assert (
        "dead: 12 runs not run: no source gave resnet18-v1 (to try again: snakemake --config retry=true; or" in output
    )
    _, output = snakemake(project, "fetch", "--config", "retry=true", status=1)
    assert "resources/checkpoints/resnet18-v1/fetched.json: no source gave resnet18-v1" in output
    for path in project.glob("*.dead"):
        path.unlink()
    ran, output = snakemake(project, "--config", "retry=true", status=1)
    assert (ran["fetch_checkpoint"], ran["fetch_dataset"], ran["import_checkpoint"]) == (1, 1, 1)
    assert "18 of 48 runs of study small have a result." in output  # what stands for svhn's files is none of them
    assert trained(project) == [f"dead 0 {m} {n}" for m in ("flm", "lp", "rlm") for n in (1, 2)]
    ran, output = snakemake(project, status=1)
    assert set(ran) <= set(RESULTS)


@pytest.mark.slow
def test_photos_that_failed_are_fetched_again_when_told(project):
    for folder in ("resources/photos", "results"):
        shutil.rmtree(project / folder)
    (project / "imagenet20.dead").touch()
    _, output = snakemake(project, status=1)
    assert "the backbone failed its verification: there are no photos to verify it on" in output
    (project / "imagenet20.dead").unlink()
    _, output = snakemake(project, "--config", "retry=true")
    assert "12 of 12 runs of study small have a result." in output
    assert nothing_to_do(project)


@pytest.mark.slow
def test_offline_uses_what_is_there(project):
    configure(project, lambda c: c["backbones"].append({"name": "new", "checkpoint": "resnet18-v1"}))
    _, output = snakemake(project, "--config", "offline=true", status=1)
    assert (
        "new: 6 runs not run: offline, and resources/checkpoints/resnet18-v1/resnet18-f37072fd.pth is not there"
        in output
    )
    assert "12 of 18 runs of study small have a result." in output
    assert trained(project) == []
    assert (
        "--config offline=maybe: expected offline=true or"
        in snakemake(project, "--config", "offline=maybe", status=1)[1]
    )
    # with a network, what was left out without one is fetched
    assert "18 of 18 runs of study small have a result." in snakemake(project)[1]
    assert nothing_to_do(project)


@pytest.mark.slow
def test_files_of_ones_own_are_used_and_an_edit_of_them_is_seen(project):
    ticket = {"name": "ticket", "checkpoint": "resnet50-lth8"}
    paths = {"weights": "own/w.pth", "mask": "own/m.pth"}
    configure(project, lambda c: (c["backbones"].append(ticket), c.update(paths={"resnet50-lth8": paths})))
    _, output = snakemake(project, status=1)
    assert f"config.yaml: paths.resnet50-lth8: there is no file {project}/own/w.pth" in output
    (project / "own").mkdir()
    for file in paths.values():
        (project / file).write_text("weights")
    ran, _ = snakemake(project)
    assert ran["fetch_checkpoint"] == ran["import_checkpoint"] == 1
    assert len(trained(project)) == 6
    assert nothing_to_do(project)
    # another file is seen by what it holds, though it is older than what was made of the last one
    (project / "older.pth").write_text("older weights")
    os.utime(project / "older.pth", (1_500_000_000, 1_500_000_000))
    os.replace(project / "older.pth", project / "own/w.pth")
    assert snakemake(project)[0]["fetch_checkpoint"] == 1
    # and the same one, newer, is the same
    (project / "own/w.pth").write_text("older weights")
    assert nothing_to_do(project)
    assert nothing_to_do(project, "--config", "check=full")


@pytest.mark.slow
def test_images_of_ones_own_are_a_dataset(project):
    arrays = {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": [0, 1, 0, 1]}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    np.savez(project / "mine.npz", **arrays)
    mine = {"name": "mine", "npz": "mine.npz", "image_size": 24}
    configure(project, lambda c: c["datasets"].append(mine))
    ran, _ = snakemake(project)
    assert ran["prepare_dataset"] == 2
    assert "fetch_dataset" not in ran
    assert nothing_to_do(project)
    np.savez(project / "mine.npz", **arrays | {"y_train": [1, 0, 0, 1]})
    assert snakemake(project)[0]["prepare_dataset"] == 2
    (project / "mine.npz").unlink()  # its disk is away
    assert nothing_to_do(project)
    configure(project, lambda c: c["figures"].update(colours={"flm": "#000000"}))
    assert planned(project).keys() == {"figure", "report"}


@pytest.mark.slow
def test_fine_tuning_runs_beside_the_others(project):
    recipe = {"epochs": 2, "learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 8, "shuffle": True}
    recipe |= {"test_batch_size": 8, "precision": "auto"}
    configure(project, lambda c: (c["methods"].append("ft"), c.update(finetune=recipe)))
    ran, _ = snakemake(project)
    assert ran == {"prepare_dataset": 1, "finetune": 2, **RESULTS}
    assert trained(project) == [f"{b} 0 ft {n}" for b in ("dense", "pruned") for n in (1, 2)]


def test_a_call_that_fails_does_not_tell_of_an_earlier_success(project):
    replace(project, "src/hiddencost/prompting/engine.py", "return prompt + 1", "raise RuntimeError('out of luck')")
    _, output = snakemake(project, status=1)
    assert "out of luck" in output  # the log of the failed job is shown
    assert "Study small is not complete. Logs: results/small/logs/ and resources/logs/." in output
    assert "runs of study small have a result" not in output


def test_bad_input_stops_before_any_job_with_a_line_for_each_fault(project):
    configure(project, lambda c: (c["methods"].append("vp"), c["protocol"].update(epoch=3)))
    shutil.rmtree(project / "results")
    _, output = snakemake(project, status=1)
    assert "config.yaml: methods[3]: 'vp' is unknown; allowed: rlm, flm, ilm, flm-opt, " in output
    assert "config.yaml: protocol.epoch: the key 'epoch' is unknown; did you mean 'epochs'?" in output
    assert "Traceback" not in output
    assert not (project / "results").exists()


def test_a_study_among_the_targets_is_told_how_it_is_asked_for(project):
    _, output = snakemake(project, "--dry-run", "studies/smoke.yaml", status=1)
    told = "studies/smoke.yaml: it is a study, and nothing to be made; expected --configfile studies/smoke.yaml"
    assert told in output
    assert "No rule to produce" not in output


def test_a_wrong_claim_stops_before_any_job_with_a_line(project):
    replace(project, "src/hiddencost/catalog/claims.yaml", "more_than: 50", "more_then: 50")
    _, output = snakemake(project, "--dry-run", status=1)
    assert "claims.yaml: gmp-pets: more_then: the key 'more_then' is unknown; did you mean 'more_than'?" in output
    assert "Traceback" not in output


def test_a_checkout_whose_path_has_a_brace_is_refused_in_a_line(project):
    (project / "a{b}c").symlink_to(project)
    _, output = snakemake(project, "--dry-run", "--snakefile", "a{b}c/Snakefile", status=1)
    assert f"{project}/a{{b}}c: the checkout's path has a brace, a wildcard of Snakemake; expected none" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_another_study_replaces_the_quickstart_and_does_not_extend_it(project):
    config = yaml.safe_load((project / "config.yaml").read_text())
    del config["protocol"]["canvas"]
    config["study"] = "other"
    (project / "studies/other.yaml").write_text(yaml.safe_dump(config) + "seeds: [7]\n")
    _, output = snakemake(project, "--configfile", "studies/other.yaml", status=1)
    assert re.search(
        r"studies/other.yaml, line \d+: the key 'seeds' stands in line \d+, too; expected it once", output
    )
    (project / "studies/other.yaml").write_text(yaml.safe_dump(config))
    _, output = snakemake(project, "--configfile", "studies/other.yaml", status=1)
    assert "studies/other.yaml: protocol.canvas: the key is missing" in output
    config["protocol"]["canvas"] = 120
    (project / "studies/other.yaml").write_text(yaml.safe_dump(config))
    snakemake(project, "--configfile", "studies/other.yaml")
    assert (project / "results/other/report.html").exists()
    assert nothing_to_do(project)


def test_the_report_is_made_of_every_figure_with_its_caption_and_of_the_tables(finished):
    report = read_json(finished / "results/small/report.html")
    drawn = {path.stem for path in (finished / "results/small/figures").glob("*.png")}
    assert {name for name, title, caption in report["settings"]["captions"] if title and caption} == drawn
    of_study = {"runs", "bins", "summary", "means", "claims", "expectations", "upstream", "matched"}
    assert of_study | {"typeset", "analysed", "figures"} == set(report["tables"])
    assert json.loads(report["settings"]["study"])["study"] == "small"


def test_every_job_leaves_a_log_and_a_benchmark(finished):
    logs = {path.relative_to(finished).as_posix() for path in Path(finished).rglob("logs/**/*.log")}
    assert {"results/small/logs/train/dense/cifar10-part/seed0.log", "results/small/logs/collect.log"} <= logs
    benchmarks = list(Path(finished).rglob("benchmarks/**/*.tsv"))
    assert len(benchmarks) == len(logs)


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """Let nvidia-smi list two GPUs, GPU-0 and GPU-1."""
    command = tmp_path / "bin/nvidia-smi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho '0, GPU-0'\necho '1, GPU-1'\n")
    command.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def slow_on_gpus(project):
    """Let training take a while, and tell on which GPU it ran, from when to when, with how much memory."""
    told = """
    begin = time.time()
    time.sleep(4)
    run(inputs, request, output, 0.3)
    with open("gpus.log", "a") as log:
        print(os.environ["CUDA_VISIBLE_DEVICES"], begin, time.time(), memory, file=log)"""
    replace(project, "src/hiddencost/runs/prompting.py", "run(inputs, request, output, 0.1 * update(1))", told)
    with_imports = "import os, time\nfrom hiddencost.stub"
    replace(project, "src/hiddencost/runs/prompting.py", "from hiddencost.stub", with_imports)
    configure(project, lambda c: c["seeds"].append(1))


def gpus_used(project):
    """Jobs by GPU, as (begin, end), and the most that ran at a time."""
    rows = [line.split() for line in (project / "gpus.log").read_text().splitlines()]
    (project / "gpus.log").unlink()
    times = [(float(begin), float(end)) for _, begin, end, _ in rows]
    most = max(sum(begin <= moment < end for begin, end in times) for moment, _ in times)
    return Counter(gpu for gpu, *_ in rows), most, {int(memory) for *_, memory in rows}


@pytest.mark.slow
def test_training_jobs_run_one_on_each_gpu(project, two_gpus):
    assert nothing_to_do(project)  # a result does not depend on where there is a GPU
    slow_on_gpus(project)
    ran, _ = snakemake(project, "--workflow-profile", "profiles/workstation", "--cores", "4", "--scheduler", "ilp")
    assert ran["train"] == 4
    assert gpus_used(project)[:2] == ({"GPU-0": 2, "GPU-1": 2}, 2)
    log = (project / "results/small/logs/train/dense/cifar10-part/seed0.log").read_text()
    assert re.search(r"computing on GPU-[01], alone", log)
    assert "waiting" not in log  # Snakemake starts no more jobs than there are GPUs
    configure(project, lambda c: c.update(jobs_per_gpu=2))
    assert snakemake(project)[0] == {"report": 1}  # which shows the study


@pytest.mark.slow
def test_training_jobs_share_gpus_and_memory_as_told(project, two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    slow_on_gpus(project)
    configure(project, lambda c: c.update(jobs_per_gpu=2))
    snakemake(project, "-j", "4")  # the short form, which is also a scheduler's --jobs
    used, most, memory = gpus_used(project)
    assert (used, most) == ({"GPU-1": 4}, 2)
    (megabytes,) = memory
    assert 4000 * 2**20 < megabytes < 4500 * 2**20
    # a machine that has less memory than a job wants runs it alone, with what it has
    replace(project, "src/hiddencost/prompting/engine.py", "prompt + 1", "prompt + 2")
    snakemake(project, "--cores", "4", "--resources", "mem_mb=3000")
    assert gpus_used(project) == ({"GPU-1": 4}, 1, {3000 * 2**20})


@pytest.mark.parametrize(
    ("visible", "jobs_per_gpu", "machine_mb", "used", "most"),
    [
        ("0,1", 1, 64_000, {"GPU-0": 2, "GPU-1": 2}, 2),
        # a training job asks for more than 4,000
        ("1", 4, 6_000, {"GPU-1": 4}, 1),
    ],
    ids=["two GPUs", "memory for one job"],
)
@pytest.mark.slow
def test_a_fresh_study_starts_no_more_jobs_than_there_are_gpus_and_memory(
    project, two_gpus, monkeypatch, visible, jobs_per_gpu, machine_mb, used, most
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    slow_on_gpus(project)
    configure(project, lambda c: c.update(jobs_per_gpu=jobs_per_gpu))
    replace(project, "src/hiddencost/jobs/cost.py", "return int(0.9 * min(limits) / 1e6)", f"return {machine_mb}")
    shutil.rmtree(project / "results")
    ran, _ = snakemake(project, "--cores", "6")
    assert (ran["train"], ran["extract_features"]) == (4, 2)
    assert gpus_used(project)[:2] == (used, most)
    logs = [path.read_text() for path in (project / "results/small/logs").rglob("*.log")]
    assert sum("computing on GPU-" in log for log in logs) == 4 + 2
    assert not any("waiting" in log for log in logs)  # for a GPU, on a core that another job could use


@pytest.mark.slow
def test_a_scheduler_is_asked_for_a_gpu_and_again_for_more_time_and_memory(project):
    replace(project, "src/hiddencost/runs/prompting.py", "run(inputs, ", "memory > 2**33 or fail(); run(inputs, ")
    asks = "echo {rule} {resources.gpu} {resources.mem_mb} {resources.runtime} >> asked.log"
    submit = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", f"{asks} && sh"]
    ran, _ = snakemake(project, *submit, "--jobs", "1", "--retries", "1")
    assert ran.keys() == TRAINING.keys()
    asked = [line.split() for line in (project / "asked.log").read_text().splitlines()]
    # for each of two packs twice; tables, figures and the report are made here
    assert [(rule, int(gpu)) for rule, gpu, *_ in asked] == [("train", 1)] * 4
    memory, minutes = (sorted({int(row[column]) for row in asked}) for column in (2, 3))
    assert memory == [memory[0], 2 * memory[0]]
    assert minutes == [11, 22]


@pytest.mark.parametrize("profile", ["slurm", "cluster-generic"])
def test_a_scheduler_is_told_the_queue_of_every_rule_that_takes_a_gpu(profile):
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    takes = {
        name for name, text in re.findall(r"^rule (\w+):(.*?)(?=^rule |\Z)", rules, re.M | re.S) if "gpu=gpu" in text
    }
    assert {"train", "sparsify"} < takes
    settings = yaml.safe_load((ROOT / f"profiles/{profile}/config.yaml").read_text())
    assert set(settings["set-resources"]) == takes <= set(settings["set-threads"])


@pytest.mark.parametrize("profile", [p.name for p in (ROOT / "profiles").iterdir()])
def test_profiles_agree_on_when_to_run_again(profile):
    default, other = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("default", profile)
    )
    common = default.keys() - {"cores"}
    assert {key: other.get(key) for key in common} == {key: default[key] for key in common}


def spoken(output):
    """The lines that a call says, without those of Snakemake before it reads the rules."""
    return [line for line in output.splitlines() if line and not line.startswith(("Using ", "Assuming "))]


def test_a_call_says_a_line_for_each_job_and_a_failed_gate_is_a_result(project):
    compression = {"algorithm": "magnitude", "sparsity": 0.5}
    broken = {"name": "broken", "checkpoint": "mobilenetv2", "compression": compression}
    configure(project, lambda c: c["backbones"].append(broken))
    less = ["--quiet", "host", "reason", "--retries", "2"]  # as the profiles say
    _, output = snakemake(project, *less, "--dry-run")
    jobs = sum(NEW_BACKBONE.values()) + 1  # and `all`
    assert re.search(rf"^total +{jobs}$", output, re.MULTILINE)
    assert output.count("Job stats:") == 1
    assert "Params have changed since last execution" in output  # of what collects, which has one more backbone
    assert "Reason: " not in output
    _, output = snakemake(project, *less, status=1)
    lines = spoken(output)
    told = [line for line in lines if re.match(r"\d\d:\d\d:\d\d +\d+/\d+  ", line)]
    assert len(told) == jobs - 1
    assert f" 1/{jobs}  " in told[0]
    assert [line for line in told if line.endswith("Verifying backbone broken: sparsity, masks, photos")]
    others = [line for line in lines if line not in told]
    # what there is to share out, and what came of it
    assert others[0] == "Provided cores: 2"
    assert re.fullmatch(r"Provided resources: gpu=\d+, mem_mb=\d+", others[1])
    assert sum("5 of 20 photos" in line for line in others) == 1
    assert "12 of 18 runs of study small have a result." in others
    assert not re.search("Error|Traceback|exit status|Exiting", "\n".join(others))
    assert len(others) < 12


def test_a_job_that_fails_is_told_with_its_log(project):
    replace(project, "src/hiddencost/prompting/engine.py", "return prompt + 1", "raise RuntimeError('out of luck')")
    _, output = snakemake(project, "--quiet", "host", "reason", "--cores", "1", status=1)
    assert output.count("Error in rule train") == 2
    assert output.count("RuntimeError: out of luck") == 2
    assert "CalledProcessError" not in output
