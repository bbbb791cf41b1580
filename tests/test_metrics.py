from functools import partial
from pathlib import Path

import calibration
import numpy as np
import pytest
import torch
from scipy import optimize
from torch.nn import functional

from hiddencost.digest import definition_digest
from hiddencost.runs import metrics
from hiddencost.runs.metrics import (
    METRICS,
    Metric,
    calibration_bins,
    ece_published,
    evaluate,
    expected_calibration_error,
)


def logits_of(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_known_answers():
    logits = logits_of([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
    result = evaluate(logits, torch.tensor([0, 1, 1, 2]), test_batch_size=128)
    assert result["accuracy"] == 0.75
    assert result["mean_class_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert result["nll"] == pytest.approx(-np.log([0.8, 0.2, 0.5, 0.5]).mean())
    brier = [0.04 + 0.01 + 0.01, 0.36 + 0.64 + 0.04, 0.04 + 0.25 + 0.09, 0.0625 + 0.0625 + 0.25]
    assert result["brier"] == pytest.approx(np.mean(brier))
    # bins of 0.8, of 0.6, and of both 0.5
    assert result["ece"] == pytest.approx(0.25 * 0.2 + 0.25 * 0.6 + 0.5 * 0.5)
    assert sum(result["bin_count"]) == 4


def test_a_perfectly_sure_network_falls_in_the_last_bin():
    result = evaluate(torch.tensor([[1e4, 0.0], [1e4, 0.0]]), torch.tensor([0, 1]), test_batch_size=128)
    assert result["bin_count"] == [0] * 14 + [2]
    assert result["bin_accuracy"][-1] == 0.5
    assert result["bin_confidence"][:14] == [None] * 14
    assert result["ece"] == pytest.approx(0.5)


def test_bins_are_closed_above():
    edges = np.array([1 / 15, 2 / 15, 14 / 15, 1.0])
    counts = calibration_bins(edges, np.ones(4, bool))["bin_count"]
    assert [index for index, count in enumerate(counts) if count] == [0, 1, 13, 14]
    above = calibration_bins(np.nextafter(edges[:3], 1), np.ones(3, bool))["bin_count"]
    assert [index for index, count in enumerate(above) if count] == [1, 2, 14]


def test_values_beyond_the_bins_fall_in_the_outer_ones():
    """A softmax may round to more than 1, and the published code bins logits."""
    values = np.array([-3.0, 0.0, 0.97, 1.0, np.nextafter(1, 2), 20.0])
    bins = calibration_bins(values, np.array([True, True, False, True, True, False]))
    assert bins["bin_count"] == [2, *[0] * 13, 4]
    assert bins["bin_accuracy"][-1] == 0.5
    assert ece_published(values[2:], np.array([False, True, True, False]), 4) == pytest.approx(
        abs(0.5 - (0.97 + 1 + 1 + 20) / 4) / 4
    )


def test_every_metric_says_how_it_is_shown_and_is_scored():
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    scores = evaluate(logits, labels, 128)
    assert list(scores)[: len(METRICS)] == list(METRICS)
    assert all(metric.label for metric in METRICS.values())
    paired = ["accuracy", "worst_class_accuracy", "class_gap", "ece", "ece_scaled"]
    assert [name for name, metric in METRICS.items() if metric.paired] == paired
    assert METRICS["accuracy"].factor == 100
    assert METRICS["nll"].factor == 1


def test_the_worst_class_is_of_those_that_occur():
    predicted, labels = torch.tensor([0, 0, 1, 1, 1, 3, 0]), torch.tensor([0, 0, 0, 0, 1, 3, 3])  # none of class 2
    scores = evaluate(functional.one_hot(predicted, 4) * 5.0, labels, 128)
    assert scores["worst_class_accuracy"] == 0.5
    assert scores["mean_class_accuracy"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert scores["class_gap"] == pytest.approx((0.5 + 1 + 0.5) / 3 - 0.5)
    of_one = evaluate(torch.eye(3)[[0, 1]], torch.tensor([0, 0]), 128)
    assert (of_one["worst_class_accuracy"], of_one["class_gap"]) == (0.5, 0)


def overconfident(images, factor=2.0, classes=5):
    """Logits whose labels are drawn from softmax(logits / factor)."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(0, 4, (images, classes)))
    uniform = torch.tensor(rng.uniform(size=(images, 1)))
    labels = ((logits / factor).softmax(1).cumsum(1) < uniform).sum(1).clamp(max=classes - 1)
    return logits, labels


def test_temperature_scaling_is_fitted_on_images_held_out_and_judged_on_the_others():
    logits, labels = overconfident(5000)
    result = evaluate(logits, labels, 128)
    assert result["temperature"] == pytest.approx(2, rel=0.1)
    assert result["ece_before_scaling"] > 0.1 > 3 * result["ece_scaled"]
    # by hand: the permutation, and T on a grid
    order = np.random.RandomState(0).permutation(5000)
    fitted, others = order[:1000], order[1000:]
    grid = np.linspace(1.5, 2.5, 1001)
    losses = [functional.cross_entropy(logits[fitted] / t, labels[fitted]).item() for t in grid]
    assert result["temperature"] == pytest.approx(grid[np.argmin(losses)], abs=1e-3)
    for column, t in (("ece_before_scaling", 1.0), ("ece_scaled", result["temperature"])):
        probabilities = (logits[others] / t).softmax(1).numpy()
        assert result[column] == pytest.approx(calibration.get_ece(probabilities, labels[others].numpy()))
    moved = labels.clone()
    moved[others] = 0
    assert evaluate(logits, moved, 128)["temperature"] == result["temperature"]


def test_the_temperature_is_fitted_once_for_all_metrics(monkeypatch):
    fits, fit = [], optimize.minimize_scalar
    monkeypatch.setattr(optimize, "minimize_scalar", lambda *args, **more: fits.append(1) or fit(*args, **more))
    evaluate(*overconfident(500), 128)
    assert len(fits) == 1


def test_of_too_few_test_images_no_temperature_is_fitted():
    few, enough = (evaluate(*overconfident(images), 128) for images in (499, 500))
    for column in ("temperature", "ece_before_scaling", "ece_scaled"):
        assert few[column] is None
        assert enough[column] > 0
    sure = evaluate(torch.eye(2).repeat(300, 1) * 50, torch.arange(600) % 2, 128)  # nothing is wrong
    assert 0.01 <= sure["temperature"] < 100
    assert sure["ece_scaled"] == pytest.approx(0, abs=1e-6)


def test_confidence_in_the_true_class_and_kl_are_those_of_the_published_code():
    logits, labels = overconfident(300)
    result = evaluate(logits, labels, 128)
    published = {True: [], False: []}
    kl = []
    for p, label in zip(logits.softmax(1), labels, strict=True):
        published[(p.argmax() == label).item()].append(p[label].item())
        kl.append(functional.kl_div(p.log(), torch.full_like(p, 1 / 5), reduction="sum").item())
    assert result["true_confidence_correct"] == pytest.approx(np.mean(published[True]))
    assert result["true_confidence_wrong"] == pytest.approx(np.mean(published[False]))
    assert result["kl_uniform"] == pytest.approx(np.mean(kl))
    right = evaluate(torch.eye(3), torch.arange(3), 128)
    assert right["true_confidence_wrong"] is None
    assert right["true_confidence_correct"] == pytest.approx(np.e / (np.e + 2))
    assert evaluate(torch.zeros(4, 3), torch.zeros(4, dtype=int), 128)["kl_uniform"] == pytest.approx(0)


def test_a_new_metric_changes_the_digest_of_metrics_and_is_scored(monkeypatch):
    before = metrics.digest()
    monkeypatch.setitem(METRICS, "sureness", Metric("Sureness", lambda one: one.confidence.mean().item()))
    assert metrics.digest() != before
    scores = evaluate(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), 128)
    assert scores["sureness"] == 0.5


def test_a_calibrated_network_has_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    bins = calibration_bins(confidence, rng.uniform(size=200_000) < confidence)
    assert expected_calibration_error(bins) < 0.01


@pytest.mark.parametrize("batch_size", [64, 128, 1000])
def test_both_ece_agree_with_the_library_that_the_paper_calls(batch_size):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(300, 10, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, 10, (300,), generator=generator)
    result = evaluate(logits, labels, batch_size)
    assert result["ece"] == pytest.approx(calibration.get_ece(logits.softmax(1).numpy(), labels.numpy()))
    batches = zip(logits.split(batch_size), labels.split(batch_size), strict=True)
    published = sum(calibration.get_ece(x.numpy(), y.numpy()) for x, y in batches) / 300
    assert result["ece_published"] == pytest.approx(published)


def test_the_published_ece_follows_the_scale_of_the_logits_and_the_batch():
    top, correct = np.array([5.0, 7.0, 6.0, 6.0]), np.array([True, False, True, True])
    assert ece_published(top, correct, 4) == pytest.approx((6 - 0.75) / 4)
    assert ece_published(2 * top, correct, 4) == pytest.approx((12 - 0.75) / 4)
    assert ece_published(top, correct, 2) == pytest.approx((6 - 0.5 + 6 - 1) / 4)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        evaluate(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]), 128)


def test_what_a_metric_is_called_scores_nothing_anew_and_its_code_does(tmp_path, monkeypatch):
    """Metrics stand on what they reach by name, not on the whole file."""
    source = Path(metrics.__file__).read_text()

    def digests_of(file, old="", new=""):
        assert old in source
        (tmp_path / file).write_text(source.replace(old, new))
        return {name: definition_digest(tmp_path / file, metric.compute.__name__) for name, metric in METRICS.items()}

    before = digests_of("as_it_is.py")
    assert digests_of("shown.py", '"Test accuracy"', '"Accuracy"') == before
    assert digests_of("more.py", "def accuracy(", "def more(predictions):\n    return 1\n\n\ndef accuracy(") == before
    for file, old, new, changed in (
        ("brier.py", ".square()", ".abs()", {"brier"}),
        (
            "bins.py",
            'side="left"' if 'side="left"' in source else "searchsorted(EDGES",
            "searchsorted(0 + EDGES",
            METRICS,
        ),
        ("edges.py", "BINS = 15", "BINS = 16", METRICS),
    ):
        after = digests_of(file, old, new)
        assert {name for name in METRICS if after[name] != before[name]} == set(changed)


def test_a_metric_without_code_of_its_own_is_refused():
    with pytest.raises(TypeError, match=r"metric Half: functools\.partial.* is no function"):
        Metric("Half", partial(metrics.accuracy))
