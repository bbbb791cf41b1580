import copy
from pathlib import Path

import pytest
import reference
import torch
from conftest import ROOT

from hiddencost import backbone, catalog
from hiddencost.engine import PromptedNetwork, resolve_precision, train_prompt
from hiddencost.prepare import read_cifar_binary, resize
from hiddencost.protocol import RunProtocol

CPU = torch.device("cpu")
PROTOCOL = RunProtocol(
    canvas=80,
    image_size=64,
    epochs=4,
    learning_rate=0.01,
    milestones=[0.5, 0.75],
    gamma=0.1,
    batch_size=7,
    shuffle=True,
    test_batch_size=128,
    mapping_interval=1,
    precision="fp32",
)


@pytest.fixture(scope="module")
def images():
    """Real CIFAR-10: two images of each class, at 64 pixels."""
    file = catalog.load("datasets")["cifar10-part"]["files"]["train"]
    pictures, labels = read_cifar_binary(file, ROOT)
    chosen = [index for label in range(10) for index in (labels == label).nonzero()[0][:2]]
    return torch.from_numpy(resize(pictures[chosen], 64)), torch.from_numpy(labels[chosen].astype("int64"))


@pytest.fixture(scope="module")
def networks(mobilenetv2):
    """The real MobileNetV2 as the engine uses it, and untouched."""
    plain, _, manifest = backbone.load(mobilenetv2)
    mean, std = backbone.normalisation(manifest, CPU)
    return PromptedNetwork(backbone.for_inference(plain, CPU), mean, std, PROTOCOL), plain, manifest["preprocessing"]


@pytest.mark.parametrize("method", ["rlm", "flm", "ilm"])
def test_training_follows_the_published_algorithm_step_by_step(networks, images, method, threads):
    """In float64, where a step's rounding is too small to grow: mappings, losses and prompt are those of the plain
    reimplementation, on the real network, over four epochs."""
    _, plain, preprocessing = networks
    mean, std = preprocessing["mean"], preprocessing["std"]
    plain = copy.deepcopy(plain).double()
    constants = (torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1) for values in (mean, std))
    exact = PromptedNetwork(backbone.for_inference(plain, CPU), *constants, PROTOCOL)
    run = train_prompt(exact, *images, 10, method, seed=3, protocol=PROTOCOL)
    prompt, mappings, losses = reference.train(plain, *images, 10, method, 3, PROTOCOL, mean, std, torch.float64)
    assert run.mappings == mappings
    assert run.mapping.tolist() == mappings[-1]
    assert len(losses) == 4 * 3
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.prompt, prompt, rtol=0, atol=1e-6)
    if method == "ilm":
        assert len({tuple(mapping) for mapping in mappings}) > 1, "the mapping never moved: the test shows nothing"


@pytest.mark.parametrize("method", ["rlm", "flm", "ilm"])
def test_fp32_follows_it_to_rounding(networks, images, method, threads):
    """Here the oracle computes with the engine's folded network: folding rounds, which float64 above shows to
    be all that it does, and rounding grows from step to step, as Adam divides by a gradient's own size."""
    prompted, _, preprocessing = networks

    def folded(canvas):
        return prompted.network(canvas.contiguous(memory_format=torch.channels_last))

    run = train_prompt(prompted, *images, 10, method, seed=3, protocol=PROTOCOL)
    mean, std = preprocessing["mean"], preprocessing["std"]
    prompt, mappings, losses = reference.train(folded, *images, 10, method, 3, PROTOCOL, mean, std, torch.float32)
    assert run.mappings == mappings
    assert run.losses == pytest.approx(losses, rel=2e-3)
    assert (run.prompt - prompt).abs().max() < 0.01  # less than one step of one pixel
    assert (run.prompt - prompt).abs().median() < 1e-6


def test_the_prompt_is_learned_on_the_border_alone(networks, images, threads):
    run = train_prompt(networks[0], *images, 10, "flm", seed=0, protocol=PROTOCOL.model_copy(update={"epochs": 1}))
    inside = run.prompt[:, 8:72, 8:72]
    assert inside.abs().max() == 0
    assert (run.prompt != 0).sum() > 0.9 * 3 * (80**2 - 64**2)


def test_runs_of_one_seed_see_the_same_batches_whatever_the_method(networks, images, threads):
    seen = {}

    class Spy(PromptedNetwork):
        def training_logits(self, images, prompt):
            seen.setdefault(method, []).append(images.sum().item())
            return super().training_logits(images, prompt)

    prompted = networks[0]
    spy = Spy(prompted.network, prompted.mean, prompted.std, PROTOCOL)
    for method in ("rlm", "flm", "ilm"):
        train_prompt(spy, *images, 10, method, seed=5, protocol=PROTOCOL.model_copy(update={"epochs": 2}))
    assert len(seen["rlm"]) == 6
    assert seen["rlm"] == seen["flm"] == seen["ilm"]


def test_the_mapping_interval_is_kept(networks, images, threads):
    protocol = PROTOCOL.model_copy(update={"mapping_interval": 2, "learning_rate": 0.3})
    mappings = train_prompt(networks[0], *images, 10, "ilm", seed=0, protocol=protocol).mappings
    assert mappings[0] == mappings[1]
    assert mappings[2] == mappings[3]
    assert mappings[1] != mappings[2]


def test_a_run_whose_loss_is_not_finite_says_where(networks, images, threads):
    protocol = PROTOCOL.model_copy(update={"learning_rate": float("inf")})
    run = train_prompt(networks[0], *images, 10, "rlm", seed=0, protocol=protocol)
    assert run.diverged == "the loss is nan at step 2, epoch 1"


def test_bf16_is_for_training_alone(networks, images, threads):
    """Mapping and test are in full precision, as published: in bf16 logits tie, and a tie decides a mapping."""
    prompted, _, _ = networks
    protocol = PROTOCOL.model_copy(update={"precision": "bf16"})
    half = PromptedNetwork(prompted.network, prompted.mean, prompted.std, protocol)
    prompt = torch.randn(3, 80, 80, generator=torch.Generator().manual_seed(0))
    assert torch.equal(half.predict(images[0], prompt), prompted.predict(images[0], prompt))
    exact, rough = (one.training_logits(images[0], prompt) for one in (prompted, half))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).norm() / exact.norm() < 0.05


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_precision_is_what_was_asked_for_or_fits_the_device():
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    flags = Path("/proc/cpuinfo").read_text()
    assert resolve_precision("auto", CPU) == ("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_what_the_cpu_gives(mobilenetv2, networks, images):
    device = torch.device("cuda")
    plain, _, manifest = backbone.load(mobilenetv2)
    mean, std = backbone.normalisation(manifest, device)
    prompted = PromptedNetwork(backbone.for_inference(plain, device), mean, std, PROTOCOL)
    there = train_prompt(prompted, images[0].to(device), images[1].to(device), 10, "ilm", 3, PROTOCOL)
    here = train_prompt(networks[0], *images, 10, "ilm", 3, PROTOCOL)
    torch.testing.assert_close(torch.tensor(there.losses[:3]), torch.tensor(here.losses[:3]), rtol=1e-2, atol=1e-2)
