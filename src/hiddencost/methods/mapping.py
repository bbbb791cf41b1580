"""Label mapping: which class of the network stands for which class of the target task."""

import torch
from torch import Tensor


def count_predictions(predictions: Tensor, labels: Tensor, source_classes: int, classes: int) -> Tensor:
    """Count how often each source class is predicted for images of each target class.

    predictions, labels: int64 [N], on the CPU, as counting on a GPU waits for it. Returns int64 [source_classes,
    classes]: by the dataset's number of classes, so that one without an image in the sample keeps its (empty) column.
    """
    counts = torch.bincount(predictions * classes + labels, minlength=source_classes * classes)
    return counts.reshape(source_classes, classes)


def greedy_mapping(counts: Tensor) -> Tensor:
    """Match target classes to source classes one to one, the largest count first (FLM and ILM).

    Ties go to the first entry in row-major order (the lowest source class, then the lowest target class). So
    when only zeros are left, the remaining targets receive the lowest free source classes in order.
    Source: `generate_label_mapping_by_frequency` of ILM-VP (arXiv 2211.11635), which looks for the largest count of
    the whole table once for each target class; counts that are not zero, sorted once, give the same.

    counts: int64 [source classes, target classes], on the CPU, no more target than source classes. Returns int64
    [target classes]: the source class of each.
    """
    source_classes, classes = counts.shape
    places = counts.flatten().nonzero().squeeze(1)
    order = counts.flatten()[places].argsort(descending=True, stable=True)
    mapping: dict[int, int] = {}  # source by target
    taken: set[int] = set()
    for place in places[order].tolist():
        source, target = divmod(place, classes)
        if target not in mapping and source not in taken:
            mapping[target] = source
            taken.add(source)
            if len(mapping) == classes:
                break
    free = (source for source in range(source_classes) if source not in taken)
    return torch.tensor([mapping[target] if target in mapping else next(free) for target in range(classes)])


def random_mapping(source_classes: int, classes: int, generator: torch.Generator) -> Tensor:
    """Draw a one-to-one mapping at random (RLM): the first `classes` of a random permutation, int64 [classes]."""
    return torch.randperm(source_classes, generator=generator)[:classes]
