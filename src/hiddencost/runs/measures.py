"""What may tell why a compressed network costs accuracy: numbers that are measured on test images, by name.

A new one is a function, of what a network answers (`Answers`) or of the compressed network's answers and the dense
one's, and its line in MEASURES. All are float64, and of NumPy alone: the Snakefile reads this module.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hiddencost.digest import digest_of
from hiddencost.files import canonical, sha256_text
from hiddencost.runs.metrics import calibration_bins, expected_calibration_error

EPS = float(np.finfo(np.float32).eps)  # features are float32


@dataclass(frozen=True)
class Answers:
    """What a network answers, with what one of its runs has learned, on the test images in their order.

    Attributes:
        features: float [N, D], what enters the network's classifier under the prompt as training begins.
        first: int [N], the source class that it predicts there.
        predicted: int [N], the source class that it predicts under the run's prompt.
        logits: float [N, K], over the target classes, under the run's prompt and mapping.
        labels: int [N].
        gradient: float [P], of the mean cross-entropy of test images with respect to all that its prompt learns.
        mapping: int [K], the source class that counts most for each target class.
        of_seeds: int [R, K], the same of the other seeds with these images per class and method.
        of_epochs: int [E, K], the same at each epoch at which it was drawn, or of a learned one at each; one row
            where it was drawn once.
    """

    features: np.ndarray
    first: np.ndarray
    predicted: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    gradient: np.ndarray
    mapping: np.ndarray
    of_seeds: np.ndarray
    of_epochs: np.ndarray


@dataclass(frozen=True)
class Measure:
    """A measure.

    Attributes:
        label: what figures call it.
        of_one: its value, of one network's answers; None where there is none. What goes with the cost is then the
            compressed network's minus the dense one's.
        of_two: in its place its value, of the compressed network's answers and the dense one's.
        of_networks: whether it is of `features` and `first` alone, which are the same for all runs.
    """

    label: str
    of_one: Callable[[Answers], float | None] | None = None
    of_two: Callable[[Answers, Answers], float | None] | None = None
    of_networks: bool = False

    def values(self, own: Answers, dense: Answers) -> tuple[float | None, float | None]:
        """Return the compressed network's value and the dense one's; None of what it does not have."""
        if self.of_two:
            return self.of_two(own, dense), None
        assert self.of_one, "a measure of one network, or of two"
        return self.of_one(own), self.of_one(dense)


def _centred(features: np.ndarray) -> np.ndarray:
    """Return centred features, float64. The unbiased HSIC does not depend on means; smaller numbers round less."""
    features = np.asarray(features, np.float64)
    return features - features.mean(0)


def unbiased_hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased estimate of the Hilbert-Schmidt independence criterion of features, with linear kernels.

    HSIC_1 = [tr(K L) + (1ᵀK1)(1ᵀL1) / ((n-1)(n-2)) - 2 (1ᵀK L1) / (n-2)] / (n (n-3)), where K and L are the kernel
    matrices with zeros on their diagonals (Song et al., Feature Selection via Dependence Maximization, JMLR 13, 2012,
    equation 5). Nguyen et al. (arXiv 2010.15327) average it over minibatches; here it is of all images at once, as
    with linear kernels no [n, n] matrix is needed.

    Args:
        one: [n, D], n above 3.
        other: [n, E].
    """
    count, (x, y) = len(one), (_centred(one), _centred(other))
    on_diagonals = (x**2).sum(1), (y**2).sum(1)
    of_ones = [part @ part.sum(0) - diagonal for part, diagonal in zip((x, y), on_diagonals, strict=True)]
    trace = np.square(x.T @ y).sum() - on_diagonals[0] @ on_diagonals[1]
    means = of_ones[0].sum() * of_ones[1].sum() / ((count - 1) * (count - 2))
    return (trace + means - 2 * (of_ones[0] @ of_ones[1]) / (count - 2)) / (count * (count - 3))


def cka(own: Answers, dense: Answers) -> float | None:
    """Return the linear centred kernel alignment of the two networks' features: 1 where they are the same but for a
    rotation and a scale.

    Kornblith et al., Similarity of Neural Network Representations Revisited (arXiv 1905.00414), equation 2, by
    `unbiased_hsic`, so that fewer images than features do not make networks more alike. None of fewer than 4 images,
    or of features that do not vary.
    """
    if len(own.features) < 4:
        return None
    alone = unbiased_hsic(own.features, own.features), unbiased_hsic(dense.features, dense.features)
    if min(alone) <= 0:
        return None
    return unbiased_hsic(own.features, dense.features) / float(np.sqrt(alone[0] * alone[1]))


def _singular_values(features: np.ndarray) -> np.ndarray:
    """Return the singular values of centred features, by the smaller of the two matrices of products: of float32
    features, what float64 loses in the squares lies below the numerical rank's threshold."""
    x = _centred(features)
    squares = np.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x)
    return np.sqrt(squares.clip(0))


def effective_rank(answers: Answers) -> float | None:
    """Return the effective rank of the centred features: exp(H), where H is the entropy of the singular values as
    shares of their sum (Roy and Vetterli, The effective rank, EUSIPCO 2007, definition 1). None where all are 0."""
    values = _singular_values(answers.features)
    return float(np.exp(_entropy(values))) if values.sum() > 0 else None


def numerical_rank(answers: Answers) -> float:
    """Return how many singular values of the centred features are above the largest by max(N, D) times the rounding
    of float32, as numpy.linalg.matrix_rank counts."""
    values = _singular_values(answers.features)
    return float((values > values.max() * max(answers.features.shape) * EPS).sum())


def agreement(own: Answers, dense: Answers) -> float:
    """Return the share of the images of which both networks predict the same source class, under the prompt as
    training begins."""
    return float((own.first == dense.first).mean())


def _entropy(weights: np.ndarray) -> float:
    """Return the entropy of weights as shares of their sum, in nats."""
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def source_entropy(answers: Answers) -> float:
    """Return the entropy of the source classes that are predicted under the run's prompt, in nats."""
    return _entropy(np.bincount(answers.predicted).astype(float))


def effective_classes(answers: Answers) -> float:
    """Return the effective number of the source classes in use, the exponential of `source_entropy`."""
    return float(np.exp(source_entropy(answers)))


def margin(answers: Answers) -> float:
    """Return the mean over images of the true class's logit minus the largest of the other target classes', in nats:
    a log-ratio of their probabilities. It counts the labels, and so is near to the accuracy itself."""
    logits, rows = np.array(answers.logits, np.float64), np.arange(len(answers.labels))
    true = logits[rows, answers.labels]
    logits[rows, answers.labels] = -np.inf
    return float((true - logits.max(1)).mean())


def gradient_norm(answers: Answers) -> float:
    """Return the Euclidean norm of the prompt's gradient at the end of training."""
    return float(np.linalg.norm(np.asarray(answers.gradient, np.float64)))


def stability_over_seeds(answers: Answers) -> float | None:
    """Return the share of the target classes whose source class is that of another seed, mean over the other seeds;
    None where there is no other."""
    return float((answers.of_seeds == answers.mapping).mean()) if len(answers.of_seeds) else None


def stability_over_epochs(answers: Answers) -> float | None:
    """Return the share of the target classes whose source class is that of the time before, mean over times; None
    where the mapping was drawn once."""
    drawn = answers.of_epochs
    return float((drawn[1:] == drawn[:-1]).mean()) if len(drawn) > 1 else None


def calibration_error(answers: Answers) -> float:
    """Return the expected calibration error over 15 bins, a share of 1: see `metrics.expected_calibration_error`."""
    logits = np.asarray(answers.logits, np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    confidence = shares.max(1) / shares.sum(1)
    return expected_calibration_error(calibration_bins(confidence, logits.argmax(1) == answers.labels))


# by name, in the order of figures
MEASURES = {
    "cka": Measure("CKA of features with dense", of_two=cka, of_networks=True),
    "agreement": Measure("top-1 agreement with dense", of_two=agreement, of_networks=True),
    "effective_rank": Measure("effective rank of features", effective_rank, of_networks=True),
    "numerical_rank": Measure("numerical rank of features", numerical_rank, of_networks=True),
    "source_entropy": Measure("entropy of source classes in use", source_entropy),
    "effective_classes": Measure("effective number of source classes", effective_classes),
    "margin": Measure("margin of the mapped classes", margin),
    "gradient_norm": Measure("norm of the prompt's gradient", gradient_norm),
    "stability_over_seeds": Measure("mapping: stability over seeds", stability_over_seeds),
    "stability_over_epochs": Measure("mapping: stability over epochs", stability_over_epochs),
    "ece": Measure("calibration error (ECE)", calibration_error),
}


def digest() -> str:
    """Return the digest of the code of all measures, of their names and of what they are of: no label is in it."""
    code = {
        name: [digest_of(compute) for compute in (one.of_one, one.of_two) if compute] + [one.of_networks]
        for name, one in MEASURES.items()
    }
    return sha256_text(canonical([digest_of(Measure), code]))
