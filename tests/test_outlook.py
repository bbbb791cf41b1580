import json
import os
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from hiddencost.jobs import outlook
from hiddencost.methods.registry import run_by
from hiddencost.study.load import load_study

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
CHECKPOINTS = {
    "mobilenetv2": {
        "gmacs": 0.5,
        "files": {
            "weights": {"name": "a.pth", "size": 14_000_000, "sources": [{"url": "u"}]},
            "mask": {"name": "b.pth", "sources": [{"url": "u"}]},
        },
    }
}
PACKS = {job: f"results/quickstart/{job}/{{backbone}}/{{dataset}}/seed{{seed}}.parquet" for job in ("train", "probe")}
COUNTS = {"train": 100, "test": 50}
DATASETS = {"cifar10-part": {"counts": COUNTS, "classes": list("abcdefghij"), "files": {}}}
BENCH = [
    {
        **{
            "what": "training step, an image",
            "network": "net",
            "image": 112,
            "canvas": 224,
            "device": "CPU, 2 threads",
        },
        **{"precision": "fp32", "gflop_whole_canvases": 4.0, "engine_ms": 2e6, "gflops_matrix": 4000.0},
    },
    {"what": "test, an image", "network": "net", "image": 112, "engine_ms": 1e6},
]
RATES = {"device": "H100", "kind": "cuda", "canvas": 224, "image_size": 112, "precision": "bf16"}
RATES |= {"gflop": 4.0, "training_ms": 1e6, "forward_ms": 3e6}
ONE = {"methods": ["flm"], "shots": ["full"], "seeds": [0], "backbones": CONFIG["backbones"][:1]}
TRAINED = 2 * 2 * 0.5 * (112 / 224) ** 2  # GFLOP of an image, forward and backward


@pytest.fixture
def describe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def describe(left_out=None, device="CPU, 2 threads", trainings=None, gpus=0, at_a_time=None, **changes):
        study = load_study(CONFIG | changes, "config.yaml")
        bench = tmp_path / "throughput.json"
        bench.write_text(json.dumps([BENCH[0] | {"device": device}, BENCH[1]]))
        left_out = {"backbone": {}, "dataset": {}} | (left_out or {})
        names = [one.name for one in study.backbones if one.name not in left_out["backbone"]]
        axes = [
            {"backbone": name, "dataset": one.name, "seed": seed}
            for name, one, seed in product(names, study.datasets, study.seeds)
        ]
        asked = [job for job in PACKS if set(run_by(job)) & set(study.methods)]
        packs = {job: [Path(PACKS[job].format(**one)) for one in axes] for job in asked}
        trainings = trainings or {}
        return outlook.describe(study, CHECKPOINTS, DATASETS, left_out, packs, trainings, bench, gpus, at_a_time)

    return describe


def test_runs_are_counted_and_what_is_left_out_has_its_reason(describe):
    gone = {"mobilenetv2-random": "never public", "mobilenetv2-magnitude30": "never public"}
    text = describe({"backbone": gone})
    assert "64 runs = 4 backbones x 1 datasets x 4 methods x 2 budgets x 2 seeds" in text
    assert "to run     32 runs in 8 packs, of which 0 are there" in text
    assert "left out   32 runs" in text
    assert "mobilenetv2-random, mobilenetv2-magnitude30 (32 runs): never public" in text


def test_packs_on_disk_are_counted(describe, tmp_path):
    pack = tmp_path / "results/quickstart/probe/mobilenetv2-dense/cifar10-part/seed1.parquet"
    pack.parent.mkdir(parents=True)
    pack.touch()
    assert "64 runs in 16 packs, of which 1 are there" in describe()


def test_downloads_and_disk_are_estimated(describe, tmp_path):
    assert "14.0 MB in 2 files that are not here yet, 1 of unknown size not counted" in describe()
    here = tmp_path / "resources/checkpoints/mobilenetv2/a.pth"
    here.parent.mkdir(parents=True)
    here.touch()
    text = describe()
    assert "0.0 MB in 1 files that are not here yet" in text
    # 150 images at 104 and at 112 pixels; the checkpoint once and for 4 backbones; 48 prompts
    assert "datasets 10.5 MB, networks 70.0 MB, prompts 7.2 MB" in text


@pytest.fixture
def plan(tmp_path):
    """Write a file of plans, with rates."""

    def plan(name, **changes):
        path = tmp_path / f"resources/plans/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"key": {}, "measured": [], "rates": RATES | changes}))
        return path

    return plan


def told(text, pattern):
    """The hours and minutes that a line tells, as hours."""
    (found,) = re.findall(pattern.replace("TIME", r"([0-9,.]+ (?:h|min))"), text)
    return [
        float(number.replace(",", "")) / (1 if unit == "h" else 60)
        for number, unit in (one.split() for one in ([found] if isinstance(found, str) else found))
    ]


def test_without_a_measurement_of_jobs_the_time_is_that_of_the_bench(describe):
    # 100 images, two epochs and one mapping pass, and 50 test images: at 4 GFLOP in 2000 s, both
    hours = (100 * 2 * TRAINED + (100 + 50) * TRAINED / 2) * 2000 / 4 / 3600
    text = describe(**ONE)
    line = r"about TIME on CPU, 2 threads \(the longest job: TIME\), as the committed bench/results tell"
    assert told(text, line) == pytest.approx([hours, hours], rel=0.02)
    # on a GPU the matrix rate of 4000 GFLOP/s against 400 TFLOP/s in training, 50 in the rest
    hours = (100 * 2 * TRAINED / 100 + (100 + 50) * TRAINED / 2 / 12.5) * 2000 / 4 / 3600
    line = r"about TIME on one GPU of 400 TFLOP/s in bf16 and 50 in fp32, TIME on 8 \(the longest job: TIME\)"
    assert told(text, line) == pytest.approx([hours] * 3, abs=0.06)  # a job is not divided
    assert "assumed: no job has measured a GPU yet" in text
    text = describe(device="H200", **ONE)
    assert "on one H200" in text
    assert "assumed" not in text


def test_where_jobs_have_measured_a_gpu_its_rates_tell_the_time(describe, plan):
    plan("h100")
    job = (100 * 2 * TRAINED * 1e3 / 4 + (100 + 50) * TRAINED * 3e3 / 4) / 3600
    ten = ONE | {"seeds": list(range(10))}
    text = describe(gpus=2, **ten)
    line = r"time       about TIME on one H100, TIME on 2, TIME on 8 \(the longest job: TIME\), as measured by jobs"
    assert told(text, line) == pytest.approx([10 * job, 5 * job, 10 * job / 8, job], rel=0.03)
    assert "assumed" not in text
    assert "make bench" not in text
    text = describe(at_a_time=200, **ten)
    line = r"about TIME on one H100, TIME with 10 jobs at a time \(the longest job: TIME\)"
    assert told(text, line) == pytest.approx([10 * job, job, job], rel=0.03)
    # of a CPU alone, what a GPU takes is still assumed
    plan("h100", device="Xeon, 8 threads", kind="cpu")
    text = describe(**ONE)
    assert told(text, r"about TIME on Xeon, 8 threads \(the longest") == pytest.approx([job], rel=0.03)
    assert "CPU, 2 threads" not in text
    assert "assumed: no job has measured a GPU yet" in text


def test_packs_that_are_there_take_no_time_and_features_are_those_of_probes_that_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study(CONFIG | {"backbones": CONFIG["backbones"][:1]}, "config.yaml")
    axes = [{"backbone": study.backbones[0].name, "dataset": "cifar10-part", "seed": seed} for seed in study.seeds]
    packs = {job: [Path(path.format(**one)) for one in axes] for job, path in PACKS.items()}

    def forward():
        jobs = outlook.jobs_left(study, CHECKPOINTS, DATASETS, packs)
        return [job.forward / (TRAINED / 2) for job in jobs if not job.training], len(jobs)

    assert forward() == ([pytest.approx(150)], 3)
    packs["train"][0].parent.mkdir(parents=True)
    packs["train"][0].touch()
    assert forward() == ([pytest.approx(150)], 2)
    packs["probe"][0].parent.mkdir(parents=True)
    packs["probe"][0].touch()
    assert forward()[1] == 2
    packs["probe"][1].touch()
    assert forward() == ([], 1)
    packs["train"][1].touch()
    assert forward() == ([], 0)


def test_a_job_is_timed_by_the_network_that_is_most_like_its_own():
    small, large = RATES | {"gflop": 1.0, "training_ms": 1.0}, RATES | {"gflop": 16.0, "training_ms": 2.0}
    full = large | {"image_size": 224, "training_ms": 4.0}
    exact = large | {"precision": "fp32", "training_ms": 8.0}
    rates = [outlook.Rates(**one) for one in (small, large, full, exact)]

    def trained_ms(image, share, precision="auto"):
        return outlook.seconds(outlook.Job(1000 * image, 0, image, share, precision), rates)

    assert trained_ms(2, 0.5) == pytest.approx(2 * 1.0)
    assert trained_ms(16, 0.6) == pytest.approx(2.0)
    assert trained_ms(16, 1.0) == pytest.approx(4.0)
    assert trained_ms(16, 0.6, "fp32") == pytest.approx(8.0)
    rates.pop()
    assert trained_ms(16, 0.6, "fp32") == pytest.approx(2.0)  # none of that precision
    # a pass forward is half of the arithmetic
    assert outlook.seconds(outlook.Job(0, 8, 16, 0.5, "auto"), rates) == pytest.approx(3000.0)


def test_plans_without_rates_are_passed_over_and_newer_ones_come_first(tmp_path, plan):
    folder = tmp_path / "resources/plans"
    assert outlook.measured_rates(folder) == []
    for age, name in enumerate(["new", "old"]):
        os.utime(plan(name, device=name), (1e9 - age, 1e9 - age))
    plan("zero", training_ms=0.0)
    plan("unknown", kind="tpu")
    (folder / "older.json").write_text('{"key": {}, "measured": []}')
    (folder / "broken.json").write_text('{"rates": ')
    (folder / "list.json").write_text("[]")
    assert [one.device for one in outlook.measured_rates(folder)] == ["new", "old"]


def test_jobs_are_spread_over_devices_but_not_divided():
    assert outlook.spread([3.0, 1.0, 2.0], 1) == 6
    assert outlook.spread([3.0, 1.0, 2.0], 2) == 3
    assert outlook.spread([3.0, 1.0, 2.0], 8) == 3


def test_networks_without_a_dense_one_are_told(describe):
    assert "no dense" not in describe()
    told = describe(backbones=[one for one in CONFIG["backbones"] if one["name"] != "mobilenetv2-dense"])
    names = "mobilenetv2-magnitude20, mobilenetv2-magnitude30, mobilenetv2-random"
    assert f"  no dense   {names}: the study has no network to compare them with" in told


def test_upstream_trainings_are_counted_and_weighed(describe, tmp_path):
    assert "upstream" not in describe()
    (tmp_path / "made").mkdir()
    (tmp_path / "made/manifest.json").write_text("{}")
    text = describe(trainings={"made": 1e6, "other": 9e6, "third": 9e6})
    assert "  upstream   3 trainings, of which 1 are there; the others: 18 PFLOP,\n" in text
    assert " 1.0 h of a GPU that trains at 5 TFLOP/s (assumed)" in text
