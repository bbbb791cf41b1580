"""The border once: exact sharing of a prompted border's activations over the images of a batch.

A prompted canvas is one border, the same for all images of a run, around one image each. In a convolutional network
an activation is the same for all images of the run wherever its receptive field does not reach the image. It is
computed once there, with batch size one a run, and per image only in the window that the image reaches, which grows
from layer to layer. Nothing is approximated: in exact arithmetic every output is the dense network's.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.nn import functional

from hiddencost.prompting.fusion import BiasActivation

Range = tuple[int, int]  # pixels [from, to) of one axis
Window = tuple[Range, Range]  # rows and columns
NOWHERE: Window = ((0, 0), (0, 0))


@dataclass
class Split:
    """An activation of N images of R runs, in two parts.

    border: [R, C, H, W], the map of each run, which holds outside the window; patch: [N, C, h, w], the map of each
    image inside the window; runs: int64 [N], the run of each image. is_canvas marks the network's input, whose border
    is 0 inside the window and whose patch needs no gradient.
    """

    border: Tensor
    patch: Tensor
    window: Window
    runs: Tensor
    is_canvas: bool = False


def whole(maps: Tensor) -> Window:
    """Return the window of a whole map."""
    return (0, maps.shape[2]), (0, maps.shape[3])


def _intersection(a: Window, b: Window) -> Window:
    def overlap(p: Range, q: Range) -> Range:
        start = max(p[0], q[0])
        return start, max(start, min(p[1], q[1]))

    return overlap(a[0], b[0]), overlap(a[1], b[1])


def _union(windows: Sequence[Window]) -> Window:
    rows, columns = zip(*windows, strict=True)
    return tuple((min(start for start, _ in axis), max(stop for _, stop in axis)) for axis in (rows, columns))


def _cut(maps: Tensor, area: Window, origin: Window = NOWHERE) -> Tensor:
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
        part, into = _cut(gradient, strip, area), _cut(total, strip)
        if shape[0] == 1:
            into += part.sum(0, keepdim=True, dtype=precise)
        else:
            into.index_add_(0, runs, part.to(precise))
    return total.to(gradient.dtype)


class _Take(Function):
    @staticmethod
    def forward(ctx, patch, border, runs, window, area, fill):
        on_map = _intersection(area, whole(border))
        inner = _intersection(area, window)
        strips = _frame(on_map, inner)
        ctx.save_for_backward(runs)
        ctx.geometry = window, area, inner, strips, patch.shape, border.shape
        maps = _empty((*patch.shape[:2], *(stop - start for start, stop in area)), patch)
        for outside in _frame(area, on_map):
            _cut(maps, outside, area).fill_(fill)
        for strip in strips:
            _cut(maps, strip, area).copy_(_of_images(_cut(border, strip), runs))
        _cut(maps, inner, area).copy_(_cut(patch, inner, window))
        return maps

    @staticmethod
    def backward(ctx, gradient):
        (runs,) = ctx.saved_tensors
        window, area, inner, strips, patch_shape, border_shape = ctx.geometry
        of_patch = of_border = None
        if ctx.needs_input_grad[0]:
            of_patch = _cut(gradient, inner, area)
            if inner != window:
                of_patch = _empty(patch_shape, gradient).zero_()
                _cut(of_patch, inner, window).copy_(_cut(gradient, inner, area))
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
            torch.add(_cut(maps, window, area), patch, out=_cut(total, window, area))
        for strip in strips:
            torch.add(_cut(maps, strip, area), _of_images(_cut(border, strip), runs), out=_cut(total, strip, area))
        return total

    @staticmethod
    def backward(ctx, gradient):
        (runs,) = ctx.saved_tensors
        area, window, strips, border_shape = ctx.geometry
        of_patch = of_border = None
        if ctx.needs_input_grad[2]:
            of_patch = _cut(gradient, window, area)
        if ctx.needs_input_grad[3]:
            of_border = _border_gradient(gradient, runs, area, strips, border_shape)
        return gradient if ctx.needs_input_grad[0] else None, None, of_patch, of_border, None, None


def take(x: Split, area: Window, fill: float = 0.0) -> Tensor:
    """Return the images' maps in an area, [N, C, h, w]; what lies outside the map is filled."""
    if area == x.window:
        return x.patch
    return _Take.apply(x.patch, x.border, x.runs, x.window, area, fill)


def paste(x: Split) -> Tensor:
    """Return the images' whole maps, [N, C, H, W]: both parts in one, as an unshared network has them."""
    return take(x, whole(x.border))


def cast(x: Split | Tensor, dtype: torch.dtype) -> Split | Tensor:
    """Return maps, in one or in two parts, in another dtype."""
    return replace(x, border=x.border.to(dtype), patch=x.patch.to(dtype)) if isinstance(x, Split) else x.to(dtype)


def slide(
    window: Window, sizes: Sequence[int], kernel: Range, stride: Range, padding: Range, dilation: Range = (1, 1)
) -> tuple[Window, Window]:
    """Return the window that a sliding kernel makes of one, and the area of the input that it reads for it.

    sizes: height and width of the output. All outputs that see a pixel of the window lie in the new one; where a
    stride steps over the window, one output that does not stands for it. The area may reach over the map.
    """
    made, read = [], []
    for (start, stop), size, k, s, p, d in zip(window, sizes, kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1)
        first = min(max(0, -((reach - start - p) // s)), size - 1)  # rounded up
        end = max(first + 1, min(size, (stop - 1 + p) // s + 1))
        made.append((first, end))
        read.append((first * s - p, (end - 1) * s - p + reach + 1))
    return tuple(made), tuple(read)


def _pair(value: int | Sequence[int]) -> Range:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _GoDense(Exception):
    """From here on the whole maps are cheaper, or all that serves; says why."""


def _check_cover(window: Window, border: Tensor, cover: float) -> None:
    share = math.prod(stop - start for start, stop in window) / math.prod(border.shape[2:])
    if share > cover:
        raise _GoDense(f"the image reaches {share:.0%} of the map")


def _convolve(x: Split, cover: float, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Split:
    if isinstance(padding, str):
        raise _GoDense(f"padding {padding!r} is not served")
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    border = functional.conv2d(x.border, weight, bias, stride, padding, dilation, groups)
    window, area = slide(x.window, border.shape[2:], weight.shape[2:], stride, padding, dilation)
    if x.is_canvas and _union([x.window, area]) == area:
        # a convolution is linear: of the image alone, which needs no gradient, plus of the border alone
        (top, bottom), (left, right) = (
            (inner[0] - outer[0], outer[1] - inner[1]) for inner, outer in zip(x.window, area, strict=True)
        )
        image = functional.pad(x.patch, (left, right, top, bottom))
        image = functional.conv2d(image, weight, None, stride, 0, dilation, groups)
        patch = _Add.apply(image, window, None, border, x.runs, NOWHERE)
    else:
        _check_cover(window, border, cover)
        patch = functional.conv2d(take(x, area), weight, bias, stride, 0, dilation, groups)
    return Split(border, patch, window, x.runs)


def _conv_module(x: Split, cover: float, module: nn.Conv2d) -> Split:
    if module.padding_mode != "zeros":
        raise _GoDense(f"padding mode {module.padding_mode!r} is not served")
    return _convolve(
        x, cover, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 within a network of bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).bfloat16()


def _max_pool(
    x: Split, cover: float, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
) -> Split:
    if return_indices:
        raise _GoDense("indices of a maximum pooling are not served")
    kernel, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = _pair(stride or kernel_size)
    border = functional.max_pool2d(x.border, kernel, stride, padding, dilation, ceil_mode)
    window, area = slide(x.window, border.shape[2:], kernel, stride, padding, dilation)
    _check_cover(window, border, cover)
    return Split(border, functional.max_pool2d(take(x, area, -math.inf), kernel, stride, 0, dilation), window, x.runs)


def _avg_pool(
    x: Split,
    cover: float,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
) -> Split:
    kernel, stride, padding = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    rest = ceil_mode, count_include_pad, divisor_override
    border = functional.avg_pool2d(x.border, kernel, stride, padding, *rest)
    window, area = slide(x.window, border.shape[2:], kernel, stride, padding)
    _check_cover(window, border, cover)
    # what a sum is divided by depends, at the map's edge, on the three options: taken from the pooling of ones
    ones = torch.ones_like(x.border[:1, :1])
    average = functional.avg_pool2d(ones, kernel, stride, padding, *rest)
    total = functional.avg_pool2d(ones, kernel, stride, padding, ceil_mode, divisor_override=1)
    sums = functional.avg_pool2d(take(x, area), kernel, stride, divisor_override=1)
    return Split(border, sums * _cut(average / total, window), window, x.runs)


def _pad(x: Split, cover: float, pad, mode="constant", value=None) -> Split:
    if mode != "constant" or len(pad) > 4 or min(pad) < 0:
        raise _GoDense("this padding is not served")
    (left, _), (top, _) = pad[:2], (*pad[2:], 0, 0)[:2]
    (y0, y1), (x0, x1) = x.window
    window = (y0 + top, y1 + top), (x0 + left, x1 + left)
    border = functional.pad(x.border, pad, value=value or 0)
    return Split(border, x.patch.clone(), window, x.runs)  # a copy, as padding gives: what follows may work in place


def _sum(x: Split, cover: float, other: Split, **kwargs) -> Split:
    if kwargs or not isinstance(x, Split) or not isinstance(other, Split):
        raise _GoDense("only sums of two activations are served")
    union = _union([x.window, other.window])
    if x.window != union:
        x, other = other, x
    patch = _Add.apply(take(x, union), union, other.patch, other.border, x.runs, other.window)
    return Split(x.border + other.border, patch, union, x.runs)


def _concatenate(parts: Sequence[Split], cover: float, dim: int = 0) -> Split:
    if dim not in (1, -3) or not all(isinstance(part, Split) for part in parts):
        raise _GoDense("only channels of shared maps are put together")
    union = _union([part.window for part in parts])
    patch = torch.cat([take(part, union) for part in parts], 1)
    return Split(torch.cat([part.border for part in parts], 1), patch, union, parts[0].runs)


def _bias_activation(x: Split, cover: float, module: BiasActivation, residual: Split | None = None) -> Split:
    if residual is not None:
        x = _sum(x, cover, residual)
    return replace(x, border=module(x.border), patch=module(x.patch), is_canvas=False)


SLIDING: dict[Callable, Callable[..., Split]] = {
    functional.conv2d: _convolve,
    functional.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    functional.avg_pool2d: _avg_pool,
    functional.pad: _pad,
    operator.add: _sum,
    torch.add: _sum,
    torch.cat: _concatenate,
}
MODULES: dict[type[nn.Module], Callable[..., Split]] = {
    nn.Conv2d: _conv_module,
    Float32Conv2d: lambda x, cover, m: cast(_conv_module(cast(x, torch.float32), cover, m), torch.bfloat16),
    nn.MaxPool2d: lambda x, cover, m: _max_pool(
        x, cover, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda x, cover, m: _avg_pool(
        x, cover, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    BiasActivation: _bias_activation,
    nn.ZeroPad2d: lambda x, cover, m: _pad(x, cover, m.padding),
}
POINTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh),
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d),
)
POINTWISE_FUNCTIONS = {
    *(functional.relu, torch.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.silu),
    *(functional.gelu, functional.hardswish, functional.hardtanh, torch.sigmoid, torch.tanh, functional.dropout),
}


class SharedNetwork(fx.Interpreter):
    """A frozen network, in evaluation mode, that computes the border once.

    cover: where the window covers more than this share of a map, the parts are pasted together and the network goes
    on densely; so it does from an operation on that is not served. `ended` tells where and why, by the node's name.
    """

    def __init__(self, network: fx.GraphModule, cover: float):
        super().__init__(network)
        self.cover = cover
        self.ended: dict[str, str] = {}

    def __call__(self, canvas: Split) -> Tensor:
        """Return the network's output for canvases (see prompt.compose)."""
        try:
            return self.run(canvas)
        finally:
            self.env = {}  # where memory ran out, it holds what there is

    def run_node(self, node: fx.Node):
        self.node = node
        return super().run_node(node)

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)

        def shared(x: Split, *others: Split) -> Split:
            if isinstance(module, POINTWISE_MODULES):
                return replace(x, border=module(x.border), patch=module(x.patch), is_canvas=False)
            if type(module) not in MODULES:
                raise _GoDense(f"{type(module).__name__} is not served")
            return MODULES[type(module)](x, self.cover, module, *others)

        return self._try(shared, module, args, kwargs)

    def call_function(self, target, args, kwargs):
        def shared(x, *rest, **kwargs) -> Split:
            if target in POINTWISE_FUNCTIONS:
                border, patch = target(x.border, *rest, **kwargs), target(x.patch, *rest, **kwargs)
                return replace(x, border=border, patch=patch, is_canvas=False)
            if target not in SLIDING:
                raise _GoDense(f"{getattr(target, '__name__', target)} is not served")
            return SLIDING[target](x, self.cover, *rest, **kwargs)

        return self._try(shared, target, args, kwargs)

    def call_method(self, target, args, kwargs):
        def shared(*args, **kwargs):
            raise _GoDense(f"{target} is not served")

        return self._try(shared, lambda x, *rest, **kwargs: getattr(x, target)(*rest, **kwargs), args, kwargs)

    def _try(self, shared: Callable, dense: Callable, args: tuple, kwargs: dict):
        """Compute a node by its two parts; densely, where an input is dense or the operation is not served."""
        inputs = [node for node in self.node.all_input_nodes if node.op != "get_attr"]
        split = [node for node in inputs if isinstance(self.env[node], Split)]
        if split and self.node.name not in self.ended:
            try:
                if len(split) < len(inputs):
                    raise _GoDense("another input is not shared")
                return shared(*args, **kwargs)
            except _GoDense as reason:
                self.ended[self.node.name] = str(reason)
        for node in split:  # for all its users
            self.env[node] = paste(self.env[node])
        if split:
            args, kwargs = self.fetch_args_kwargs_from_env(self.node)
        return dense(*args, **kwargs)
