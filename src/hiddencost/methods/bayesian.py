"""Bayesian-guided label mappings, BLM and BLM+: weights of all source classes for each target class.

Source: Cai et al., Bayesian-guided Label Mapping for Visual Reprogramming (NeurIPS 2024, arXiv 2410.24018), sections
4.2 and 4.3, and its published code (tmlr-group/BayesianLM, mapping.py and cfg.py): lambda = 1, alpha = 0.15.
"""

import torch
from torch import Tensor

from hiddencost.methods.mapping import count_predictions

SMOOTHING = 1.0  # lambda, of Laplace's smoothing


def by_joint_counts(
    predictions: Tensor, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw a mapping for BLM, of how often each source class is predicted for each target class; for the arguments
    see `Method.mapping`. Returns float64 [classes, source classes]."""
    return weights_of(count_predictions(predictions, labels, source_classes, classes))


def by_joint_probabilities(
    predictions: tuple[Tensor, Tensor], labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw a mapping for BLM+: in place of each prediction, which counts one, stand the probabilities of the highest
    source classes. Returns float64 [classes, source classes]."""
    highest, probabilities = predictions
    entries = highest * classes + labels[:, None]
    joint = torch.zeros(source_classes * classes, dtype=torch.float64)
    joint.index_add_(0, entries.flatten(), probabilities.double().flatten())
    return weights_of(joint.reshape(source_classes, classes))


def weights_of(joint: Tensor) -> Tensor:
    """Return the weights of source classes for each target class, float64 [classes, source classes], rows of sum 1.

    The joint counts of source class s and target class t by those of s, plus lambda, are proportional to p(t | s),
    smoothed; of each target class they are brought to a sum of 1 over the source classes.

    Args:
        joint: [source classes, classes], counts or sums of probabilities. A target class without any, of which the
            published code makes no numbers, gives all source classes the same weight.
    """
    joint = joint.double()
    conditional = joint / (joint.sum(1, keepdim=True) + SMOOTHING)
    totals = conditional.sum(0)
    return torch.where(totals > 0, conditional / totals, 1 / len(joint)).T.contiguous()
