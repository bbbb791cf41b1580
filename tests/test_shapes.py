"""Shapes of prompts that a study asks for in place of the border: each held against a plain reimplementation, in a
pack, interrupted, on a pretended device, and in a study from its config to figures and `hiddencost.load`."""

import copy
from functools import cache
from pathlib import Path

import in_process
import numpy as np
import pytest
import reference
import torch
from pretend_device import pretend_device
from torch import nn
from torchvision.transforms.v2 import functional

import hiddencost
from hiddencost.datasets import prepared
from hiddencost.messages import StudyError
from hiddencost.networks import inference
from hiddencost.prompting import masks
from hiddencost.prompting.chunk import stacked
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.masks import MaskPrompt
from hiddencost.prompting.resize import ResizePrompt
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.study.load import load_study
from hiddencost.study.masks import RunMaskProtocol
from hiddencost.study.resize import RunResizeProtocol

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
RECIPE = {
    **{"epochs": 3, "learning_rate": 0.3, "milestones": [0.5], "gamma": 0.1, "batch_size": 5, "shuffle": True},
    **{"test_batch_size": 16, "canvas": 32, "mapping_interval": 1, "precision": "fp32"},
}
PROTOCOLS = {"resize": RunResizeProtocol(**RECIPE, shape="resize", image_size=20, scale=1.3125)}
PROTOCOLS["masks"] = RunMaskProtocol(
    **RECIPE, **{"shape": "masks", "layers": 5, "patch": 4, "mask_learning_rate": 0.05, "mask_gamma": 0.5}
)
PLAIN = {"resize": reference.Resized, "masks": reference.Masked}
STATED = {
    "resize": {"scale": 1.2},
    "masks": {"layers": 6, "patch": 8, "mask_learning_rate": 0.01, "mask_gamma": 1.0},
}
CONSTANTS = [0.48, 0.46, 0.4], [0.23, 0.22, 0.22]
RUNS = [("rlm", range(12)), ("flm", range(12)), ("ilm", range(12)), ("ilm", range(7))]
SHAPES = pytest.mark.parametrize("shape", PROTOCOLS)


@cache
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 1000)).double().eval()


@cache
def data():
    noise = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 3, 20, 20), dtype=torch.uint8, generator=noise), torch.arange(12) % 4


def prompted_on(device, protocol, dtype=torch.float64, chunk=9):
    mean, std = (torch.tensor(one, dtype=dtype, device=device).reshape(3, 1, 1) for one in CONSTANTS)
    frozen = inference.for_inference(copy.deepcopy(network()).to(dtype), device)
    return PromptedNetwork(frozen, mean, std, protocol, Plan(chunk=chunk))


def train(protocol, runs=RUNS, device=CPU, **told):
    images, labels = data()
    prompted = prompted_on(device, protocol)
    return dict(train_prompts(prompted, images.to(device), labels.to(device), 4, runs, 3, protocol, **told))


@cache
def pack(shape):
    return train(PROTOCOLS[shape])


def same(found, expected, **tolerance):
    assert found.parameters.keys() == expected.parameters.keys()
    for name, tensor in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name].cpu(), tensor, msg=name, **tolerance)
    assert found.mappings == expected.mappings
    torch.testing.assert_close(torch.tensor(found.losses), torch.tensor(expected.losses), **tolerance)


@SHAPES
def test_training_follows_the_published_algorithm_step_by_step(shape, threads):
    """In float64, four runs side by side, in chunks that cut their batches: what is learned, mappings and losses."""
    protocol, (images, labels) = PROTOCOLS[shape], data()
    trained = pack(shape)
    for number, (method, chosen) in enumerate(RUNS):
        of_run = images[: len(chosen)], labels[: len(chosen)], 4, method, 3, protocol, *CONSTANTS, torch.float64
        *learned, mappings, losses = reference.train(network(), *of_run, PLAIN[shape])
        run = trained[number]
        assert run.mappings == mappings
        assert run.losses == pytest.approx(losses, rel=1e-6)
        names = [name for name in run.parameters if name not in prompted_on(CPU, protocol).prompt.not_trained]
        for name, expected in zip(names, learned, strict=True):
            torch.testing.assert_close(run.parameters[name], expected, rtol=0, atol=1e-6, msg=name)
        new = PLAIN[shape](protocol, torch.float64).learned
        assert all((now != before).any() for now, before in zip(learned, new, strict=True))
    assert trained[2].mappings[0] != trained[2].mappings[-1], "the mapping never moved: the test shows little"


@SHAPES
def test_runs_in_a_pack_are_those_alone(shape, threads):
    for number, run in enumerate(RUNS):
        same(train(PROTOCOLS[shape], [run])[0], pack(shape)[number], rtol=1e-9, atol=1e-9)


@SHAPES
def test_what_was_interrupted_goes_on_to_the_bit(shape, threads):
    kept = []
    whole = train(PROTOCOLS[shape], keep=lambda states: kept.append(copy.deepcopy(states())))
    resumed = train(PROTOCOLS[shape], states=kept[3])
    for number, run in whole.items():
        same(resumed[number], run, rtol=0, atol=0)


@SHAPES
def test_training_is_that_of_the_cpu_with_each_tensor_on_its_device(shape, threads, monkeypatch):
    """Images are enlarged by repeated pixels: torchvision does so in integers on a CPU alone."""

    def fill(images, side, interpolation):
        places = torch.arange(side, device=images.device) * images.shape[-1] // side
        return images[:, :, places][:, :, :, places]

    monkeypatch.setattr(masks, "fill", fill)
    protocol, runs = PROTOCOLS[shape].model_copy(update={"epochs": 2}), RUNS[2:]
    expected = train(protocol, runs)
    with pretend_device():
        found = train(protocol, runs, GPU)
        for number, run in expected.items():
            same(found[number], run, rtol=1e-6, atol=1e-8)


@SHAPES
def test_a_study_asks_for_a_shape(shape, tmp_path, monkeypatch, threads):
    """From its config to tables, the figure of prompts, and a file that needs no study."""
    config = copy.deepcopy(in_process.STUDY) | {"methods": ["flm", "ilm"], "shots": ["full"], "seeds": [0]}
    config["protocol"] |= {"prompt": {"shape": shape} | STATED[shape]}
    finished = in_process.run(config, tmp_path, monkeypatch, ["prompts"])
    assert set(finished.runs["status"]) == {"ok"}
    assert set(finished.runs["canvas"]) == {16}
    model = hiddencost.load("results/tiny", backbone="dense", method="ilm")
    (folder,) = Path("results/tiny/own/datasets/toy").iterdir()
    images, labels = torch.tensor(prepared.load(folder).test_images), prepared.load(folder).test_labels
    predicted = model(images).argmax(1).numpy()
    assert (predicted == labels).mean() == pytest.approx(model.run["accuracy"])
    model.save("saved.safetensors")
    again = hiddencost.load("saved.safetensors")
    assert torch.equal(again(images), model(images))
    shown = np.load(finished.tables["prompts"])["dense/toy/ilm/full/0"]
    assert shown.shape == (3, 16, 16)
    assert len(np.unique(shown)) > 5


# ---- resize


def test_an_image_as_large_as_it_is_lies_where_a_border_prompt_has_it():
    prompt = ResizePrompt(canvas=16, image_size=10, scale=1.0)
    images = data()[0][:2, :, :10, :10].double() / 255
    scaled = prompt.scaled(images, torch.ones(1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(scaled[:, :, 3:13, 3:13], images)
    assert scaled.sum() == pytest.approx(images.sum().item())


@pytest.mark.parametrize(("scale", "inside"), [(0.1, 1), (0.5, 6), (1.0, 12), (1.3, 15), (5.0, 16)])
def test_the_border_is_where_the_scaled_image_is_not(scale, inside):
    border = ResizePrompt(canvas=16, image_size=12, scale=scale).border(torch.tensor([scale, 1.0]))
    expected = torch.ones(16, 16, dtype=torch.bool)
    expected[(16 - inside) // 2 : (16 + inside) // 2, (16 - inside) // 2 : (16 + inside) // 2] = False
    assert torch.equal(border[0, 0], expected)
    assert border[1, 0].sum() == 16**2 - 12**2


def test_a_scale_stays_within_the_published_limits(threads):
    fast = PROTOCOLS["resize"].model_copy(update={"learning_rate": 3.0, "epochs": 4})
    scales = [run.parameters["scale"].item() for run in train(fast).values()]
    assert min(scales) >= 0.1
    assert max(scales) <= 5
    assert {0.1, 5.0} & set(np.round(scales, 6)), "none came to a limit: the test shows nothing"


# ---- masks


def test_masks_of_several_runs_at_the_test_are_those_of_each_alone(threads):
    prompt = MaskPrompt(canvas=32, layers=6, patch=8)
    runs = [prompt.new(stream(seed, "prompt")) for seed in (0, 1)]
    assert not torch.equal(runs[0]["convolution1_weight"], runs[1]["convolution1_weight"])
    assert torch.equal(runs[0]["convolution1_weight"], prompt.new(stream(0, "prompt"))["convolution1_weight"])
    for run in runs:
        run["prompt"] += 1
        run["norm3_mean"] += run["norm3_weight"].cumsum(0) / 100
    images, constants = data()[0][:3], (prompt.mask(), torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    together = prompt.compose(images, stacked(runs), torch.tensor([0, 1, 1]), *constants)
    for number, of_images in ((0, slice(1)), (1, slice(1, 3))):
        zeros = torch.zeros(len(images[of_images]), dtype=torch.int64)
        alone = prompt.compose(images[of_images], stacked([runs[number]]), zeros, *constants)
        torch.testing.assert_close(together[of_images], alone)


def test_training_sees_crops_that_a_step_and_a_seed_decide():
    prompt = MaskPrompt(canvas=16, layers=5, patch=4)
    images = data()[0].repeat(20, 1, 1, 1)
    drawn = prompt.draw(len(images), stream(0, "augmentation of step 0"))
    assert drawn[:2].unique().tolist() == list(range(33))
    assert drawn[2].unique().tolist() == [0, 1]
    larger = functional.resize(images, [48, 48], antialias=True)
    for image, view, (row, column, mirrored) in zip(
        larger, prompt.view(images, drawn), drawn.T.tolist(), strict=True
    ):
        crop = image[:, row : row + 16, column : column + 16]
        assert torch.equal(view, crop.flip(2) if mirrored else crop)


# ---- what a study says


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({"shape": "frame"}, r"protocol.prompt.shape: 'frame' is unknown; allowed: resize, masks"),
        ({"shape": "resize", "scale": 1.2, "patch": 8}, r"protocol.prompt: resize takes scale, not patch"),
        (
            {"shape": "masks", "scale": 1.2},
            r"protocol.prompt: masks needs layers and mask_gamma and mask_learning_rate",
        ),
        ({"shape": "masks"} | STATED["masks"] | {"patch": 3}, r"protocol.prompt.patch: 3 is not allowed: "),
        (
            {"shape": "masks"} | STATED["masks"] | {"patch": 32},
            r"protocol.prompt.patch: 32 does not divide the canvas",
        ),
        (
            {"shape": "masks"} | STATED["masks"] | {"patch": 32, "layers": 5},
            r"protocol.prompt.patch: 32; expected 16 at",
        ),
        ({"shape": "resize"}, r"protocol.prompt: resize needs scale"),
        ({"shape": "resize", "scale": 0.05}, r"protocol.prompt.scale: 0.05 is not allowed: .* 0.1"),
        ({"shape": "resize", "scale": 1.4}, r"protocol.prompt.scale: 1.4 of the 12 pixels of datasets\[0\]"),
    ],
)
def test_a_prompt_that_cannot_be_is_told_in_a_line(prompt, told):
    with pytest.raises(StudyError, match=f"^the study: {told}"):
        load_study(in_process.STUDY | {"protocol": in_process.STUDY["protocol"] | {"prompt": prompt}}, "the study")
