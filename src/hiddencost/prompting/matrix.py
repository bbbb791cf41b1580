"""Label mappings as matrices, of which the one-to-one are a special case, and how they read a network's logits.

A mapping is a matrix M, [K, source classes], that makes the logits over the target classes of those over the source
classes, M x. A one-to-one mapping, whose rows are one-hot, is kept as int64 [K], the place of each row's one: then
M x is a choice of logits, to the bit. A learned mapping has one more column, its bias: [K, source classes + 1].
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
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
    mapped = _Product.apply(_with_one(logits, mappings), mappings.flatten(0, 1))
    return mapped.unflatten(1, (count, classes)).gather(1, runs[:, None, None].expand(-1, 1, classes)).squeeze(1)


class _Product(Function):
    """x Mᵀ, of images, [N, C], by the rows of all runs' matrices, [R K, C].

    The gradient of what an image does not keep is 0. Backward, as 0 times NaN is NaN, entries that are not finite
    are 0, so that a run that diverges leaves the others as they are: its own gradients are NaN by its loss.
    """

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows)
        return x @ rows.T

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, rows = (one.nan_to_num(0.0, 0.0, 0.0) for one in ctx.saved_tensors)
        of_x, of_rows = ctx.needs_input_grad
        return gradient @ rows if of_x else None, gradient.T @ x if of_rows else None


def _with_one(logits: Tensor, mapping: Tensor) -> Tensor:
    """Return logits with a one at the end, which a bias multiplies, where a mapping has one."""
    return functional.pad(logits, (0, mapping.shape[-1] - logits.shape[1]), value=1.0)
