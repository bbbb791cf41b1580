"""The border once: exact sharing of a prompted border's activations over the images of a batch.

A prompted canvas is one border, the same for all images of a run, around one image each. In a convolutional network
an activation is the same for all images of the run wherever its receptive field does not reach the image. It is
computed once there, with batch size one a run, and per image only in the window that the image reaches, which grows
from layer to layer. Nothing is approximated: in exact arithmetic every output is that of whole canvases, and each
network is held to that in float64 before its border is shared (`exactness`). On a canvas of 224 it leaves 51 % of
ResNet-18's arithmetic and 59 % of MobileNetV2's for images of 32 pixels, and 82 % and 78 % for those of 128 (`make
bench`, bench/results/throughput.md).
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hiddencost.prompting.fusion import BiasActivation
from hiddencost.prompting.maps import Range, SharedMaps, Window, add, cut, paste, slide, take, union
from hiddencost.prompting.precision import Float32Conv2d


def _pair(value: int | Sequence[int]) -> Range:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _NotShared(Exception):
    """An operation goes on with whole maps, as they are cheaper or it has no other way; says why."""


def _check_cover(window: Window, border: Tensor, cover: float) -> None:
    share = math.prod(stop - start for start, stop in window) / math.prod(border.shape[2:])
    if share > cover:
        raise _NotShared(f"the image reaches {share:.0%} of the map")


def _convolve(
    x: SharedMaps, cover: float, weight, bias=None, stride=1, padding=0, dilation=1, groups=1
) -> SharedMaps:
    if isinstance(padding, str):
        raise _NotShared(f"padding {padding!r} is not served")
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    border = functional.conv2d(x.border, weight, bias, stride, padding, dilation, groups)
    window, area = slide(x.window, border.shape[2:], weight.shape[2:], stride, padding, dilation)
    if x.is_canvas and union([x.window, area]) == area:
        # a convolution is linear: of the image alone, which needs no gradient, plus of the border alone
        (top, bottom), (left, right) = (
            (inner[0] - outer[0], outer[1] - inner[1]) for inner, outer in zip(x.window, area, strict=True)
        )
        image = functional.pad(x.patch, (left, right, top, bottom))
        image = functional.conv2d(image, weight, None, stride, 0, dilation, groups)
        patch = add(image, window, border, x.runs)
    else:
        _check_cover(window, border, cover)
        patch = functional.conv2d(take(x, area), weight, bias, stride, 0, dilation, groups)
    return SharedMaps(border, patch, window, x.runs)


def _conv_module(x: SharedMaps, cover: float, module: nn.Conv2d) -> SharedMaps:
    if module.padding_mode != "zeros":
        raise _NotShared(f"padding mode {module.padding_mode!r} is not served")
    return _convolve(
        x, cover, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


def _max_pool(
    x: SharedMaps,
    cover: float,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
) -> SharedMaps:
    if return_indices:
        raise _NotShared("indices of a maximum pooling are not served")
    kernel, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = _pair(stride or kernel_size)
    border = functional.max_pool2d(x.border, kernel, stride, padding, dilation, ceil_mode)
    window, area = slide(x.window, border.shape[2:], kernel, stride, padding, dilation)
    _check_cover(window, border, cover)
    return SharedMaps(
        border, functional.max_pool2d(take(x, area, -math.inf), kernel, stride, 0, dilation), window, x.runs
    )


def _avg_pool(
    x: SharedMaps,
    cover: float,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
) -> SharedMaps:
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
    return SharedMaps(border, sums * cut(average / total, window), window, x.runs)


def _pad(x: SharedMaps, cover: float, pad, mode="constant", value=None) -> SharedMaps:
    if mode != "constant" or len(pad) > 4 or min(pad) < 0:
        raise _NotShared("this padding is not served")
    (left, _), (top, _) = pad[:2], (*pad[2:], 0, 0)[:2]
    (y0, y1), (x0, x1) = x.window
    window = (y0 + top, y1 + top), (x0 + left, x1 + left)
    border = functional.pad(x.border, pad, value=value or 0)
    return SharedMaps(
        border, x.patch.clone(), window, x.runs
    )  # a copy, as padding gives: what follows may work in place


def _sum(x: SharedMaps, cover: float, other: SharedMaps, **kwargs) -> SharedMaps:
    if kwargs or not isinstance(x, SharedMaps) or not isinstance(other, SharedMaps):
        raise _NotShared("only sums of two activations are served")
    area = union([x.window, other.window])
    if x.window != area:
        x, other = other, x
    patch = add(take(x, area), area, other.border, x.runs, other.patch, other.window)
    return SharedMaps(x.border + other.border, patch, area, x.runs)


def _concatenate(parts: Sequence[SharedMaps], cover: float, dim: int = 0) -> SharedMaps:
    if dim not in (1, -3) or not all(isinstance(part, SharedMaps) for part in parts):
        raise _NotShared("only channels of shared maps are put together")
    area = union([part.window for part in parts])
    patch = torch.cat([take(part, area) for part in parts], 1)
    return SharedMaps(torch.cat([part.border for part in parts], 1), patch, area, parts[0].runs)


def _bias_activation(
    x: SharedMaps, cover: float, module: BiasActivation, residual: SharedMaps | None = None
) -> SharedMaps:
    if residual is not None:
        x = _sum(x, cover, residual)
    return replace(x, border=module(x.border), patch=module(x.patch), is_canvas=False)


SLIDING: dict[Callable, Callable[..., SharedMaps]] = {
    functional.conv2d: _convolve,
    functional.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    functional.avg_pool2d: _avg_pool,
    functional.pad: _pad,
    operator.add: _sum,
    torch.add: _sum,
    torch.cat: _concatenate,
}
MODULES: dict[type[nn.Module], Callable[..., SharedMaps]] = {
    nn.Conv2d: _conv_module,
    Float32Conv2d: lambda x, cover, m: _conv_module(x.to(torch.float32), cover, m).to(torch.bfloat16),
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

    Attributes:
        cover: where the window covers more than this share of a map, the parts are pasted together, and the network
            goes on with whole maps; so it does from an operation on that is not served.
        ended: where, by the node's name, and why.
    """

    def __init__(self, network: fx.GraphModule, cover: float):
        super().__init__(network)
        self.cover = cover
        self.ended: dict[str, str] = {}

    def __call__(self, canvas: SharedMaps | Tensor) -> Tensor:
        """Return the network's output for canvases (see Prompt.compose)."""
        try:
            return self.run(canvas)
        finally:
            self.env = {}  # where memory ran out, it would hold maps

    def run_node(self, node: fx.Node):
        self.node = node
        return super().run_node(node)

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)

        def shared(x: SharedMaps, *others: SharedMaps) -> SharedMaps:
            if isinstance(module, POINTWISE_MODULES):
                return replace(x, border=module(x.border), patch=module(x.patch), is_canvas=False)
            if type(module) not in MODULES:
                raise _NotShared(f"{type(module).__name__} is not served")
            return MODULES[type(module)](x, self.cover, module, *others)

        return self._try(shared, module, args, kwargs)

    def call_function(self, target, args, kwargs):
        def shared(x, *rest, **kwargs) -> SharedMaps:
            if target in POINTWISE_FUNCTIONS or getattr(target, "is_pointwise", False):  # a quantiser says so
                border, patch = target(x.border, *rest, **kwargs), target(x.patch, *rest, **kwargs)
                return replace(x, border=border, patch=patch, is_canvas=False)
            if target not in SLIDING:
                raise _NotShared(f"{getattr(target, '__name__', target)} is not served")
            return SLIDING[target](x, self.cover, *rest, **kwargs)

        return self._try(shared, target, args, kwargs)

    def call_method(self, target, args, kwargs):
        def shared(*args, **kwargs):
            raise _NotShared(f"{target} is not served")

        return self._try(shared, lambda x, *rest, **kwargs: getattr(x, target)(*rest, **kwargs), args, kwargs)

    def _try(self, shared: Callable, unshared: Callable, args: tuple, kwargs: dict):
        """Compute a node by its two parts; of whole maps, where an input is whole or the operation is not served."""
        inputs = [node for node in self.node.all_input_nodes if node.op != "get_attr"]
        split = [node for node in inputs if isinstance(self.env[node], SharedMaps)]
        if split and self.node.name not in self.ended:
            try:
                if len(split) < len(inputs):
                    raise _NotShared("another input is not shared")
                return shared(*args, **kwargs)
            except _NotShared as reason:
                self.ended[self.node.name] = str(reason)
        for node in split:  # for all its users
            self.env[node] = paste(self.env[node])
        if split:
            args, kwargs = self.fetch_args_kwargs_from_env(self.node)
        return unshared(*args, **kwargs)


# what computes a network's logits of canvases
Executor = Callable[[SharedMaps | Tensor], Tensor] | SharedNetwork


def executor(network: nn.Module, cover: float | None) -> Executor:
    """Return what computes a network's logits of canvases: whole ones, or the border once."""
    return (lambda canvas: network(paste(canvas))) if cover is None else SharedNetwork(as_graph(network), cover)


def as_graph(network: nn.Module) -> fx.GraphModule:
    """Return a network of which a plan takes that torch.fx can walk it."""
    assert isinstance(network, fx.GraphModule)
    return network
