"""Label mappings: which source class, a class of the network, stands for each class of the target task.

All is computed on the CPU: the tables are small, and counting on a GPU waits for it.
"""

import torch
from torch import Tensor


def count_predictions(predictions: Tensor, labels: Tensor, source_classes: int, classes: int) -> Tensor:
    """Count how often each source class is predicted for images of each target class.

    Args:
        predictions: source class of each image, int64 [N].
        labels: target class of each image, int64 [N].
        source_classes: their number.
        classes: number of target classes, of the dataset: one without an image among the N keeps its (empty) column.

    Returns:
        Counts, int64 [source classes, target classes].
    """
    counts = torch.bincount(predictions * classes + labels, minlength=source_classes * classes)
    return counts.reshape(source_classes, classes)


def greedy_mapping(counts: Tensor) -> Tensor:
    """Match target classes to source classes one to one, the largest count first (FLM and ILM).

    Ties go to the first entry in row-major order (the lowest source class, then the lowest target class). So when
    only zeros are left, the remaining target classes receive the lowest free source classes in order.

    Source: `generate_label_mapping_by_frequency` of ILM-VP (arXiv 2211.11635), which looks for the largest count of
    the whole table once for each target class; counts that are not zero, sorted once, give the same.

    Args:
        counts: int64 [source classes, target classes], no more target than source classes.

    Returns:
        The source class of each target class, int64 [target classes].
    """
    source_classes, classes = counts.shape
    entries = counts.flatten().nonzero().squeeze(1)
    order = counts.flatten()[entries].argsort(descending=True, stable=True)
    source_of: dict[int, int] = {}  # by target class
    taken: set[int] = set()
    for entry in entries[order].tolist():
        source, target = divmod(entry, classes)
        if target not in source_of and source not in taken:
            source_of[target] = source
            taken.add(source)
            if len(source_of) == classes:
                break
    free = (source for source in range(source_classes) if source not in taken)
    return torch.tensor([source_of[target] if target in source_of else next(free) for target in range(classes)])


def random_mapping(source_classes: int, classes: int, generator: torch.Generator) -> Tensor:
    """Draw a one-to-one mapping at random (RLM): the first entries of a random permutation of the source classes.

    Args:
        source_classes: their number.
        classes: number of target classes.
        generator: on the CPU.

    Returns:
        The source class of each target class, int64 [target classes].
    """
    return torch.randperm(source_classes, generator=generator)[:classes]


def at_random(
    predictions: None, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw a mapping for RLM, see `random_mapping`; for the arguments see `Method.mapping`."""
    return random_mapping(source_classes, classes, generator)


def by_frequency(
    predictions: Tensor, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw a mapping for FLM or ILM, see `greedy_mapping`; for the arguments see `Method.mapping`."""
    return greedy_mapping(count_predictions(predictions, labels, source_classes, classes))
