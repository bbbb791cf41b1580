"""A study of a tiny CLIP, dense and compressed, beside a convolutional network, to figures: nothing stubbed."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import reference
import tiny_clip
import torch
import yaml
from conftest import copy_project
from safetensors import safe_open
from stubbed_project import configure, snakemake

import hiddencost
from hiddencost.datasets import prepared
from hiddencost.files import read_json

pytestmark = pytest.mark.slow
STUDY = ("--configfile", "words.yaml")
RESULTS = "results/words"
ENTRY = {
    "title": "a tiny CLIP",
    "format": "open_clip",
    "preprocessing": tiny_clip.PREPROCESSING,
    "canvas": tiny_clip.CANVAS,
    "stem": None,
    "sparsity_over": "towers",
    "upstream_top1": None,
    "gmacs": 0.01,
    "licence": "none",
    "citation": "none",
    "read_from": "none",
}
MAGNITUDE = {"algorithm": "magnitude", "sparsity": 0.5}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    copy_project(project)
    architecture = tiny_clip.configure(project / "tiny")
    registered = f"import open_clip\n\nopen_clip.add_model_config({str(project / 'tiny')!r})\n"
    with open(project / "src/hiddencost/networks/clip/__init__.py", "a") as package:
        package.write(registered)  # for the jobs, too
    made = tiny_clip.network(architecture)
    tiny_clip.save_open_clip(made, project / "tiny.safetensors")
    torch.save(tiny_clip.upop_file(tiny_clip.upop_state(made)[0]), project / "upop.pth")
    files = {"clip-tiny": "tiny.safetensors", "clip-tiny-upop": "upop.pth"}
    entries = {
        name: ENTRY
        | {"architecture": architecture, "files": {"weights": {"name": file, "sources": [{"path": file}]}}}
        for name, file in files.items()
    }
    entries["clip-tiny-upop"] |= {"format": "upop", "compression": "upop", "sparsity": None, "dense": "clip-tiny"}
    with open(project / "src/hiddencost/catalog/checkpoints.yaml", "a") as catalog:
        catalog.write("\n" + yaml.safe_dump(entries))
    by_names = {"methods": [*tiny_clip.CONFIG["methods"], "sem"], "text_encoder": "clip-tiny"}
    (project / "words.yaml").write_text(yaml.safe_dump(tiny_clip.CONFIG | by_names))
    ran, output = snakemake(project, *STUDY)
    assert (ran["embed_texts"], ran["embed_names"]) == (3, 1)
    assert (ran["train"], ran["probe"], ran["extract_features"]) == (4, 4, 4)
    assert "40 of 40 runs of study words have a result." in output
    return project


def runs_of(project):
    return pd.read_csv(project / RESULTS / "tables/runs.csv")


def check_every_run_has_a_result_and_compression_is_as_measured(project):
    runs = runs_of(project)
    assert runs["status"].eq("ok").all()
    assert runs["accuracy"].between(0, 1).all()
    cells = runs.groupby(runs["backbone"] == "cnn")["method"].value_counts()
    assert cells[False].to_dict() == dict.fromkeys(("rlm", "flm", "ilm", "lp", "zs"), 6)
    assert cells[True].to_dict() == dict.fromkeys(("rlm", "flm", "ilm", "lp", "sem"), 2)
    sparsity = runs.groupby("backbone")["sparsity_measured"].first()
    assert sparsity["clip-dense"] == 0
    assert sparsity["clip-magnitude50"] == pytest.approx(0.5, abs=1e-4)
    dense, own = (
        sum(np.prod(weight.shape) for weight in weights(project, name)) for name in ("clip-dense", "clip-upop")
    )
    assert sparsity["clip-upop"] == pytest.approx(1 - own / dense)
    dense_of = runs.groupby("backbone")["dense"].first()
    assert dense_of.drop("cnn").eq("clip-dense").all()


def weights(project, name):
    with safe_open(project / RESULTS / f"backbones/{name}/weights.safetensors", "np") as stored:
        keys = [key for key in stored.keys() if re.search(r"(conv1|in_proj|out_proj|c_fc|c_proj)[._]weight$", key)]  # noqa: SIM118
        return [stored.get_tensor(key) for key in keys]


def check_zero_shot_is_one_answer_whatever_the_shots(project):
    zero_shot = runs_of(project).query("method == 'zs'")
    assert (zero_shot["n_train"] == 0).all()
    assert (zero_shot.groupby("backbone")["accuracy"].nunique() == 1).all()


def check_mappings_name_texts(project):
    mappings = pd.read_parquet(project / RESULTS / "tables/mappings.parquet")
    of_cnn = mappings["backbone"] == "cnn"
    assert not mappings.loc[of_cnn, "source_name"].str.contains("photo of").any()  # those of ImageNet
    mappings = mappings[~of_cnn]
    assert set(mappings["source"]) <= set(range(30))
    templates = tiny_clip.CONFIG["clip"]["templates"]
    classes = prepared.load(project / "resources/datasets/cifar10-part/32").classes
    expected = [template.format(name) for template in templates for name in classes]
    assert (mappings["source_name"] == mappings["source"].map(dict(enumerate(expected)))).all()
    for _, run in mappings.groupby(["backbone", "method", "shots", "seed"]):
        assert run["source"].is_unique


def check_a_network_without_texts_is_mapped_by_the_names_of_its_classes(project):
    with safe_open(project / RESULTS / "names/cifar10-part.safetensors", "np") as stored:
        similarities = stored.get_tensor("similarities")
    assert similarities.shape == (10, 1000)
    mappings = pd.read_parquet(project / RESULTS / "tables/mappings.parquet").query("method == 'sem'")
    assert set(mappings["backbone"]) == {"cnn"}
    for _, run in mappings.groupby("shots"):
        assert run["source"].tolist() == reference.semantic(similarities.tolist())


KINDS = ["cost", "accuracy", "heatmap", "calibration", "reliability", "mapping", "movement", "prompts", "glance"]


def check_figures_are_drawn(project, name):
    figures = {re.sub(r"-page\d+", "", path.stem) for path in (project / RESULTS / "figures").glob("*.png")}
    assert ("glance" if name == "glance" else f"{name}-clip") in figures


def check_a_loaded_run_has_the_accuracy_of_the_table(project, backbone, method, tmp_path):
    model = hiddencost.load(project / RESULTS, backbone=backbone, method=method, shots=2, seed=0)
    dataset = prepared.load(project / "resources/datasets/cifar10-part/32")
    images = torch.tensor(dataset.test_images)
    predicted = torch.cat([model(some).argmax(1) for some in images.split(100)])
    run = runs_of(project).query("backbone == @backbone and method == @method and shots == 2").iloc[0]
    assert (predicted.numpy() == dataset.test_labels).mean() == pytest.approx(run["accuracy"], abs=0.003)
    model.save(tmp_path / "model.safetensors")
    again = hiddencost.load(tmp_path / "model.safetensors")
    assert again(images[:5]).equal(model(images[:5]))


def check_the_report_tells_of_it(project):
    report = (project / RESULTS / "report.html").read_text()
    assert "zero-shot" in report
    assert read_json(project / RESULTS / "backbones/clip-upop/verification.json")["photos"]["of"].startswith(
        "ImageNet"
    )


def check_other_templates_embed_anew_and_run_what_depends_on_them(project):
    configure(project, lambda config: config["clip"].update(templates=["a photo of a {}."]), "words.yaml")
    ran, _ = snakemake(project, f"{RESULTS}/tables/runs.parquet", *STUDY)
    assert (ran["embed_texts"], ran["train"], ran["probe"]) == (3, 3, 3)
    assert "extract_features" not in ran
    logs = "".join(path.read_text() for path in (project / RESULTS / "logs/probe").rglob("*.log"))
    assert "1 of 1: zs" in logs
    assert json.dumps("lp, 10 images") not in logs
    templates = tiny_clip.CONFIG["clip"]["templates"]
    configure(project, lambda config: config["clip"].update(templates=templates), "words.yaml")


def check_another_text_encoder_reads_the_names_anew_and_trains_what_maps_by_them(project):
    configure(project, lambda config: config.update(text_encoder="clip-tiny-upop"), "words.yaml")
    ran, _ = snakemake(project, f"{RESULTS}/runs/cnn/cifar10-part/seed0.parquet", *STUDY)
    assert {rule: ran[rule] for rule in ("embed_names", "train")} == {"embed_names": 1, "train": 1}
    log = (project / RESULTS / "logs/train/cnn/cifar10-part/seed0.log").read_text()
    assert "2 of 8 runs to train, 6 are in the ledger" in log


def test_a_study_of_a_tiny_clip_beside_a_convolutional_network(project, tmp_path):
    """One test: each process that takes tests would run the study anew."""
    check_every_run_has_a_result_and_compression_is_as_measured(project)
    check_zero_shot_is_one_answer_whatever_the_shots(project)
    check_mappings_name_texts(project)
    check_a_network_without_texts_is_mapped_by_the_names_of_its_classes(project)
    for name in KINDS:
        check_figures_are_drawn(project, name)
    for backbone in ("clip-dense", "clip-upop"):
        for method in ("ilm", "lp", "zs"):
            check_a_loaded_run_has_the_accuracy_of_the_table(project, backbone, method, tmp_path)
    check_a_loaded_run_has_the_accuracy_of_the_table(project, "cnn", "sem", tmp_path)
    check_the_report_tells_of_it(project)
    check_other_templates_embed_anew_and_run_what_depends_on_them(project)
    check_another_text_encoder_reads_the_names_anew_and_trains_what_maps_by_them(project)
