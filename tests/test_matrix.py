"""Label mappings beyond the paper's: matrices, Bayesian, by optimal assignment, learned."""

import copy
import itertools

import in_process
import numpy as np
import pandas as pd
import pytest
import reference
import torch
from torch import nn

import hiddencost
from hiddencost.methods import bayesian
from hiddencost.methods.assignment import by_assignment, optimal_mapping
from hiddencost.methods.learned import linear_layer
from hiddencost.methods.mapping import greedy_mapping
from hiddencost.methods.registry import METHODS
from hiddencost.networks import inference
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.matrix import as_matrix, map_logits, map_logits_of_runs
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.results import tables
from hiddencost.study.recipes import RunProtocol

CPU = torch.device("cpu")
CLASSES = 4
PROTOCOL = RunProtocol(
    **{"canvas": 48, "image_size": 32, "epochs": 4, "learning_rate": 0.5, "milestones": [0.5], "gamma": 0.1},
    **{"batch_size": 5, "shuffle": True, "test_batch_size": 128, "mapping_interval": 1, "precision": "fp32"},
)
CONSTANTS = [0.48, 0.46, 0.4], [0.23, 0.22, 0.22]
BEYOND = ("blm", "blm+", "fm")
MIXED = ("rlm", "flm", "ilm", "flm-opt", "ilm-opt", *BEYOND)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def data():
    return torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images")), torch.arange(
        12
    ) % 4


@pytest.fixture(scope="module")
def oracle(data):
    """A network that tells images apart: its logits are 0 for their mean."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 1000)).double().eval().requires_grad_(False)
    canvases = reference.canvas_of(data[0], torch.zeros(3, 48, 48).double(), 48, *CONSTANTS)
    network[-1].weight *= 300
    network[-1].bias.copy_(-network[-1].weight @ network[:-1](canvases).mean(0))
    return network


def prompted_of(oracle, dtype=torch.float64, **plan):
    constants = [torch.tensor(one, dtype=dtype).reshape(3, 1, 1) for one in CONSTANTS]
    network = inference.for_inference(copy.deepcopy(oracle).to(dtype), CPU)
    return PromptedNetwork(network, *constants, PROTOCOL, Plan(**plan))


# ---- matrices


def test_a_product_with_one_hot_rows_is_the_choice_of_logits_to_the_bit():
    logits = noise(6, 50).float().requires_grad_()
    mapping = torch.tensor([7, 0, 49])
    chosen, product = map_logits(logits, mapping), map_logits(logits, as_matrix(mapping, 50))
    assert torch.equal(chosen, product)
    assert torch.equal(map_logits(logits, as_matrix(mapping, 51)), chosen)  # with a bias of 0
    weight = noise(6, 3).float()
    gradients = [torch.autograd.grad((mapped * weight).sum(), logits)[0] for mapped in (chosen, product)]
    assert torch.equal(*gradients)


def test_images_of_several_runs_are_mapped_each_by_its_own():
    logits, runs = noise(6, 50), torch.tensor([0, 0, 1, 1, 2, 2])
    mappings = torch.stack([torch.randperm(50, generator=stream(run, "mapping"))[:3] for run in range(3)])
    chosen = map_logits_of_runs(logits, mappings, runs)
    matrices = torch.stack([as_matrix(mapping, 51) for mapping in mappings]).double()
    assert torch.equal(map_logits_of_runs(logits, matrices, runs), chosen)
    matrices[1] = noise(3, 51)
    mapped = map_logits_of_runs(logits, matrices, runs)
    torch.testing.assert_close(mapped[2:4], logits[2:4] @ matrices[1, :, :50].T + matrices[1, :, 50])
    assert torch.equal(mapped[[0, 1, 4, 5]], chosen[[0, 1, 4, 5]])
    torch.testing.assert_close(map_logits(logits[2:4], matrices[1]), mapped[2:4])


@pytest.mark.parametrize("wrong", [0, 1], ids=["the first", "the second"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["logits", "matrix"])
def test_a_run_that_is_not_finite_leaves_the_gradients_of_others_as_they_are(where, value, wrong):
    runs, other = torch.tensor([0, 0, 1, 1]), 1 - wrong

    def gradients(break_it):
        logits, matrices = noise(4, 9), noise(2, 3, 10, seed=1)
        if break_it:
            if where == "logits":
                logits[runs == wrong] = value
            else:
                matrices[wrong] = value
        leaves = logits.requires_grad_(), matrices.requires_grad_()
        mapped = map_logits_of_runs(*leaves, runs)
        return torch.autograd.grad(nn.functional.cross_entropy(mapped, runs), leaves)

    expected, found = gradients(False), gradients(True)
    assert torch.equal(found[0][runs == other], expected[0][runs == other])
    assert torch.equal(found[1][other], expected[1][other])
    assert found[0][runs == wrong].isnan().all()


# ---- Bayesian


def test_weights_are_those_of_plain_counting():
    logits, labels = 3 * noise(30, 40), torch.arange(30) % 5
    plain = reference.bayesian(reference.joint_of(logits, labels.tolist(), 5))
    found = bayesian.by_joint_counts(logits.argmax(1), labels, 40, 5, None)
    torch.testing.assert_close(found, torch.tensor(plain, dtype=torch.float64))
    for highest in (1, 7):
        top = logits.softmax(1).topk(highest)
        plain = reference.bayesian(reference.joint_of(logits, labels.tolist(), 5, highest))
        found = bayesian.by_joint_probabilities((top.indices, top.values), labels, 40, 5, None)
        torch.testing.assert_close(found, torch.tensor(plain, dtype=torch.float64))


def test_weights_by_hand():
    """Of source 0 three of target 0 and one of target 1, of source 1 two of target 1: 3/5, and 1/5 to 2/3."""
    weights = bayesian.weights_of(torch.tensor([[3, 1], [0, 2], [0, 0]]))
    torch.testing.assert_close(weights, torch.tensor([[1, 0, 0], [3 / 13, 10 / 13, 0]], dtype=torch.float64))


def test_a_target_class_without_an_image_weighs_all_source_classes_alike():
    weights = bayesian.weights_of(torch.tensor([[3, 0], [1, 0], [0, 0]]))
    assert weights[1].tolist() == [1 / 3] * 3


def test_how_many_of_the_highest_classes_are_read():
    published = METHODS["blm+"]  # int(K * 0.15)
    assert [published.highest(1000, classes) for classes in (2, 10, 47, 100)] == [1, 1, 7, 15]
    assert published.highest(10, 100) == 10
    assert METHODS["blm"].highest(1000, 100) == 0


# ---- by assignment


def test_an_optimal_mapping_has_the_largest_sum_and_the_lowest_classes_of_those():
    for seed in range(30):
        counts = torch.randint(0, 3, (6, 3), generator=torch.Generator().manual_seed(seed))  # many ties

        def rank(mapping, counts=counts):
            return -sum(counts[s, t].item() for t, s in enumerate(mapping)), sum(
                (3 - t) * s for t, s in enumerate(mapping)
            )

        best = min(map(rank, itertools.permutations(range(6), 3)))
        found = optimal_mapping(counts)
        assert rank(found.tolist()) == best
        assert best[0] <= rank(greedy_mapping(counts).tolist())[0]


def test_greedy_pays_where_the_optimal_mapping_does_not():
    counts = torch.tensor([[5, 4], [4, 0], [0, 0]])
    assert greedy_mapping(counts).tolist() == [0, 1]
    assert optimal_mapping(counts).tolist() == [1, 0]
    assert optimal_mapping(torch.zeros(1000, 4, dtype=torch.int64)).tolist() == [0, 1, 2, 3]
    assert by_assignment(torch.tensor([3, 3, 1]), torch.tensor([0, 1, 0]), 5, 2, None).tolist() == [1, 3]


# ---- learned


def test_the_layer_begins_as_torchs_own():
    layer = linear_layer(None, None, 1000, 5, stream(3, "mapping"))
    with torch.random.fork_rng():
        torch.manual_seed(stream(3, "mapping").initial_seed())
        expected = nn.Linear(1000, 5)
    assert torch.equal(layer, torch.cat([expected.weight, expected.bias[:, None]], 1))


# ---- runs


@pytest.mark.parametrize("method", BEYOND)
def test_training_follows_the_plain_algorithm_step_by_step(oracle, data, method, threads):
    """In float64, in chunks that cut batches: mappings, losses, prompt and layer are those of the plain loop."""
    exact = prompted_of(oracle, cover=None, chunk=3)
    drawn, keep = [], lambda states: drawn.extend(one["mapping"].clone() for one in states().values())
    ((_, run),) = train_prompts(exact, *data, CLASSES, [(method, range(12))], 3, PROTOCOL, keep=keep)
    prompt, mappings, losses = reference.train(oracle, *data, CLASSES, method, 3, PROTOCOL, *CONSTANTS, torch.float64)
    assert run.mappings == mappings
    assert len(losses) == 4 * 3
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.prompt, prompt, rtol=0, atol=1e-5)
    assert run.mapping.shape == (CLASSES, 1000 + (method == "fm"))
    assert METHODS[method].sources_of(run.mapping).tolist() == mappings[-1]
    assert (run.mapping - drawn[0]).abs().max() > 1e-3, "the mapping never moved: the test shows little"


@pytest.fixture(scope="module")
def pack(oracle, data):
    """A pack of all, in float64, and the states of its runs after each step."""
    prompted, kept = prompted_of(oracle, chunk=7), []
    runs = [(method, range(12)) for method in MIXED]
    keep = lambda states: kept.append(copy.deepcopy(states()))  # noqa: E731
    return prompted, runs, dict(train_prompts(prompted, *data, CLASSES, runs, 3, PROTOCOL, keep=keep)), kept


def assert_same(found, expected, tolerance):
    assert found.mappings == expected.mappings
    torch.testing.assert_close(torch.tensor(found.losses), torch.tensor(expected.losses), rtol=0, atol=tolerance)
    torch.testing.assert_close(found.prompt, expected.prompt, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.mapping, expected.mapping, rtol=0, atol=tolerance)


def test_runs_in_a_mixed_pack_are_those_alone(data, pack, threads):
    prompted, runs, together, _ = pack
    for number, run in enumerate(runs):
        ((_, alone),) = train_prompts(prompted, *data, CLASSES, [run], 3, PROTOCOL)
        assert_same(together[number], alone, 1e-6)


def test_a_mixed_pack_that_was_interrupted_goes_on_as_if_it_had_not_been(data, pack, threads):
    prompted, runs, whole, kept = pack
    for states in (kept[0], kept[4]):
        resumed = dict(train_prompts(prompted, *data, CLASSES, runs, 3, PROTOCOL, states=copy.deepcopy(states)))
        for number, run in whole.items():
            assert_same(resumed[number], run, 0)


def test_a_run_that_learns_its_mapping_may_end_before_those_of_weights(oracle, data, threads):
    """Their matrices have a column for a bias while it is there: one that is redrawn then, and one that is not."""
    protocol = PROTOCOL.model_copy(update={"mapping_interval": 2})
    prompted, runs = prompted_of(oracle), [("fm", range(5)), ("flm", range(12)), ("blm", range(12))]
    together = dict(train_prompts(prompted, *data, CLASSES, runs, 3, protocol))
    for number, run in enumerate(runs):
        ((_, alone),) = train_prompts(prompted, *data, CLASSES, [run], 3, protocol)
        assert_same(together[number], alone, 1e-6)


def test_runs_that_are_the_same_so_far_are_computed_once(oracle, data, threads):
    """Until their mappings differ: flm-opt, which the optimal mapping equals here at first, ilm and ilm-opt."""

    class Counting(PromptedNetwork):
        def _gradients(self, chunk):
            self.computed.append(len(chunk.mappings))
            return super()._gradients(chunk)

        def predict(self, images, chosen, prompts):
            self.passes.append(len(chosen))
            return super().predict(images, chosen, prompts)

    base = prompted_of(oracle)
    prompted = Counting(base.network, base.mean, base.std, PROTOCOL, Plan(chunk=64))
    prompted.computed, prompted.passes = [], []
    methods = "flm", "ilm", "flm-opt", "ilm-opt"
    found = dict(train_prompts(prompted, *data, CLASSES, [(name, range(12)) for name in methods], 3, PROTOCOL))
    ways = [[str(run.mappings[: epoch + 1]) for run in found.values()] for epoch in range(4)]
    distinct = [len(set(of_epoch)) for of_epoch in ways]
    assert prompted.computed[::3] == distinct
    assert distinct[0] < 4
    assert prompted.passes[0] == 1


def test_a_whole_study_of_mappings_of_weights(tmp_path, monkeypatch, threads):
    """From packs to tables, a figure, the analyses and hiddencost.load."""
    methods = ["ilm", *BEYOND]
    config = in_process.STUDY | {"methods": methods, "shots": ["full"], "seeds": [0], "analysis": ["why", "split"]}
    finished = in_process.run(config, tmp_path, monkeypatch, ["movement"])
    runs = finished.runs
    assert len(runs) == 2 * len(methods)
    assert set(runs["status"]) == {"ok"}
    mappings, remapped = (pd.read_parquet(finished.tables[name]) for name in ("mappings", "remapped"))
    assert len(mappings) == 3 * len(runs)
    assert set(remapped["method"]) == set(methods)
    images, labels = (torch.from_numpy(np.load("toy.npz")[f"{name}_test"]) for name in "xy")
    for run in runs.query("seed == 0 and backbone == 'dense'").itertuples():
        model = hiddencost.load("results/tiny", backbone=run.backbone, method=run.method, seed=0)
        assert (model(images).argmax(1) == labels).double().mean().item() == pytest.approx(run.accuracy, abs=0.05)
        assert model.mapping.shape == METHODS[run.method].shape_of_mapping(30, 3)
    for analysis in ("why", "swaps"):
        assert set(tables.read(finished.tables[analysis])["method"]) == set(methods)
