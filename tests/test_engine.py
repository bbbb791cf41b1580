import copy
import math
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from conftest import ROOT
from torch import nn

from hiddencost import catalog
from hiddencost.catalog.entries import Preprocessing
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.readers.registry import READERS
from hiddencost.networks import backbones, inference
from hiddencost.prompting.border import BorderPrompt
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.precision import resolve_precision
from hiddencost.prompting.train import TrainedPrompt, train_prompts
from hiddencost.runs import interrupted
from hiddencost.study.recipes import RunProtocol

CPU = torch.device("cpu")
PROTOCOL = RunProtocol(
    canvas=64,
    image_size=48,
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
STEPS_OF_TWO = PROTOCOL.model_copy(update={"batch_size": 2, "learning_rate": 0.1})
BORDER = BorderPrompt(canvas=64, image_size=48).mask()[0]


def train_prompt(prompted, images, labels, classes, method, seed, protocol) -> TrainedPrompt:
    """One run alone, on all images."""
    ((_, run),) = train_prompts(prompted, images, labels, classes, [(method, range(len(labels)))], seed, protocol)
    return run


@pytest.fixture(scope="module")
def images():
    """Real CIFAR-10: two images of each class, at 48 pixels."""
    entry, parts = catalog.datasets()["cifar10-part"], ("train", "test")
    files = {part: ROOT / entry.files[part].sources[0].path for part in parts}
    images = list(READERS["cifar_binary"]("cifar10-part", {}, files, ROOT).train.images)
    chosen = [one for label in range(10) for one in [image for image in images if image[1] == label][:2]]
    pictures = np.stack([pixels(image, 48) for image, _ in chosen])
    return torch.from_numpy(pictures), torch.tensor([label for _, label in chosen])


def as_used(plain, preprocessing):
    """A network as the engine uses it, untouched, and its preprocessing."""
    mean, std = backbones.normalisation(preprocessing, CPU)
    prompted = PromptedNetwork(inference.for_inference(plain, CPU), mean, std, PROTOCOL, Plan())
    return prompted, plain, preprocessing.model_dump()


@pytest.fixture(scope="module")
def real(mobilenetv2):
    """The real MobileNetV2, see `as_used`."""
    plain, _, manifest = backbones.load(mobilenetv2)
    return as_used(plain, manifest.preprocessing)


@pytest.fixture(scope="module")
def networks(images):
    """A few layers of the kinds that MobileNetV2 has, see `as_used`; maps are a quarter of the canvas."""

    def layers(*numbers, **options):
        return nn.Conv2d(*numbers, bias=False, **options), nn.BatchNorm2d(numbers[1])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = *layers(3, 8, 3, 2, 1), nn.ReLU6(), *layers(8, 24, 1), nn.ReLU6()
        depthwise = (
            *layers(24, 24, 3, 2, 1, groups=24),
            nn.ReLU6(),
            *layers(24, 16, 1),
            *layers(16, 64, 1),
            nn.ReLU6(),
        )
        plain = nn.Sequential(*stem, *depthwise, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1000))
        with torch.no_grad():
            plain[-1].weight *= 20  # sure, as trained networks are
            plain((images[0] / 255 - 0.45) / 0.23)  # statistics of its maps
    preprocessing = Preprocessing(mean=[0.48, 0.46, 0.41], std=[0.23, 0.22, 0.23], interpolation="bilinear")
    return as_used(plain.requires_grad_(False).eval(), preprocessing)


@pytest.fixture(scope="module")
def few(images):
    """One image of each of five classes: depthwise layers take long in float64."""
    pictures, labels = images
    return pictures[::4], labels[::4]


@pytest.fixture(scope="module")
def published(few, request):
    """What the plain reimplementation makes of a network in float64, by fixture and method: computed once each."""

    @cache
    def train(name, method):
        _, plain, preprocessing = request.getfixturevalue(name)
        plain, mean, std = copy.deepcopy(plain).double(), preprocessing["mean"], preprocessing["std"]
        return reference.train(plain, *few, 10, method, 3, STEPS_OF_TWO, mean, std, torch.float64)

    return train


@pytest.mark.parametrize(
    ("method", "cover"),
    [
        pytest.param("rlm", 0.75, id="rlm-border once"),
        pytest.param("flm", None, id="flm-whole canvases"),
        pytest.param("ilm", None, id="ilm-whole canvases"),
        pytest.param("ilm", 0.75, id="ilm-border once"),
    ],
)
@pytest.mark.parametrize("name", ["networks", pytest.param("real", marks=pytest.mark.slow)])
def test_training_follows_the_published_algorithm_step_by_step(name, few, published, method, cover, threads, request):
    """In float64, where a step's rounding is too small to grow: mappings, losses and prompt are those of the plain
    reimplementation over four epochs."""
    _, plain, preprocessing = request.getfixturevalue(name)
    values = (preprocessing[key] for key in ("mean", "std"))
    constants = (torch.tensor(value, dtype=torch.float64).reshape(3, 1, 1) for value in values)
    double = inference.for_inference(copy.deepcopy(plain).double(), CPU)
    exact = PromptedNetwork(double, *constants, STEPS_OF_TWO, Plan(cover, chunk=2))
    run = train_prompt(exact, *few, 10, method, seed=3, protocol=STEPS_OF_TWO)
    prompt, mappings, losses = published(name, method)
    assert run.mappings == mappings
    assert run.mapping.tolist() == mappings[-1]
    assert len(losses) == 4 * 3
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.prompt, prompt, rtol=0, atol=1e-6)
    if method == "ilm":
        assert len({tuple(mapping) for mapping in mappings}) > 1, "the mapping never moved: the test shows nothing"


BY_STEPS = PROTOCOL.model_copy(
    update={
        "epochs": None,
        "steps": 8,
        "milestones": [0.5, 0.9],
        "learning_rate": 1.0,
        "canvas": 64,
        "image_size": 32,
    }
)
OF_STEPS = [("rlm", 4), ("flm", 4), ("ilm", 4), ("ilm", 8), ("ilm", 1), ("flm", 1)]  # methods, batch sizes


def test_a_fixed_number_of_steps_and_batch_sizes_by_run_follow_the_plain_algorithm(threads):
    """8 steps on 12 images: in batches of 4 two passes and two steps, of 8 four passes, of 1 less than one. The rate
    falls after the steps 4 and 7, within passes; a pass begins with a mapping of ilm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # no maximum of a map: under a grey border it is of ties, which rounding decides
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        oracle = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 1000)).double().eval()
        pictures, labels = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8), torch.arange(12) % 4
    constants = [0.48, 0.46, 0.4], [0.23, 0.22, 0.22]
    exact = [torch.tensor(one, dtype=torch.float64).reshape(3, 1, 1) for one in constants]
    prompted = PromptedNetwork(inference.for_inference(copy.deepcopy(oracle), CPU), *exact, BY_STEPS, Plan(chunk=9))
    runs, sizes = [(method, range(12)) for method, _ in OF_STEPS], [size for _, size in OF_STEPS]
    data = pictures, labels, 4, runs, 3, BY_STEPS
    trained_on, kept = [], []

    def keep(states):
        kept.append(copy.deepcopy(states()))

    whole = dict(train_prompts(prompted, *data, trained_on.append, keep=keep, batch_sizes=sizes))
    for number, (method, size) in enumerate(OF_STEPS):
        protocol = BY_STEPS.model_copy(update={"batch_size": size})
        expected = reference.train(oracle, pictures, labels, 4, method, 3, protocol, *constants, torch.float64)
        prompt, mappings, losses = expected
        assert whole[number].mappings == mappings
        assert len(losses) == 8
        assert len(mappings) == protocol.passes_on(12) == {4: 3, 8: 4, 1: 1}[size]
        assert whole[number].losses == pytest.approx(losses, rel=1e-6)
        torch.testing.assert_close(whole[number].prompt, prompt, rtol=0, atol=1e-6)
        assert whole[number].images == protocol.images_on(12)
    assert whole[2].mappings[0] != whole[2].mappings[-1], "the mapping never moved: the test shows little"
    assert torch.equal(whole[4].prompt, whole[5].prompt)
    assert sum(trained_on) == sum(run.images for run in whole.values())
    resumed = dict(train_prompts(prompted, *data, states=kept[4], batch_sizes=sizes))
    assert all(torch.equal(resumed[number].prompt, run.prompt) for number, run in whole.items())


@pytest.mark.parametrize(
    ("name", "method"), [("networks", "rlm"), ("networks", "flm"), ("networks", "ilm"), ("real", "ilm")]
)
def test_fp32_follows_it_to_rounding(name, images, method, threads, request):
    """Here the oracle computes with the engine's folded network: folding rounds, which float64 above shows to
    be all that it does, and rounding grows from step to step, as Adam divides by a gradient's own size."""
    prompted, _, preprocessing = request.getfixturevalue(name)

    def folded(canvas):
        return prompted.network(canvas.contiguous(memory_format=torch.channels_last))

    run = train_prompt(prompted, *images, 10, method, seed=3, protocol=PROTOCOL)
    mean, std = preprocessing["mean"], preprocessing["std"]
    prompt, mappings, losses = reference.train(folded, *images, 10, method, 3, PROTOCOL, mean, std, torch.float32)
    assert run.mappings == mappings
    assert run.losses == pytest.approx(losses, rel=2e-3)
    assert (run.prompt - prompt).abs().max() < 0.01  # less than one step of one pixel
    assert (run.prompt - prompt)[:, BORDER].abs().median() < 5e-4  # a twentieth of a step


def test_a_batch_of_all_images_is_trained_in_float64(networks, few, threads):
    """The mapping pass, without gradients, and the step then speak of the same images."""
    prompted, plain, _ = networks
    constants = prompted.mean.double(), prompted.std.double()
    protocol = PROTOCOL.model_copy(update={"batch_size": 5, "epochs": 1})
    exact = PromptedNetwork(inference.for_inference(copy.deepcopy(plain).double(), CPU), *constants, protocol, Plan())
    assert len(train_prompt(exact, *few, 10, "ilm", 3, protocol).losses) == 1


def test_the_prompt_is_learned_on_the_border_alone(networks, images, threads):
    run = train_prompt(networks[0], *images, 10, "flm", seed=0, protocol=PROTOCOL.model_copy(update={"epochs": 1}))
    inside = run.prompt[:, 8:56, 8:56]
    assert inside.abs().max() == 0
    assert (run.prompt != 0).sum() > 0.9 * 3 * (64**2 - 48**2)


class Spy(PromptedNetwork):
    """Tells which images each chunk holds, by their sums, and of which of the present runs."""

    seen: list[tuple[list[int], list[int]]]

    def _gradients(self, chunk):
        self.seen.append((chunk.images.sum((1, 2, 3)).tolist(), chunk.runs.tolist()))
        return super()._gradients(chunk)


def spy(prompted, **plan):
    one = Spy(prompted.network, prompted.mean, prompted.std, PROTOCOL, Plan(**plan))
    one.seen = []
    return one


def test_runs_of_one_seed_see_the_same_batches_whatever_the_method(networks, images, threads):
    seen = {}
    for method in ("rlm", "flm", "ilm"):
        prompted = spy(networks[0])
        train_prompt(prompted, *images, 10, method, seed=5, protocol=PROTOCOL.model_copy(update={"epochs": 2}))
        seen[method] = prompted.seen
    assert len(seen["rlm"]) == 6
    assert seen["rlm"] == seen["flm"] == seen["ilm"]


RUNS = [("rlm", range(0, 20, 2)), ("flm", range(20)), ("ilm", range(20)), ("ilm", [3, 1, 0])]


@pytest.mark.parametrize("cover", [None, 0.75], ids=["whole canvases", "border once"])
def test_runs_in_a_pack_are_those_alone(networks, images, cover, threads):
    """Batches are the same, results equal to rounding, in chunks that mix runs and cut their batches."""
    protocol = PROTOCOL.model_copy(update={"epochs": 3})
    together, alone = spy(networks[0], cover=cover, chunk=6), spy(networks[0], cover=cover)
    pack = dict(train_prompts(together, *images, 10, RUNS, 3, protocol))
    steps = [[] for _ in RUNS]
    for number, run in enumerate(RUNS):
        alone.seen = []
        ((_, expected),) = train_prompts(alone, *images, 10, [run], 3, protocol)
        steps[number] = [batch for batch, _ in alone.seen]
        assert pack[number].mappings == expected.mappings
        assert pack[number].losses == pytest.approx(expected.losses, rel=1e-3)
        assert (pack[number].prompt - expected.prompt)[:, BORDER].abs().median() < 5e-4
        assert pack[number].images == len(run[1]) * 3
    # as long as ilm's mapping is flm's, on the same images, it is flm
    twins = next(epoch for epoch, mapping in enumerate(pack[2].mappings) if mapping != pack[1].mapping.tolist())
    assert 1 <= twins < protocol.epochs
    assert pack[2].losses[: 3 * twins] == pack[1].losses[: 3 * twins]
    assert pack[2].losses[3 * twins] != pack[1].losses[3 * twins]
    steps[2][: 3 * twins] = [[]] * (3 * twins)
    in_pack = [image for batch, _ in together.seen for image in batch]
    in_turn = []
    for step in range(max(map(len, steps))):
        in_turn += [image for batches in steps for image in (batches[step] if step < len(batches) else [])]
    assert in_pack == in_turn
    assert max(len(batch) for batch, _ in together.seen) == 6
    assert any(len(set(runs)) > 1 for _, runs in together.seen)


def test_a_run_is_told_as_soon_as_it_has_finished(networks, images, threads):
    trained_on = []
    steps = train_prompts(networks[0], *images, 10, RUNS, 3, PROTOCOL, trained_on.append)
    told = [(number, sum(trained_on)) for number, _ in steps]
    epochs = PROTOCOL.epochs
    assert [number for number, _ in told] == [3, 0, 1, 2]
    # 1, 2 and 3 batches an epoch: when the shortest run has taken its steps, the others have taken as many
    assert told[0][1] < told[1][1] < told[2][1] == told[3][1] == epochs * (10 + 20 + 20 + 3)


def test_a_chunk_that_does_not_fit_into_memory_is_halved(networks, images, threads, caplog):
    class Small(Spy):
        def _gradients(self, chunk):
            if len(chunk.images) > 3:
                raise torch.OutOfMemoryError
            return super()._gradients(chunk)

    protocol = PROTOCOL.model_copy(update={"epochs": 1})
    base = networks[0]
    small = Small(base.network, base.mean, base.std, PROTOCOL, Plan(chunk=7))
    small.seen = []
    run, expected = (train_prompt(one, *images, 10, "flm", 3, protocol) for one in (small, base))
    assert run.losses == pytest.approx(expected.losses, rel=1e-3)
    assert [len(batch) for batch, _ in small.seen] == [3, 3, 1, 3, 3, 1, 3, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "7 images at a time do not fit into memory: going on with 3"
    ]


def test_one_image_that_does_not_fit_is_an_error(networks, images, threads):
    class None_(PromptedNetwork):
        def _gradients(self, chunk):
            raise torch.OutOfMemoryError("out of memory")

    base = networks[0]
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        train_prompt(None_(base.network, base.mean, base.std, PROTOCOL, Plan()), *images, 10, "rlm", 3, PROTOCOL)


def test_the_mapping_interval_is_kept(networks, images, threads):
    protocol = PROTOCOL.model_copy(update={"mapping_interval": 2, "learning_rate": 0.3})
    mappings = train_prompt(networks[0], *images, 10, "ilm", seed=0, protocol=protocol).mappings
    assert mappings[0] == mappings[1]
    assert mappings[2] == mappings[3]
    assert mappings[1] != mappings[2]


def test_a_run_that_diverges_says_where_and_leaves_the_others_alone(networks, images, threads):
    class Diverging(Spy):
        def _gradients(self, chunk):
            losses, gradients = super()._gradients(chunk)
            if len(self.seen) == 2:
                losses[0], gradients["prompt"][0] = math.nan, math.nan
            return losses, gradients

    base = networks[0]
    one = Diverging(base.network, base.mean, base.std, PROTOCOL, Plan(chunk=64))
    one.seen = []
    trained_on, protocol = [], PROTOCOL.model_copy(update={"epochs": 2})
    pack = dict(train_prompts(one, *images, 10, RUNS, 3, protocol, trained_on.append))
    expected = dict(train_prompts(base, *images, 10, RUNS, 3, protocol))
    assert pack[0].diverged == "the loss is nan at step 2, epoch 1"
    assert [run.images for _, run in sorted(pack.items())] == [10, 40, 40, 6]
    assert sum(trained_on) == 96
    for number in (1, 2, 3):
        assert pack[number].diverged is None
        assert pack[number].mappings == expected[number].mappings
        assert pack[number].losses == pytest.approx(expected[number].losses, rel=2e-3)


def test_the_time_of_a_pack_is_shared_among_its_runs(networks, images, threads):
    start = time.perf_counter()
    pack = dict(train_prompts(networks[0], *images, 10, RUNS, 3, PROTOCOL))
    total = time.perf_counter() - start
    assert 0.9 * total < sum(run.seconds for run in pack.values()) < total
    assert pack[3].seconds < pack[0].seconds < pack[1].seconds


def test_bf16_is_for_training_and_mapping_and_test_are_exact(networks, images, threads):
    prompted, _, _ = networks
    protocol = PROTOCOL.model_copy(update={"precision": "bf16"})
    half = PromptedNetwork(prompted.network, prompted.mean, prompted.std, protocol, Plan())
    prompt = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = prompted.test_logits(images[0], {"prompt": prompt})
    assert torch.equal(half.test_logits(images[0], {"prompt": prompt}), logits)
    runs = torch.zeros(20, dtype=torch.int64)
    exact, rough = (one.logits(images[0], {"prompt": prompt[None]}, runs, one.precision) for one in (prompted, half))
    assert 0 < (exact - rough).norm() / exact.norm() < 0.05
    # the classifier is in float32: logits rounded to bf16 would tie
    assert rough.dtype == torch.float32
    assert (rough != rough.bfloat16()).float().mean() > 0.99
    half._bf16 = None
    assert torch.equal(half.predict(images[0], [torch.arange(20)], {"prompt": prompt[None]}), logits.argmax(1))


@pytest.mark.parametrize("cover", [None, 0.75], ids=["whole canvases", "border once"])
def test_layers_in_float32_round_less(networks, images, cover, threads):
    prompted, _, _ = networks
    base = prompted.network, prompted.mean, prompted.std, PROTOCOL.model_copy(update={"precision": "bf16"})
    grouped = tuple(name for name, module in base[0].named_modules() if getattr(module, "groups", 1) > 1)
    runs, prompt = torch.zeros(20, dtype=torch.int64), {"prompt": torch.zeros(1, 3, 64, 64)}
    expected = prompted.test_logits(images[0], {"prompt": prompt["prompt"][0]})
    errors = []
    for in_float32 in ((), grouped):
        half = PromptedNetwork(*base, Plan(cover, in_float32=in_float32))
        with torch.inference_mode():
            errors.append((half.logits(images[0], prompt, runs, "bf16") - expected).norm())
        assert half.network is base[0]
        assert all(module.weight.dtype == torch.float32 for module in base[0].modules() if hasattr(module, "weight"))
    assert 0 < errors[1] < 0.9 * errors[0]


def test_images_on_the_host_and_in_a_file_are_read_like_those_on_the_device(networks, images, tmp_path, threads):
    np.save(tmp_path / "images.npy", images[0].numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    prompt = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(networks[0].test_logits(shown, {"prompt": prompt}) for shown in (mapped, images[0])))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_precision_is_what_was_asked_for_or_fits_the_device():
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    flags = Path("/proc/cpuinfo").read_text()
    assert resolve_precision("auto", CPU) == ("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_what_was_interrupted_goes_on_to_the_bit(networks, images, tmp_path, threads, steps):
    """Within an epoch, and when the shortest run has ended; through the file that a killed job leaves."""
    base = networks[0]
    protocol = PROTOCOL.model_copy(update={"epochs": 3, "mapping_interval": 2})
    prompted = PromptedNetwork(base.network, base.mean, base.std, protocol, Plan(0.75, chunk=6))
    kept = []

    def keep(states):
        kept.append(None)
        if len(kept) == steps:
            interrupted.keep_states(
                tmp_path / "a.unfinished", {str(number): state for number, state in states().items()}
            )

    whole = dict(train_prompts(prompted, *images, 10, RUNS, 3, protocol, keep=keep))
    stored = interrupted.states(tmp_path / "a.unfinished", CPU)
    assert list(stored) == (["0", "1", "2", "3"] if steps < 3 else ["1", "2"])
    # what has finished is no longer asked for, and numbers change
    left = [RUNS[int(name)] for name in stored]
    trained_on = []
    more = trained_on.append, dict(enumerate(stored.values()))
    for number, run in train_prompts(prompted, *images, 10, left, 3, protocol, *more):
        expected = whole[int(list(stored)[number])]
        assert torch.equal(run.prompt, expected.prompt)
        assert torch.equal(run.mapping, expected.mapping)
        assert (run.losses, run.mappings, run.images) == (expected.losses, expected.mappings, expected.images)
    assert sum(trained_on) == 3 * sum(len(chosen) for _, chosen in left)


def test_a_run_goes_on_among_fewer_images(networks, images, threads):
    """The runs beside it have finished, and their images are no longer there: indices are others."""
    protocol, kept = PROTOCOL.model_copy(update={"epochs": 3, "batch_size": 2}), []

    def keep(states):
        kept.append(copy.deepcopy(states()))

    ((_, whole),) = train_prompts(networks[0], *images, 10, [("ilm", [9, 5, 2, 7])], 3, protocol, keep=keep)
    assert len(kept[2][0]["batches"]) == 1
    some = [part[[2, 5, 7, 9]] for part in images]
    ((_, run),) = train_prompts(networks[0], *some, 10, [("ilm", [3, 1, 0, 2])], 3, protocol, states=kept[2])
    assert torch.equal(run.prompt, whole.prompt)
    assert (run.losses, run.mappings) == (whole.losses, whole.mappings)


def test_a_damaged_file_of_states_is_none(tmp_path, caplog):
    path = tmp_path / "a.unfinished"
    assert interrupted.states(path, CPU) == {}
    interrupted.keep_states(path, {"run": {"prompt": torch.ones(1000)}})
    assert interrupted.states(path, CPU)["run"]["prompt"].sum() == 1000
    whole = path.read_bytes()
    cut = [whole[:length] for length in (0, 10, len(whole) // 2, len(whole) - 10)]
    flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (0, 100, len(whole) // 2)]
    for content in (*cut, *flipped):
        path.write_bytes(content)
        assert interrupted.states(path, CPU) == {}
    assert caplog.text.count("a.unfinished is damaged") == 7


def test_runs_that_were_interrupted_apart_go_on_apart(networks, images, tmp_path, threads):
    """An flm run that was alone for two steps, and an ilm run for one: of the same epoch, yet no twins."""
    protocol = PROTOCOL.model_copy(update={"epochs": 2})
    stored = {}
    for place, (method, steps) in enumerate((("flm", 2), ("ilm", 1))):
        kept = []

        def keep(states, kept=kept, steps=steps, place=place):
            kept.append(None)
            if len(kept) == steps:
                stored[place] = copy.deepcopy(states()[0])

        list(train_prompts(networks[0], *images, 10, [(method, range(20))], 3, protocol, keep=keep))
    runs = [("flm", range(20)), ("ilm", range(20))]
    together = dict(train_prompts(networks[0], *images, 10, runs, 3, protocol, states=stored))
    for number, run in enumerate(runs):
        ((_, alone),) = train_prompts(networks[0], *images, 10, [run], 3, protocol)
        assert together[number].mappings == alone.mappings
        assert together[number].losses == pytest.approx(alone.losses, rel=1e-3)
