"""One-shot pruning by what the layers of a network are given on calibration images: Wanda and SparseGPT.

Both were published for linear layers (Sun et al., A Simple and Effective Pruning Approach for Large Language Models,
arXiv 2306.11695, github.com/locuslab/wanda; Frantar and Alistarh, SparseGPT, arXiv 2301.00774,
github.com/IST-DASLab/sparsegpt). A convolution is here the linear layer that it is of the patches under its kernel:
one input for each position of the kernel and input channel, its group's alone, and padding counts as zeros.

Images go through the network once, all together. Each layer is pruned at the moment when they reach it, so that it
sees the outputs of those that are pruned already, and the next ones see its own. What is computed of a layer's inputs
is float64, and of one layer at a time: for 4608 inputs a Hessian of 170 MB.
"""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hiddencost.compression.prune import layer_name
from hiddencost.networks.layers import Weight

BLOCK = 128  # columns of SparseGPT whose mask is chosen together, as published
DAMPENING = 0.01  # of the mean of the Hessian's diagonal, added to it, as published
CHUNK = 2**24  # entries of the columns that are held at once
# the functions that layers call, and how these name what they are given, in order
LAYERS = {
    functional.linear: ("input", "weight"),
    functional.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
}


class Inputs(NamedTuple):
    """What a layer is given, as the columns that its weights are multiplied with.

    Attributes:
        maps: [N, channels, H, W]; of a linear layer maps of one pixel.
        kernel: its height and width.
        groups: of its channels.
        settings: `stride`, `padding` and `dilation`, as of torch.nn.functional.unfold.
        images: of how many images they are.
    """

    maps: Tensor
    kernel: tuple[int, int]
    groups: int
    settings: Mapping[str, Any]
    images: int

    def columns(self) -> Iterator[Tensor]:
        """Yield the inputs at all places of the maps, some images after others: float64 [groups, D, places]; D: the
        positions of the kernel, at each the channels of a group, as `as_rows` has the weights."""
        positions = prod(self.kernel)
        count = max(1, CHUNK // (positions * self.maps[0].numel()))
        for some in self.maps.split(count):
            patches = functional.unfold(some.double(), self.kernel, **self.settings)
            patches = patches.unflatten(1, (self.groups, -1, positions)).permute(1, 3, 2, 0, 4)
            yield patches.flatten(3).flatten(1, 2)

    def squares(self) -> Tensor:
        """Return the sum of each input's squares, over all places and images: float64 [groups, D]."""
        together = torch.linalg.vector_norm(self.maps, dim=0, keepdim=True, dtype=torch.float64).square()
        (columns,) = self._replace(maps=together).columns()
        return columns.sum(2)

    def hessian(self) -> Tensor:
        """Return the Hessian of the layer's squared error, a mean over images, with respect to a row of its weights:
        twice the sum of the products of each two inputs, over their number. float64 [groups, D, D]."""
        size = prod(self.kernel) * self.maps.shape[1] // self.groups
        hessian = torch.zeros(self.groups, size, size, dtype=torch.float64)
        for columns in self.columns():
            hessian.baddbmm_(columns, columns.mT, alpha=2 / self.images)
        return hessian


def _inputs(function: Callable, given: Mapping[str, Any]) -> Inputs:
    """Return what a call of one of LAYERS is given, by its names."""
    x, weight = given["input"], given["weight"]
    if function is functional.linear:
        return Inputs(x.reshape(-1, x.shape[-1], 1, 1), (1, 1), 1, {}, len(x))
    settings = {key: given[key] for key in ("stride", "padding", "dilation") if key in given}
    named = settings.get("padding")
    if named == "same":  # the odd zero is after the map, as torch.nn.functional.conv2d has it
        dilation = settings.get("dilation", 1)
        steps = (dilation, dilation) if isinstance(dilation, int) else dilation
        zeros = [step * (side - 1) for step, side in zip(steps, weight.shape[2:], strict=True)]
        x = functional.pad(x, [part for zero in reversed(zeros) for part in (zero // 2, zero - zero // 2)])
    if isinstance(named, str):
        del settings["padding"]
    return Inputs(x, tuple(weight.shape[2:]), given.get("groups", 1), settings, len(x))


def as_rows(weight: Tensor, groups: int) -> Tensor:
    """Return a layer's weight [outputs, inputs, ...] as float64 [groups, outputs of a group, D], see
    `Inputs.columns`."""
    by_position = weight.double().reshape(groups, len(weight) // groups, weight.shape[1], -1).movedim(3, 2)
    return by_position.flatten(2)


def from_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows of `as_rows` in the shape and the type of a layer's weight."""
    return rows.unflatten(2, (-1, weight.shape[1])).movedim(2, 3).reshape(weight.shape).to(weight.dtype)


# --------------------------------------------------------------------------------------------------------- methods


def _first(score: Tensor, count: int) -> Tensor:
    """Return where the smallest of the last dimension are, so many of each: bool; of equal ones those before."""
    order = score.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, order, True)


def wanda(rows: Tensor, inputs: Inputs, settings: Mapping[str, Any]) -> Tensor:
    """Prune by |weight| x norm of its input, compared within each output (Wanda, equation 1 and section 3).

    Args:
        rows: of `as_rows`; zeros among them stay, and count.
        inputs: of the layer.
        settings: `sparsity`, the share of each row to remove, rounded (in the published code down); or `n` and `m`:
            all but n of each m channels next to each other, at one position of the kernel.

    Returns:
        The rows, with zeros.
    """
    score = rows.abs() * inputs.squares().sqrt()[:, None]
    score[rows == 0] = -1
    if settings["n"]:
        removed = _first(score.unflatten(2, (-1, settings["m"])), settings["m"] - settings["n"]).flatten(2)
    else:
        removed = _first(score, round(settings["sparsity"] * score.shape[2]))
    return rows.masked_fill(removed, 0)


def sparsegpt(rows: Tensor, inputs: Inputs, settings: Mapping[str, Any]) -> Tensor:
    """Prune column by column, and update what is right of it by the inverse Hessian (SparseGPT, algorithm 1).

    Masks are chosen when their block of BLOCK columns is reached (with n:m a multiple of m, when each m are), by
    w^2 / [H^-1]^2 with the diagonal of the inverse's Cholesky factor. DAMPENING is added to the Hessian's diagonal.
    Inputs that are always zero lose their weights. Of a convolution with groups, each has a Hessian of its own, and
    all rows share the choice.

    Args:
        rows: of `as_rows`; zeros among them stay, and count.
        inputs: of the layer.
        settings: `sparsity`, the share of each block to remove, rounded (in the published code one weight more than
            rounded down); or `n` and `m`, see `wanda`.

    Returns:
        The rows, with zeros and updated.
    """
    rows, hessian, m = rows.clone(), inputs.hessian(), settings["m"]
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    gone = (rows == 0) | (diagonal == 0)[:, None]
    rows[gone] = 0
    diagonal[diagonal == 0] = 1
    diagonal += DAMPENING * diagonal.mean(1, keepdim=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    width = max(m, BLOCK - BLOCK % m) if m else BLOCK
    for start in range(0, rows.shape[2], width):
        here, behind = slice(start, start + width), slice(start + width, None)
        block, steps, of_block = rows[:, :, here], factor[:, here, here], gone[:, :, here].clone()
        errors = torch.zeros_like(block)
        for column in range(block.shape[2]):
            chosen = slice(column, column + m) if m else slice(None)
            if column % m == 0 if m else column == 0:
                score = (block[:, :, chosen] / steps.diagonal(dim1=1, dim2=2)[:, None, chosen]).square()
                score[of_block[:, :, chosen]] = -1
                count = m - settings["n"] if m else round(settings["sparsity"] * score.numel())
                removed = _first(score, count) if m else _first(score.flatten(), count).view_as(score)
                of_block[:, :, chosen] |= removed
            kept = block[:, :, column].masked_fill(of_block[:, :, column], 0)
            errors[:, :, column] = (block[:, :, column] - kept) / steps[:, None, column, column]
            block[:, :, column:] -= errors[:, :, column, None] * steps[:, None, column, column:]
            block[:, :, column] = kept  # what is left of it is rounding
        rows[:, :, behind] -= errors @ factor[:, here, behind]
    return rows


def _of_each_output(rows: Tensor, sparsity: float) -> tuple[str, int, int]:
    """See `Method.zeros`: the fewest of an output's."""
    return " of an output", int((rows == 0).sum(1).min()), round(sparsity * rows.shape[1])


def _of_all_blocks(rows: Tensor, sparsity: float) -> tuple[str, int, int]:
    """See `Method.zeros`: those of the layer."""
    widths = [min(BLOCK, rows.shape[1] - start) for start in range(0, rows.shape[1], BLOCK)]
    return "", int((rows == 0).sum()), sum(round(sparsity * len(rows) * width) for width in widths)


class Method(NamedTuple):
    """A way to prune a layer by its inputs.

    Attributes:
        prune: returns the rows of a layer, pruned, of these, its inputs and the settings: see `wanda`.
        zeros: returns, of a layer's weight [outputs, D] and a sparsity, of what zeros are counted, how many there
            are, and how many it makes.
    """

    prune: Callable[[Tensor, Inputs, Mapping[str, Any]], Tensor]
    zeros: Callable[[Tensor, float], tuple[str, int, int]]


METHODS = {"wanda": Method(wanda, _of_each_output), "sparsegpt": Method(sparsegpt, _of_all_blocks)}


def violations(weights: dict[str, Weight], method: str, sparsity: float) -> list[str]:
    """Return a line for each layer with fewer zeros than a method of METHODS makes for a sparsity."""
    counts = {key: METHODS[method].zeros(weight.tensor.flatten(1), sparsity) for key, weight in weights.items()}
    return [
        f"{layer_name(key)}: {found} weights{of} are zero, expected {required} at least"
        for key, (of, found, required) in counts.items()
        if found < required
    ]


# ------------------------------------------------------------------------------------------------------ the network


class _InOrder(TorchFunctionMode):
    """Calls `prune`, with the key of a weight and what its layer is given, at the first call of each layer."""

    def __init__(self, weights: dict[str, Weight], prune: Callable[[str, Inputs], None]):
        super().__init__()
        self.waiting = {id(weight.tensor): key for key, weight in weights.items()}
        self.prune = prune

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in LAYERS:
            given = dict(zip(LAYERS[function], args, strict=False)) | kwargs
            key = self.waiting.pop(id(given["weight"]), None)
            if key is not None:
                self.prune(key, _inputs(function, given))
        return function(*args, **kwargs)


@torch.no_grad()
def prune_in_order(
    network: nn.Module, weights: dict[str, Weight], images: Tensor, method: str, settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Prune layers of a network, in place, in the order in which images reach them.

    Args:
        network: in evaluation mode.
        weights: those to prune, by key.
        images: to calibrate on, normalised [N, 3, S, S], all of which go through at once.
        method: a name of METHODS.
        settings: its own.

    Returns:
        Masks, bool by key, True where kept.

    Raises:
        ValueError: there is no weight to prune, images do not reach a layer, or what they make of one is not finite.
    """
    if not weights:
        raise ValueError(f"{method}: no layer has inputs in groups of {settings['m'] or 1}")
    masks = {}

    def prune(key: str, given: Inputs) -> None:
        weight = weights[key].tensor
        if not given.maps.isfinite().all():
            raise ValueError(f"{method}: what {layer_name(key)} is given of the calibration images is not finite")
        weight.copy_(from_rows(METHODS[method].prune(as_rows(weight, given.groups), given, settings), weight))
        masks[key] = weight != 0

    in_order = _InOrder(weights, prune)
    with in_order:
        network(images)
    if in_order.waiting:
        first, *others = in_order.waiting.values()
        more = f" and {len(others)} more" if others else ""
        raise ValueError(f"{method}: calibration images do not reach {layer_name(first)}{more}")
    return masks
