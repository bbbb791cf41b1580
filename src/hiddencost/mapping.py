"""Label mapping: which class of the network stands for which class of the target task."""

import torch
from torch import Tensor


def count_predictions(predictions: Tensor, labels: Tensor, source_classes: int, classes: int) -> Tensor:
    """Count how often each source class is predicted for images of each target class.

    predictions, labels: int64 [N]. Returns int64 [source_classes, classes]: by the dataset's number of classes,
    so that one without an image in the sample keeps its (empty) column.
    """
    counts = torch.bincount(predictions * classes + labels, minlength=source_classes * classes)
    return counts.reshape(source_classes, classes)


def greedy_mapping(counts: Tensor) -> Tensor:
    """Match target classes to source classes one to one, the largest count first (FLM and ILM).

    Ties go to the first entry in row-major order (the lowest source class, then the lowest target class). So
    when only zeros are left, the remaining targets receive the lowest free source classes in order.
    Source: `generate_label_mapping_by_frequency` of ILM-VP (arXiv 2211.11635).

    counts: int64 [source classes, target classes]. Returns int64 [target classes]: the source class of each.
    """
    left = counts.detach().cpu().clone()
    mapping = torch.empty(left.shape[1], dtype=torch.int64)
    for _ in range(left.shape[1]):
        source, target = divmod(int(left.flatten().argmax()), left.shape[1])
        mapping[target] = source
        left[source, :] = -1
        left[:, target] = -1
    return mapping


def random_mapping(source_classes: int, classes: int, generator: torch.Generator) -> Tensor:
    """Draw a one-to-one mapping at random (RLM): the first `classes` of a random permutation, int64 [classes]."""
    return torch.randperm(source_classes, generator=generator)[:classes]
