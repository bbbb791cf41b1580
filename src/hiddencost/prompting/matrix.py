"""Label mappings as matrices, of which the one-to-one are a special case, and how they read a network's logits.

A mapping is a matrix M, [K, source classes], that makes the logits over the target classes of those over the source
classes, M x. A one-to-one mapping, whose rows are one-hot, is kept as int64 [K], the place of each row's one: then
M x is a choice of logits, to the bit. A learned mapping has one more column, its bias: [K, source classes + 1].
"""

import torch
from torch import Tensor
from torch.nn import functional


def as_matrix(mapping: Tensor, columns: int) -> Tensor:
    """Return a mapping as a matrix, [K, columns].

    Args:
        mapping: int64 [K], or a matrix with fewer columns or as many.
        columns: the number of source classes, or one more, for a bias, which is 0.
    """
    if mapping.ndim == 1:
        return functional.one_hot(mapping, columns).to(torch.float32)
    return functional.pad(mapping, (0, columns - mapping.shape[1]))


def map_logits(logits: Tensor, mapping: Tensor) -> Tensor:
    """Return logits over the target classes, [N, K], of those over the source classes, [N, source classes], by a
    mapping on their device."""
    if mapping.ndim == 1:
        return logits[:, mapping]
    return _with_one(logits, mapping) @ mapping.T.to(logits.dtype)


def map_logits_of_runs(logits: Tensor, mappings: Tensor, runs: Tensor) -> Tensor:
    """Return logits over the target classes, [N, K], each image's by the mapping of its run.

    Args:
        logits: over the source classes, [N, source classes].
        mappings: of R runs: int64 [R, K], or matrices [R, K, source classes], or with a bias each.
        runs: int64 [N], the run of each image.
    """
    if mappings.ndim == 2:
        return logits.gather(1, mappings[runs])
    count, classes, _ = mappings.shape
    # one product by the matrices of all runs, of which each image keeps its own: a matrix an image would take memory
    mapped = _with_one(logits, mappings) @ mappings.flatten(0, 1).T
    return mapped.unflatten(1, (count, classes)).gather(1, runs[:, None, None].expand(-1, 1, classes)).squeeze(1)


def _with_one(logits: Tensor, mapping: Tensor) -> Tensor:
    """Return logits with a one at the end, which a bias multiplies, where a mapping has one."""
    return functional.pad(logits, (0, mapping.shape[-1] - logits.shape[1]), value=1.0)
