"""Metrics of a run over the whole test set: accuracy, also of the worst class, and calibration.

They stand apart from training: a run's identity does not contain their code, so a new metric scores what is stored
and trains nothing (see `pack.complete`). A new one is a function of `Predictions` and its line in METRICS.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hiddencost.digest import digest_of
from hiddencost.files import canonical, sha256_text
from hiddencost.runs.metric import Metric

if TYPE_CHECKING:  # the Snakefile reads this module, and does without the seconds that PyTorch takes
    from torch import Tensor

BINS = 15
BIN_COLUMNS = ("bin_count", "bin_confidence", "bin_accuracy")  # see calibration_bins
EDGES = np.arange(1, BINS + 1) / BINS
HELD_OUT = 5  # one test image of so many is held out, to fit the temperature
FEWEST = 500  # test images that scaling takes
TEMPERATURES = 0.01, 100.0  # those that are tried


@dataclass(frozen=True)
class Predictions:
    """What a network says of a test set, in test order.

    Attributes:
        logits: float64 [N, K] over the target classes, finite, on the CPU.
        labels: int64 [N], each in 0..K-1.
        batch_size: images a batch, see `Metric.by_batch`.
    """

    logits: "Tensor"
    labels: "Tensor"
    batch_size: int

    @cached_property
    def log_probabilities(self) -> "Tensor":
        """float64 [N, K]."""
        return self.logits.log_softmax(1)

    @cached_property
    def probabilities(self) -> "Tensor":
        """float64 [N, K]."""
        return self.log_probabilities.exp()

    @cached_property
    def confidence(self) -> "Tensor":
        """The probability of the predicted class, float64 [N]."""
        return self.probabilities.max(1).values

    @cached_property
    def correct(self) -> "Tensor":
        """Whether the predicted class is the label, bool [N]."""
        return self.probabilities.max(1).indices == self.labels

    @cached_property
    def bins(self) -> dict[str, list]:
        """The reliability bins, see `calibration_bins`."""
        return calibration_bins(self.confidence.numpy(), self.correct.numpy())

    @cached_property
    def temperature(self) -> float | None:
        """The temperature fitted on images held out, see `temperature`: fitted once for all that ask for it."""
        from scipy.optimize import minimize_scalar  # here, as the Snakefile reads this module

        images = len(self.labels)
        if images < FEWEST:
            return None
        held_out, _ = _held_out(images)
        # NLL is convex in 1 / T, so that it has one minimum
        found = minimize_scalar(
            lambda log: nll(_scaled(self, held_out, np.exp(log))),
            bounds=np.log(TEMPERATURES),
            method="bounded",
            options={"xatol": 1e-4},
        )
        return float(np.exp(found.x))


def accuracy(predictions: Predictions) -> float:
    """Return the share of images whose predicted class is the label."""
    return predictions.correct.double().mean().item()


def _class_accuracies(predictions: Predictions) -> list[float]:
    labels, correct = predictions.labels, predictions.correct
    return [correct[labels == label].double().mean().item() for label in labels.unique()]


def mean_class_accuracy(predictions: Predictions) -> float:
    """Return the mean accuracy of the classes that occur."""
    return float(np.mean(_class_accuracies(predictions)))


def worst_class_accuracy(predictions: Predictions) -> float:
    """Return the accuracy of the class that is recognised least, of those that occur.

    What compression takes from a few classes, a mean over images does not show (Hooker et al., What Do Compressed
    Deep Neural Networks Forget?, arXiv 1911.05248; as the worst group's of Sagawa et al., arXiv 1911.08731). It is
    the least of K noisy shares, and so the lower the fewer test images a class has.
    """
    return min(_class_accuracies(predictions))


def class_gap(predictions: Predictions) -> float:
    """Return by how much the class that is recognised least lies below the mean of the classes that occur: 0..1."""
    return mean_class_accuracy(predictions) - worst_class_accuracy(predictions)


def nll(predictions: Predictions) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    return -predictions.log_probabilities.gather(1, predictions.labels[:, None]).mean().item()


def brier(predictions: Predictions) -> float:
    """Return the mean over images of the squared error of the probabilities, summed over classes: 0..2."""
    truth = predictions.labels.new_zeros(predictions.logits.shape).scatter_(1, predictions.labels[:, None], 1)
    return (predictions.probabilities - truth).square().sum(1).mean().item()


def ece(predictions: Predictions) -> float:
    """Return the expected calibration error of the reliability bins."""
    return expected_calibration_error(predictions.bins)


def published_ece(predictions: Predictions) -> float:
    """Return the "ECE" of the paper's published code, see `ece_published`."""
    top = predictions.logits.max(1).values
    return ece_published(top.numpy(), predictions.correct.numpy(), predictions.batch_size)


def _held_out(images: int) -> list[np.ndarray]:
    """Return the indices of the test images that a temperature is fitted on, and of the others.

    The permutation is a function of the number of test images alone: the same for all seeds, methods and networks of
    a dataset. NumPy has frozen the stream of RandomState (its NEP 19).
    """
    return np.split(np.random.RandomState(0).permutation(images), [images // HELD_OUT])


def _scaled(predictions: Predictions, images: np.ndarray, temperature: float) -> Predictions:
    return Predictions(predictions.logits[images] / temperature, predictions.labels[images], predictions.batch_size)


def temperature(predictions: Predictions) -> float | None:
    """Return the temperature T, 0.01 to 100, by which softmax(logits / T) has the least NLL on images held out.

    Source: temperature scaling of Guo et al., On Calibration of Modern Neural Networks (2017), who fit T on
    validation images. Here few-shot training images are too few, and were trained on, so T is fitted on a fifth of
    the test images (see `_held_out`), which the ECE before and after scaling does not look at. A T above 1 says that
    the network was too sure. A value next to 0.01 or 100 is no minimum, but the last that was tried: a network that
    is never wrong, or that guesses, has none. None of less than 500 test images.
    """
    return predictions.temperature


def ece_before_scaling(predictions: Predictions) -> float | None:
    """Return the ECE of the test images that no temperature is fitted on, as they are; see `temperature`."""
    images = len(predictions.labels)
    return None if images < FEWEST else ece(_scaled(predictions, _held_out(images)[1], 1.0))


def ece_scaled(predictions: Predictions) -> float | None:
    """Return the ECE of the test images that no temperature is fitted on, after scaling; see `temperature`."""
    fitted = predictions.temperature
    others = _held_out(len(predictions.labels))[1]
    return None if fitted is None else ece(_scaled(predictions, others, fitted))


def true_confidence_correct(predictions: Predictions) -> float | None:
    """Return the mean probability of the true class over the images that are classified correctly, None without any.

    With `true_confidence_wrong` the confidence in two bins of the third version of arXiv 2308.14969 and its code.
    """
    return _true_confidence(predictions, predictions.correct)


def true_confidence_wrong(predictions: Predictions) -> float | None:
    """Return the mean probability of the true class over the images that are classified wrongly, None without any."""
    return _true_confidence(predictions, ~predictions.correct)


def _true_confidence(predictions: Predictions, images: "Tensor") -> float | None:
    of_label = predictions.probabilities.gather(1, predictions.labels[:, None])[images]
    return of_label.mean().item() if len(of_label) else None


def kl_uniform(predictions: Predictions) -> float:
    """Return the mean over images of KL(uniform || p), in nats: Σ_k (1/K) log((1/K) / p_k), 0 of the uniform p.

    The code of the paper's third version has this direction, as F.kl_div(log p, uniform), whose default reduction
    divides by the K target classes once more; so its numbers are these by K.
    """
    return -float(np.log(predictions.logits.shape[1])) - predictions.log_probabilities.mean().item()


# by the name of their column, in the order of the tables
METRICS: dict[str, Metric] = {
    "accuracy": Metric("Test accuracy", accuracy, percent=True, unit="%", higher_is_better=True, paired=True),
    "mean_class_accuracy": Metric(
        "Mean accuracy of the classes", mean_class_accuracy, percent=True, unit="%", higher_is_better=True
    ),
    "worst_class_accuracy": Metric(
        "Accuracy of the worst class",
        worst_class_accuracy,
        percent=True,
        unit="%",
        higher_is_better=True,
        paired=True,
    ),
    "class_gap": Metric(
        "Gap of the worst class to the mean of the classes", class_gap, percent=True, unit="points", paired=True
    ),
    "nll": Metric("Negative log-likelihood", nll, unit="nats"),
    "brier": Metric("Brier score", brier),
    "ece": Metric(
        "Calibration error (ECE)",
        ece,
        percent=True,
        unit="points",
        paired=True,
        title="Expected calibration error",
        as_published="ece_published",
    ),
    "ece_published": Metric("ECE as published (of logits)", published_ece, by_batch=True),
    "temperature": Metric("Temperature fitted on held-out test images", temperature),
    "ece_before_scaling": Metric("ECE before temperature scaling", ece_before_scaling, percent=True, unit="points"),
    "ece_scaled": Metric(
        "ECE after temperature scaling",
        ece_scaled,
        percent=True,
        unit="points",
        paired=True,
        title="Expected calibration error after temperature scaling",
    ),
    "true_confidence_correct": Metric(
        "Confidence in the true class, where correct", true_confidence_correct, percent=True, unit="%"
    ),
    "true_confidence_wrong": Metric(
        "Confidence in the true class, where wrong", true_confidence_wrong, percent=True, unit="%"
    ),
    "kl_uniform": Metric("KL divergence of the prediction from uniform", kl_uniform, unit="nats"),
}


def batch_columns() -> dict[str, str]:
    """Return the column that says of which batch size of the test a metric is, by the name of each of which it
    matters."""
    return {name: f"{name}_batch_size" for name, metric in METRICS.items() if metric.by_batch}


def digests() -> dict[str, str]:
    """Return the digest of the code of each column that `evaluate` gives: what METRICS show is not in it."""
    common = digest_of(predictions_of)  # the bins with it
    code = {name: digest_of(metric.compute) for name, metric in METRICS.items()}
    columns = code | dict.fromkeys(BIN_COLUMNS, "")
    return {column: sha256_text(canonical([common, of_column])) for column, of_column in columns.items()}


def digest() -> str:
    """Return the digest of all code that scores, and of the metrics' names."""
    return sha256_text(canonical(digests()))


def predictions_of(logits: "Tensor", labels: "Tensor", test_batch_size: int) -> Predictions:
    """Return logits as what metrics score; see `evaluate`."""
    logits = logits.detach().cpu().double()
    if not logits.isfinite().all():
        raise ValueError("the logits hold values that are not finite")
    return Predictions(logits, labels.cpu(), test_batch_size)


def evaluate(logits: "Tensor", labels: "Tensor", test_batch_size: int) -> dict:
    """Score logits over the target classes.

    Args:
        logits: [N, K], for label mapping the K mapped ones.
        labels: int64 [N], each in 0..K-1.
        test_batch_size: images a batch, see `Metric.by_batch`.

    Returns:
        The value of each of METRICS by name; `batch_columns`; and `bin_count`, `bin_confidence`, `bin_accuracy`, see
        `calibration_bins`.

    Raises:
        ValueError: if a logit is not finite.
    """
    predictions = predictions_of(logits, labels, test_batch_size)
    scores = {name: metric.compute(predictions) for name, metric in METRICS.items()}
    return scores | dict.fromkeys(batch_columns().values(), test_batch_size) | predictions.bins


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
    """ECE = Σ_b (n_b / N) `|accuracy_b - confidence_b|` (Guo et al., On Calibration of Modern Neural Networks)."""
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
