"""Bias, residual sum and ReLU in one kernel: equal to torch's operations, alone and in networks."""

import copy
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from hiddencost.networks.build import build
from hiddencost.networks.inference import for_inference
from hiddencost.networks.layers import head_of
from hiddencost.prompting import fusion
from hiddencost.prompting.border import BorderPrompt
from hiddencost.prompting.fusion import BiasActivation, fuse_pointwise, kernels_run
from hiddencost.prompting.maps import paste
from hiddencost.prompting.precision import in_bf16
from hiddencost.prompting.sharing import SharedNetwork

CPU = torch.device("cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # kernels run on the CPU, one program after another
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a CUDA GPU"),
    ],
)
interpreter = pytest.param(
    "cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="run by test_kernels_on_the_cpu_by_tritons_interpreter")
)
ACTIVATIONS = {"none": lambda x: x, "relu": functional.relu, "relu6": functional.relu6}
SHAPES = [(1, 1, 1, 1), (1, 3, 5, 7), (3, 5, 4, 6), (2, 24, 7, 5), (1, 96, 5, 5), (1, 1025, 2, 1)]
FEW = [
    (1, 1, 1, 1),
    (3, 5, 4, 6),
    (1, 1025, 2, 1),
]  # one value, a part of a block, more than one: the interpreter is slow
PLACES = [
    pytest.param(*device.values, shape, marks=device.marks, id=f"{shape}-{device.values[0]}")
    for device, shapes in ((interpreter, FEW), (cuda, SHAPES))
    for shape in shapes
]


@needs_triton
def test_kernels_on_the_cpu_by_tritons_interpreter():
    """It must be asked for before anything imports Triton: in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-k",
        "by_kernel and not cuda",
        __file__,
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r" \d+ passed, \d+ deselected,", done.stdout), done.stdout  # none skipped


def rounded(x, dtype, device):
    """Round float32: to the nearest on a GPU; the interpreter cuts the last 16 bits off."""
    if device == "cpu" and dtype is torch.bfloat16:
        x = (x.view(torch.int32) & -0x10000).view(torch.float32)
    return x.to(dtype)


def drawn(shape, dtype, device):
    """Draw x, bias, residual and a gradient: sums on kinks, NaN and infinities among them."""
    torch.manual_seed(0)
    x, residual, gradient = 3 * torch.randn(3, *shape)
    bias = torch.randn(shape[1])
    for place, (here, there) in enumerate(
        [
            (0, 0),
            (6, 0),
            (2, 4),
            (-0.0, -0.0),
            (torch.nan, 1),
            (1, torch.nan),
            (torch.inf, 1),
            (torch.inf, -torch.inf),
        ]
    ):
        if place < x.numel():
            x.view(-1)[place], residual.view(-1)[place] = here, there
    bias[: shape[1] // 2] = 0  # there sums are exact
    x, residual, gradient = (part.contiguous(memory_format=torch.channels_last) for part in (x, residual, gradient))
    return [part.to(device, dtype) for part in (x, bias, residual, gradient)]


def applied(x, bias, residual, activation):
    """Run the kernels. Returns x as it was, with a gradient, and the result, which took its place."""
    leaf = x.clone().requires_grad_()
    return leaf, fusion._Fused.apply(leaf * 1, bias, residual, activation)


@pytest.mark.parametrize(("device", "shape"), PLACES)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_by_kernel(dtype, activation, with_residual, shape, device):
    x, bias, residual, gradient = drawn(shape, dtype, device)
    if not with_residual:
        residual = None
    expected = x.float() + bias.float()[:, None, None]
    if with_residual:
        expected += residual.float()
        residual.requires_grad_()
    expected = rounded(ACTIVATIONS[activation](expected), dtype, device)
    before = None if residual is None else residual.detach().clone()
    leaf, found = applied(x, bias, residual, activation)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.isnan(found).any() or x.numel() < 5
    # by the result, as torch has it on a GPU: its vectorised hardtanh_backward takes NaN for a kink
    closed = {"none": found.isnan() & False, "relu": found <= 0, "relu6": (found <= 0) | (found >= 6)}[activation]
    of_result = gradient.masked_fill(closed, 0)
    wanted = [leaf] if residual is None else [leaf, residual]
    given = gradient.clone()
    for gradient_of in torch.autograd.grad(found, wanted, given):
        torch.testing.assert_close(gradient_of, of_result, rtol=0, atol=0)
    assert torch.equal(given, gradient)  # it may be another node's as well
    if residual is not None:
        torch.testing.assert_close(residual.detach(), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", [interpreter, cuda])
def test_autograd_is_told_that_x_is_overwritten_by_kernel(device):
    x, bias, _, _ = drawn((2, 4, 3, 3), torch.float32, device)
    kept = x.requires_grad_().exp()  # for its gradient
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fusion._Fused.apply(kept, bias, None, "relu").sum().backward()


@pytest.mark.parametrize("device", [interpreter, cuda])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_network_by_kernel(dtype, device, monkeypatch):
    """Its gradients arrive in any layout."""
    network = scattered(Small(), torch.device(device))
    fused = in_bf16(fuse_pointwise(network)) if dtype is torch.bfloat16 else fuse_pointwise(network)
    images = torch.randn(2, 3, 9, 9, device=device).contiguous(memory_format=torch.channels_last)
    expected, *wanted = passed(network, images)
    calls = []

    def by_kernel(x, bias, residual, activation):
        assert fusion.has_kernel(x, residual)
        calls.append(activation)
        return fused_function(x, bias, residual, activation)

    fused_function = fusion._Fused.apply
    monkeypatch.setattr(fusion._Fused, "apply", by_kernel)
    if device == "cpu":
        monkeypatch.setattr(
            BiasActivation, "forward", lambda self, x, r=None: fusion._Fused.apply(x, self.bias, r, self.activation)
        )
    found, *gradients = passed(fused, images.to(dtype))
    assert calls == ["relu6", "relu", "none", "relu"]
    for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
        assert (one - other).norm() < (0.05 if dtype is torch.bfloat16 else 1e-5) * other.norm()


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="is interpreted")
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_kernels_compile_for_a_gpu_that_is_not_here(dtype, tmp_path, monkeypatch):
    """And move 16 bytes at a time."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    forward, backward = fusion._kernels()
    rest = {"lowest": 0.0, "highest": 6.0, "block": fusion.BLOCK}
    cases = [
        (forward, ("x", "bias", "residual"), rest | {"channels": 24}, 4),
        (forward, ("x", "bias"), rest | {"channels": 24, "residual": None}, 3),
        (backward, ("gradient", "y", "result"), rest, 3),
    ]
    for kernel, pointers, constants, moved in cases:
        place = kernel.arg_names.index
        signature = dict.fromkeys(pointers, f"*{dtype}") | {"count": "i32"} | dict.fromkeys(constants, "constexpr")
        multiples = {(place(name),): [["tt.divisibility", 16]] for name in (*pointers, "count")}
        values = {(place(name),): value for name, value in constants.items()}
        compiled = compile(ASTSource(kernel, signature, values, multiples), target=GPUTarget("cuda", 90, 32))
        moves = re.findall(r"(?:ld|st)\.global\.[\w.]*", compiled.asm["ptx"])
        assert len(moves) == moved * (2 if dtype == "fp32" else 1)
        assert all("v4.b32" in move for move in moves)


def test_without_a_gpu_or_triton(monkeypatch):
    """The module is loaded, and networks are fused and run, where there is no Triton."""
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("fusion_without_triton", fusion.__file__)
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    network = scattered(Small())
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(without.fuse_pointwise(network)(images), network(images))
    assert not without.kernels_run(CPU)


@pytest.mark.parametrize("device", [interpreter, cuda])
def test_a_device_with_kernels_by_kernel(device):
    assert kernels_run(torch.device(device))


@pytest.mark.skipif(INTERPRETED, reason="is interpreted")
def test_a_device_without_kernels(caplog):
    assert not kernels_run(CPU)
    assert "bias, sum and ReLU are not fused, as Triton's kernels do not run: " in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
def test_eager_values_and_gradients_are_those_of_torch(activation, with_residual):
    x, bias, residual, gradient = drawn((3, 5, 4, 6), torch.float32, "cpu")
    leaves = [part.requires_grad_() for part in ((x, residual) if with_residual else (x,))]
    expected = ACTIVATIONS[activation]((leaves[0] * 1 + bias[:, None, None]) + (residual if with_residual else 0))
    found = BiasActivation(bias, activation)(leaves[0] * 1, *leaves[1:])
    assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
    for one, other in zip(*(torch.autograd.grad(y, leaves, gradient) for y in (found, expected)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_in_bf16_every_value_is_at_least_as_near_as_by_three_operations(activation):
    torch.manual_seed(0)
    x, residual = (3 * torch.randn(2, 4, 64, 16, 16)).bfloat16()
    bias = torch.randn(64).bfloat16()
    exact = ACTIVATIONS[activation](x.double() + bias.double()[:, None, None] + residual.double())
    stepwise = ACTIVATIONS[activation](x + bias[:, None, None] + residual)
    found = BiasActivation(bias, activation)(x.clone(), residual.requires_grad_())
    errors, errors_by_step = ((y.double() - exact).abs() for y in (found, stepwise))
    assert (errors <= errors_by_step + 1e-6).all()
    assert errors.mean() < 0.8 * errors_by_step.mean()
    (gradient,) = torch.autograd.grad(found.sum(), residual)
    if activation == "relu6":  # 5.99 is 6 in bf16: by the result, as by the kernel
        assert torch.equal(gradient != 0, (found > 0) & (found < 6))


def test_what_the_kernel_does_not_serve():
    x = torch.randn(2, 4, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    assert fusion.has_kernel(last, None)
    assert fusion.has_kernel(last, last.clone())
    for unserved in [
        (x, None),
        (last, x),
        (last.double(), None),
        (last, last.bfloat16()),
        (last, last[:, :, :1, :1]),
    ]:
        assert not fusion.has_kernel(*unserved)
    bias = torch.randn(4)
    for one, other in [(x, x[:, :, :1, :1]), (x[:, :, :1, :1], x)]:
        expected = torch.relu(one + bias[:, None, None] + other)
        torch.testing.assert_close(BiasActivation(bias, "relu")(one.clone(), other), expected)


class Small(nn.Module):
    """Every case of the pass in a few layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.one, self.two, self.three = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.last, self.shortcut, self.head = nn.Conv2d(6, 5, 1, 2), nn.Conv2d(6, 5, 1, 2), nn.Linear(5, 4)

    def forward(self, x):
        x = functional.relu6(self.norm(self.stem(x)))
        y = self.two(functional.relu(self.one(x)))  # "two" has two readers
        y = y + self.three(y)  # the sum has none but a convolution
        y = torch.relu(torch.add(self.last(y), self.shortcut(x)))
        return self.head(y.mean((2, 3)))


class Odd(nn.Module):
    """What is not fused, and a sum with two readers."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.twice, self.four, self.five = (nn.Conv2d(3, 3, 1) for _ in range(6))

    def forward(self, x):
        y = torch.add(self.one(x), x, alpha=2)
        y = self.two(y)
        y = self.three(y + y) + 1
        y = torch.relu(self.twice(torch.relu(self.twice(y))))
        y = self.four(y)
        y = torch.relu(y) + y
        y = self.five(y) + x
        return torch.relu(y) - y


def scattered(network, device=CPU):
    """Return a network, folded, with statistics of batch norm as training leaves them: its biases are not zero."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.uniform_(module.weight, 0.5, 1)
    return for_inference(network.eval(), device)


def passed(network, images):
    """Return the logits, and the gradient of a sum of them with respect to the images."""
    leaf = images.clone().requires_grad_()
    logits = network(leaf)
    direction = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits).to(logits.dtype)
    return logits.detach(), torch.autograd.grad((logits * direction).sum(), leaf)[0]


def described(fused):
    """Count the activations, the calls with a residual, and the convolutions with and without bias."""
    modules = {node: fused.get_submodule(node.target) for node in fused.graph.nodes if node.op == "call_module"}
    fusions = [(node, module) for node, module in modules.items() if isinstance(module, BiasActivation)]
    return (
        dict(Counter(module.activation for _, module in fusions)),
        sum(len(node.args) == 2 for node, _ in fusions),
        dict(Counter(module.bias is not None for module in modules.values() if isinstance(module, nn.Conv2d))),
    )


NETWORKS = {
    "resnet18": ({"relu": 17}, 8, {False: 20}),
    "resnet50": ({"relu": 49}, 16, {False: 53}),
    "mobilenet_v2": ({"relu6": 35, "none": 10}, 10, {False: 45, True: 7}),
    "timm/resnet26d": ({"relu": 27}, 8, {False: 31}),
    "resnet20_cifar": ({"relu": 19}, 9, {False: 21}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fused_network_gives_the_same(name, threads):
    network = scattered(build(name).double())
    before, code = copy.deepcopy(network.state_dict()), network.code
    fused = fuse_pointwise(network)
    assert described(fused) == NETWORKS[name]
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for one, other in zip(passed(network, images), passed(fused, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert network.code == code
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert head_of(fused) is head_of(network)


def test_every_case_of_the_pass():
    network = scattered(Small().double())
    fused = fuse_pointwise(network)
    assert described(fused) == ({"relu6": 1, "relu": 2, "none": 1}, 2, {False: 5, True: 1})
    assert torch.equal(fused.get_submodule("last_bias_activation").bias, network.last.bias + network.shortcut.bias)
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    for one, other in zip(passed(network, images), passed(fused, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_the_pass_leaves_alone():
    network = scattered(Odd().double())
    fused = fuse_pointwise(network)
    assert described(fused) == ({"none": 1}, 1, {False: 1, True: 6})
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for one, other in zip(passed(network, images), passed(fused, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def by_step(module, x, residual=None):
    """A BiasActivation as a GPU computes it unfused: with a kernel for the bias, too, and each rounds."""
    x = x + module.bias[:, None, None]
    return ACTIVATIONS[module.activation](x if residual is None else x + residual)


@pytest.mark.parametrize("device", [CPU, cuda], ids=str)
def test_in_bf16_a_fused_network_is_nearer_than_one_that_rounds_after_each_operation(device, threads, monkeypatch):
    network = scattered(build("resnet18"), torch.device(device))
    fused = in_bf16(fuse_pointwise(network))
    images = torch.randn(16, 3, 64, 64).to(device)
    exact = copy.deepcopy(network).double()(images.double())

    def error():
        return (fused(images.bfloat16()) - exact).norm() / (exact - exact.mean(0)).norm()

    found = error()
    monkeypatch.setattr(BiasActivation, "forward", by_step)
    assert found < error()


@pytest.mark.parametrize("device", [cuda])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_captured_step(name, device):
    """Of a CUDA graph, replayed on other images than those it was captured with."""
    network = scattered(build(name), torch.device(device))
    fused = fuse_pointwise(network)
    images = torch.randn(2, 4, 3, 64, 64, device=device)
    given = images[0].clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            passed(fused, given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = passed(fused, given)
    given.copy_(images[1])
    graph.replay()
    for one, other in zip(found, passed(network, images[1]), strict=True):
        assert (one - other).norm() < 0.01 * other.norm()  # rounding moves a few activations over the kink of a ReLU


@pytest.mark.parametrize(
    ("name", "cover"),
    [("resnet18", 0.99), pytest.param("resnet50", 0.5, marks=pytest.mark.slow), ("mobilenet_v2", 0.5)],
)
def test_a_fused_network_is_shared(name, cover, threads):
    network = scattered(build(name).double())
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    prompts = torch.randn(2, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    mean, std = (torch.full((3, 1, 1), value, dtype=torch.float64) for value in (0.5, 0.25))
    border = BorderPrompt(canvas=96, image_size=32)
    canvas = border.compose(images, {"prompt": prompts}, torch.tensor([0, 0, 1]), border.mask(), mean, std)
    shared, unfused = SharedNetwork(fuse_pointwise(network), cover), SharedNetwork(network, cover)
    outputs = shared(canvas), network(paste(canvas))
    unfused(canvas)
    direction = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad((y * direction).sum(), prompts, retain_graph=True)[0] for y in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    assert next(iter(shared.ended.items())) == next(iter(unfused.ended.items()))


def test_bytes_that_resnet50_saves():
    """What the docstring of fuse_pointwise says: of a map, how often it is read or written, forward."""
    network = for_inference(build("resnet50"), CPU).to("meta")
    fused = fuse_pointwise(network)
    ShapeProp(fused).propagate(torch.empty(1, 3, 224, 224, device="meta"))

    def made_by(node):
        return fused.get_submodule(node.target) if node.op == "call_module" else None

    before = after = 0
    for node in fused.graph.nodes:
        if isinstance(made_by(node), BiasActivation):
            biases = [one for one in node.args if isinstance(made_by(one), nn.Conv2d)]
            size = 2 * node.meta["tensor_meta"].shape.numel()  # bytes in bf16
            before += size * (2 * len(biases) + 3 * (len(node.args) == 2) + 2)
            after += size * (1 + len(node.args))
    assert (round(before / 1e6), round(after / 1e6)) == (116, 49)
