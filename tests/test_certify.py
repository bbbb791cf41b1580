"""First classes computed in a lower precision are those of the full one."""

from functools import partial

import certified
import numpy as np
import pytest
import tiny_clip
import torch
from conftest import ROOT
from torch import nn

from hiddencost import catalog
from hiddencost.compression.controls import random_network
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.readers.registry import READERS
from hiddencost.networks import backbones
from hiddencost.networks.clip import model
from hiddencost.networks.clip.texts import classifier_of_texts
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting import certify
from hiddencost.prompting.certify import Tally, first_classes
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.study.recipes import RunClipProtocol, RunProtocol

CPU = torch.device("cpu")
COUNT, CLASSES = 640, 50
EVERY = torch.arange(COUNT)
SAMPLED = EVERY % (COUNT // certify.SAMPLE) == 0
AUDITED = EVERY % certify.AUDIT == 1
CHEAP = {"fp32": 1.0, "bf16": 0.01}
RECIPE = {"epochs": 1, "learning_rate": 0.01, "batch_size": 10, "shuffle": True, "test_batch_size": 128}
RECIPE |= {"mapping_interval": 1, "precision": "bf16"}


class Stored:
    """A network whose logits are known, [N, classes] in each precision, read chunk by chunk as the engine does; it
    notes which images were computed in which."""

    def __init__(self, **logits):
        self.stored = logits
        self.computed = {precision: [] for precision in logits}

    def __call__(self, numbers, rows_of, columns=()):
        parts = zip(*(column.split(100) for column in (numbers, *columns)), strict=True)
        return torch.cat([rows_of(partial(self.logits, part), *further) for part, *further in parts])

    def logits(self, numbers, precision):
        self.computed[precision] += numbers.tolist()
        return self.stored[precision][numbers]


def noise(seed, *shape):
    """Uniform in -1..1: so rounding has a bound, which a sample of 64 images comes near to."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def certify_all(full, costs=CHEAP, **lower):
    """Return the classes, the tally, and the images computed in each precision; fp32's are not computed twice."""
    read, tally = Stored(fp32=full, **lower), Tally()
    classes = first_classes(read, len(full), costs, tally)
    assert classes.dtype == torch.int64
    assert tally.images == len(full)
    return classes, tally, read.computed


def with_leads(leads, seed=0):
    """Return logits [N, CLASSES] in which a random class leads the second, another random one, by `leads`, and these
    two the others by more than 3."""
    generator = torch.Generator().manual_seed(seed)
    logits = noise(seed, len(leads), CLASSES)
    order = torch.rand(len(leads), CLASSES, generator=generator).argsort(1)
    first, second = order[:, :1], order[:, 1:2]
    return logits.scatter(1, first, 5 + leads[:, None]).scatter(1, second, 5.0)


@pytest.mark.parametrize("amplitude", [1e-4, 0.01, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_every_first_class_is_that_of_full_precision(seed, amplitude):
    full = 2 * torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))
    rounded = full + amplitude * noise(seed + 100, *full.shape)
    classes, tally, computed = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert amplitude < 0.05 or not rounded.argmax(1).equal(full.argmax(1)), "no class was moved: it shows nothing"
    assert tally.violations == 0
    assert SAMPLED.sum() < tally.in_full < COUNT
    assert sorted(computed["fp32"]) == sorted(set(computed["fp32"]))
    assert len(computed["fp32"]) == tally.in_full


def test_the_sample_the_audited_and_those_of_a_small_lead_are_computed_in_full_and_no_others():
    close = EVERY % 7 == 3
    full = with_leads(torch.where(close, 0.01, 1.0))
    _, tally, computed = certify_all(full, bf16=full + 0.1 * noise(1, *full.shape))
    expected = SAMPLED | AUDITED | close
    assert 0.2 * COUNT < expected.sum() < 0.3 * COUNT
    assert set(computed["fp32"]) == set(EVERY[expected].tolist())
    assert tally.in_full == expected.sum()
    assert tally.precision == "bf16"
    assert 0.1 < tally.bound < 0.25 * certify.HEADROOM  # two logits moved by up to 0.1 each


def test_classes_that_tie_are_told_in_full():
    """Even where both precisions agree to the bit: which of two equal logits comes first is argmax's to say."""
    full = torch.randint(0, 4, (COUNT, CLASSES), generator=torch.Generator().manual_seed(0)).float()
    full[EVERY % 4 == 0, 0] = 9.0  # a few lead
    assert not full.topk(2).indices[:, 0].equal(full.argmax(1))
    classes, tally, _ = certify_all(full, bf16=full)
    assert classes.equal(full.argmax(1))
    assert (tally.bound, tally.violations) == (0, 0)
    assert tally.in_full < COUNT


def test_ties_that_rounding_makes_are_told_in_full():
    full = with_leads(0.01 + (EVERY % 11) / 11)
    rounded = (8 * full).round() / 8
    assert not rounded.argmax(1).equal(full.argmax(1))
    classes, tally, _ = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert tally.in_full < COUNT


NOT_NUMBERS = {
    "nan": {7: torch.nan},
    "nan and inf": {7: torch.inf, 9: torch.nan},
    "inf": {7: torch.inf},
    "two inf": {7: torch.inf, 3: torch.inf},
    "-inf": {7: -torch.inf},
}


@pytest.mark.parametrize("image", [5, 65, 10], ids=["unseen", "audited", "sampled"])
@pytest.mark.parametrize("values", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_logits_that_are_not_numbers_give_what_they_give_in_full(values, image):
    assert (bool(SAMPLED[image]), bool(AUDITED[image])) == (image == 10, image == 65)
    full = with_leads(1 + noise(3, COUNT))
    rounded = full + 0.05 * noise(4, *full.shape)
    for logits in (full, rounded):
        for where, value in values.items():
            logits[image, where] = value
    classes, _, _ = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))


def test_an_image_that_is_a_number_in_full_alone_is_computed_there():
    full = with_leads(torch.ones(COUNT))
    rounded = full + 0.05 * noise(4, *full.shape)
    rounded[5, (full[5].argmax() + 1) % CLASSES] = torch.nan
    classes, tally, computed = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert 5 in computed["fp32"]
    assert tally.violations > 0


@pytest.mark.parametrize(
    ("amplitude", "costs"),
    [(0.01, {"fp32": 1.0, "bf16": 1.2}), (0.1, {"fp32": 1.0, "bf16": 0.9}), (30.0, CHEAP), (torch.nan, CHEAP)],
    ids=["slower", "not faster with what it costs again", "of no use", "not a number"],
)
def test_a_precision_that_is_not_worth_it_is_left_after_the_sample(amplitude, costs):
    full = with_leads(1 + noise(0, COUNT))
    classes, tally, computed = certify_all(full, costs, bf16=full + amplitude * noise(1, *full.shape))
    assert classes.equal(full.argmax(1))
    assert computed["bf16"] == EVERY[SAMPLED].tolist()
    assert (tally.in_full, tally.violations, tally.precision) == (COUNT, 0, "fp32")


def test_full_precision_alone_is_full_precision():
    full = with_leads(torch.zeros(COUNT))
    classes, tally, _ = certify_all(full, {"fp32": 1.0})
    assert classes.equal(full.argmax(1))
    assert tally.in_full == COUNT


@pytest.mark.parametrize(
    ("amplitudes", "milliseconds", "taken"),
    [
        ((0.001, 0.1), (0.5, 0.2), "bf16"),  # few are in doubt in either
        ((0.001, 2.0), (0.5, 0.2), "tf32"),  # nearly all in bf16
        ((0.001, 0.1), (0.2, 0.5), "tf32"),
        ((2.0, 2.0), (0.5, 0.2), "fp32"),
        ((0.001, 0.1), (1.1, 1.2), "fp32"),
    ],
)
def test_the_precision_is_taken_that_is_cheapest_with_what_is_computed_again(amplitudes, milliseconds, taken):
    full = with_leads(1 + noise(0, COUNT))
    lower = {
        name: full + amplitude * noise(seed, *full.shape)
        for seed, (name, amplitude) in enumerate(zip(("tf32", "bf16"), amplitudes, strict=True), 1)
    }
    costs = {"fp32": 1.0} | dict(zip(lower, milliseconds, strict=True))
    classes, tally, computed = certify_all(full, costs, **lower)
    assert classes.equal(full.argmax(1))
    passed = {precision for precision, images in computed.items() if set(images) == set(EVERY.tolist())}
    assert passed == {taken}
    assert tally.precision == taken


def moved_further(full, rounded, image, rival, by, lead):
    """Let rounding put a class of an image, which is first in full by `lead`, behind its rival by `by`."""
    for logits, ahead in ((full, lead), (rounded, -by)):
        logits[image] = noise(image, CLASSES)
        logits[image, 0], logits[image, rival] = 5 + ahead, 5.0


@pytest.mark.parametrize(
    ("found", "rounded_lead", "true_lead"), [(65, 0.9, 0.2), (66, 0.05, 0.9)], ids=["audit", "doubt"]
)
def test_what_moved_an_image_further_than_the_bound_raises_it(found, rounded_lead, true_lead):
    """It is found by audit, as its lead is large, or by doubt, as it is small; then the bound is large enough for
    another image, which neither would have found."""
    unseen = 333
    assert AUDITED[found] == (found == 65)
    assert not (SAMPLED | AUDITED)[unseen]
    full = with_leads(torch.full((COUNT,), 3.0))
    rounded = full + 0.1 * noise(1, *full.shape)
    moved_further(full, rounded, found, 1, rounded_lead, true_lead)
    moved_further(full, rounded, unseen, 1, 0.8, 0.2)
    classes, tally, computed = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert set(computed["fp32"]) == {*EVERY[SAMPLED | AUDITED].tolist(), found, unseen}
    assert tally.violations == 1  # the other is within the new bound
    moved = rounded_lead + true_lead
    assert tally.bound == pytest.approx(certify.HEADROOM * moved, rel=0.1)


def test_a_bound_that_is_raised_is_held_against_what_it_makes_doubtful():
    """Each of a chain of images is moved further than those before it, and found by the bound that they raised."""
    chain = {65: 0.4, 333: 0.8, 334: 1.6, 335: 3.2}  # their leads, in full and in the lower precision
    full = with_leads(torch.full((COUNT,), 20.0))
    rounded = full + 0.1 * noise(1, *full.shape)
    for image, lead in chain.items():
        moved_further(full, rounded, image, 1, lead, lead)
    classes, tally, _ = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert tally.violations == len(chain)
    assert tally.in_full == (SAMPLED | AUDITED).sum() + len(chain) - 1


def test_a_third_class_may_be_the_first_in_full():
    """So the bound is of what happens to all rivals, not to the second alone."""
    full = with_leads(torch.ones(COUNT))
    rounded = full.clone()
    third = full.topk(3).indices[:, 2]
    full[SAMPLED, third[SAMPLED]], rounded[SAMPLED, third[SAMPLED]] = 5.3, 4.8  # where the second's is 5
    image = 333
    full[image, :3] = torch.tensor([5.0, 4.8, 5.1])
    rounded[image, :3] = torch.tensor([5.0, 4.8, 4.7])
    rounded[image, 3:] = full[image, 3:] = noise(image, CLASSES - 3)
    classes, _, computed = certify_all(full, bf16=rounded)
    assert classes.equal(full.argmax(1))
    assert classes[image] == 2
    assert image in computed["fp32"]


def test_a_network_of_two_classes_is_certified():
    full = 2 * noise(0, COUNT, 2)
    rounded = full + 0.05 * noise(1, COUNT, 2)
    classes, tally, _ = certify_all(full, bf16=rounded)
    assert not rounded.argmax(1).equal(full.argmax(1))
    assert classes.equal(full.argmax(1))
    assert tally.in_full < COUNT


def test_a_tally_goes_on_and_says_what_was_done():
    tally, full = Tally(), with_leads(torch.full((COUNT,), 3.0))
    assert str(tally) == "all in fp32"
    for amplitude in (0.01, 0.1):
        first_classes(
            Stored(fp32=full, tf32=full + amplitude * noise(1, *full.shape)), COUNT, {"fp32": 1, "tf32": 0.1}, tally
        )
    assert tally.images == 2 * COUNT
    second = SAMPLED.roll(1) | AUDITED.roll(1)  # other images than in the first pass
    assert (tally.passes, tally.in_full) == (2, (SAMPLED | AUDITED).sum() + second.sum())
    assert 0.1 < tally.bound < 0.25 * certify.HEADROOM  # of the last
    assert str(Tally(4, 2000, 500, 3, 0.125, "tf32")) == (
        "25% of 2,000 in fp32, the others certified in lower precision, last tf32: the ten highest logits moved by "
        "less than 0.12 against the first; the bound was exceeded by 3 images, and raised"
    )


@pytest.fixture(scope="module")
def images():
    """Real CIFAR-10, by size: uint8 [N, 3, size, size]."""
    entry, parts = catalog.datasets()["cifar10-part"], ("train", "test")
    files = {part: ROOT / entry.files[part].sources[0].path for part in parts}
    source = READERS["cifar_binary"]("cifar10-part", {}, files, ROOT)
    pictures = [*source.test.images, *source.train.images][: certify.FROM // 2]
    return lambda size: torch.from_numpy(np.stack([pixels(image, size) for image, _ in pictures]))


CASES = {"mobilenetv2": (64, 48), "resnet18": (48, 32), "clip": (tiny_clip.CANVAS, 32)}


SLOW_BUT_CLIP = [pytest.param(name, marks=[] if name == "clip" else pytest.mark.slow) for name in CASES]


@pytest.fixture
def case(request, mobilenetv2, tmp_path):
    """A network of the tests, as the engine uses it, mean and standard deviation, protocol, and size of images."""
    canvas, size = CASES[request.param]
    manifest = Manifest(checkpoint="net", architecture="net", preprocessing=tiny_clip.PREPROCESSING)
    protocol = RunProtocol(**RECIPE, canvas=canvas, image_size=size, milestones=[], gamma=0.1)
    if request.param == "clip":
        architecture = tiny_clip.configure(tmp_path / "clip")
        texts = [f"a photo of number {number}" for number in range(30)]
        name = model.configuration_of(architecture)
        network = classifier_of_texts(tiny_clip.network(architecture), texts, name).requires_grad_(False)
        protocol = RunClipProtocol(**RECIPE, border=8, canvas=canvas, interpolation="bicubic", momentum=0.9)
    elif request.param == "resnet18":
        network = random_network("resnet18")
    else:
        network, _, manifest = backbones.load(mobilenetv2)
    family = FAMILIES["clip" if request.param == "clip" else "convolutional"]
    return family.for_inference(network, CPU), *backbones.normalisation(manifest.preprocessing, CPU), protocol, size


@pytest.mark.parametrize("case", SLOW_BUT_CLIP, indirect=True)
def test_a_network_predicts_by_bf16_what_it_predicts_by_fp32_alone(case, images, threads):
    """Two runs, as the bound is of all images of a pass. Convolutions compute in float32 and round to bf16 between
    them, as a plan may have it: a CPU without bf16 arithmetic takes ten times as long for bf16's own."""
    network, mean, std, protocol, size = case
    pictures = images(size)
    chosen = [torch.arange(len(pictures)), torch.arange(len(pictures)).flip(0)]
    assert sum(len(some) for some in chosen) >= certify.FROM
    prompts = torch.stack(
        [torch.zeros(3, protocol.canvas, protocol.canvas), noise(0, 3, protocol.canvas, protocol.canvas)]
    )
    convolutions = tuple(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    quick, exact = (
        PromptedNetwork(network, mean, std, protocol, Plan(in_float32=convolutions, forward_ms=told))
        for told in (CHEAP, {})
    )
    classes, expected = (one.predict(pictures, chosen, {"prompt": prompts}) for one in (quick, exact))
    assert classes.equal(expected)
    assert (quick.certified.images, exact.certified.images) == (len(expected), 0)
    assert quick.certified.in_full < len(expected)
    assert quick.certified.precision == "bf16"
    if isinstance(protocol, RunProtocol):  # the tiny CLIP tells two classes apart, far apart
        alone = certified.source_logits(quick, "bf16", pictures, prompts[0]).argmax(1)
        assert not alone.equal(expected[: len(alone)]), "bf16 changes no class: it shows nothing"


def test_the_benchmark_rounds_as_tf32_and_bf16_do(mobilenetv2, images, threads, monkeypatch):
    """TF32's numbers are float32's with 10 bits of mantissa. Bf16 is emulated by float32's products of rounded
    operands, as far from bf16's own products as the order of sums goes, which is nearer than either is to fp32."""
    step = 2.0**-10
    numbers = torch.tensor([1 + 0.49 * step, 1 + 0.51 * step, -1 - 0.51 * step, 3.0, 0.0, torch.inf])
    assert certified.to_tf32(numbers).tolist() == [1, 1 + step, -1 - step, 3, 0, torch.inf]
    strided = noise(0, 2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert certified.to_tf32(strided).equal(certified.to_tf32(strided.contiguous()))
    assert (certified.to_tf32(strided) / strided - 1).abs().max() <= step / 2

    monkeypatch.setattr(certified, "BACKBONE", mobilenetv2)
    monkeypatch.setattr(certified, "CANVAS", 64)
    of, prompted = certified.ways(48)
    pictures, prompt = images(48)[:8], noise(1, 3, 64, 64)
    full, tf32, bf16 = (of[precision](pictures, prompt) for precision in ("fp32", "tf32", "bf16"))
    real = certified.source_logits(prompted(Plan()), "bf16", pictures, prompt)
    errors = [(some - full).square().mean().sqrt().item() for some in (tf32, bf16, real)]
    assert 0 < 3 * errors[0] < errors[1]
    assert errors[1] == pytest.approx(errors[2], rel=0.2)
    assert (bf16 - real).square().mean().sqrt() < 0.5 * errors[2]


def test_the_benchmark_counts_what_rounding_changes():
    full = with_leads(torch.where(EVERY % 8 == 3, 0.01, 3.0))
    rounded = full + 0.1 * noise(1, *full.shape)
    record = certified.compare(full, rounded, EVERY % 10, "bf16")
    assert record["changed"] == (rounded.argmax(1) != full.argmax(1)).sum() > 0
    assert (record["wrong"], record["violations"], record["images"]) == (0, 0, COUNT)
    assert record["in_full"] == (SAMPLED | AUDITED | (EVERY % 8 == 3)).sum()
    assert max(abs(value) for value in record["moved"].values()) > 0
    assert set(certified.compare(full, full, EVERY % 10, "bf16")["moved"].values()) == {0.0}
