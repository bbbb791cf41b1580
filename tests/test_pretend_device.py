"""The engine on a pretend GPU: every tensor on its device, and a step's synchronisations and launches counted."""

import copy
from collections import Counter
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import tiny_clip
import torch
from conftest import report_prepared
from pretend_device import CPU, PretendTensor, pretend_device
from safetensors.torch import load_file
from torch import nn
from torch.autograd import Function

from hiddencost.catalog.entries import Preprocessing
from hiddencost.datasets.prepared import ARRAYS
from hiddencost.files import write_json
from hiddencost.networks import backbones, build
from hiddencost.networks.clip import model, texts
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting import engine
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.runs.features import extract_features
from hiddencost.study.recipes import RunClipProtocol, RunProtocol

GPU = torch.device("cuda")
GRID = torch.arange(6.0).reshape(2, 3)


@pytest.fixture
def device():
    with pretend_device() as device:
        yield device


def there(tensor=GRID):
    return tensor.clone().to(GPU)


# ---- the pretend device itself


@pytest.mark.parametrize(
    ("operation", "mix"),
    [
        ("aten.add.Tensor", lambda here, there: there + here),
        ("aten.add.Tensor", lambda here, there: there.sum() + here),
        ("aten.add_.Tensor", lambda here, there: here.add_(there)),
        ("aten.mm.default", lambda here, there: here.T @ there),
        ("aten.where.self", lambda here, there: torch.where(here > 2, there, 0)),
        ("aten.stack.default", lambda here, there: torch.stack([here, there])),
        ("aten.index.Tensor", lambda here, there: here[there[0].long()]),
        ("aten.index_add.default", lambda here, there: there.index_add(0, here[0, :2].long(), there)),
        ("aten.index_put_.default", lambda here, there: there.__setitem__(there > 2, here[0])),
        ("aten.add.out", lambda here, there: torch.add(there, there, out=here)),
        ("aten._foreach_add_.List", lambda here, there: torch._foreach_add_([there], [here])),
    ],
)
def test_tensors_of_both_devices_in_one_operation_raise(device, operation, mix):
    with pytest.raises(RuntimeError, match=f"^{operation}: tensors on different devices: .* test_pretend_device.py:"):
        mix(GRID.clone(), there())


def test_values_and_devices_are_those_of_a_gpu(device):
    x = there()
    assert (x.device.type, x.is_cuda, x.is_meta, x.dtype) == ("cuda", True, False, torch.float32)
    assert x.to("cuda:0") is x
    assert x.cuda() is x
    assert (x + GRID[0, 1] * 2).tolist() == [[2, 3, 4], [5, 6, 7]]  # without dimensions, the host's may take part
    everywhere = [
        *(torch.zeros(2, device=GPU), torch.tensor([1, 2], device="cuda"), torch.as_tensor([1], device="cuda:0")),
        *(x.new_zeros(2), x.new_tensor([1, 2]), torch.ones_like(x), x[0], x.bfloat16(), torch.arange(2).to(x.device)),
        *(GRID.cuda(), GRID.to(x), torch.zeros_like(GRID, device=GPU), *x.max(1), *x.split(1)),
    ]
    assert all(type(one) is PretendTensor and one.device == x.device for one in everywhere)
    back = [x.cpu(), x.to("cpu"), torch.zeros_like(x, device="cpu"), torch.zeros(2), GRID.clone().copy_(x)]
    assert all(type(one) is torch.Tensor and one.device == CPU for one in back)
    assert torch.equal(back[0], GRID)
    view = x.view(3, 2)[1:]
    view += 1
    assert x.tolist() == [[0, 1, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("reason", "wait"),
    [
        ("depends on values", lambda x: x.sum().item()),
        ("depends on values", lambda x: float(x[0, 0])),
        ("depends on values", lambda x: bool((x > 1).any())),
        ("depends on values", lambda x: x.equal(x)),
        ("depends on values", lambda x: x.nonzero()),
        ("depends on values", lambda x: x.unique()),
        ("depends on values", lambda x: torch.bincount(x[0].int())),
        ("depends on values", lambda x: x.masked_select(x > 2)),
        ("depends on values", lambda x: x.repeat_interleave(x[0].long(), 1)),
        ("a mask as index", lambda x: x[x > 2]),
        ("a mask as index", lambda x: x.__setitem__(x > 2, torch.ones(3, device=GPU).cumsum(0))),
        ("an index from the host", lambda x: x[torch.tensor([1, 0])]),
        ("device to host", lambda x: x.cpu()),
        ("device to host", lambda x: x.to("cpu", non_blocking=True)),
        ("device to host", lambda x: x.tolist()),
        ("device to host", lambda x: GRID.clone().copy_(x)),
        ("host to device, blocking", lambda x: GRID.to(GPU)),
        ("host to device, blocking", lambda x: torch.tensor([1, 2], device=GPU)),
        ("host to device, blocking", lambda x: x.new_tensor([1, 2])),
        ("host to device, blocking", lambda x: x.__setitem__(0, GRID[1])),
        ("host to device, blocking", lambda x: GRID.pin_memory().to(GPU)),
        ("host to device, not from pinned memory", lambda x: GRID.to(GPU, non_blocking=True)),
        ("host to device, not from pinned memory", lambda x: x.copy_(GRID, non_blocking=True)),
    ],
)
def test_what_the_host_waits_for_is_counted_and_located(device, reason, wait):
    x = there()
    device.syncs.clear()
    wait(x)
    assert len(device.syncs) == 1
    assert f"{reason}) at test_pretend_device.py:" in device.syncs[0]
    assert "<lambda> < test_pretend_device.py:" in device.syncs[0]


def test_what_it_does_not_wait_for_is_not(device):
    x, pinned = there(), GRID.pin_memory()
    order = torch.arange(2, device=GPU)
    empty = torch.empty(2, 3, pin_memory=True)
    device.syncs.clear()
    same = pinned.to(GPU, non_blocking=True), x.copy_(pinned, non_blocking=True), empty[0].to(GPU, non_blocking=True)
    same += x[order], x[1:], torch.where(x > 2, x, 0), x.repeat_interleave(order, 0, output_size=1)
    x[order] = torch.ones_like(x)
    x[x > 2] = 0.0  # PyTorch makes it masked_fill_
    assert pinned.is_pinned()
    assert not GRID.is_pinned()
    assert device.syncs == []
    assert all(isinstance(one, PretendTensor) for one in same)


def test_launches_are_counted_by_operation(device):
    x = there()
    device.launches.clear()
    views = x.T, x[0], x.view(-1), x.detach(), x.unsqueeze(0), x.expand(4, 2, 3), x.reshape(6), x.contiguous()
    others = torch.empty(3, device=GPU), x.new_empty(3), torch.empty_like(x), x.to(torch.float32), x.squeeze_()
    assert device.launches == {}
    y = nn.functional.linear(x, x) + x[0, :2]
    y += 1
    x.T.contiguous()
    torch.zeros(2, device=GPU)
    assert GRID.add(1).sum() == 21  # on the host
    assert device.launches == {
        **{"aten.mm.default": 1, "aten.add.Tensor": 1, "aten.add_.Tensor": 1, "aten.clone.default": 1},
        "aten.zeros.default": 1,
    }
    assert len(device.syncs) == 1  # of the first copy
    assert len(views) + len(others) == 13


def test_composite_operations_are_counted_by_their_parts_without_gradients_too(device):
    x = there()
    device.launches.clear()
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            nn.functional.linear(x, x, x[:, 0]).reshape(-1).cpu()
    assert device.launches == {"aten.addmm.default": 2, "aten._to_copy.default": 2}
    assert [sync.partition(" at ")[0] for sync in device.syncs[1:]] == ["aten._to_copy.default (device to host)"] * 2


class Cube(Function):
    """x³; its backward makes a constant on a device."""

    @staticmethod
    def forward(ctx, x, device):
        ctx.save_for_backward(x)
        ctx.device = device
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * x**2 * torch.full((3,), 3.0, device=ctx.device), None


def test_gradients_are_computed_there_by_custom_functions_too(device):
    x = there().requires_grad_()
    (gradient,) = torch.autograd.grad(Cube.apply(x * 2, GPU)[1:].sum(), x)
    assert gradient.tolist() == [[0, 0, 0], [24 * 9, 24 * 16, 24 * 25]]
    Cube.apply(x, GPU).sum().backward()
    assert x.grad.tolist() == (3 * GRID**2).tolist()
    with pytest.raises(RuntimeError, match=r"aten.mul.Tensor: tensors on different devices: .* backward"):
        torch.autograd.grad(Cube.apply(x, CPU).sum(), x)
    with pytest.raises(RuntimeError, match="device"):
        x.grad = torch.ones(2, 3)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_fused_optimiser_is_that_of_the_cpu(kind):
    def train(x, count=lambda: None):
        x = x.requires_grad_()
        make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[kind]
        steps = make([x], lr=0.1, fused=True, **({"momentum": 0.9} if kind == "sgd" else {}))
        for _ in range(3):
            x.grad = (x.detach() - 2) ** 2
            count()
            steps.step()
        return x.detach()

    expected = train(GRID.clone())
    with pretend_device() as device:
        found = train(there(), device.launches.clear).cpu()
    assert torch.equal(found, expected)
    launched = {"adam": {"aten._foreach_add_.Scalar": 1, "aten._fused_adam_.default": 1}}
    assert device.launches - Counter(["aten._to_copy.default"]) == launched.get(kind, {"aten._fused_sgd_.default": 1})
    assert len(device.syncs) == 2  # the first and the last copy


def test_outside_of_it_nothing_is_left():
    with pretend_device() as device:
        x = there()
        layer = nn.Linear(3, 2).to(GPU).bfloat16()
        assert (layer.weight.device.type, layer.weight.dtype) == ("cuda", torch.bfloat16)
    before = device.launches.copy(), device.syncs.copy()
    with pytest.raises(RuntimeError, match="outside of pretend_device"):
        x + x
    assert (device.launches, device.syncs) == before
    assert nn.Linear(3, 2).double()(GRID.double()).shape == (2, 2)
    assert torch.tensor([1, 2]).sum() == 3
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError), match=r"NVIDIA|CUDA"):
            torch.zeros(1, device=GPU)


# ---- the engine on it

PREPROCESSING = {"mean": [0.48, 0.46, 0.4], "std": [0.23, 0.22, 0.22], "interpolation": "bilinear"}
PROTOCOL = RunProtocol(
    canvas=64,
    image_size=32,
    epochs=3,
    learning_rate=1.0,  # large, so that ilm's mappings move
    milestones=[0.5],
    gamma=0.1,
    batch_size=4,
    shuffle=True,
    test_batch_size=128,
    mapping_interval=1,
    precision="fp32",
)
CLIP_PROTOCOL = RunClipProtocol(
    canvas=tiny_clip.CANVAS,
    border=7,
    epochs=3,
    learning_rate=40.0,
    momentum=0.9,
    batch_size=4,
    shuffle=True,
    test_batch_size=128,
    mapping_interval=1,
    precision="fp32",
    interpolation="bicubic",
)
IMAGES = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images"))
LABELS = torch.arange(12) % 4
# three budgets by three methods; with batches of 4, three a run and an epoch, the last of different sizes
RUNS = [(method, range(count)) for count in (12, 11, 10) for method in ("rlm", "flm", "ilm")]


class Tiny(nn.Module):
    """What the engine treats in ways of its own: a stem, ReLU6 in place, pooling, depthwise layers, a sum, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, 1000)

    def forward(self, x):
        x = self.pool(self.stem(x))
        return self.head(torch.flatten(self.last(x + self.pointwise(self.depthwise(x))), 1))


@cache
def tiny():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny().eval()


@pytest.fixture(scope="module")
def tiny_texts(tmp_path_factory):
    """A tiny CLIP as a classifier over eight texts."""
    architecture = tiny_clip.configure(tmp_path_factory.mktemp("clip"))
    words = [f"a photo of a {word}" for word in ("cat", "dog", "cow", "hen", "owl", "bee", "ant", "fox")]
    made = texts.classifier_of_texts(tiny_clip.network(architecture), words, model.configuration_of(architecture))
    return made.requires_grad_(False)


def for_inference(network, device):
    is_clip = isinstance(network, model.TextClassifier)
    return FAMILIES["clip" if is_clip else "convolutional"].for_inference(network, device)


def prompted_on(device, network=None, protocol=PROTOCOL, cover=None, dtype=torch.float64):
    network = copy.deepcopy(network or tiny()).to(dtype)
    constants = (part.to(dtype) for part in backbones.normalisation(Preprocessing(**PREPROCESSING), device))
    plan = Plan(cover, chunk=40)  # a step of nine runs has 36 images, or 99
    return PromptedNetwork(for_inference(network, device), *constants, protocol, plan)


def train(device, runs=RUNS, protocol=PROTOCOL, network=None, cover=None, dtype=torch.float64, images=IMAGES, **told):
    """Train, and return by run its losses, mappings and prompt, all on the host, and the network."""
    prompted = prompted_on(device, network, protocol, cover, dtype)
    data = images.to(device), LABELS.to(device), 4, runs, 3, protocol
    found = dict(train_prompts(prompted, *data, **told))
    assert all(run.prompt.device.type == device.type for run in found.values())
    return {n: (run.losses, run.mappings, run.prompt.cpu(), run.mapping.cpu()) for n, run in found.items()}, prompted


def assert_same(found, expected, runs=RUNS, **tolerance):
    assert found.keys() == expected.keys() == set(range(len(runs)))
    for number, (losses, mappings, prompt, mapping) in expected.items():
        assert found[number][1] == mappings
        assert found[number][3].tolist() == mapping.tolist() == mappings[-1]
        torch.testing.assert_close(torch.tensor(found[number][0]), torch.tensor(losses), **tolerance)
        torch.testing.assert_close(found[number][2], prompt, **tolerance)
        assert prompt.abs().max() > 0.1
    moved = {
        method
        for (method, _), (_, mappings, *_) in zip(runs, expected.values(), strict=True)
        if mappings[0] != mappings[-1]
    }
    assert moved == {"ilm"}, "no mapping has moved: the test shows little"


@pytest.mark.parametrize("batch_size", [4, 12], ids=["three steps an epoch", "one step an epoch"])
@pytest.mark.parametrize("cover", [None, 0.75], ids=["whole canvases", "border once"])
def test_training_is_that_of_the_cpu_with_each_tensor_on_its_device(cover, batch_size, threads):
    protocol = PROTOCOL.model_copy(update={"batch_size": batch_size})
    expected, _ = train(CPU, protocol=protocol, cover=cover)
    with pretend_device():
        found, prompted = train(GPU, protocol=protocol, cover=cover)
    assert_same(found, expected, rtol=1e-6, atol=1e-8)
    assert prompted.sharing_ends().partition(" ")[0] == {None: "nowhere", 0.75: "last_0"}[cover]


@pytest.mark.parametrize("cover", [None, 0.75], ids=["whole canvases", "border once"])
def test_so_is_bf16(cover, threads):
    """Its first losses: rounding grows."""
    protocol = PROTOCOL.model_copy(update={"precision": "bf16"})
    expected, _ = train(CPU, protocol=protocol, cover=cover, dtype=torch.float32)
    with pretend_device():
        found, prompted = train(GPU, protocol=protocol, cover=cover, dtype=torch.float32)
    assert prompted.precision == "bf16"
    for number, (losses, mappings, *_) in expected.items():
        assert found[number][0][:3] == pytest.approx(losses[:3], rel=1e-2)
        assert found[number][1][0] == mappings[0]


@pytest.mark.parametrize(("size", "tolerance"), [(tiny_clip.CANVAS, 1e-6), (32, 1e-2)], ids=["as large", "enlarged"])
def test_so_is_clip(tiny_texts, size, tolerance, threads):
    """Where images are smaller than the canvas, torchvision enlarges them in integers on a CPU alone."""
    images = torch.randint(0, 256, (12, 3, size, size), dtype=torch.uint8, generator=stream(0, "images"))
    expected, _ = train(CPU, protocol=CLIP_PROTOCOL, network=tiny_texts, images=images)
    with pretend_device():
        found, _ = train(GPU, protocol=CLIP_PROTOCOL, network=tiny_texts, images=images)
    assert_same(found, expected, rtol=tolerance, atol=tolerance)


def test_so_is_a_pack_of_all_label_mappings(threads):
    """In float64 on one device and the other, and states that were kept on it."""
    runs = [(method, range(12)) for method in ("rlm", "ilm", "flm-opt", "blm", "blm+", "fm")]
    expected, _ = train(CPU, runs)
    kept = []
    with pretend_device():
        found, _ = train(GPU, runs, keep=lambda states: kept.append(copy.deepcopy(states())))
        resumed, _ = train(GPU, runs, states=kept[4])
    for number, (losses, mappings, prompt, mapping) in expected.items():
        for one in (found[number], resumed[number]):
            assert one[1] == mappings
            torch.testing.assert_close(torch.tensor(one[0]), torch.tensor(losses), rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(one[2:], (prompt, mapping), rtol=1e-6, atol=1e-8)


def test_so_are_an_interrupted_run_and_the_test(threads):
    kept = []

    def keep(states):
        kept.append(copy.deepcopy(states()))

    with pretend_device():
        whole, prompted = train(GPU, keep=keep)
        resumed, _ = train(GPU, states=kept[4])
        assert all(torch.equal(resumed[number][2], run[2]) for number, run in whole.items())
        assert [run[:2] for run in resumed.values()] == [run[:2] for run in whole.values()]
        found = prompted.test_logits(IMAGES.to(GPU), {"prompt": whole[0][2].to(GPU)})
        assert found.device.type == "cuda"
        found = found.cpu()
    torch.testing.assert_close(found, prompted_on(CPU).test_logits(IMAGES, {"prompt": whole[0][2]}))


def test_so_are_features(tmp_path, threads):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build.build("resnet20_cifar")
    manifest = Manifest(checkpoint="net", architecture="resnet20_cifar", preprocessing=PREPROCESSING)
    backbones.save(tmp_path, network.state_dict(), {}, manifest)
    write_json(tmp_path / "verification.json", {"passed": True})
    report_prepared("abcd").write(tmp_path)
    for name in ARRAYS:
        np.save(tmp_path / name, (IMAGES if "images" in name else LABELS).numpy())

    def features(device):
        inputs = tmp_path, tmp_path / "verification.json", tmp_path, tmp_path / f"{device}.safetensors"
        extract_features(*inputs, device)
        return load_file(inputs[3])

    expected = features(CPU)
    with pretend_device() as device:
        found = features(GPU)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert device.launches["aten.convolution.default"] == 2 * convolutions  # a batch of each part
    assert [len(expected[part]) for part in ("train", "test")] == [12, 12]
    assert all(torch.allclose(found[part], expected[part], rtol=1e-4, atol=1e-6) for part in expected)


# ---- what a step costs


class Step(NamedTuple):
    launches: Counter
    syncs: list[str]


@cache
def steps(methods, batch_size, cover) -> list[Step]:
    """Return each step of nine runs, or six, from the first on: what has been between two calls of `progress`."""
    for one in vars(engine).values():
        if hasattr(one, "cache_clear"):  # what other tests have moved to the device
            one.cache_clear()
    marks = []
    protocol = PROTOCOL.model_copy(update={"batch_size": batch_size})
    with pretend_device() as device:
        runs = [(method, range(count)) for count in (12, 11, 10) for method in methods]
        train(
            GPU,
            runs,
            protocol,
            cover=cover,
            progress=lambda _: marks.append((device.launches.copy(), len(device.syncs))),
        )
    assert len(marks) == 1 + PROTOCOL.epochs * len(range(0, 12, batch_size))
    return [
        Step(launched - before, device.syncs[start:stop]) for (before, start), (launched, stop) in pairwise(marks)
    ]


def told(step: Step) -> str:
    """Say what a step waited for and launched, as tests that count fail with."""
    counted = [f"{count} {operation}" for operation, count in step.launches.most_common()]
    return "\n".join([f"{len(step.syncs)} synchronisations:", *step.syncs, "launches:", *counted])


ALL = ("rlm", "flm", "ilm")
BEYOND = ("blm", "blm+", "fm")
# of nine runs in one chunk, in the middle of an epoch
LAUNCHES = {None: 100, 0.75: 170}


@pytest.mark.parametrize("cover", LAUNCHES, ids=["whole canvases", "border once"])
@pytest.mark.parametrize(("methods", "most"), [(ALL, 2), (ALL[:2], 1)], ids=["with ilm", "without"])
def test_one_step_epochs_wait_for_the_mapping_and_the_losses_alone(methods, most, cover, threads):
    for step in steps(methods, 12, cover)[1:]:
        assert len(step.syncs) <= most, told(step)


@pytest.mark.parametrize("cover", LAUNCHES, ids=["whole canvases", "border once"])
@pytest.mark.parametrize("methods", [ALL, BEYOND], ids=["one to one", "of weights"])
def test_within_an_epoch_a_step_waits_for_nothing(methods, cover, threads):
    for step in steps(methods, 4, cover)[4::3]:
        assert not step.syncs, told(step)


def test_matrices_wait_for_two_passes_the_losses_and_what_is_learned_alone(threads):
    for step in steps(BEYOND, 12, None)[1:]:
        assert len(step.syncs) <= 4, told(step)


@pytest.mark.parametrize(("cover", "most"), LAUNCHES.items(), ids=["whole canvases", "border once"])
def test_launches_of_a_step_are_within_their_budget(cover, most, threads):
    middle = steps(ALL, 4, cover)[4::3]
    assert len(middle) == 2
    for step in middle:
        assert 0 < step.launches.total() <= most, told(step)
