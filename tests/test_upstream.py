"""Upstream training on the repository's CIFAR-10 part: from nothing to networks that are verified and prompted."""

import copy
import gc
import json
import math
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, fetched, report_prepared
from PIL import Image
from safetensors.torch import load_file

from hiddencost import catalog
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.datasets import prepared
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.splits import draw_splits
from hiddencost.files import read_json, write_json
from hiddencost.networks import backbones, build
from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.networks.manifest import Manifest
from hiddencost.runs import interrupted, ledger
from hiddencost.runs.not_run import write_not_run
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.runs.prompting import train_pack
from hiddencost.study import upstream_images
from hiddencost.study.sparsifiers import with_defaults
from hiddencost.study.upstream import folder_entry
from hiddencost.study.upstream_images import count_images
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream import check, gate, launch, processes, sparsifiers, state, training
from hiddencost.upstream.data import PREPROCESSING, TrainLoader, load
from hiddencost.upstream.job import UpstreamJob

CPU = torch.device("cpu")
ALONE = processes.Processes(0, 1, CPU)
RECIPE = {
    **{"epochs": 3, "batch_size": 50, "learning_rate": 0.05, "weight_decay": 5e-4},
    **{"crop": "padded", "precision": "fp32"},
}
SETTINGS = {
    "dense": None,
    "gmp": {"algorithm": "gmp", "sparsity": 0.8, "interval": 2},
    "acdc": {"algorithm": "acdc", "sparsity": 0.8, "warm_up": 0.1, "phase": 0.15},
    "rigl": {"algorithm": "rigl", "sparsity": 0.8, "interval": 3},
    "lth": {"algorithm": "lth", "sparsity": 0.8},
}
GATE = {"sparsity_tolerance": 0.005}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two test processes share two cores, and results are of one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(downloads, tmp_path_factory):
    """The repository's part of CIFAR-10, prepared at 8 pixels."""
    entry, folder = catalog.datasets()["cifar10-part"], tmp_path_factory.mktemp("cifar10-part")
    files = {key: file.from_paths([str(ROOT / file.sources[0].path)]) for key, file in entry.files.items()}
    prepare("cifar10-part", entry, fetched(downloads, "cifar10-part", files), 8, folder / "8")
    return folder / "8"


def job(folder, images, settings=None, recipe=None, **changes):
    return UpstreamJob.model_validate(job_settings(folder, images, settings, recipe, **changes))


def job_settings(folder, images, settings=None, recipe=None, **changes):
    return {
        "checkpoint": "small",
        "architecture": "resnet20_cifar",
        "start": None,
        "data": {"arrays": str(images)},
        "image_size": 8,
        "recipe": UpstreamRecipe.model_validate(RECIPE | (recipe or {})).model_dump(),
        "sparsify": with_defaults(settings) if settings else None,
        "seed": 1,
        "unfinished": str(folder / "unfinished-0.state"),
        "output": str(folder),
        **changes,
    }


def make(folder, images, settings=None, recipe=None, **changes):
    training.train_backbone(job(folder, images, settings, recipe, **changes), CPU, 0)
    return folder


@pytest.fixture(scope="module")
def made(images, tmp_path_factory):
    """A network of each algorithm, and the state that the lottery ticket was rewound to: folders by name."""
    root = tmp_path_factory.mktemp("made")
    rewind = str(root / "rewind.state")
    training.train_rewind_point(job(root, images, until=1, output=rewind), CPU, 0)
    found = {}
    for name, settings in SETTINGS.items():
        more = {"ticket": str(root / "dense"), "rewind": rewind} if name == "lth" else {}
        found[name] = make(root / name, images, settings, **more)
    return found | {"rewind": rewind}


def gated(folder, least=5.0):
    """What the gate says of a network, which must know so many % of its upstream test images."""
    return verify(folder, GATE, partial(gate.recognised, least=least), gate.masked_keys)


def weights(folder):
    return backbones.load(folder)[0].state_dict()


# ------------------------------------------------------------------------------------------------- dense to sparse


@pytest.mark.parametrize("name", SETTINGS)
def test_each_network_has_its_declared_sparsity_passes_the_gate_and_is_prompted(name, made, images, tmp_path):
    manifest = read_json(made[name] / "manifest.json")
    assert manifest.get("failed") is None
    assert manifest["compression"] == ("none" if name == "dense" else name)
    assert manifest["architecture"] == "resnet20_cifar:10"
    assert manifest["stem"] == "conv1"
    assert manifest["classes"] == catalog.datasets()["cifar10-part"].classes
    assert manifest["upstream"]["test_images"] == 500
    assert manifest["upstream"]["images_sha256"] == prepared.load(images).digest
    assert manifest["upstream"]["seconds"] > 0
    assert 0 < manifest["upstream_top1"] < 100
    compress(made[name], tmp_path / "backbone", None, None)
    found = gated(tmp_path / "backbone")
    assert found.reasons == []
    assert found.passed
    # 500 images are fewer than the gate would look at, so that it finds what the training has measured
    assert found.photos.of == "upstream test images"
    assert found.photos.count == 500
    assert found.photos.top1 == pytest.approx(5 * manifest["upstream_top1"], abs=1)
    if name != "dense":
        assert found.sparsity[manifest["sparsity_over"]] == pytest.approx(0.8, abs=0.004)
    found.write(tmp_path / "verification.json")
    dataset = prepared.load(images)
    permutations = draw_splits("cifar10-part", dataset.train_labels, 10, 0)
    write_json(tmp_path / "split.json", {"permutations": permutations})
    inputs = PackInputs(tmp_path / "backbone", tmp_path / "verification.json", images, tmp_path / "split.json")
    recipe = {"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 20, "shuffle": True}
    recipe |= {"mapping_interval": 1, "precision": "fp32", "test_batch_size": 100, "canvas": 16, "image_size": 8}
    request = PackRequest(
        study="tiny",
        backbone=name,
        dataset="cifar10-part",
        seed=0,
        recipe=recipe,
        canvas=16,
        size="8",
        runs=[("ilm", 2)],
        ledger=str(tmp_path / "ledger"),
    )
    train_pack(inputs, request, tmp_path / "plans", tmp_path / "pack.parquet", CPU, 2**31)
    (row,) = pq.read_table(tmp_path / "pack.parquet").to_pylist()
    assert row["status"] == "ok"
    assert 0 <= row["accuracy"] <= 1
    with_mapping, _ = ledger.read(tmp_path / "ledger", row["run"])
    assert sorted(with_mapping["mapping"].tolist()) == list(range(10))  # ten source classes, ten targets


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "dense"])
def test_masks_and_weights_say_the_same_and_are_those_of_the_layers_that_are_pruned(name, made):
    network, masks, _ = backbones.load(made[name])
    state = network.state_dict()
    assert set(masks) == set(sparsifiers.pruned_weights(network, with_defaults(SETTINGS[name])))
    for key, mask in masks.items():
        assert torch.equal(state[key] != 0, mask), key


def test_the_dense_network_learns(made):
    # of 250 images in three epochs: chance is 10 %, its standard deviation 1.3
    assert read_json(made["dense"] / "manifest.json")["upstream_top1"] > 14


def test_a_gate_that_asks_for_more_stops_the_network(made, tmp_path):
    compress(made["dense"], tmp_path / "backbone", None, None)
    found = gated(tmp_path / "backbone", 99.0)
    (reason,) = found.reasons
    assert reason.endswith("of 500 upstream test images classified rightly, at least 495 expected")


def test_a_control_and_a_compression_of_a_trained_network_are_verified_too(made, tmp_path):
    compress(made["dense"], tmp_path / "random", None, "random_init")
    control = gated(tmp_path / "random", 99.0)
    assert control.passed
    assert control.photos.exempt
    compress(made["gmp"], tmp_path / "int8", {"algorithm": "quantise", "bits": 8}, None)
    quantised = gated(tmp_path / "int8")
    assert quantised.passed
    assert read_json(tmp_path / "int8/manifest.json")["compression"] == "gmp+int8"


def test_a_control_of_a_sparse_network_that_never_learned_has_no_masks_to_keep(made, tmp_path):
    compress(made["gmp"], tmp_path, None, "random_init")
    assert gated(tmp_path).reasons == []


@pytest.mark.parametrize("count", [500, 1001, 2500])
def test_the_gate_looks_at_a_thousand_images_or_all(count, made, monkeypatch):
    looked = []
    monkeypatch.setattr(gate, "load", lambda data: SimpleNamespace(test=range(count)))
    monkeypatch.setattr(gate, "correct_of", lambda network, data, indices, *_: looked.extend(indices) or 7)
    manifest = Manifest.read(made["dense"])
    found = gate.recognised(None, manifest, 50)
    assert found == Recognised(7, min(count, 1000), "upstream test images", min(count, 1000) // 2)
    assert len(set(looked)) == len(looked) == min(count, 1000)
    assert looked[0] == 0
    assert looked[-1] >= count - 3


def test_a_mask_that_is_gone_is_noticed(made, tmp_path):
    compress(made["gmp"], tmp_path, None, None)
    network, masks, manifest = backbones.load(tmp_path)
    gone = next(iter(masks))
    backbones.save(tmp_path, network.state_dict(), {key: m for key, m in masks.items() if key != gone}, manifest)
    reasons = gated(tmp_path).reasons
    assert f"{gone}: no mask" in reasons


# ------------------------------------------------------------------------------------------------- to the bit


class Killed(Exception):
    """What stands for the end of a process."""


def killed_after(epoch, monkeypatch):
    """Let a training be killed once it has kept the state of an epoch."""
    kept = interrupted.keep_states

    def keep_states(path, states):
        kept(path, states)
        if states["training"]["epoch"] == epoch:
            raise Killed

    monkeypatch.setattr(interrupted, "keep_states", keep_states)


# all that is drawn at random, and a mean of weights
STIRRED = {"ema": 0.5, "mixup": 0.2, "cutmix": 0.5, "random_erase": 0.5, "auto_augment": "rand-m5", "batch_size": 50}


KILLED = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("dense", "stirred"))) for name in [*SETTINGS, "stirred"]
]


@pytest.mark.parametrize("name", KILLED)
def test_a_training_that_was_killed_ends_as_one_that_was_not(name, made, images, tmp_path, monkeypatch):
    settings, recipe = SETTINGS["rigl" if name == "stirred" else name], STIRRED if name == "stirred" else {}
    more = {"ticket": str(made["dense"]), "rewind": made["rewind"]} if name == "lth" else {}
    whole = made[name] if name in made else make(tmp_path / "whole", images, settings, recipe, **more)
    with monkeypatch.context() as patched:
        killed_after(2, patched)
        with pytest.raises(Killed):
            make(tmp_path / "killed", images, settings, recipe, **more)
    assert (tmp_path / "killed/unfinished-0.state").exists()
    steps = []
    update = state.Scheduler.step_update
    monkeypatch.setattr(state.Scheduler, "step_update", lambda self, n: (steps.append(n), update(self, n))[1])
    make(tmp_path / "killed", images, settings, recipe, **more)
    assert set(steps) == set(range(10, 16))  # the last of three epochs alone
    assert not (tmp_path / "killed/unfinished-0.state").exists()
    expected, found = weights(whole), weights(tmp_path / "killed")
    for key, tensor in expected.items():
        assert torch.equal(tensor, found[key]), key
    top1 = [read_json(folder / "manifest.json")["upstream_top1"] for folder in (whole, tmp_path / "killed")]
    assert top1[0] == top1[1]
    if name == "stirred":  # the mean of weights is as sparse as the last
        _, masks, _ = backbones.load(tmp_path / "killed")
        assert all(torch.equal(found[key] != 0, mask) for key, mask in masks.items())
        assert sum(int(mask.sum()) for mask in masks.values()) < 0.21 * sum(mask.numel() for mask in masks.values())


def test_a_training_of_another_number_of_processes_starts_anew(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        killed_after(2, patched)
        with pytest.raises(Killed):
            make(tmp_path, images)
    state = tmp_path / "unfinished-0.state"
    interrupted.keep_states(state, interrupted.states(state, CPU) | {"processes": 2})
    started = []
    monkeypatch.setattr(training, "train", lambda begun, *_: started.append(begun.epoch))
    training.go_on(training.begin(job(tmp_path, images), ALONE, 0), job(tmp_path, images), ALONE, 3)
    assert started == [0]


def test_the_state_to_rewind_to_is_the_one_that_the_dense_training_passed(made, images, tmp_path, monkeypatch):
    killed_after(1, monkeypatch)
    with pytest.raises(Killed):
        make(tmp_path, images)
    passed = interrupted.states(tmp_path / "unfinished-0.state", CPU)["training"]
    rewound = interrupted.states(made["rewind"], CPU)["rewind"]
    assert passed["epoch"] == rewound["epoch"] == 1
    for key, tensor in passed["network"].items():
        assert torch.equal(tensor, rewound["network"][key]), key
    for number, memory in passed["optimizer"]["state"].items():
        for key, value in memory.items():
            assert torch.equal(value, rewound["optimizer"]["state"][number][key])


@pytest.mark.slow
def test_a_lottery_ticket_starts_from_the_rewound_weights_under_its_mask(made, images, tmp_path, monkeypatch):
    started = {}

    def train(state, *arguments):
        started.update(copy.deepcopy(state.state()))
        raise Killed

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(Killed):
        make(tmp_path, images, SETTINGS["lth"], ticket=str(made["dense"]), rewind=made["rewind"])
    rewound = interrupted.states(made["rewind"], CPU)["rewind"]
    dense, _, _ = backbones.load(made["dense"])
    expected = sparsifiers.next_ticket(dense, {}, SETTINGS["lth"])
    assert started["epoch"] == 1
    assert set(started["masks"]) == set(expected)
    for key, tensor in started["network"].items():
        mask = expected.get(key)
        wanted = rewound["network"][key] if mask is None else torch.where(mask, rewound["network"][key], 0)
        assert torch.equal(tensor, wanted), key
    for key, mask in expected.items():
        assert torch.equal(started["masks"][key], mask)


def test_a_ticket_can_be_rewound_to_published_weights(made, images, tmp_path):
    """As Chen et al. (CVPR 2021) do: rewind_epoch 0 of a training that starts from a checkpoint."""
    rewind, start = str(tmp_path / "rewind.state"), str(made["dense"])
    training.train_rewind_point(job(tmp_path, images, start=start, until=0, output=rewind), CPU, 0)
    rewound = interrupted.states(rewind, CPU)["rewind"]
    assert rewound["epoch"] == 0
    assert all(torch.equal(tensor, rewound["network"][key]) for key, tensor in weights(start).items())
    settings, recipe = SETTINGS["lth"] | {"rewind_epoch": 0}, {"epochs": 1}
    make(tmp_path / "made", images, settings, recipe, start=start, ticket=start, rewind=rewind)
    manifest = read_json(tmp_path / "made/manifest.json")
    assert manifest.get("failed") is None
    _, masks, _ = backbones.load(tmp_path / "made")
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == pytest.approx(0.2 * sum(mask.numel() for mask in masks.values()), abs=20)


def test_a_next_round_prunes_what_the_round_before_has_left(made, images, tmp_path):
    settings = {"algorithm": "lth", "sparsity": 0.9}
    make(tmp_path, images, settings, {"epochs": 2}, ticket=str(made["lth"]), rewind=made["rewind"])
    _, first, _ = backbones.load(made["lth"])
    _, second, _ = backbones.load(tmp_path)
    kept = {key: int(mask.sum()) for key, mask in second.items()}
    assert sum(kept.values()) == pytest.approx(0.1 * sum(mask.numel() for mask in second.values()), abs=20)
    assert all(not (second[key] & ~first[key]).any() for key in second)


@pytest.mark.slow
def test_the_seed_changes_the_network_and_the_same_gives_the_same(made, images, tmp_path):
    again = weights(make(tmp_path / "again", images))
    assert all(torch.equal(tensor, again[key]) for key, tensor in weights(made["dense"]).items())
    other = weights(make(tmp_path / "other", images, seed=0))
    assert not torch.equal(other["conv1.weight"], again["conv1.weight"])


# ------------------------------------------------------------------------------------------------- images


def loader(images, seed=0, workers=0, rank=0, processes=1, **recipe):
    source, checked = load({"arrays": str(images)}), UpstreamRecipe.model_validate(RECIPE | recipe)
    return TrainLoader(source.train, checked, 8, PREPROCESSING, seed, CPU, workers, rank, processes)


def epoch(of, number):
    batches = list(of.epoch(number))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_an_images_augmentation_depends_on_seed_and_epoch_and_not_on_who_reads_it(images):
    pixels, labels = epoch(loader(images), 1)
    assert pixels.shape == (250, 3, 8, 8)
    assert torch.bincount(labels).tolist() == [25] * 10
    read, told = epoch(loader(images, workers=2), 1)
    assert torch.equal(read, pixels)
    assert torch.equal(told, labels)
    assert not torch.equal(epoch(loader(images), 2)[0], pixels)
    assert not torch.equal(epoch(loader(images, seed=1), 1)[0], pixels)
    orders = [
        epoch(loader(images, seed=seed), number)[1].tolist() for seed, number in ((0, 1), (1, 0), (0, 2), (1, 1))
    ]
    assert len(set(map(tuple, orders))) == 4  # a seed's orders are not its neighbour's, an epoch later


def test_two_processes_share_the_batch_that_one_has_alone(images):
    alone = [labels.sort().values.tolist() for _, labels in loader(images).epoch(0)]
    parts = [[labels for _, labels in loader(images, rank=rank, processes=2).epoch(0)] for rank in (0, 1)]
    together = [torch.cat(pair).sort().values.tolist() for pair in zip(*parts, strict=True)]
    assert together == alone


def test_reading_images_leaves_the_streams_of_the_training_alone(images):
    data = loader(images, auto_augment="rand-m5").data
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first, again = data[3][0], data[3][0]
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert np.array_equal(first, again)


def test_images_are_mirrored_only_where_the_recipe_says_so(images):
    plain = load({"arrays": str(images)}).train[0][0]
    data = loader(images, mirror=False, crop="resized", scale=[1.0, 1.0]).data
    seen = []
    for number in range(8):
        data.epoch = number
        seen.append(np.asarray(data[0][0]))
    wide = np.asarray(plain).transpose(2, 0, 1).astype(int)
    assert all(
        np.abs(one.astype(int) - wide).mean() < np.abs(one[..., ::-1].astype(int) - wide).mean() for one in seen
    )


@pytest.fixture
def photos_folder(tmp_path):
    """A folder as ImageNet's: train/CLASS/*.jpg and val/CLASS/*.jpg, images of several sizes."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label in ("ant", "bee"):
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 256, (40 + number, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "photos"


def test_a_folder_of_photos_is_trained_on_with_a_recipe_of_timm(photos_folder, tmp_path):
    recipe = STIRRED | {
        "crop": "resized",
        "scale": [0.35, 1.0],
        "test_crop": 0.875,
        "loss": "bce",
        "clip_gradient": 1.0,
    }
    recipe |= {"batch_size": 4, "epochs": 1, "optimiser": "lamb", "colour_jitter": 0.2, "precision": "bf16"}
    more = {"data": folder_entry("small", str(photos_folder)), "architecture": "timm/resnet10t", "image_size": 32}
    settings = {"algorithm": "rigl", "sparsity": 0.5, "interval": 1, "distribution": "uniform"}
    make(tmp_path / "made", None, settings, recipe, **more)
    manifest = read_json(tmp_path / "made/manifest.json")
    assert manifest.get("failed") is None
    assert manifest["classes"] == ["ant", "bee"]
    assert manifest["architecture"] == "timm/resnet10t:2"
    _, masks, _ = backbones.load(tmp_path / "made")
    assert "conv1.0.weight" not in masks  # the stem of RigL's uniform distribution
    assert "fc.weight" in masks
    assert sum(int(mask.sum()) for mask in masks.values()) < 0.51 * sum(mask.numel() for mask in masks.values())


def test_of_a_folder_of_photos_is_left_out_what_is_of_a_target_s(photos_folder, caplog):
    caplog.set_level("INFO")
    for hidden in ("train/.ipynb_checkpoints", "__MACOSX/ant", "val/ant/.thumbs"):
        (photos_folder / hidden).mkdir(parents=True)
        (photos_folder / hidden / "0.jpg").write_bytes(b"no photo")
    side = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    exif = Image.Exif()
    exif[274] = 6  # a phone was held upright
    side.save(photos_folder / "train/ant/0.png", exif=exif)
    entry = folder_entry("small", str(photos_folder))
    assert entry["classes"] == ["ant", "bee"]
    upstream = load(entry)
    assert (len(upstream.train), len(upstream.test), upstream.classes) == (13, 6, ["ant", "bee"])
    assert upstream.train[1][0].size == (5, 4)  # as published top-1 was measured, without EXIF
    assert "left out, as hidden or of the system: 3, such as" in caplog.text


def test_training_images_of_a_folder_are_counted_once_and_where_some_came(photos_folder, records, monkeypatch):
    (photos_folder / "train/ant/notes.txt").touch()
    assert count_images("small", str(photos_folder)) == 12
    walked = []
    monkeypatch.setattr(
        upstream_images.os, "walk", lambda folder, walk=os.walk: walked.append(folder) or walk(folder)
    )
    assert count_images("small", str(photos_folder)) == 12
    assert not walked
    (photos_folder / "train/bee/more.JPEG").touch()
    assert count_images("small", str(photos_folder)) == 13
    assert [Path(folder).name for folder in walked] == ["bee"]


def test_a_folder_whose_parts_have_different_classes_is_told(photos_folder):
    (photos_folder / "val/wasp").mkdir()
    with pytest.raises(ValueError, match=r"photos: train/ and val/ have different classes: wasp$"):
        count_images("mine", str(photos_folder))


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"upstream mine: folder: .*: expected folders train/ and val/, or"):
        folder_entry("mine", str(tmp_path))


def test_a_folder_that_is_gone_since_the_plan_is_no_verdict_of_the_gate(tmp_path):
    preprocessing = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    settings = {"data": {"folder": str(tmp_path), "classes": ["ant"]}}  # as an empty mount point is
    manifest = Manifest(
        checkpoint="own", architecture="resnet20_cifar", preprocessing=preprocessing, upstream=settings
    )
    with pytest.raises(
        FileNotFoundError, match=f"^{tmp_path} is gone since the call was planned; expected the images"
    ):
        gate.recognised(torch.nn.Identity(), manifest, 50)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_the_reason_in_one_line(workers, photos_folder, tmp_path, monkeypatch):
    # the loader is in a cycle with its error: what collects it would wait seconds for the workers, in some later test
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    broken = photos_folder / "train/ant/3.jpg"
    broken.write_bytes(b"no photo")
    training.train_backbone(
        job(tmp_path / "made", None, None, {"batch_size": 4}, data={"folder": str(photos_folder)}), CPU, workers
    )
    reason = read_json(tmp_path / "made/manifest.json")["failed"]
    assert f"{broken}: cannot be read as an image" in reason
    assert len(reason.splitlines()) == 1
    gc.collect()


def test_classes_that_differ_between_train_and_test_are_told(photos_folder, tmp_path):
    (photos_folder / "val/bee").rename(photos_folder / "val/wasp")
    make(tmp_path / "made", None, data={"folder": str(photos_folder)})
    assert "have different classes: bee, wasp" in read_json(tmp_path / "made/manifest.json")["failed"]


# ------------------------------------------------------------------------------------------------- failures

FAILURES = {
    "batch": ({"batch_size": 500}, "batch_size is 500; expected at most the 250 training images"),
    "divergence": ({"learning_rate": 1e30}, "the training diverged: the loss is nan in epoch 1"),
}


@pytest.mark.parametrize(("recipe", "reason"), FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_trained_is_a_network_that_says_so(recipe, reason, images, tmp_path, caplog):
    make(tmp_path, images, recipe=recipe)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["failed"] == reason
    assert reason in caplog.text
    compress(tmp_path, tmp_path / "backbone", None, None)
    assert gated(tmp_path / "backbone").reasons == [reason]


def test_a_dataset_that_failed_is_the_reason(images, tmp_path):
    report_prepared(failed="no source gave it").write(tmp_path)
    make(tmp_path / "made", tmp_path)
    assert read_json(tmp_path / "made/manifest.json")["failed"] == "no source gave it"


def test_a_round_whose_network_failed_fails_with_its_reason(made, images, tmp_path):
    backbones.save_failure(tmp_path / "dense", "the training diverged", Manifest.read(made["dense"]))
    make(tmp_path / "made", images, SETTINGS["lth"], ticket=str(tmp_path / "dense"), rewind=made["rewind"])
    assert read_json(tmp_path / "made/manifest.json")["failed"] == "the training diverged"


@pytest.mark.parametrize(("recipe", "reason"), FAILURES.values(), ids=FAILURES)
def test_tickets_that_cannot_be_rewound_say_why(recipe, reason, made, images, tmp_path):
    rewind = str(tmp_path / "rewind.state")
    training.train_rewind_point(job(tmp_path, images, None, recipe, until=1, output=rewind), CPU, 0)
    make(tmp_path / "made", images, SETTINGS["lth"], ticket=str(made["dense"]), rewind=rewind)
    assert read_json(tmp_path / "made/manifest.json")["failed"] == f"{rewind}: {reason}"


def test_an_upstream_test_image_that_cannot_be_read_is_the_reason(photos_folder, tmp_path):
    broken = photos_folder / "val/bee/1.jpg"
    broken.write_bytes(b"no photo")
    make(tmp_path / "made", None, None, {"batch_size": 4, "epochs": 1}, data={"folder": str(photos_folder)})
    assert f"{broken}: cannot be read as an image" in read_json(tmp_path / "made/manifest.json")["failed"]


def test_a_damaged_state_is_told_and_not_loaded(made, images, tmp_path):
    damaged = tmp_path / "rewind.state"
    damaged.write_bytes(Path(made["rewind"]).read_bytes()[:-9] + b"123456789")
    make(tmp_path / "made", images, SETTINGS["lth"], ticket=str(made["dense"]), rewind=str(damaged))
    assert "damaged; delete it, and it is made again" in read_json(tmp_path / "made/manifest.json")["failed"]


def test_a_network_with_too_few_classes_is_not_prompted_and_the_reason_is_told(made, tmp_path):
    manifest = read_json(made["dense"] / "manifest.json") | {"control": None}
    write_json(tmp_path / "manifest.json", manifest)
    write_json(tmp_path / "verification.json", {"passed": True, "sparsity_declared": 0, "sparsity_measured": 0})
    report_prepared("abcdefghijk").write(tmp_path)
    inputs = PackInputs(tmp_path, tmp_path / "verification.json", tmp_path, tmp_path / "split.json")
    of = {"study": "s", "backbone": "b", "dataset": "d", "seed": 0, "recipe": {}, "canvas": 40, "size": "32"}
    request = PackRequest(**of, runs=[("ilm", 1), ("flm", 1)], ledger="ledger")
    assert write_not_run(inputs, request, tmp_path / "pack.parquet")
    rows = pq.read_table(tmp_path / "pack.parquet").to_pylist()
    assert {row["reason"] for row in rows} == {
        "the dataset has 11 classes, the network 10: too few to map one to each"
    }
    # a linear probe maps nothing
    assert not write_not_run(inputs, request.asking((("lp", 1),)), tmp_path / "probe.parquet")


# ------------------------------------------------------------------------------------------------- published weights


def test_training_starts_from_published_weights_with_a_head_of_its_own(made, images, tmp_path):
    first, about = state.first_network(job(tmp_path, images, start=str(made["dense"])), 10)
    published = weights(made["dense"])
    assert about["architecture"] == "resnet20_cifar:10"
    assert all(torch.equal(tensor, published[key]) for key, tensor in first.state_dict().items())
    assert first.training
    assert all(parameter.requires_grad for parameter in first.parameters())
    other, about = state.first_network(job(tmp_path, images, start=str(made["dense"])), 7)
    assert about["architecture"] == "resnet20_cifar:7"
    assert other.fc.out_features == 7
    assert torch.equal(other.conv1.weight, first.conv1.weight)


NAMED = [
    "resnet18_cifar:10",
    "resnet20_cifar:43",
    "resnet18:5",
    "resnet50_keras:4",
    "resnet50_rigl:6",
    "timm/resnet10t:3",
]


@pytest.mark.parametrize("name", NAMED)
def test_networks_have_the_classes_that_are_behind_their_name(name):
    network = build.build(name)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, int(name.split(":")[1]))


def test_resnets_for_32_pixels_are_as_large_as_published():
    counts = {
        name: sum(p.numel() for p in build.build(name).parameters()) for name in ("resnet18_cifar", "resnet20_cifar")
    }
    assert counts["resnet18_cifar"] == 11_173_962  # kuangliu/pytorch-cifar's ResNet18
    assert counts["resnet20_cifar"] == 269_722 + 32 * 16 + 64 + 64 * 32 + 128  # He et al.'s 0.27M, with projections
    gmacs, parameters = count_multiply_adds("resnet18_cifar", 32)
    assert gmacs == pytest.approx(0.556, abs=0.001)
    assert parameters == counts["resnet18_cifar"]


@pytest.mark.parametrize("name", ["resnet18x", "timm/resnet18x", "resnet18_cifar:x", "fcn_resnet50", "googlenet"])
def test_a_network_that_cannot_be_trained_is_told_before_any_job(name):
    with pytest.raises(ValueError, match=f"architecture '{name}'"):
        check.arithmetic(name, 64, UpstreamRecipe.model_validate(RECIPE))


@pytest.mark.parametrize("words", ["trivial", "rand-m9-foo1", "randaugment"])
def test_an_augmentation_that_timm_does_not_know_is_told_before_any_job(words):
    with pytest.raises(ValueError, match=f"auto_augment '{words}': timm does not know it"):
        check.arithmetic("resnet20_cifar", 32, UpstreamRecipe.model_validate(RECIPE | {"auto_augment": words}))


def cosine(step):
    return (1 + math.cos(math.pi * step / 40)) / 2


STEPS = {"schedule": "multistep", "milestones": [0.5, 0.75]}
SCHEDULES = {
    "cosine": ({}, cosine),
    "multistep": (STEPS, lambda step: 0.1 ** ((step >= 19) + (step >= 29))),  # timm's falls a step early
    "warm-up": ({"warmup_epochs": 1}, lambda step: step / 10 if step < 10 else cosine(step)),
}


@pytest.mark.parametrize(("recipe", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_rate_follows_its_closed_form(recipe, expected):
    recipe = UpstreamRecipe.model_validate(RECIPE | {"epochs": 4, "learning_rate": 0.2} | recipe)
    begun = state.prepare(torch.nn.Linear(2, 2), recipe, None, 10, 0, CPU)
    for step in range(40):
        begun.schedule.step_update(step)
        assert begun.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * expected(step), rel=1e-6), step


# ------------------------------------------------------------------------------------------------- several processes

WORKER = """
import json, sys
import torch
from torch import nn
from hiddencost.networks import architectures
from hiddencost.upstream import training
from hiddencost.upstream.job import UpstreamJob

def plain(num_classes):  # without batch norm, which sees its own process' images alone
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.Tanh(), nn.Conv2d(8, 16, 3, 2), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

architectures.ARCHITECTURES["plain"] = plain
if __name__ == "__main__":
    torch.set_num_threads(1)
    training.train_backbone(UpstreamJob.model_validate(json.load(open(sys.argv[1]))), torch.device("cpu"), 0)
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_train_what_one_does(images, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    settings = SETTINGS["rigl"]
    for folder, launcher in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        told = tmp_path / f"{folder}.json"
        told.write_text(
            json.dumps(job_settings(tmp_path / folder, images, settings, {"epochs": 2}, architecture="plain"))
        )
        command = [sys.executable, *launcher, str(tmp_path / "worker.py"), str(told)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
    manifests = [read_json(tmp_path / folder / "manifest.json") for folder in ("one", "two")]
    assert [manifest.get("failed") for manifest in manifests] == [None, None]
    assert [manifest["upstream"]["processes"] for manifest in manifests] == [1, 2]
    one, two = (load_file(tmp_path / folder / "weights.safetensors") for folder in ("one", "two"))
    masks = [load_file(tmp_path / folder / "masks.safetensors") for folder in ("one", "two")]
    for key, tensor in one.items():
        assert torch.allclose(tensor, two[key], atol=1e-5), key
    for key, mask in masks[0].items():
        assert torch.equal(mask, masks[1][key])


@pytest.mark.slow
def test_torchrun_is_started_for_several_gpus_and_its_failure_is_a_result(images, tmp_path, monkeypatch):
    """On the CPU, as there is no GPU: what is leased is a name, and each process takes the CPU."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = job_settings(tmp_path, images, None, {"learning_rate": 1e30, "epochs": 1})
    launch.run("sparsify", told, "GPU-a,GPU-b", 1, 1, 0)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["failed"] == "the training diverged: the loss is nan in epoch 1"
    assert manifest["upstream"]["processes"] == 2


@pytest.mark.parametrize(
    ("batch", "mixup", "fits"), [(50, 0.0, True), (50, 0.2, False), (51, 0.0, False), (48, 0.2, True)]
)
def test_a_batch_is_shared_evenly(batch, mixup, fits, images):
    if fits:
        assert loader(images, processes=2, batch_size=batch, mixup=mixup).steps == 250 // 2 // (batch // 2)
        return
    with pytest.raises(ValueError, match=f"batch_size is {batch}; expected one that 2 GPUs"):
        loader(images, processes=2, batch_size=batch, mixup=mixup)


def test_one_process_is_alone_without_torchrun():
    found = processes.join_processes(CPU)
    assert (found.rank, found.count) == (0, 1)
    assert found.mean(3.5) == 3.5
