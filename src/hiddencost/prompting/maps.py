"""Maps in two parts: what all images of a run share, and of each image the window that it reaches.

Windows are plain arithmetic on pixels. `take` and `paste` make whole maps of the two parts, and their gradients flow
back into both: the shared part's is summed over the images of its run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd import Function

Range = tuple[int, int]  # pixels [from, to) of one axis
Window = tuple[Range, Range]  # rows and columns
NOWHERE: Window = ((0, 0), (0, 0))


def whole_window(maps: Tensor) -> Window:
    """Return the window of a whole map."""
    return (0, maps.shape[2]), (0, maps.shape[3])


def _intersection(a: Window, b: Window) -> Window:
    def overlap(p: Range, q: Range) -> Range:
        start = max(p[0], q[0])
        return start, max(start, min(p[1], q[1]))

    return overlap(a[0], b[0]), overlap(a[1], b[1])


def union(windows: Sequence[Window]) -> Window:
    def span(ranges: Sequence[Range]) -> Range:
        return min(start for start, _ in ranges), max(stop for _, stop in ranges)

    return span([rows for rows, _ in windows]), span([columns for _, columns in windows])


def cut(maps: Tensor, area: Window, origin: Window = NOWHERE) -> Tensor:
    """Return an area of maps, as a view; they start where `origin` starts."""
    (top, bottom), (left, right) = area
    (y, _), (x, _) = origin
    return maps[:, :, top - y : bottom - y, left - x : right - x]


def _frame(area: Window, hole: Window) -> list[Window]:
    """Return the areas, four at most, that make up `area` without `hole`, which lies in it."""
    (top, bottom), (left, right) = area
    (y0, y1), (x0, x1) = hole
    if y0 == y1 or x0 == x1:
        return [area]
    strips = [
        ((top, y0), (left, right)),
        ((y1, bottom), (left, right)),
        ((y0, y1), (left, x0)),
        ((y0, y1), (x1, right)),
    ]
    return [strip for strip in strips if all(start < stop for start, stop in strip)]


def slide(
    window: Window, sizes: Sequence[int], kernel: Range, stride: Range, padding: Range, dilation: Range = (1, 1)
) -> tuple[Window, Window]:
    """Return the window that a sliding kernel makes of a window, and the area of the input that it reads for it.

    All outputs that see a pixel of the window lie in the new one; where a stride steps over the window, one output
    that does not stands for it. The area may reach over the map.

    Args:
        window: of the input.
        sizes: height and width of the output.
        kernel, stride, padding, dilation: by axis.
    """
    made, read = [], []
    for (start, stop), size, k, s, p, d in zip(window, sizes, kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1)
        first = min(max(0, -((reach - start - p) // s)), size - 1)  # rounded up
        end = max(first + 1, min(size, (stop - 1 + p) // s + 1))
        made.append((first, end))
        read.append((first * s - p, (end - 1) * s - p + reach + 1))
    return (made[0], made[1]), (read[0], read[1])


@dataclass
class SharedMaps:
    """An activation of N images of R runs, in two parts.

    Attributes:
        border: [R, C, H, W], the map of each run, which holds outside the window.
        patch: [N, C, h, w], the map of each image inside the window.
        window: the rows and columns of the patch.
        runs: int64 [N], the run of each image.
        is_canvas: whether it is the network's input, whose border is 0 inside the window and whose patch needs no
            gradient.
    """

    border: Tensor
    patch: Tensor
    window: Window
    runs: Tensor
    is_canvas: bool = False

    def to(self, dtype: torch.dtype) -> "SharedMaps":
        """Return both parts in another dtype."""
        return replace(self, border=self.border.to(dtype), patch=self.patch.to(dtype))


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _of_images(border: Tensor, runs: Tensor) -> Tensor:
    """Return the border of each image: [R, C, h, w] to [N, C, h, w]."""
    return border if len(border) == 1 else border[runs]


def _border_gradient(gradient: Tensor, runs: Tensor, area: Window, strips: list[Window], shape: torch.Size) -> Tensor:
    """Sum the gradient of the images' maps in an area over the images of each run, where they show the border."""
    precise = torch.promote_types(gradient.dtype, torch.float32)  # bf16 would lose small terms of a long sum
    total = torch.zeros(shape, dtype=precise, device=gradient.device).to(memory_format=torch.channels_last)
    for strip in strips:
        part, into = cut(gradient, strip, area), cut(total, strip)
        if shape[0] == 1:
            into += part.sum(0, keepdim=True, dtype=precise)
        else:
            into.index_add_(0, runs, part.to(precise))
    return total.to(gradient.dtype)


class _Take(Function):
    @staticmethod
    def forward(ctx, patch, border, runs, window, area, fill):
        on_map = _intersection(area, whole_window(border))
        inner = _intersection(area, window)
        strips = _frame(on_map, inner)
        ctx.save_for_backward(runs)
        ctx.geometry = window, area, inner, strips, patch.shape, border.shape
        maps = _empty((*patch.shape[:2], *(stop - start for start, stop in area)), patch)
        for outside in _frame(area, on_map):
            cut(maps, outside, area).fill_(fill)
        for strip in strips:
            cut(maps, strip, area).copy_(_of_images(cut(border, strip), runs))
        cut(maps, inner, area).copy_(cut(patch, inner, window))
        return maps

    @staticmethod
    def backward(ctx, gradient):
        (runs,) = ctx.saved_tensors
        window, area, inner, strips, patch_shape, border_shape = ctx.geometry
        of_patch = of_border = None
        if ctx.needs_input_grad[0]:
            of_patch = cut(gradient, inner, area)
            if inner != window:
                of_patch = _empty(patch_shape, gradient).zero_()
                cut(of_patch, inner, window).copy_(cut(gradient, inner, area))
        if ctx.needs_input_grad[1]:
            of_border = _border_gradient(gradient, runs, area, strips, border_shape)
        return of_patch, of_border, None, None, None, None


class _Add(Function):
    @staticmethod
    def forward(ctx, maps, area, patch, border, runs, window):
        strips = _frame(area, window)
        ctx.save_for_backward(runs)
        ctx.geometry = area, window, strips, border.shape
        total = torch.empty_like(maps)
        if patch is not None:
            torch.add(cut(maps, window, area), patch, out=cut(total, window, area))
        for strip in strips:
            torch.add(cut(maps, strip, area), _of_images(cut(border, strip), runs), out=cut(total, strip, area))
        return total

    @staticmethod
    def backward(ctx, gradient):
        (runs,) = ctx.saved_tensors
        area, window, strips, border_shape = ctx.geometry
        of_patch = of_border = None
        if ctx.needs_input_grad[2]:
            of_patch = cut(gradient, window, area)
        if ctx.needs_input_grad[3]:
            of_border = _border_gradient(gradient, runs, area, strips, border_shape)
        return gradient if ctx.needs_input_grad[0] else None, None, of_patch, of_border, None, None


def take(x: SharedMaps, area: Window, fill: float = 0.0) -> Tensor:
    """Return the images' maps in an area, [N, C, h, w]; what lies outside the map is filled."""
    if area == x.window:
        return x.patch
    return _Take.apply(x.patch, x.border, x.runs, x.window, area, fill)


def paste(x: SharedMaps | Tensor) -> Tensor:
    """Return the images' whole maps, [N, C, H, W], of both parts; those that are whole stay as they are."""
    return take(x, whole_window(x.border)) if isinstance(x, SharedMaps) else x


def add(
    maps: Tensor, area: Window, border: Tensor, runs: Tensor, patch: Tensor | None = None, window: Window = NOWHERE
) -> Tensor:
    """Return the images' maps in an area, [N, C, h, w], plus those of other shared maps, which have their own window
    within it; without a patch, plus the border in all of the area."""
    return _Add.apply(maps, area, patch, border, runs, window)
