"""What only a GPU shows: captures, precisions, synchronisations and memory of the real device, against the CPU and
against the engine's plain way on the same GPU. Small inputs: bench/gpu runs all in a minute, without a network."""

import copy
import gc
from contextlib import contextmanager

import numpy as np
import pytest
import tiny_clip
import torch
from conftest import ROOT, report_prepared
from safetensors.torch import load_file
from torch import nn

from hiddencost import catalog, machine
from hiddencost.catalog.entries import Preprocessing
from hiddencost.compression.controls import random_network
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.prepared import ARRAYS
from hiddencost.datasets.readers.registry import READERS
from hiddencost.files import read_json, write_json
from hiddencost.networks import backbones, inference
from hiddencost.networks.clip import model, texts
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting import certify, fusion, measure, plan
from hiddencost.prompting.chunk import Chunk
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.graphs import Replayed
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.runs import interrupted, prompting
from hiddencost.runs.features import extract_features
from hiddencost.runs.finetune import fine_tune, logits_of, with_new_head
from hiddencost.study.recipes import RunClipProtocol, RunFineTuning, RunProtocol, finetuning_size

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.usefixtures("threads"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PREPROCESSING = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
PROTOCOL = RunProtocol(
    canvas=64,
    image_size=32,
    epochs=2,
    learning_rate=0.01,
    milestones=[],
    gamma=0.1,
    batch_size=4,
    shuffle=True,
    test_batch_size=128,
    mapping_interval=1,
    precision="fp32",
)
LARGER = PROTOCOL.model_copy(update={"canvas": 80, "image_size": 64})  # for MobileNetV2
NOISE = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images"))
LABELS = torch.arange(20) % 4
RUNS = [("rlm", range(20)), ("flm", range(20)), ("ilm", range(20)), ("ilm", range(10))]
# Most that two ways may differ in a gradient, as a part of its norm. REPLAYED: the same kernels on the same numbers,
# but for the order of sums. OTHER: rounding differs, which in bf16 moves activations over the kink of a ReLU (Tiny by
# 0.13, fused or not, on a CPU). The gradients of other images differ by 1 and more.
REPLAYED = {"fp32": 1e-2, "bf16": 0.1}
OTHER = {"fp32": 1e-2, "bf16": 0.35}

covers = pytest.mark.parametrize("cover", [None, 0.75], ids=["whole canvases", "border once"])
graphs_or_not = pytest.mark.parametrize("graphs", [False, True], ids=["kernels", "graphs"])
precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])


class Tiny(nn.Module):
    """What the engine treats in ways of its own: a stem, ReLU6 in place, pooling, depthwise layers, sums with and
    without a ReLU, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, 1000)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = x + self.pointwise(self.depthwise(x))
        x = self.relu(self.second(x) + x)
        return self.head(torch.flatten(self.last(x), 1))


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny().eval()


@pytest.fixture(scope="module")
def mobilenet(request, downloads):
    """MobileNetV2, with its published weights where they were fetched before: there may be no network here."""
    if (downloads / "mobilenetv2").exists():
        return backbones.load(request.getfixturevalue("mobilenetv2"))[0]
    return random_network("mobilenet_v2")


@pytest.fixture(scope="module")
def cifar():
    """Real CIFAR-10: 25 images of each class, at 64 pixels, and their labels, class by class."""
    entry = catalog.datasets()["cifar10-part"]
    files = {part: ROOT / entry.files[part].sources[0].path for part in ("train", "test")}
    images = sorted(READERS["cifar_binary"]("cifar10-part", {}, files, ROOT).train.images, key=lambda image: image[1])
    pictures = np.stack([pixels(image, 64) for image, _ in images])
    return torch.from_numpy(pictures), torch.tensor([label for _, label in images])


@pytest.fixture(scope="module")
def few(cifar):
    """Two images of each class."""
    images, labels = cifar
    return images.unflatten(0, (10, 25))[:, :2].flatten(0, 1), labels.reshape(10, 25)[:, :2].flatten()


def for_inference(network, device):
    is_clip = isinstance(network, model.TextClassifier)
    return FAMILIES["clip" if is_clip else "convolutional"].for_inference(network, device)


def prompted_on(device, network, protocol=PROTOCOL, chosen=Plan()):  # noqa: B008 (frozen)
    constants = backbones.normalisation(Preprocessing(**PREPROCESSING), device)
    return PromptedNetwork(for_inference(copy.deepcopy(network), device), *constants, protocol, chosen)


def chunk_of(images, runs=3, canvas=64, seed=0):
    """A chunk of images, uint8 [N, 3, s, s], shared out evenly among runs with prompts of noise, on their device."""
    count = len(images)
    prompts = torch.randn(runs, 3, canvas, canvas, generator=torch.Generator().manual_seed(seed))
    tensors = (
        torch.arange(count) % 4,
        torch.full((count,), runs / count),
        torch.arange(runs).repeat_interleave(count // runs),
        torch.arange(4).expand(runs, -1),
    )
    return Chunk(images, *(tensor.to(images.device) for tensor in tensors), {"prompt": prompts.to(images.device)})


def off(found, expected):
    """How far a tensor, or a prompt's gradient, is from another, as a part of the other's norm."""
    found, expected = (one["prompt"] if isinstance(one, dict) else one for one in (found, expected))
    found, expected = (one.detach().double().cpu() for one in (found, expected))
    assert expected.norm() > 0
    return ((found - expected).norm() / expected.norm()).item()


def close(found, expected, rtol, atol):
    """Assert that two tensors, wherever they are, are equal up to rounding."""
    torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=rtol, atol=atol)


def captured(prompted, gradient=True):
    """How many shapes of steps, or of mapping passes, have been captured; and that no capture has failed."""
    graphs = prompted._graphs[gradient]
    assert graphs.failed is None
    return len(graphs.captured)


def assert_replays_give(expected, prompted, chunks, most=REPLAYED["fp32"]):
    """Chunks in turn, captured and then replayed, give the losses and gradients of another way."""
    for _ in range(Replayed.SIGHTS):
        for chunk in chunks:
            loss, gradient = prompted.gradients(chunk)
            wanted_loss, wanted = expected.gradients(chunk)
            close(loss, wanted_loss, 1e-2, 1e-3)
            assert off(gradient, wanted) < most
    assert captured(prompted) == 1


def assert_same_way(found, expected):
    """Two prompts have been trained alike: but for a pixel whose gradient is nearly zero, which Adam may move by a
    whole step either way."""
    assert expected.abs().max() > 0.02
    assert ((found - expected).abs() > 1e-3).float().mean() < 1e-3


def reserved():
    """The bytes that PyTorch holds of the GPU, once all has gone that can go."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


@contextmanager
def waiting_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- training


@pytest.fixture(scope="module")
def trained_here(mobilenet, few):
    """The CPU's runs of MobileNetV2, and the gradient of a chunk."""
    here = prompted_on(CPU, mobilenet, LARGER, Plan(chunk=5))
    return dict(train_prompts(here, *few, 10, RUNS, 3, LARGER)), here.gradients(chunk_of(few[0][:12], canvas=80))


@covers
@graphs_or_not
def test_the_first_epoch_of_a_pack_is_that_of_the_cpu(mobilenet, few, trained_here, cover, graphs):
    """In chunks that mix runs and cut their batches. Later epochs stand behind a mapping drawn anew; and a pixel
    whose gradient is nearly zero may take Adam's first step either way: the first loss is the one to be equal."""
    prompted = prompted_on(GPU, mobilenet, LARGER, Plan(cover, chunk=5, graphs=graphs))
    runs, (loss, gradient) = trained_here
    found_loss, found = prompted.gradients(chunk_of(few[0][:12].to(GPU), canvas=80))
    assert off(found_loss, loss) < 1e-4  # TF32 would be off by more
    assert off(found, gradient) < 1e-2
    there = dict(train_prompts(prompted, *(part.to(GPU) for part in few), 10, RUNS, 3, LARGER))
    border = prompted.mask.cpu().bool().expand(3, -1, -1)
    for number, run in runs.items():
        steps = len(run.losses) // 2
        assert there[number].losses[0] == pytest.approx(run.losses[0], rel=1e-4)
        assert there[number].losses[:steps] == pytest.approx(run.losses[:steps], rel=3e-2)
        assert there[number].mappings[0] == run.mappings[0]
        assert there[number].diverged is None
        assert len(there[number].losses) == len(run.losses)
        assert there[number].mapping.tolist() == there[number].mappings[1]
        prompt = there[number].prompt.cpu()
        assert (prompt[border] != 0).float().mean() > 0.9
        assert not prompt[~border].any()
    if graphs:
        assert captured(prompted)


@precisions
@pytest.mark.parametrize("runs", [1, 3])
def test_a_replayed_chunk_gives_its_own_gradients(mobilenet, few, runs, precision):
    protocol = LARGER.model_copy(update={"precision": precision})
    eager, graphs = (prompted_on(GPU, mobilenet, protocol, Plan(0.75, graphs=on)) for on in (False, True))
    pictures = few[0][:12].to(GPU)
    chunks = [chunk_of(shown, runs, 80, seed) for seed, shown in enumerate((pictures, 255 - pictures))]
    gradients = [eager.gradients(chunk)[1] for chunk in chunks]
    assert off(*gradients) > 0.5, "the chunks are alike: a replay of the wrong one would not show"
    assert_replays_give(eager, graphs, chunks, REPLAYED[precision])


@covers
def test_a_replayed_mapping_pass_gives_its_own_classes(tiny, cover):
    eager, graphs = (prompted_on(GPU, tiny, chosen=Plan(cover, graphs=on)) for on in (False, True))
    prompts = {"prompt": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(GPU)}
    chosen, pictures = [torch.arange(20), torch.arange(12)], NOISE.to(GPU)
    expected = [eager.predict(shown, chosen, prompts).tolist() for shown in (pictures, 255 - pictures)]
    assert expected[0] != expected[1], "a replay of the wrong images would not show"
    for _ in range(Replayed.SIGHTS):
        assert [graphs.predict(shown, chosen, prompts).tolist() for shown in (pictures, 255 - pictures)] == expected
    assert captured(graphs, gradient=False) == 1


@pytest.mark.parametrize(
    ("cover", "graphs", "on_host"),
    [(None, False, False), (None, False, True), (0.75, False, False), (None, True, True), (0.75, True, False)],
)
def test_within_an_epoch_the_host_waits_for_nothing(tiny, cover, graphs, on_host):
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device=GPU).item()
    prompted = prompted_on(GPU, tiny, chosen=Plan(cover, chunk=8, graphs=graphs))
    # not the same images as flm's, or in another order: each run is computed
    runs = [("rlm", range(20)), ("flm", range(20)), ("ilm", range(19, -1, -1))]
    steps = []

    def progress(images):
        """Of the second epoch's five steps the middle three; when they begin, shapes have been captured."""
        steps.append(images)
        middle = len(steps) in (7, 8, 9)
        torch.cuda.set_sync_debug_mode("error" if middle else "default")

    protocol = PROTOCOL.model_copy(update={"mapping_interval": 2})
    images = NOISE if on_host else NOISE.to(GPU)
    try:
        trained = dict(train_prompts(prompted, images, LABELS, 4, runs, 3, protocol, progress))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == [0] + [12] * 10
    assert all(len(run.losses) == 10 and run.diverged is None for run in trained.values())
    if graphs:
        assert captured(prompted)


def test_training_images_on_the_host_give_what_those_on_the_device_give(tiny, monkeypatch):
    """Where they stay if they would take half of the free memory."""
    used = np.arange(20)
    there = prompting._on(GPU, NOISE.numpy(), used)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (NOISE.nbytes, NOISE.nbytes))
    here = prompting._on(GPU, NOISE.numpy(), used)
    assert (there.device.type, here.device.type) == ("cuda", "cpu")
    protocol = PROTOCOL.model_copy(update={"epochs": 1})
    found, expected = (
        dict(train_prompts(prompted_on(GPU, tiny, chosen=Plan(chunk=7)), images, LABELS, 4, RUNS, 3, protocol))
        for images in (here, there)
    )
    for number, run in expected.items():
        assert found[number].losses == pytest.approx(run.losses, rel=1e-3)
        assert found[number].mappings == run.mappings
        assert_same_way(found[number].prompt, run.prompt)


def test_an_interrupted_run_goes_on(tiny, tmp_path):
    """Through the file that a killed job leaves, within the second epoch."""
    prompted = prompted_on(GPU, tiny, chosen=Plan(0.75))
    path, steps = tmp_path / "a.unfinished", []

    def keep(states):
        steps.append(None)
        if len(steps) == 7:
            interrupted.keep_states(path, {str(number): state for number, state in states().items()})

    data = NOISE.to(GPU), LABELS.to(GPU), 4, RUNS[:2], 3, PROTOCOL
    whole = dict(train_prompts(prompted, *data, keep=keep))
    states = {int(number): state for number, state in interrupted.states(path, GPU).items()}
    trained_on = []
    resumed = dict(train_prompts(prompted, *data, trained_on.append, states))
    assert trained_on == [56, 8, 8, 8]
    for number, run in whole.items():
        assert resumed[number].losses == pytest.approx(run.losses, rel=1e-3)
        assert_same_way(resumed[number].prompt, run.prompt)


def test_some_layers_compute_in_float32(tiny):
    """In bf16 one of them is as exact as bf16's result is, eager and replayed."""
    protocol = PROTOCOL.model_copy(update={"precision": "bf16"})
    there, replayed, plain = (
        prompted_on(GPU, tiny, protocol, Plan(0.75, graphs=graphs, in_float32=names))
        for graphs, names in ((False, ("depthwise.0",)), (True, ("depthwise.0",)), (False, ()))
    )
    here = prompted_on(CPU, tiny, protocol, Plan(0.75, in_float32=("depthwise.0",)))
    chunks = [chunk_of(shown) for shown in (NOISE[:12].to(GPU), 255 - NOISE[:12].to(GPU))]
    (loss, gradient), (expected_loss, expected) = there.gradients(chunks[0]), here.gradients(chunk_of(NOISE[:12]))
    close(loss, expected_loss, 1e-2, 1e-3)
    assert off(gradient, expected) < OTHER["bf16"]
    assert off(plain.gradients(chunks[0])[1], gradient) > 0, "the layer computes as the others do"
    assert_replays_give(there, replayed, chunks, REPLAYED["bf16"])


@covers
@precisions
def test_fused_kernels_give_what_torchs_operations_give(tiny, cover, precision, monkeypatch):
    protocol = PROTOCOL.model_copy(update={"precision": precision})
    assert fusion.kernels_run(GPU)
    launched = []
    launch = fusion._launch
    monkeypatch.setattr(fusion, "_launch", lambda *arguments: (launched.append(None), launch(*arguments)))
    fused = prompted_on(GPU, tiny, protocol, Plan(cover, graphs=True, fused=True))
    plain = prompted_on(GPU, tiny, protocol, Plan(cover))
    chunks = [chunk_of(shown) for shown in (NOISE[:12].to(GPU), 255 - NOISE[:12].to(GPU))]
    assert_replays_give(plain, fused, chunks, OTHER[precision])
    assert launched
    first = {"prompt": chunks[0].parameters["prompt"][:1]}
    with torch.inference_mode():
        logits = [
            one.logits(
                NOISE.to(GPU),
                first,
                torch.zeros_like(LABELS).to(GPU),
                "fp32",
            )
            for one in (fused, plain)
        ]
    close(*logits, 1e-4, 1e-4)


# ---- captures that fail


def waiting(network, where):
    """The network with a layer that asks the GPU for a number, as a capture forbids, on its way back or forth."""
    network = inference.for_inference(copy.deepcopy(network), GPU)

    def wait(tensor):
        tensor.sum().item()

    def forward(module, inputs, output):
        if where == "forward":
            wait(output)
        elif output.requires_grad:
            output.register_hook(wait)

    network.pool.register_forward_hook(forward)
    return network


def with_graphs(network):
    constants = backbones.normalisation(Preprocessing(**PREPROCESSING), GPU)
    return PromptedNetwork(network, *constants, PROTOCOL, Plan(graphs=True))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_capture_that_fails_is_survived(tiny, where, caplog):
    """Training goes on without graphs, and all that a failed capture might leave behind is as it was."""
    eager, chunk = prompted_on(GPU, tiny), chunk_of(NOISE[:12].to(GPU))
    expected = eager.gradients(chunk)
    stream_before = torch.cuda.current_stream()
    torch.manual_seed(0)
    drawn = torch.randn(4, device=GPU)
    torch.manual_seed(0)
    prompted = with_graphs(waiting(tiny, where))
    for _ in range(Replayed.SIGHTS + 1):
        loss, gradient = prompted.gradients(chunk)
        assert off(loss, expected[0]) < 1e-4
        assert off(gradient, expected[1]) < REPLAYED["fp32"]
    assert "capturing" in prompted.why_no_graphs()
    assert caplog.messages == [f"no CUDA graphs, as the capture failed: {prompted.why_no_graphs()}"]
    assert torch.cuda.current_stream() == stream_before
    assert not torch.cuda.is_current_stream_capturing()
    close(torch.randn(4, device=GPU), drawn, 0, 0)
    before = reserved()
    large = torch.empty(2**30, dtype=torch.uint8, device=GPU).fill_(1)
    assert large[-1].item() == 1
    del large
    assert reserved() == before, "the memory went into a pool that is still open"
    trained = dict(train_prompts(prompted, NOISE.to(GPU), LABELS, 4, RUNS, 3, PROTOCOL))
    assert [len(trained[number].losses) for number in range(4)] == [10, 10, 10, 6]
    other = prompted_on(GPU, tiny, chosen=Plan(graphs=True))
    assert_replays_give(eager, other, [chunk, chunk_of(255 - chunk.images)])


def test_captures_that_fail_again_and_again_take_no_memory(tiny):
    network, chunk = waiting(tiny, "forward"), chunk_of(NOISE[:12].to(GPU))

    def fail():
        prompted = with_graphs(network)
        for _ in range(Replayed.SIGHTS):
            prompted.gradients(chunk)
        assert prompted.why_no_graphs()

    fail()
    before = reserved()
    for _ in range(4):
        fail()
    assert reserved() <= before


def test_memory_that_runs_out_in_a_capture_ends_graphs_alone(tiny, caplog):
    class Large(PromptedNetwork):
        def _gradients(self, chunk):
            if torch.cuda.is_current_stream_capturing():
                torch.empty(2**46, dtype=torch.uint8, device=GPU)
            return super()._gradients(chunk)

    base = prompted_on(GPU, tiny)
    large = Large(base.network, base.mean, base.std, PROTOCOL, Plan(chunk=8, graphs=True))
    data = NOISE.to(GPU), LABELS, 4, RUNS[:2], 3, PROTOCOL
    found, expected = (dict(train_prompts(one, *data)) for one in (large, base))
    assert caplog.messages == ["memory has run out: going on without CUDA graphs"]
    for number, run in expected.items():
        assert found[number].losses == pytest.approx(run.losses, rel=1e-3)
    assert large._sizes[True] == 8  # images at a time are not halved
    other, chunk = prompted_on(GPU, tiny, chosen=Plan(graphs=True)), chunk_of(NOISE[:12].to(GPU))
    assert_replays_give(base, other, [chunk, chunk_of(255 - chunk.images)])


def test_a_chunk_that_does_not_fit_into_the_memory_is_halved(tiny, caplog):
    """Where memory really runs out: the process may take a part of the GPU's alone."""
    protocol = PROTOCOL.model_copy(update={"canvas": 512, "epochs": 1, "batch_size": 20})
    prompted = prompted_on(GPU, tiny, protocol, Plan(chunk=32))
    data = NOISE.to(GPU), LABELS, 4, RUNS[:1], 3, protocol
    expected = dict(train_prompts(prompted, *data))
    kept = measure.kept_bytes(prompted, chunk_of(NOISE.to(GPU), 1, 512)) * len(NOISE)
    room = reserved() + 0.7 * kept
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(GPU).total_memory)
    try:
        found = dict(train_prompts(prompted, *data))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert caplog.messages[0] == "20 images at a time do not fit into memory: going on with 10"
    assert found[0].losses == pytest.approx(expected[0].losses, rel=1e-3)


# ---- without gradients


@pytest.mark.parametrize("how", ["tf32", "bf16"])
@covers
def test_certified_first_classes_are_those_of_fp32(cifar, how, cover):
    """On images of three brightnesses, under two prompts. A ResNet-18 of random weights: of its first classes bf16
    changes three in a hundred, and about four in ten images are doubtful (on a CPU)."""
    network = random_network("resnet18")
    images = torch.cat([(cifar[0] * share).clamp(0, 255).byte() for share in (0.6, 1.0, 1.4)]).to(GPU)
    prompts = torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(0)).to(GPU)
    chosen = [torch.arange(0, 750), torch.arange(749, 300, -1)]
    count = sum(map(len, chosen))
    assert count >= certify.FROM
    protocol = LARGER.model_copy(update={"precision": "bf16"})
    told = {"fp32": 1.0, "tf32": 0.1, "bf16": 0.05}
    lower, full = (
        prompted_on(GPU, network, protocol, Plan(cover, forward_ms=milliseconds))
        for milliseconds in ({"fp32": told["fp32"], how: told[how]}, {})
    )
    found, expected = (one.predict(images, chosen, prompts) for one in (lower, full))
    assert found.tolist() == expected.tolist()
    assert len(expected.unique()) > 5
    tally = lower.certified
    assert (tally.images, tally.precision) == (count, how)
    assert certify.SAMPLE <= tally.in_full < count
    assert tally.bound > 0
    assert full.certified.images == 0
    first = torch.zeros(750, dtype=torch.int64, device=GPU)
    with torch.inference_mode():
        exact, rough, again = (lower.logits(images, prompts[:1], first, one) for one in ("fp32", how, "fp32"))
    assert 0 < off(rough, exact) < {"tf32": 1e-2, "bf16": 3e-2}[how]
    assert off(again, exact) < 1e-6, "fp32 is no longer fp32"
    if how == "bf16":
        assert rough.argmax(1).tolist() != expected[:750].tolist(), "there is nothing to certify"


def test_the_test_reads_a_file_as_it_reads_the_device(tiny, tmp_path):
    np.save(tmp_path / "images.npy", NOISE.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    prompted = prompted_on(GPU, tiny, chosen=Plan(0.75))
    prompted._sizes[False] = 7  # in chunks, the last of which is smaller
    prompt = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)).to(GPU)
    found, there = (prompted.test_logits(images, {"prompt": prompt}) for images in (mapped, NOISE.to(GPU)))
    assert found.device.type == "cuda"
    close(found, there, 1e-6, 1e-6)
    expected = prompted_on(CPU, tiny).test_logits(NOISE, {"prompt": prompt.cpu()})
    close(found, expected, 1e-4, 1e-4)


def test_features_are_those_of_the_cpu(tmp_path):
    network = random_network("resnet20_cifar")
    manifest = Manifest(checkpoint="net", architecture="resnet20_cifar", preprocessing=PREPROCESSING)
    backbones.save(tmp_path, network.state_dict(), {}, manifest)
    write_json(tmp_path / "verification.json", {"passed": True})
    report_prepared("abcd").write(tmp_path)
    for name in ARRAYS:
        np.save(tmp_path / name, (NOISE if "images" in name else LABELS).numpy())
    here, there = tmp_path / "cpu.safetensors", tmp_path / "cuda.safetensors"
    for device, output in ((CPU, here), (GPU, there)):
        extract_features(tmp_path, tmp_path / "verification.json", tmp_path, output, device)
    expected, found = load_file(here), load_file(there)
    for part in ("train", "test"):
        assert found[part].shape == expected[part].shape == (20, 64)
        assert off(found[part], expected[part]) < 1e-4


# ---- the plan


@precisions
def test_the_plan_is_measured_and_gives_what_whole_canvases_give(tiny, precision, tmp_path, monkeypatch):
    protocol = PROTOCOL.model_copy(update={"precision": precision})
    network = inference.for_inference(copy.deepcopy(tiny), GPU)
    frozen = FrozenNetwork(network, *backbones.normalisation(Preprocessing(**PREPROCESSING), GPU), protocol)
    planned = plan.fit_to_device(frozen, tmp_path, 2**30, 100)
    chosen = planned.plan
    (file,) = tmp_path.iterdir()
    found = read_json(file)
    assert list(found["measured"]) == ["10", "128"]
    for ways in found["measured"].values():
        assert ways[0]["cover"] is None
        assert any(way["cover"] is not None for way in ways)
        assert {way["fused"] for way in ways} == {False, True}
        assert all(way["graphs"] for way in ways)
        assert all(way[figure] > 0 for way in ways for figure in ("ms", "bytes", "GFLOP"))
    kinds = ["fp32", "tf32", *(["bf16"] if precision == "bf16" else [])]
    assert list(found["forward_ms"]) == list(chosen.forward_ms) == kinds
    assert found["rates"].keys() == {
        *("device", "kind", "canvas", "image_size", "precision", "gflop", "training_ms", "forward_ms")
    }
    assert (found["rates"]["device"], found["rates"]["kind"]) == (torch.cuda.get_device_name(), "cuda")
    assert all(found["rates"][figure] > 0 for figure in ("gflop", "training_ms", "forward_ms"))
    assert chosen.graphs
    assert 1 <= chosen.chunk <= plan.MOST_IMAGES["cuda"]
    monkeypatch.setattr(plan, "measure", None)
    assert plan.fit_to_device(frozen, tmp_path, 2**30, 100).plan.cover == chosen.cover
    plain = PromptedNetwork(*frozen, Plan())
    chunks = [chunk_of(shown) for shown in (NOISE[:12].to(GPU), 255 - NOISE[:12].to(GPU))]
    assert_replays_give(plain, planned, chunks, OTHER[precision])


# ---- CLIP, fine-tuning, the device


@precisions
@pytest.mark.parametrize("size", [tiny_clip.CANVAS, 32], ids=["as large", "enlarged"])
def test_a_step_of_clip_is_captured(tmp_path, size, precision):
    architecture = tiny_clip.configure(tmp_path / "clip")
    words = [f"a photo of a {word}" for word in ("cat", "dog", "cow", "hen")]
    made = texts.classifier_of_texts(tiny_clip.network(architecture), words, model.configuration_of(architecture))
    recipe = {"epochs": 1, "learning_rate": 40.0, "momentum": 0.9, "batch_size": 4, "shuffle": True}
    recipe |= {"test_batch_size": 8, "border": 7, "mapping_interval": 1, "precision": precision}
    protocol = RunClipProtocol(**recipe, canvas=tiny_clip.CANVAS, interpolation="bicubic")
    eager, graphs = (prompted_on(GPU, made, protocol, Plan(graphs=on)) for on in (False, True))
    images = torch.randint(0, 256, (12, 3, size, size), dtype=torch.uint8, generator=stream(0, "images"))
    chunks = [chunk_of(shown.to(GPU), canvas=tiny_clip.CANVAS) for shown in (images, 255 - images)]
    assert off(*(eager.gradients(chunk)[1] for chunk in chunks)) > 0.5
    assert_replays_give(eager, graphs, chunks, REPLAYED[precision])
    here = prompted_on(CPU, made, protocol)
    found, expected = (
        one.gradients(chunk) for one, chunk in ((eager, chunks[0]), (here, chunk_of(images, canvas=tiny_clip.CANVAS)))
    )
    # torchvision enlarges images in integers on a CPU alone
    assert off(found[0], expected[0]) < (1e-4 if (precision, size) == ("fp32", tiny_clip.CANVAS) else 2e-2)


@precisions
def test_a_step_of_fine_tuning_is_that_of_the_cpu(tiny, precision):
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # as for_inference and finetune_pack have it
    recipe = RunFineTuning(
        **{"epochs": 1, "learning_rate": 1e-3, "weight_decay": 5e-4, "batch_size": 12, "shuffle": True},
        **{"test_batch_size": 16, "precision": precision, "canvas": 64},
    )
    labels = np.arange(12) % 3
    images = np.random.default_rng(0).integers(0, 256, (12, 3, *2 * [finetuning_size(64)]), np.uint8)
    source = copy.deepcopy(tiny)
    mask = torch.rand(source.second.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    source.second.weight.detach().masked_fill_(~mask, 0)
    networks, losses, logits = [], [], []
    for device in (GPU, CPU):
        network = with_new_head(source, 3, 0).to(device, memory_format=torch.channels_last)
        constants = backbones.normalisation(Preprocessing(**PREPROCESSING), device)
        trained = fine_tune(network, {"second.weight": mask}, images, labels, range(12), 0, recipe, *constants)
        losses.append(trained.losses)
        logits.append(logits_of(network, images, 64, *constants))
        networks.append(network.cpu())
    assert losses[0] == pytest.approx(losses[1], rel={"fp32": 1e-4, "bf16": 1e-2}[precision])
    there, here = (torch.cat([one.flatten() for one in network.parameters()]) for network in networks)
    # Adam's first step is as long for each weight: only one whose gradient is nearly zero goes the other way
    assert ((there - here).abs() < 1e-5).float().mean() > {"fp32": 0.99, "bf16": 0.9}[precision]
    assert not networks[0].second.weight[~mask].any()
    assert off(*logits) < {"fp32": 1e-2, "bf16": 5e-2}[precision]


def test_this_gpu_is_accepted_and_shared_evenly():
    gpu = next(iter(machine.visible()), "0")  # there may be no nvidia-smi
    try:
        assert machine.compute_device(gpu, 4) == GPU
        share = torch.cuda.get_device_properties(GPU).total_memory // 4
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(share + 2**26, dtype=torch.uint8, device=GPU)
        assert machine.compute_device(gpu, 1) == GPU
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert machine.device_name(GPU) == torch.cuda.get_device_name()
