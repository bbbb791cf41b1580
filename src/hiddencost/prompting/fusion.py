"""Fewer passes over memory: what follows a convolution of a folded network, in one kernel.

With batch norm folded (`networks.inference`), a convolution on a GPU leaves its bias, a residual sum and the ReLU
to kernels of their own, each of which reads and writes the whole map. Here they are one, written in Triton. In the
forward pass of ResNet-50 in bf16, on a canvas of 224, these kernels move 116 MB an image, and the one in their place
49 (counted over its layers: `pytest tests/test_fusion.py -k bytes`). A backward pass moves the same as before.
"""

import copy
import logging
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hiddencost.networks.inference import ReLU6

if TYPE_CHECKING:
    import triton.language as tl  # noqa: F401  # of the kernels: see `_kernels`

log = logging.getLogger(__name__)
BLOCK = 1024  # elements a program: 16 bytes a thread in bf16
BOUNDS = {"none": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0)}
EAGER: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": torch.relu_, "relu6": ReLU6()}


@cache
def _kernels() -> tuple[Any, Any]:
    """Return the forward and the backward kernel. Raises ImportError where there is no Triton."""
    global tl  # Triton looks its language up among the kernel's globals
    import triton  # not part of every PyTorch
    import triton.language as tl

    @triton.jit
    def forward(
        x,
        bias,
        residual,
        count,
        channels: tl.constexpr,
        lowest: tl.constexpr,
        highest: tl.constexpr,
        block: tl.constexpr,
    ):
        start = tl.program_id(0).to(tl.int64) * block
        place = tl.arange(0, block)
        inside = place < count - start
        channel = ((start % channels).to(tl.int32) + place) % channels
        y = tl.load(x + start + place, inside).to(tl.float32) + tl.load(bias + channel).to(tl.float32)
        if residual is not None:
            y += tl.load(residual + start + place, inside).to(tl.float32)
        # comparisons with NaN are false: it stays, as torch has it
        if lowest is not None:
            y = tl.where(y < lowest, lowest, y)
        if highest is not None:
            y = tl.where(y > highest, highest, y)
        tl.store(x + start + place, y.to(x.dtype.element_ty), inside)

    @triton.jit
    def backward(gradient, y, result, count, lowest: tl.constexpr, highest: tl.constexpr, block: tl.constexpr):
        start = tl.program_id(0).to(tl.int64) * block
        place = tl.arange(0, block)
        inside = place < count - start
        value = tl.load(y + start + place, inside).to(tl.float32)
        passed = tl.load(gradient + start + place, inside)
        passed = tl.where(value <= lowest, 0.0, passed)
        if highest is not None:
            passed = tl.where(value >= highest, 0.0, passed)
        tl.store(result + start + place, passed, inside)

    return forward, backward


def _launch(kernel: Any, x: Tensor, *others: Tensor | int | float | None) -> None:
    """Run a kernel of Triton over all elements of its first argument."""
    with torch.cuda.device_of(x):
        kernel[(-(-x.numel() // BLOCK),)](x, *others, block=BLOCK)


class _Fused(Function):
    """act(x + bias + residual) in place of x. Of it all, the result is kept, as the next convolution does."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor, residual: Tensor | None, activation: str) -> Tensor:
        _launch(_kernels()[0], x, bias, residual, x.numel(), x.shape[1], *BOUNDS[activation])
        ctx.mark_dirty(x)
        ctx.activation = activation
        if activation != "none":
            ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.activation != "none":
            (y,) = ctx.saved_tensors
            # not in place: the gradient may be another node's as well, and the bytes moved would be the same
            result = torch.empty_like(y)
            gradient = gradient.contiguous(memory_format=torch.channels_last)
            _launch(_kernels()[1], gradient, y, result, y.numel(), *BOUNDS[ctx.activation])
            gradient = result
        of_x, _, of_residual, _ = ctx.needs_input_grad
        return gradient if of_x else None, None, gradient if of_residual else None, None


class BiasActivation(nn.Module):
    """act(x + bias + residual), where x is a convolution's output that nobody else reads: it is overwritten.

    bias: [C], frozen, without a gradient. activation: "none", "relu" or "relu6". Values and gradients are those of
    torch's operations on a GPU, with NaN, and at the kinks; in half precision it rounds once, where they round after
    each (where a border is shared, the sum is rounded before). On a GPU it is one kernel for float32 and bfloat16 in
    channels-last memory; elsewhere torch's operations.
    """

    def __init__(self, bias: Tensor, activation: str):
        super().__init__()
        self.bias, self.activation = nn.Parameter(bias.detach(), requires_grad=False), activation

    def extra_repr(self) -> str:
        return f"{len(self.bias)}, {self.activation}"

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x, residual: [N, C, H, W] of one dtype."""
        if x.is_cuda and has_kernel(x, residual):
            return _Fused.apply(x, self.bias, residual, self.activation)
        total = x.to(torch.promote_types(x.dtype, torch.float32)).add_(self.bias[:, None, None])
        if residual is not None:
            total = total + residual
        return EAGER[self.activation](total.to(x.dtype))


def has_kernel(x: Tensor, residual: Tensor | None) -> bool:
    """Say whether the kernel serves tensors: of one shape, float32 or bfloat16, dense and channels last."""
    return x.dtype in (torch.float32, torch.bfloat16) and all(
        (maps.shape, maps.dtype) == (x.shape, x.dtype) and maps.is_contiguous(memory_format=torch.channels_last)
        for maps in (x, residual)
        if maps is not None
    )


def kernels_run(device: torch.device) -> bool:
    """Say whether a device runs the kernels, and gives by them what torch gives. The log says why not."""
    x, residual = torch.linspace(-8, 8, 2 * 2 * 8 * 8 * 8, device=device).reshape(2, 2, 8, 8, 8)
    x, residual = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, residual))
    bias = torch.linspace(-1, 1, 8, device=device)
    expected = functional.relu6(x + bias[:, None, None] + residual)
    reason: object = "they give other values"
    try:
        equal = torch.equal(_Fused.apply(x, bias, residual, "relu6"), expected)
    except Exception as error:  # no Triton, no C compiler, no folder for what it compiles, a GPU it does not serve
        equal, reason = False, error
    if not equal:
        log.warning("bias, sum and ReLU are not fused, as Triton's kernels do not run: %s", reason)
    return equal


SUMS = (operator.add, torch.add)
ACTIVATIONS: dict[Callable | str, str] = {
    **{nn.ReLU: "relu", functional.relu: "relu", torch.relu: "relu"},
    **{nn.ReLU6: "relu6", ReLU6: "relu6", functional.relu6: "relu6"},
}


def fuse_pointwise(network: fx.GraphModule) -> fx.GraphModule:
    """Return the network with bias, residual sum and ReLU behind its convolutions each in one BiasActivation.

    Where nobody else reads a convolution's output, and a sum, a ReLU or both come next, its bias moves into a
    BiasActivation, which is called with its output and, for a sum, the other summand; so does the bias of that one,
    if it is such a convolution too.

    Args:
        network: folded, as `inference.for_inference` gives it, and not yet cast to bfloat16, as biases may be added
            up. It stays as it is.

    Returns:
        A network that shares its weights, and gives the same up to rounding.
    """
    fused = fx.GraphModule(network, copy.deepcopy(network.graph))
    fusion = _Fusion(fused)
    fusion.remove_identities()
    for node in list(fused.graph.nodes):
        if fusion.gives_bias(node) and (chain := fusion.chain_behind(node)):
            fusion.replace(node, chain)
    fused.delete_all_unused_submodules()
    fused.graph.lint()
    fused.recompile()
    return fused


@dataclass
class _Chain:
    """What follows a convolution: a sum, with its other summand (`residual`, none or one node), an activation or
    both."""

    nodes: list[fx.Node]
    residual: list[fx.Node]
    activation: str  # of EAGER


class _Fusion:
    """A network while it is fused."""

    def __init__(self, network: fx.GraphModule):
        self.network, self.graph = network, network.graph
        self.calls = Counter(node.target for node in self.graph.nodes if node.op == "call_module")

    def _kind(self, node: fx.Node) -> Callable | str:
        return type(self._module(node)) if node.op == "call_module" else node.target

    def _module(self, node: fx.Node) -> Any:
        return self.network.get_submodule(str(node.target))

    def remove_identities(self) -> None:
        for node in list(self.graph.nodes):
            if self._kind(node) is nn.Identity:
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)

    def gives_bias(self, node: fx.Node) -> bool:
        """Whether a node is a convolution with a bias, called once, whose output one node reads."""
        is_alone = self._kind(node) is nn.Conv2d and self.calls[node.target] == 1 and len(node.users) == 1
        return is_alone and self._module(node).bias is not None

    def chain_behind(self, convolution: fx.Node) -> _Chain | None:
        """Return what follows such a convolution; None, where that is no sum and no activation."""
        (first,) = nodes = list(convolution.users)
        residual = [node for node in first.all_input_nodes if node is not convolution]
        if residual and self._kind(first) in SUMS and not first.kwargs:
            nodes += first.users if len(first.users) == 1 else []
        else:
            residual = []
        activation = ACTIVATIONS.get(self._kind(nodes[-1]), "none")
        if activation == "none":
            nodes = [first]
        return _Chain(nodes, residual, activation) if residual or activation != "none" else None

    def replace(self, convolution: fx.Node, chain: _Chain) -> None:
        """Put one BiasActivation in place of a chain."""
        biases = [self._take_bias(convolution)]
        for node in chain.residual:
            if self.gives_bias(node) and self._module(node).bias.shape == biases[0].shape:
                biases.append(self._take_bias(node))
        name = f"{convolution.target}_bias_activation"
        self.network.add_submodule(name, BiasActivation(torch.stack(biases).sum(0), chain.activation))
        with self.graph.inserting_before(chain.nodes[0]):
            fused = self.graph.call_module(name, (convolution, *chain.residual))
        chain.nodes[-1].replace_all_uses_with(fused)
        for node in reversed(chain.nodes):
            self.graph.erase_node(node)

    def _take_bias(self, node: fx.Node) -> Tensor:
        """Put a convolution without a bias in place of a node's, and return the bias."""
        old = self._module(node)
        geometry = old.kernel_size, old.stride, old.padding, old.dilation, old.groups
        new = nn.Conv2d(old.in_channels, old.out_channels, *geometry, False, old.padding_mode, device="meta")
        new.weight = old.weight
        self.network.set_submodule(str(node.target), new)
        return old.bias
