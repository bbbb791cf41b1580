"""Accuracy and calibration over a whole test set."""

import numpy as np
import torch
from torch import Tensor

BINS = 15
EDGES = np.arange(1, BINS + 1) / BINS


def evaluate(logits: Tensor, labels: Tensor, test_batch_size: int) -> dict:
    """Score logits over the target classes.

    logits: [N, K], for label mapping the K mapped ones; labels: int64 [N], each in 0..K-1.

    Returns `accuracy` and `mean_class_accuracy` (over the classes that occur), in 0..1; `nll`, mean, in nats;
    `brier`, the mean over images of the squared error summed over classes (0..2); `ece`, see `calibration_bins`;
    `ece_published`; and `bin_count`, `bin_confidence`, `bin_accuracy`, lists of 15 (None where a bin is empty).
    Raises ValueError if a logit is not finite.
    """
    logits, labels = logits.detach().cpu().double(), labels.cpu()
    if not torch.isfinite(logits).all():
        raise ValueError("the logits hold values that are not finite")
    log_probabilities = logits.log_softmax(1)
    probabilities = log_probabilities.exp()
    confidence, predicted = probabilities.max(1)
    correct = predicted == labels
    truth = torch.nn.functional.one_hot(labels, logits.shape[1])
    per_class = [correct[labels == label].double().mean().item() for label in labels.unique()]
    bins = calibration_bins(confidence.numpy(), correct.numpy())
    return {
        "accuracy": correct.double().mean().item(),
        "mean_class_accuracy": float(np.mean(per_class)),
        "nll": -log_probabilities.gather(1, labels[:, None]).mean().item(),
        "brier": (probabilities - truth).square().sum(1).mean().item(),
        "ece": expected_calibration_error(bins),
        "ece_published": ece_published(logits.max(1).values.numpy(), correct.numpy(), test_batch_size),
        **bins,
    }


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Sort predictions into 15 bins of equal width, (b/15, (b+1)/15]; a confidence of 1.0 falls in the last.

    confidence: float [N]; correct: bool [N]. Values beyond [0, 1] fall in the outer bins. Returns `bin_count`,
    `bin_confidence` and `bin_accuracy` (means; None where the bin is empty).
    """
    index = np.searchsorted(EDGES, confidence).clip(0, BINS - 1)
    count = np.bincount(index, minlength=BINS)

    def means(values: np.ndarray) -> list[float | None]:
        sums = np.bincount(index, weights=values, minlength=BINS)
        return [float(s / n) if n else None for s, n in zip(sums, count, strict=True)]

    return {
        "bin_count": [int(n) for n in count],
        "bin_confidence": means(confidence),
        "bin_accuracy": means(correct.astype(float)),
    }


def expected_calibration_error(bins: dict[str, list]) -> float:
    """ECE = Σ_b (n_b / N) |accuracy_b - confidence_b| (Guo et al., On Calibration of Modern Neural Networks)."""
    rows = zip(bins["bin_count"], bins["bin_accuracy"], bins["bin_confidence"], strict=True)
    return sum(n * abs(accuracy - confidence) for n, accuracy, confidence in rows if n) / sum(bins["bin_count"])


def ece_published(top_logit: np.ndarray, correct: np.ndarray, batch_size: int) -> float:
    """The "ECE" of the paper's published code, kept for comparison: it is not a calibration error.

    There the ECE of each test batch is computed on raw logits instead of probabilities, summed over the batches
    and divided by the number of test images; so it follows the scale of the logits and the batch size.

    top_logit: float [N]; correct: bool [N], both in test order.
    """
    starts = range(0, len(correct), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    errors = [expected_calibration_error(calibration_bins(top_logit[b], correct[b])) for b in batches]
    return sum(errors) / len(correct)
