import json
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from hiddencost import outlook
from hiddencost.study import load_study

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
PACKS = [f"results/quickstart/{job}/{{backbone}}/{{dataset}}/seed{{seed}}.parquet" for job in ("runs", "probes")]
COUNTS = {"train": 100, "test": 50}
DATASETS = {"cifar10-part": {"counts": COUNTS, "classes": list("abcdefghij"), "files": {}}}
BENCH = [
    {
        **{"what": "training step, an image", "image": 100, "device": "GPU", "gflop_whole_canvases": 4.0},
        **{"engine_ms": 2e6, "gflops_matrix": 4000.0},
    },
    {"what": "test, an image"},
]


@pytest.fixture
def describe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def describe(left_out=None, device="GPU", trainings=None, **changes):
        study = load_study(CONFIG | changes, "config.yaml")
        bench = tmp_path / "throughput.json"
        bench.write_text(json.dumps([BENCH[0] | {"device": device}, BENCH[1]]))
        left_out = {"backbone": {}, "dataset": {}} | (left_out or {})
        names = [one.name for one in study.backbones if one.name not in left_out["backbone"]]
        packs = [
            Path(pack.format(backbone=name, dataset=one.name, seed=seed))
            for pack, name, one, seed in product(PACKS, names, study.datasets, study.seeds)
        ]
        return outlook.describe(study, CHECKPOINTS, DATASETS, left_out, packs, trainings or {}, bench)

    return describe


def test_runs_are_counted_and_what_is_left_out_has_its_reason(describe):
    gone = {"mobilenetv2-random": "never public", "mobilenetv2-magnitude30": "never public"}
    text = describe({"backbone": gone})
    assert "64 runs = 4 backbones x 1 datasets x 4 methods x 2 budgets x 2 seeds" in text
    assert "to run     32 runs in 8 packs, of which 0 are there" in text
    assert "left out   32 runs" in text
    assert "mobilenetv2-random, mobilenetv2-magnitude30 (32 runs): never public" in text


def test_packs_on_disk_are_counted(describe, tmp_path):
    pack = tmp_path / "results/quickstart/probes/mobilenetv2-dense/cifar10-part/seed1.parquet"
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


def test_the_time_is_that_of_the_arithmetic_at_the_measured_rate(describe):
    text = describe(methods=["flm"], shots=[1, "full"], seeds=[0], backbones=CONFIG["backbones"][:1])
    # of 10 and of 100 images: two epochs forward and backward, one mapping pass, 50 test images each
    passes = (10 + 100) * (2 * 2 + 1) + 2 * 50
    seconds = passes * 2 * 0.5 * (112 / 224) ** 2 / (4.0 / 2e6 * 1e3)
    hours = float(re.search(r"about ([0-9.]+) h of computing on GPU", text)[1])
    assert hours == pytest.approx(seconds / 3600, abs=0.5)
    assert "of a GPU" not in text
    # on a CPU, GPU hours too: the matrix rate of 4000 GFLOP/s against 400 TFLOP/s in training, 50 in the rest
    one = {"methods": ["flm"], "shots": ["full"], "seeds": [0], "backbones": CONFIG["backbones"][:1]}
    whole = (100 * 4 / 100 + (100 + 50) / 12.5) * 2 * 0.5 * (112 / 224) ** 2 / (4.0 / 2e6 * 1e3) / 3600
    text = describe(device="a CPU, 2 threads", **one)
    assert float(re.search(r"([0-9.]+) h of a GPU where", text)[1]) == pytest.approx(whole, abs=0.05)


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
