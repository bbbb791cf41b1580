import inspect
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.digest import PACKAGE, modules
from hiddencost.networks import build
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.layers import erk_densities
from hiddencost.study.sparsifiers import SPARSIFIERS, folder_name, lottery_levels, sparse_phases, with_defaults
from hiddencost.upstream import registry, sparsifiers

STEPS = 40


def network(seed=0):
    """No unit of it dies, so that every weight has a gradient of its own and ties are none."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(12, 6, 1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


class Run:
    """A network that is trained on noise, step by step, and its sparsifier."""

    def __init__(self, masks=None, steps=STEPS, optimizer=None, **settings):
        self.network = network()
        make = optimizer or (lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01))
        self.optimizer = make(self.network.parameters())
        self.settings = with_defaults(settings) if settings else None
        generator = torch.Generator().manual_seed(1)
        arguments = self.settings, self.network, self.optimizer, steps, generator, masks
        self.sparsifier = registry.sparsifier_of(*arguments)
        self.noise, self.number = torch.Generator().manual_seed(2), 0

    def backward(self):
        self.number += 1
        images = torch.randn(8, 3, 6, 6, generator=self.noise)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.network(images), torch.arange(8) % 5).backward()

    def step(self):
        self.backward()
        if self.sparsifier.before(self.number):
            self.optimizer.step()
        self.sparsifier.after(self.number)

    def zeros(self):
        return {key: weight == 0 for key, weight in self.sparsifier.weights.items()}

    def sparsity(self):
        return measure_sparsity(self.network, FAMILIES["convolutional"], "0")


ALL = {
    "gmp": {"algorithm": "gmp", "sparsity": 0.8, "interval": 3},
    "acdc": {"algorithm": "acdc", "sparsity": 0.8},
    "rigl": {"algorithm": "rigl", "sparsity": 0.8, "interval": 3},
    "rigl, uniform": {"algorithm": "rigl", "sparsity": 0.8, "interval": 3, "distribution": "uniform"},
}
OPTIMISERS = {
    "sgd": None,
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
}


def a_ticket(sparsity=0.8):
    return sparsifiers.next_ticket(network(seed=5), {}, {"algorithm": "lth", "sparsity": sparsity})


# ------------------------------------------------------------------------------------------------- the invariant


@pytest.mark.parametrize("optimizer", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("settings", [*ALL.values(), {"algorithm": "lth", "sparsity": 0.8}], ids=[*ALL, "lth"])
def test_what_the_masks_leave_out_is_zero_after_every_step_and_the_declared_sparsity_is_met(settings, optimizer):
    run = Run(a_ticket(), optimizer=optimizer, **settings)
    for _ in range(STEPS):
        run.step()
        for key, zero in run.zeros().items():
            assert not (~run.sparsifier.masks[key] & ~zero).any(), (key, run.number)
    masked = measure_sparsity(run.network, FAMILIES["convolutional"], "0", run.sparsifier.masks)
    over = SPARSIFIERS[run.settings["algorithm"]].sparsity_over(run.settings)
    tensors = sum(weight.numel() for weight in run.sparsifier.weights.values())
    assert masked[over] == pytest.approx(0.8, abs=len(run.sparsifier.weights) / tensors)
    assert run.sparsity()[over] == pytest.approx(masked[over], abs=1e-9)  # every weight that is kept is learned


@pytest.mark.parametrize("settings", ALL.values(), ids=ALL)
def test_the_mean_of_weights_is_as_sparse(settings):
    run, mean = Run(**settings), network(seed=9)
    for _ in range(STEPS):
        run.step()
    run.sparsifier.apply(mean)
    for key, mask in run.sparsifier.masks.items():
        weight = dict(mean.named_parameters())[key]
        assert torch.equal(weight != 0, mask)


def test_nothing_is_pruned_of_a_dense_network():
    run, plain = Run(), Run()
    for _ in range(5):
        run.step()
        plain.backward()
        plain.optimizer.step()
    assert run.sparsifier.masks == {}
    for mine, theirs in zip(run.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_gradient_that_is_not_a_number_does_not_reach_what_is_pruned():
    run = Run(a_ticket(), algorithm="lth", sparsity=0.8)
    run.backward()
    for weight in run.sparsifier.weights.values():
        weight.grad.fill_(math.nan)
    run.sparsifier.before(1)
    for key, weight in run.sparsifier.weights.items():
        assert torch.equal(weight.grad.isnan(), run.sparsifier.masks[key])


# ------------------------------------------------------------------------------------------------- which layers

STEM, HIDDEN, HEAD = "0.weight", ["2.weight", "4.weight"], "8.weight"
REACHED = {
    "gmp": ({"algorithm": "gmp"}, HIDDEN, "convolutions_without_stem"),
    "lth": ({"algorithm": "lth"}, HIDDEN, "convolutions_without_stem"),
    "acdc": ({"algorithm": "acdc"}, [STEM, *HIDDEN, HEAD], "convolutions_and_classifier"),
    "rigl": ({"algorithm": "rigl", "distribution": "erk"}, [STEM, *HIDDEN, HEAD], "convolutions_and_classifier"),
    "rigl, uniform": (
        {"algorithm": "rigl", "distribution": "uniform"},
        [*HIDDEN, HEAD],
        "convolutions_and_classifier_without_stem",
    ),
}


@pytest.mark.parametrize(("settings", "keys", "over"), REACHED.values(), ids=REACHED)
def test_stem_and_head_are_as_in_the_source(settings, keys, over):
    assert list(sparsifiers.pruned_weights(network(), settings)) == keys
    assert SPARSIFIERS[settings["algorithm"]].sparsity_over(settings) == over


def test_the_stem_of_a_resnet_is_its_first_convolution():
    keys = list(sparsifiers.pruned_weights(build.build("resnet20_cifar"), {"algorithm": "gmp"}))
    assert "conv1.weight" not in keys
    assert "layer2.0.downsample.conv.weight" in keys
    assert len(keys) == 20  # two in each of nine blocks, and two shortcuts


def test_a_network_without_a_layer_to_prune_is_refused():
    with pytest.raises(ValueError, match="gmp: the network has no convolution but its stem"):
        sparsifiers.pruned_weights(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2)), {"algorithm": "gmp"})


# ------------------------------------------------------------------------------------------------- gmp


def test_gmp_follows_equation_1_and_reaches_the_sparsity_at_the_end_of_its_schedule():
    run = Run(steps=100, algorithm="gmp", sparsity=0.9, begin=0.1, end=0.7, interval=15)
    asked = {step: s for step in range(1, 101) if (s := run.sparsifier.sparsity_at(step)) is not None}
    expected = {10 + 15 * n: 0.9 + (0 - 0.9) * (1 - (15 * n) / (4 * 15)) ** 3 for n in range(5)}
    assert asked == pytest.approx(expected)
    assert list(asked) == [10, 25, 40, 55, 70]


def test_gmp_prunes_the_same_share_of_each_layer_the_smallest_first_and_none_comes_back():
    run = Run(**ALL["gmp"])
    gone = {key: torch.zeros_like(zero) for key, zero in run.zeros().items()}
    sparsity = 0.0
    for _ in range(STEPS):
        run.backward()
        run.sparsifier.before(run.number)
        run.optimizer.step()
        magnitudes = {
            key: weight.detach().abs().masked_fill(gone[key], 0) for key, weight in run.sparsifier.weights.items()
        }
        run.sparsifier.after(run.number)
        sparsity = run.sparsifier.sparsity_at(run.number) or sparsity
        for key, weight in run.sparsifier.weights.items():
            pruned = ~run.sparsifier.masks[key]
            assert not (gone[key] & ~pruned).any()
            assert int(pruned.sum()) == round(sparsity * weight.numel())
            if pruned.any() and not pruned.all():
                assert magnitudes[key][pruned].max() <= magnitudes[key][~pruned].min()
            gone[key] = pruned
    assert sparsity == 0.8


def test_gmp_refuses_an_interval_longer_than_its_schedule():
    with pytest.raises(ValueError, match="gmp: interval is 100 steps; expected at most 22, the steps from begin"):
        Run(algorithm="gmp", sparsity=0.8)


# ------------------------------------------------------------------------------------------------- ac/dc


def test_the_phases_of_acdc_are_the_published_ones():
    epoch = 1000
    defaults = SPARSIFIERS["acdc"].defaults
    expected = [(start, start + 5) for start in range(10, 75, 10)] + [(85, 100)]
    assert sparse_phases(100 * epoch, **defaults) == [(a * epoch, b * epoch) for a, b in expected]


@pytest.mark.parametrize("steps", [40, 57, 1000])
@pytest.mark.parametrize("phase", [0.05, 0.1, 0.2])
def test_phases_of_acdc_alternate_and_end_sparse(steps, phase):
    found = sparse_phases(steps, 0.1, phase, 0.15)
    bounds = [step for one in found for step in one]
    assert bounds == sorted(set(bounds))
    assert bounds[0] == round(0.1 * steps)
    assert found[-1] == (round(0.85 * steps), steps)
    assert len(found) == 1 + math.floor(0.75 / (2 * phase) + 1e-9)


def test_acdc_refuses_a_training_that_is_too_short_for_its_phases():
    with pytest.raises(ValueError, match="acdc: 9 steps are too few for 8 compressed phases"):
        Run(steps=9, algorithm="acdc", sparsity=0.8)


def test_acdc_keeps_one_support_in_each_compressed_phase_and_all_weights_in_a_dense_one():
    # at a high rate, so that weights that come back outgrow others
    run = Run(steps=100, optimizer=lambda parameters: torch.optim.SGD(parameters, 4.0), **ALL["acdc"])
    phases, supports = sparse_phases(100, **SPARSIFIERS["acdc"].defaults), []
    for _ in range(100):
        run.step()
        inside = [number for number, (begin, end) in enumerate(phases) if begin <= run.number < end]
        at_the_end = run.number == 100
        if inside or at_the_end:
            number = len(phases) - 1 if at_the_end else inside[0]
            support = {key: ~zero for key, zero in run.zeros().items()}
            if number == len(supports):
                supports.append(support)
                total = sum(weight.numel() for weight in run.sparsifier.weights.values())
                assert sum(int(kept.sum()) for kept in support.values()) == total - round(0.8 * total)
            for key, kept in supports[number].items():  # a weight on it may be zero, none off it may be anything else
                assert torch.equal(run.sparsifier.masks[key], kept)
                assert not (support[key] & ~kept).any()
        else:
            assert all(mask.all() for mask in run.sparsifier.masks.values())
    assert len(supports) == len(phases) == 8
    changed = [any((a[key] != b[key]).any() for key in a) for a, b in pairwise(supports)]
    assert any(changed)


def test_acdc_chooses_the_largest_weights_of_all_layers_together():
    run = Run(steps=100, **ALL["acdc"])
    for _ in range(9):
        run.step()
    run.backward()
    run.sparsifier.before(10)
    run.optimizer.step()
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in run.sparsifier.weights.values()])
    run.sparsifier.after(10)
    mask = torch.cat([mask.flatten() for mask in run.sparsifier.masks.values()])
    assert magnitudes[mask].min() >= magnitudes[~mask].max()
    shares = [mask.float().mean().item() for mask in run.sparsifier.masks.values()]
    assert max(shares) - min(shares) > 0.05  # not the same of each layer


def test_acdc_forgets_the_momentum_where_a_dense_phase_begins():
    run = Run(steps=100, **ALL["acdc"])
    for number in range(1, 16):
        run.step()
        buffers = [state["momentum_buffer"] for state in run.optimizer.state.values()]
        assert all((buffer == 0).all() for buffer in buffers) == (number == 15)
    assert len(buffers) == len(list(run.network.parameters()))


# ------------------------------------------------------------------------------------------------- rigl


def test_rigl_is_sparse_from_the_start_by_erk():
    run = Run(**ALL["rigl"])
    shapes = {key: weight.shape for key, weight in run.sparsifier.weights.items()}
    densities = erk_densities(shapes, 0.2)
    assert len({round(density, 6) for density in densities.values()}) > 1
    for key, mask in run.sparsifier.masks.items():
        assert int(mask.sum()) == round(densities[key] * mask.numel())
        assert torch.equal(run.sparsifier.weights[key] != 0, mask)


def test_rigl_replaces_as_many_connections_as_the_cosine_says_and_leaves_their_number():
    run = Run(steps=STEPS, **ALL["rigl"])
    end, updates = round(0.75 * STEPS), 0
    for _ in range(STEPS):
        before = {key: mask.clone() for key, mask in run.sparsifier.masks.items()}
        run.backward()
        gradients = {key: weight.grad.abs().clone() for key, weight in run.sparsifier.weights.items()}
        magnitudes = {key: weight.detach().abs().clone() for key, weight in run.sparsifier.weights.items()}
        old = {key: weight.detach().clone() for key, weight in run.sparsifier.weights.items()}
        trains = run.sparsifier.before(run.number)
        if trains:
            run.optimizer.step()
        run.sparsifier.after(run.number)
        update = run.number % 3 == 0 and run.number < end
        assert trains == (not update)
        updates += update
        for key, mask in run.sparsifier.masks.items():
            if not update:
                assert torch.equal(mask, before[key])
                continue
            connections = int(before[key].sum())
            replaced = int(0.3 / 2 * (1 + math.cos(math.pi * run.number / end)) * connections)
            assert int(mask.sum()) == connections
            # written out: the smallest go, then the largest gradients of all that is left come, those that went too
            active = before[key].flatten().nonzero().flatten()
            dropped = active[magnitudes[key].flatten()[active].argsort()[:replaced]]
            kept = set(active.tolist()) - set(dropped.tolist())
            candidates = [index for index in range(mask.numel()) if index not in kept]
            candidates.sort(key=lambda index: -gradients[key].flatten()[index].item())
            assert set(mask.flatten().nonzero().flatten().tolist()) == kept | set(candidates[:replaced])
            grown = mask & ~before[key]
            assert (run.sparsifier.weights[key][grown] == 0).all()
            assert torch.equal(run.sparsifier.weights[key][mask & before[key]], old[key][mask & before[key]])
            buffer = run.optimizer.state[run.sparsifier.weights[key]]["momentum_buffer"]
            assert (buffer[~mask] == 0).all()
            assert (buffer[grown] == 0).all()
    assert updates == 9


def test_rigl_refuses_an_interval_without_an_update():
    with pytest.raises(ValueError, match="rigl: interval is 100 steps; expected less than 30, where the last change"):
        Run(algorithm="rigl", sparsity=0.8)


def test_rigls_first_masks_follow_their_seed():
    first, again = Run(**ALL["rigl"]), Run(**ALL["rigl"])
    assert all(
        torch.equal(first.sparsifier.masks[key], again.sparsifier.masks[key]) for key in first.sparsifier.masks
    )
    other = registry.sparsifier_of(
        first.settings, network(), first.optimizer, STEPS, torch.Generator().manual_seed(4)
    )
    assert any(not torch.equal(first.sparsifier.masks[key], mask) for key, mask in other.masks.items())


# ------------------------------------------------------------------------------------------------- lottery tickets

LEVELS = {
    "a whole number of rounds": (0.488, 0.2, [0.2, 0.36, 0.488]),
    "a last round that prunes less": (0.4, 0.2, [0.2, 0.36, 0.4]),
    "one round": (0.1, 0.2, [0.1]),
    "halves": (0.9, 0.5, [0.5, 0.75, 0.875, 0.9]),
}


@pytest.mark.parametrize(("sparsity", "share", "expected"), LEVELS.values(), ids=LEVELS)
def test_each_round_prunes_a_share_of_what_is_left(sparsity, share, expected):
    assert lottery_levels(sparsity, share) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
def test_levels_share_their_rounds_and_each_starts_from_the_one_before(sparsity, share):
    levels = lottery_levels(sparsity, share)
    assert levels[:-1] == [round(1 - (1 - share) ** number, 6) for number in range(1, len(levels))]
    assert levels[-1] == sparsity
    assert all(before < after for before, after in pairwise(levels))
    for number, level in enumerate(levels, 1):
        assert lottery_levels(level, share) == levels[:number]


def test_a_ticket_is_of_the_largest_weights_of_all_layers_and_what_was_pruned_stays_so():
    trained, masks = network(seed=3), {}
    counts = []
    for level in lottery_levels(0.7, 0.3):
        before = masks
        masks = sparsifiers.next_ticket(trained, masks, {"algorithm": "lth", "sparsity": level})
        kept = torch.cat([mask.flatten() for mask in masks.values()])
        counts.append(int(kept.sum()))
        assert counts[-1] == kept.numel() - round(level * kept.numel())
        for key, mask in before.items():
            assert not (masks[key] & ~mask).any()
            with torch.no_grad():  # the next round finds what was pruned large again: it must not come back
                trained.get_parameter(key).masked_fill_(~masks[key], 7.0)
    assert counts == sorted(counts, reverse=True)


def test_a_ticket_ranks_by_magnitude():
    trained = network(seed=3)
    masks = sparsifiers.next_ticket(trained, {}, {"algorithm": "lth", "sparsity": 0.6})
    magnitudes = torch.cat([trained.get_parameter(key).detach().abs().flatten() for key in masks])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert magnitudes[kept].min() >= magnitudes[~kept].max()


# ------------------------------------------------------------------------------------------------- names


def test_folders_tell_settings_apart_and_levels_share_them():
    assert folder_name(None) == "dense"
    assert (
        folder_name({"algorithm": "gmp", "sparsity": 0.8})
        == "gmp"
        == folder_name({"algorithm": "gmp", "sparsity": 0.9})
    )
    assert folder_name({"algorithm": "gmp", "sparsity": 0.8, "interval": 100}) == "gmp"  # as where it is not said
    other = folder_name({"algorithm": "gmp", "sparsity": 0.8, "interval": 7})
    assert other.startswith("gmp-")
    assert other != folder_name({"algorithm": "gmp", "sparsity": 0.8, "interval": 8})


def test_an_unknown_sparsifier_is_refused():
    with pytest.raises(KeyError, match="snip"):
        registry.sparsifier_of({"algorithm": "snip"}, network(), None, 1, None)


def test_each_algorithm_has_masks_whose_code_counts_in_the_digest_of_trainings():
    assert registry.MASKS.keys() == SPARSIFIERS.keys()
    counted = modules([PACKAGE.parents[1] / "workflow/scripts/sparsify.py"])
    assert {Path(inspect.getfile(masks)) for masks in registry.MASKS.values()} <= counted
