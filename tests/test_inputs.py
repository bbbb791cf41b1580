"""Networks that do not take a study's canvas: rows with a reason, told before anything is made."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
import torchvision
import yaml
from conftest import ROOT, copy_project
from stubbed_project import configure, snakemake

from hiddencost import catalog
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.jobs import grid, outlook, resources, results, training, upstream
from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError
from hiddencost.networks import backbones, build, heads, inputs, ofq
from hiddencost.networks.architectures import ARCHITECTURES
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.manifest import Manifest
from hiddencost.results import tables

VIT = "timm-vit_tiny_patch16_224.augreg_in21k_ft_in1k"
REASON = f"the network timm/{VIT.removeprefix('timm-')} takes images of 224 pixels alone, and the canvas has 112"
REASON += ": with protocol.canvas: native each network has its own"
BESIDE = [{"name": "cnn", "checkpoint": "mobilenetv2"}, {"name": "vit", "checkpoint": VIT}]
QUICKSTART = yaml.safe_load((ROOT / "config.yaml").read_text())


CLIP = {
    **{"epochs": 2, "learning_rate": 40.0, "momentum": 0.9, "border": 4, "mapping_interval": 1, "precision": "fp32"},
    **{"batch_size": 8, "shuffle": True, "test_batch_size": 16, "templates": ["a {}"]},
}


def called(**changes):
    return read_call(deepcopy(QUICKSTART) | changes, "config.yaml", "snakemake")


@pytest.mark.parametrize(
    ("architecture", "side", "why"),
    [
        ("timm/vit_tiny_patch16_384", 384, None),
        ("timm/vit_tiny_patch16_384", 224, "takes images of 384 pixels alone, and the canvas has 224"),
        ("inception_v3", 112, None),
        ("inception_v3", 32, "does not take images of 32 pixels: Calculated padded input size per channel"),
        ("timm/bat_resnext26ts", 224, "does not take images of 224 pixels: AssertionError"),
        ("squeezenet1_1", 64, "the network has no linear layer"),
        ("resnet18:10", 8, None),
        ("resnet19", 64, "torchvision has no such classifier"),
    ],
)
def test_why_a_network_does_not_take_a_canvas(architecture, side, why):
    found = inputs.why_not(architecture, side)
    assert (why in found) if why else found is None


@pytest.mark.parametrize(
    ("architecture", "side", "number"),
    [
        ("timm/deit_tiny_distilled_patch16_224", 224, 2),
        ("timm/deit_tiny_patch16_224", 224, 1),
        ("timm/levit_128s", 224, 2),
        ("timm/resnet18", 64, 1),
        ("mobilenetv2", 64, 1),
    ],
)
def test_heads_are_counted(architecture, side, number):
    assert heads.heads(architecture, side) == number


@pytest.mark.parametrize("architecture", [name for name in inputs.SIDES if name.endswith("w2a2")])
def test_which_of_the_catalog_s_networks_have_two_heads_is_listed(architecture):
    assert heads.heads(architecture, 224) == heads.count_heads(architecture, 224)


def test_a_network_of_two_heads_is_left_out_where_a_method_would_exchange_one(tmp_path, monkeypatch):
    """Its probe saw one of its tokens, was no classifier to load, and its fine-tuning ended in an error."""
    monkeypatch.chdir(tmp_path)
    settings = {"backbones": [{"name": "deit", "checkpoint": "timm-deit_tiny_distilled_patch16_224.fb_in1k"}]}
    settings |= {"protocol": QUICKSTART["protocol"] | {"canvas": 224}}
    assert grid.left_out(called(**settings, methods=["ilm"]))["backbone"] == {}
    assert grid.left_out(called(**settings))["backbone"] == {
        "deit": "the network timm/deit_tiny_distilled_patch16_224.fb_in1k has 2 heads, of which lp would exchange "
        "one: expected a study of it without lp"
    }


def test_a_head_that_is_not_the_last_linear_layer_is_told(monkeypatch):
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    made = torch.nn.Sequential(*other, torch.nn.Linear(8, 4), torch.nn.Unflatten(1, (2, 2)), torch.nn.Flatten())
    made.append(torch.nn.Linear(4, 6)).append(torch.nn.Unflatten(1, (6, 1)))
    made.append(torch.nn.Conv1d(6, 5, 1)).append(torch.nn.Flatten())
    monkeypatch.setattr(type(FAMILIES["convolutional"]), "build", lambda *arguments: made.to("meta"))
    assert "has no linear layer over its 5 classes as its last one" in inputs.why_not("made up", 8)


@pytest.mark.parametrize(
    "architecture",
    sorted({e.architecture for e in catalog.checkpoints().values() if not e.canvas} - inputs.SIDES.keys()),
)
def test_networks_of_the_catalog_take_any_canvas_of_a_study(architecture):
    assert [inputs.why_not(architecture, side) for side in (8, 33)] == [None, None]


@pytest.mark.parametrize(("canvas", "is_left_out"), [(112, False), (110, True), (33, True)])
def test_rigls_network_is_left_out_where_it_would_pad_otherwise_than_it_was_trained(
    canvas, is_left_out, tmp_path, monkeypatch
):
    """By the rule of TensorFlow's padding SAME, which tests/test_backbone.py holds the network against."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rigl.ckpt").touch()
    settings = {"backbones": [{"name": "rigl", "checkpoint": "resnet50-rigl80"}]}
    settings |= {"protocol": QUICKSTART["protocol"] | {"canvas": canvas}, "paths": {"resnet50-rigl80": "rigl.ckpt"}}
    settings["datasets"] = [{"name": "cifar10-part", "image_size": 16}]
    why = (
        f"the network resnet50_rigl takes images of a multiple of 4 pixels, and the canvas has {canvas}: it would pad"
    )
    left_out = grid.left_out(called(**settings))["backbone"]
    assert left_out == ({"rigl": f"{why} otherwise than the one that was trained"} if is_left_out else {})


def test_photos_and_fingerprints_have_the_size_that_a_network_takes():
    with torch.device("meta"):
        sides = [
            FAMILIES["convolutional"].input_side(build.build(f"timm/{name}"))
            for name in ("vit_tiny_patch16_384", "resnet18")
        ]
    assert sides == [384, None]


def test_memory_that_is_short_is_no_property_of_a_network():
    def short(images):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(RuntimeError, match="allocate memory"):
        inputs.run(short, torch.empty(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("kernel", "control", "reason"),
    [
        (75, "random_init", "it does not take images of 64 pixels: Calculated padded input size"),
        (75, None, None),
        (230, None, "it does not take images of 224 pixels: Calculated padded input size"),
    ],
)
def test_a_network_that_jobs_cannot_run_is_a_backbone_with_its_reason(tmp_path, monkeypatch, kernel, control, reason):
    def made():
        layers = torch.nn.Conv2d(3, 4, kernel, stride=64), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1)
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 5)).eval()

    monkeypatch.setitem(ARCHITECTURES, "large", made)
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    manifest = Manifest(checkpoint="large", architecture="large", stem="0", preprocessing=preprocessing)
    backbones.save(tmp_path / "source", made().state_dict(), {}, manifest)
    compress(tmp_path / "source", tmp_path / "made", None, control)
    known = Recognised(20, 20, "photos", 12)
    report = verify(tmp_path / "made", {"sparsity_tolerance": 0.01}, lambda network, manifest: known)
    assert report.passed == (reason is None)
    assert all(told.startswith(reason) for told in report.reasons)


def test_a_vit_beside_mobilenetv2_at_the_quickstarts_canvas_is_a_row_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = called(backbones=BESIDE, seeds=[0], shots=[1])
    assert grid.left_out(call)["backbone"] == {"vit": REASON}
    assert {pack["backbone"] for job in ("train", "probe") for pack in grid.packs(call, job)} == {"cnn"}
    resources.count_arithmetic(call)
    told = outlook.describe(call, (), ROOT / "bench/results/throughput.json", 0, None)
    assert f"    vit (4 runs): {REASON}" in told
    absent = results.collect(call) | {
        "methods": {"vit": ["lp"]},
        "grid": grid.axes(call.study) | {"backbone": ["vit"]},
    }
    runs = tables.collect([], tables.CollectedStudy(**absent))
    assert runs[["backbone", "method", "status", "reason"]].values.tolist() == [["vit", "lp", "not run", REASON]]


def test_with_their_own_canvases_a_vit_stands_beside_cnns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"epochs": 400, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 0.0, "crop": "padded"}
    own = {"name": "own", "architecture": "resnet20_cifar", "dataset": "cifar10-part", "image_size": 32}
    upstream = [own | {"recipe": recipe | {"precision": "fp32"}}]
    others = [
        {"name": name, "checkpoint": name} for name in ("own", "efficientnet-b1-pruned", "openclip-vit-b-32.openai")
    ]
    call = called(
        backbones=[*BESIDE, *others],
        **{"protocol": QUICKSTART["protocol"] | {"canvas": "native"}, "clip": CLIP, "upstream": upstream},
        verification=QUICKSTART["verification"] | {"upstream_top1": 50},
        datasets=[{"name": "cifar10-part", "image_size": 24}],
    )
    assert grid.left_out(call)["backbone"] == {}
    canvases = {backbone.name: call.study.canvas(backbone) for backbone in call.study.backbones}
    expected = [224, 224, 32, 240, 224]
    assert list(canvases.values()) == expected
    requests = [training.wanted(call, "train", name, "cifar10-part", 0) for name in canvases]
    assert [(one.canvas, one.recipe["canvas"]) for one in requests] == [(side, side) for side in expected]
    assert [call.study.sizes("cifar10-part", one)["probe"] for one in call.study.backbones[:4]] == [
        *["224", "224", "32", "240"]
    ]


@pytest.mark.parametrize("canvas", ["own", 7, 112.0, True, None])
def test_a_canvas_is_a_number_or_native(canvas):
    with pytest.raises(StudyError, match=r"^config.yaml: protocol.canvas: .*from 8, or 'native'$"):
        called(protocol=QUICKSTART["protocol"] | {"canvas": canvas})


def test_a_network_that_a_study_trains_at_another_size_than_its_canvas_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"epochs": 400, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 0.0, "crop": "padded"}
    own = {"name": "own", "dataset": "cifar10-part", "recipe": recipe | {"precision": "fp32"}}
    own |= {"architecture": "timm/vit_tiny_patch16_224", "image_size": 224}
    settings = {"verification": QUICKSTART["verification"] | {"upstream_top1": 50}}
    settings["backbones"] = [*BESIDE[:1], {"name": "vit", "checkpoint": "own"}]
    call = called(upstream=[own], **settings)
    assert list(grid.left_out(call)["backbone"]) == ["vit"]
    assert upstream.trainings(call) == {}
    with pytest.raises(
        StudyError, match=r"^config.yaml: upstream own: architecture .*: it does not take images of 32"
    ):
        resources.count_arithmetic(
            called(upstream=[own | {"architecture": "inception_v3", "image_size": 32}], **settings)
        )


@pytest.mark.slow
def test_such_a_study_ends_with_mobilenetv2s_tables(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    copy_project(project)
    small = {"backbones": BESIDE, "seeds": [0], "shots": [1], "methods": ["flm", "lp"]}
    configure(project, lambda config: config.update(small))
    assert f"vit (2 runs): {REASON}" in snakemake(project, "--dry-run")[1]
    _, output = snakemake(project, status=1)
    assert f"vit: 2 runs not run: {REASON}" in output
    assert "2 of 4 runs of study quickstart have a result." in output
    folder = project / "results/quickstart"
    runs = pd.read_csv(folder / "tables/runs.csv").set_index(["backbone", "method"])
    assert runs["status"].to_dict() == {
        **{("cnn", "flm"): "ok", ("cnn", "lp"): "ok"},
        **{("vit", "flm"): "not run", ("vit", "lp"): "not run"},
    }
    assert set(runs.loc["vit", "reason"]) == {REASON}
    assert (folder / "tables/accuracy.md").exists()
    assert REASON in (folder / "report.html").read_text()


def test_networks_with_sides_of_their_own_are_architectures_and_published():
    published = {entry.architecture for entry in catalog.checkpoints().values()}
    named = inputs.MULTIPLES.keys() | inputs.SIDES.keys()
    assert named <= published
    known = {*ARCHITECTURES, *ofq.ARCHITECTURES, *torchvision.models.list_models(torchvision.models)}
    assert {name for name in named if not name.startswith("timm/")} <= known
