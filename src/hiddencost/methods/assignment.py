"""Label mappings by optimal assignment, beside the greedy ones of FLM and ILM.

The greedy mapping takes the largest count first, and may pay for it later; of all one-to-one mappings the optimal one
has the largest sum of counts (Kuhn, The Hungarian Method for the Assignment Problem, 1955).
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hiddencost.methods.mapping import count_predictions


def optimal_mapping(counts: Tensor) -> Tensor:
    """Match target classes to source classes one to one, so that the sum of their counts is the largest.

    Of several such mappings, one of the least Σ (K - t) s(t), for source class s(t) of target class t, is taken: the
    lowest source classes, in the order of their targets, as by `greedy_mapping`.

    Args:
        counts: int64 [source classes, target classes], no more target than source classes.

    Returns:
        The source class of each target class, int64 [target classes].
    """
    sources, classes = counts.shape
    penalty = torch.arange(sources)[:, None] * torch.arange(classes, 0, -1)
    scale = int(penalty.amax(0).sum()) + 1  # exact in float64, in which SciPy computes, up to 2^53
    _, chosen = linear_sum_assignment((counts * scale - penalty).T.numpy(), maximize=True)
    return torch.from_numpy(chosen).to(torch.int64)


def by_assignment(
    predictions: Tensor, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw an optimal mapping, see `optimal_mapping`; for the arguments see `Method.mapping`."""
    return optimal_mapping(count_predictions(predictions, labels, source_classes, classes))
