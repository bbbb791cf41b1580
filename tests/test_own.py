"""A network of one's own: from a file, as people save them, to a study that has run."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
import yaml
from conftest import ROOT, copy_project
from safetensors.torch import load_file, save_file
from stubbed_project import CONFIG as SMALL
from stubbed_project import UPSTREAM, configure, nothing_to_do, planned, snakemake, trained
from tiny_network import tiny
from torch import nn
from torch.nn.utils import prune

from hiddencost.catalog.libraries import preset
from hiddencost.compression.gate import verify
from hiddencost.compression.photos import Recognised
from hiddencost.fetch import fetch_all
from hiddencost.files import read_json, write_json
from hiddencost.jobs import checkpoints, downloads, grid, outlook, places, resources, results, training
from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError
from hiddencost.networks import architectures, backbones, look
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.study.load import load_study

MINE = {"file": "my.pth", "architecture": "resnet18"}
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text()) | SMALL
CONFIG |= {
    "backbones": [
        {"name": "dense", "checkpoint": "resnet18-v1"},
        {"name": "mine", "checkpoint": MINE, "dense": "dense"},
    ]
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the study above, with changes, in an empty folder, where all networks are tiny."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(architectures, "build", tiny)
    return lambda **changes: read_call(CONFIG | changes, "mine.yaml", "snakemake")


def pruned(network, amount=0.75):
    """Prune all convolutions by magnitude, as PyTorch's tutorial does; return the state dict, with its masks."""
    weights = [(one, "weight") for one in network.modules() if isinstance(one, nn.Conv2d)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=amount)
    return network.state_dict()


def multiplied(state):
    """A state dict of which the masks were multiplied into the weights, as `prune.remove` does."""
    keys = [key.removesuffix("_mask") for key in state if key.endswith("_mask")]
    rest = {key: tensor for key, tensor in state.items() if not key.endswith(("_mask", "_orig"))}
    return rest | {key: state[f"{key}_orig"] * state[f"{key}_mask"] for key in keys}


SAVED = {
    "zeros": lambda state: multiplied(state),
    "masks": lambda state: state,
    "nested": lambda state: {"epoch": 3, "state_dict": multiplied(state), "optimizer": {"state": {}}},
    "behind a prefix": lambda state: {f"module.{key}": tensor for key, tensor in multiplied(state).items()},
    "masks behind a prefix": lambda state: {"model": {f"module.{key}": tensor for key, tensor in state.items()}},
    "half precision": lambda state: {key: tensor.half() for key, tensor in multiplied(state).items()},
}


def imported(call, checkpoint="mine"):
    """Fetch and import a checkpoint, as its jobs do; return the folder."""
    entry, report = call.published[checkpoint], Path(places.fetched(call, "checkpoints", checkpoint))
    write_json(report, fetch_all(checkpoint, entry.files, report.parent, Path("lock.json")))
    folder = Path(places.imported_folder(call, checkpoint))
    import_checkpoint(checkpoint, entry.layout(), report, folder)
    return folder


@pytest.mark.parametrize("saved", SAVED)
def test_a_file_as_people_save_them_is_a_network_with_its_masks_and_its_sparsity(call, saved):
    state = pruned(tiny("resnet18"))
    torch.save(SAVED[saved](state), "my.pth")
    asked = call()
    stated = results.stated_backbones(asked)["mine"]
    assert (stated["compression"], stated["dense"]) == ("pruned", "dense")
    assert stated["sparsity_declared"] == pytest.approx(0.75, abs=0.01)
    folder = imported(asked)
    network, masks, manifest = backbones.load(folder)
    for key, tensor in multiplied(state).items():
        torch.testing.assert_close(network.state_dict()[key], tensor, rtol=1e-3, atol=1e-6)
    assert torch.equal(masks["conv2.weight"], multiplied(state)["conv2.weight"] != 0)
    assert manifest.sparsity_declared == stated["sparsity_declared"]
    assert manifest.preprocessing == preset("resnet18").preprocessing
    known = Recognised(20, 20, "photos", 0)
    assert verify(folder, checkpoints.verify_backbone(asked), lambda network, manifest: known).passed
    few = Recognised(3, 20, "photos", 12)
    assert not verify(folder, checkpoints.verify_backbone(asked), lambda network, manifest: few).passed


def test_a_file_of_safetensors_is_one_and_a_dense_network_needs_no_other(call):
    save_file(tiny("resnet18").state_dict(), "my.safetensors")
    asked = call(backbones=[{"name": "mine", "checkpoint": MINE | {"file": "my.safetensors"}}])
    stated = results.stated_backbones(asked)["mine"]
    assert (stated["compression"], stated["sparsity_declared"], stated["dense"]) == ("none", 0.0, "mine")
    assert load_file(imported(asked) / "masks.safetensors") == {}


def test_a_saved_resnet_of_torchvision_is_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"state_dict": multiplied(pruned(torchvision.models.resnet18()))}, "my.pth")
    asked = read_call(CONFIG, "mine.yaml", "snakemake")
    assert grid.left_out(asked)["backbone"] == {}
    entry = asked.published["mine"]
    assert (entry.stem, entry.canvas, entry.sparsity_over) == ("conv1", 224, "convolutions")
    assert entry.sparsity == pytest.approx(0.75, abs=1e-5)
    resources.count_arithmetic(asked)
    text = outlook.describe(asked, (), ROOT / "bench/results/throughput.json", 0, None)
    # that of the catalog, and the photos, are downloaded; both networks are read, and kept
    assert "48.5 MB in 2 files that are not here yet" in text
    assert "no dense" not in text
    assert len(grid.packs(asked, "train")) == 2


def test_the_images_of_a_network_are_made_as_its_library_states_or_as_the_study_does(call):
    torch.save(tiny("").state_dict(), "my.pth")

    def preprocessing(**changes):
        own = {"name": "mine", "checkpoint": MINE | changes}
        return call(backbones=[own]).published["mine"].preprocessing

    assert preprocessing().interpolation == "bilinear"
    assert preprocessing(architecture="swin_t").interpolation == "bicubic"
    of_timm = preprocessing(architecture="timm/vit_base_patch16_224")
    assert (of_timm.mean, of_timm.interpolation) == ([0.5] * 3, "bicubic")
    stated = {"mean": [0.1, 0.2, 0.3], "std": [1.0] * 3, "interpolation": "bicubic"}
    for architecture in ("resnet18", "resnet50_keras"):
        assert preprocessing(architecture=architecture, preprocessing=stated).mean == [0.1, 0.2, 0.3]
    assert call(
        backbones=[{"name": "mine", "checkpoint": MINE | {"architecture": "timm/convnext_tiny.in12k_ft_in1k_384"}}],
        protocol=CONFIG["protocol"] | {"canvas": "native"},
    ).study.canvas(call().study.backbone("dense"))


def test_a_file_that_moves_makes_nothing_stale_and_one_that_changes_its_runs(call):
    def asked(file="my.pth"):
        backbone = {"name": "mine", "checkpoint": MINE | {"file": file}, "dense": "dense"}
        return call(backbones=[CONFIG["backbones"][0], backbone])

    def params(of):
        pack = {"backbone": "mine", "dataset": of.study.datasets[0].name, "seed": 0}
        read = (function(of, "mine") for function in (checkpoints.fetch_checkpoint, checkpoints.import_checkpoint))
        return [*read, training.wanted(of, "train", **pack)]

    torch.save(pruned(tiny("")), "my.pth")
    before = params(asked())
    Path("elsewhere").mkdir()
    shutil.move("my.pth", "elsewhere/other.pt")
    moved = asked("elsewhere/other.pt")
    assert params(moved) == before
    (paths,) = downloads.own_paths(moved).values()
    assert paths == {"weights": [str(Path("elsewhere/other.pt").absolute())]}
    torch.save(pruned(tiny(""), 0.5), "elsewhere/other.pt")
    assert all(now != then for now, then in zip(params(asked("elsewhere/other.pt")), before, strict=True))


def test_a_file_is_read_once_for_all_plans_until_it_changes(call, monkeypatch):
    torch.save(tiny("").state_dict(), "my.pth")
    before = call().published
    monkeypatch.setattr(look, "look", lambda *given: pytest.fail(f"{given} was read again"))
    assert call().published == before
    job = read_call(CONFIG, "mine.yaml", "snakemake", is_job=True)
    assert job.published == before


def test_backbones_of_one_file_are_one_checkpoint_by_the_name_of_the_first():
    quantised = {"compression": {"algorithm": "quantise", "bits": 8}}
    own = [
        {"name": "mine", "checkpoint": MINE},
        {"name": "again", "checkpoint": MINE} | quantised,
        {"name": "by-name", "checkpoint": "mine", "control": "random_init"},
    ]
    study = load_study(CONFIG | {"backbones": own}, "mine.yaml")
    assert {one.checkpoint for one in study.backbones} == {"mine"}
    assert {study.dense_of(one) for one in study.backbones} == {"mine"}
    assert study.own_checkpoint("mine").file == "my.pth"
    assert study.published_checkpoints(study.backbones) == {"mine"}
    # what is compared with another is none that others are compared with
    own[0] = own[0] | {"dense": "dense"}
    study = load_study(CONFIG | {"backbones": [CONFIG["backbones"][0], *own]}, "mine.yaml")
    assert [study.dense_of(one) for one in study.backbones] == ["dense", "dense", None, None]


WRONG = {
    "no file": ({"file": "gone.pth"}, "checkpoint: there is no file {}/gone.pth"),
    "a folder": ({"file": "folder"}, "checkpoint: {}/folder is a folder; expected a file"),
    "another architecture": (
        {"architecture": "resnet50"},
        "checkpoint: {}/my.pth: missing key layer1.0.bn3.bias; missing key layer1.0.bn3.running_mean; ",
    ),
    "a misspelt architecture": (
        {"architecture": "resnet-18"},
        "checkpoint: architecture 'resnet-18': torchvision has no such classifier; near it: resnet18, ",
    ),
    "a model of timm that there is not": (
        {"architecture": "timm/resnet18x"},
        "checkpoint: timm has no model 'resnet18x'; near it: timm/resnet18",
    ),
    "a library that there is not": (
        {"architecture": "hub/resnet18"},
        "checkpoint.architecture 'hub/resnet18': what it begins with, 'hub/' is unknown; ",
    ),
    "a CLIP": ({"architecture": "clip/ViT-B-32"}, "checkpoint.architecture: clip/ViT-B-32 is a CLIP; expected a "),
    "no images stated": (
        {"architecture": "resnet50_keras", "file": "keras.pth"},
        "checkpoint: no library states how the images of resnet50_keras are made; expected preprocessing, such as",
    ),
    "other classes": (
        {"file": "ten.pth"},
        "checkpoint: {}/ten.pth: fc, the head of resnet18, is over 10 classes; expected a network over the 1000 of",
    ),
    "a whole network": (
        {"file": "whole.pth"},
        "checkpoint: {}/whole.pth: not a file of weights, or a damaged one: it calls torch.nn.modules.conv.Conv2d; ",
    ),
    "16 bytes": ({"file": "bytes.pth"}, "checkpoint: {}/bytes.pth: not a file of weights, or a damaged one: "),
    "dense in the wrong place": (
        {"dense": "dense"},
        "checkpoint.dense: the key 'dense' is not allowed here: it stands beside checkpoint; allowed: file, arc",
    ),
    "no architecture": ({"architecture": None}, "checkpoint.architecture: "),
    "an unknown key": (
        {"arch": "resnet18"},
        "checkpoint.arch: the key 'arch' is unknown; did you mean 'architecture'?",
    ),
    "a mask of CLIPs": (
        {"preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize": "squash"}},
        "checkpoint.preprocessing: resize is of a CLIP alone",
    ),
    "a sparsity": ({"sparsity": 0.75}, "checkpoint.sparsity: the key 'sparsity' is unknown; "),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a pruned ResNet-18, and files that are none of it."""
    folder = tmp_path_factory.mktemp("files")
    network = torchvision.models.resnet18()
    torch.save(multiplied(pruned(network)), folder / "my.pth")
    torch.save(network, folder / "whole.pth")
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), folder / "ten.pth")
    torch.save(architectures.build("resnet50_keras").state_dict(), folder / "keras.pth")
    (folder / "bytes.pth").write_bytes(b"x" * 16)
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG)
def test_what_is_no_such_network_is_a_line_of_the_plan(files, monkeypatch, change, expected):
    monkeypatch.chdir(files)
    own = [CONFIG["backbones"][0], {"name": "mine", "checkpoint": MINE | change, "dense": "dense"}]
    with pytest.raises(StudyError) as caught:
        read_call(CONFIG | {"backbones": own}, "mine.yaml", "snakemake")
    assert str(caught.value).startswith(f"mine.yaml: backbones[1].{expected.format(files)}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_pruned_network_says_what_it_is_compared_with_and_has_a_name_of_its_own(call):
    torch.save(pruned(tiny("")), "my.pth")
    with pytest.raises(
        StudyError, match=r"^mine.yaml: backbones\[0\].dense: the key is missing: 7\d.\d% of the weig"
    ):
        call(backbones=[{"name": "mine", "checkpoint": MINE}])
    with pytest.raises(
        StudyError, match=r"^mine.yaml: backbones\[0\].name: 'resnet18-v1' is a checkpoint of the cat"
    ):
        call(backbones=[{"name": "resnet18-v1", "checkpoint": MINE}])
    with pytest.raises(StudyError, match=r"^mine.yaml: paths: the study has no 'mine'; "):
        call(paths={"mine": "other.pth"})


def test_what_is_read_of_files_of_ones_own_lies_in_the_study(call):
    """In what studies share, a wrong file would be in the place of the published one."""
    torch.save(pruned(tiny("")), "my.pth")
    part = CONFIG["datasets"][0]["name"]
    asked = call(paths={"resnet18-v1": "my.pth", part: {"test": "my.pth", "train": "my.pth"}})
    homes = {places.home(asked, "checkpoints", name) for name in ("resnet18-v1", "mine")}
    assert homes == {places.home(asked, "datasets", part)} == {"results/small/own"}
    folder = imported(asked, "resnet18-v1")  # of the wrong keys: no batch norm
    assert folder.is_relative_to("results/small/own")
    assert not Path("resources/checkpoints").exists()
    assert places.fetched(call(), "checkpoints", "resnet18-v1") == "resources/checkpoints/resnet18-v1/fetched.json"


@pytest.mark.slow
def test_wrong_paths_of_one_study_leave_the_others_finished(project):
    (project / "wrong.pth").write_bytes(b"x" * 16)
    config = yaml.safe_load((project / "config.yaml").read_text())
    wrong = config | {"study": "wrong", "paths": {"mobilenetv2": "wrong.pth"}}
    (project / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    ran, _ = snakemake(project, "--configfile", "wrong.yaml")
    assert ran["fetch_checkpoint"] == ran["import_checkpoint"] == 1
    assert nothing_to_do(project)
    (project / "wrong.pth").unlink()
    assert nothing_to_do(project)


def test_studies_prepare_files_of_ones_own_each_for_itself_and_none_again_that_has_moved(project):
    own = project / "own"
    shutil.copytree(project / "data/cifar10-part", own)
    images = np.arange(20 * 3 * 8 * 8, dtype=np.uint8).reshape(20, 3, 8, 8)
    labels = np.arange(20) % 2
    np.savez(own / "mine.npz", x_train=images, y_train=labels, x_test=images[::-1], y_test=labels)

    def state(folder):
        def edit(config):
            config["paths"] = {"cifar10-part": {part: f"{folder}/{part}.bin" for part in ("train", "test")}}
            mine = {"name": "mine", "npz": f"{folder}/mine.npz", "image_size": 8}
            config["datasets"] = [CONFIG["datasets"][0], mine]
            config["upstream"], config["verification"]["upstream_top1"] = [UPSTREAM], 20
            config["backbones"] = [*SMALL["backbones"], {"name": "own", "checkpoint": "own"}]

        configure(project, edit)

    def words(study):
        products = [f"splits/{name}/seed0.json" for name in ("cifar10-part", "mine")]
        files = [*products, "upstream/own/dense/0/seed0/manifest.json"]
        return [*(f"results/{study}/{file}" for file in files), "--config", f"study={study}"]

    state("own")
    jobs = {"fetch_dataset": 1, "prepare_dataset": 3, "draw_splits": 2, "sparsify": 1}
    for study in ("one", "two"):
        assert snakemake(project, *words(study))[0] == jobs
    assert nothing_to_do(project, *words("one"))
    own.rename(project / "moved")
    state("moved")
    assert nothing_to_do(project, *words("one"))
    np.savez(project / "moved/mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert planned(project, *words("one")) == {"prepare_dataset": 1, "draw_splits": 1}


@pytest.mark.slow
def test_a_study_of_a_network_of_ones_own_is_planned_run_and_made_again_by_its_content(project):
    (project / "my.pth").write_bytes(b"weights")
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    own = {"name": "mine", "checkpoint": MINE | {"preprocessing": stated}, "dense": "dense"}
    configure(project, lambda c: c["backbones"].append(own))
    ran, _ = snakemake(project)
    assert ran["fetch_checkpoint"] == ran["import_checkpoint"] == ran["compress"] == ran["train"] == 1
    assert len(trained(project)) == 6
    assert nothing_to_do(project)
    (project / "my.pth").rename(project / "moved.pth")
    configure(project, lambda c: c["backbones"][-1]["checkpoint"].update(file="moved.pth"))
    assert nothing_to_do(project)
    (project / "moved.pth").write_bytes(b"lighter")
    assert snakemake(project)[0]["import_checkpoint"] == 1
    assert len(trained(project)) == 12


@pytest.mark.slow
def test_the_real_network_as_a_user_saved_it_runs_to_a_report(mobilenetv2, tmp_path):
    copy_project(tmp_path)
    network, *_ = backbones.load(mobilenetv2)
    torch.save(network.state_dict(), tmp_path / "dense.pt")
    state = multiplied(pruned(network, 0.2))
    saved = {f"module.{key}": tensor.half() for key, tensor in state.items()}
    torch.save({"epoch": 1, "state_dict": saved}, tmp_path / "my.pth")
    own = {"architecture": "mobilenet_v2"}
    networks = [
        {"name": "dense", "checkpoint": own | {"file": "dense.pt"}},
        {"name": "mine", "checkpoint": own | {"file": "my.pth"}, "dense": "dense"},
    ]
    study = ("--configfile", "studies/smoke.yaml")
    configure(tmp_path, lambda config: config.update(backbones=networks), study[1])
    snakemake(tmp_path, *study)
    runs = pd.read_csv(tmp_path / "results/smoke/tables/runs.csv")
    assert set(runs["status"]) == {"ok"}
    mine = runs[runs["backbone"] == "mine"]
    assert mine["sparsity_measured"].to_numpy() == pytest.approx(0.2, abs=1e-3)
    assert set(mine["compression"]) == {"pruned"}
    found = read_json(tmp_path / "results/smoke/backbones/mine/verification.json")
    assert found["photos"]["top1"] > 15
    assert "my.pth" in (tmp_path / "results/smoke/report.html").read_text()
    assert not (tmp_path / "resources/checkpoints").exists()
