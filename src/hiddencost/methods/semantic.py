"""A label mapping by the names of classes, AutoVP's SemanticMap: each target class stands with the source class whose
name is most like its own.

Source: Tsao et al., AutoVP (ICLR 2024, arXiv 2310.08381), section 3, and its published code (IBM/AutoVP,
auto_vp/programs.py: Output_Mapping.Semantic_mapping). There one source class or several stand for a target class,
which has the mean of their logits; here one. How alike names are: see `networks.clip.names`.
"""

import torch
from torch import Tensor


def by_names(
    similarities: Tensor, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw a one-to-one mapping by the names of classes: target classes, in their order, take the most similar source
    class that is left, of several the lowest.

    Args:
        similarities: of names, floating [classes, source classes].
        labels, source_classes, classes, generator: see `Method.mapping`.

    Returns:
        The source class of each target class, int64 [classes].
    """
    assert similarities.shape == (classes, source_classes), "names of other classes than the network's"
    left, mapping = similarities.clone(), torch.empty(classes, dtype=torch.int64)
    for target in range(classes):
        mapping[target] = source = left[target].argmax()
        left[:, source] = -torch.inf
    return mapping
