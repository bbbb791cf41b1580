"""The border once: equal to the dense network, on networks of all kinds."""

import copy
import random
import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from hiddencost.compression import controls
from hiddencost.networks.inference import for_inference
from hiddencost.prompting.border import BorderPrompt
from hiddencost.prompting.maps import SharedMaps, paste, slide
from hiddencost.prompting.sharing import SharedNetwork

CPU = torch.device("cpu")


class Residual(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class PlainResidual(Residual):
    def forward(self, x):
        return torch.relu(torch.add(self.body(x), self.shortcut(x)))


class Both(nn.Module):
    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return torch.cat([self.one(x), self.other(x)], 1)


class Gate(nn.Module):
    """Squeeze and excite: depends on the whole map."""

    def forward(self, x):
        return x * torch.sigmoid(functional.adaptive_avg_pool2d(x, 1))


class Pad(nn.Module):
    def forward(self, x):
        padded = functional.relu(functional.pad(x, (0, 1, 2, 1)), inplace=True)
        return functional.max_pool2d(padded, 3, 2) + functional.max_pool2d(1 + x, 3, 2)[:, :, :1, :1]


class Standardised(nn.Conv2d):
    """A convolution that is not a leaf of the trace: its weight is an input of the node."""

    def forward(self, x):
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def sliding(pick, channels):
    """Draw a convolution of any geometry. Returns it with its number of output channels."""
    kernel, stride = ((pick(1, 5), pick(1, 5)) if pick(0, 1) else pick(1, 5) for _ in range(2))
    stride = pick(1, 3) if pick(0, 1) else (pick(1, 2), pick(1, 3))
    padding, dilation = (pick(0, 3), pick(0, 2)), pick(1, 2)
    groups = channels if pick(0, 2) == 0 else 1
    out = channels if groups > 1 else 2 * pick(2, 3)
    return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=bool(pick(0, 1))), out


def layer(pick, channels):
    kind = pick(0, 11)
    same = [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    if kind <= 3:
        return sliding(pick, channels)
    if kind == 4:
        return nn.MaxPool2d(pick(2, 3), pick(1, 3), 1, pick(1, 2), ceil_mode=bool(pick(0, 1))), channels
    if kind == 5:
        ceil, count = bool(pick(0, 1)), bool(pick(0, 1))
        divisor = 5 if pick(0, 1) else None
        return nn.AvgPool2d(pick(2, 4), pick(1, 3), 1, ceil, count, divisor), channels
    if kind == 6:
        return Residual(nn.Sequential(*same, nn.Conv2d(channels, channels, 3, padding=1)), nn.Identity()), channels
    if kind == 7:
        body = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), *same)
        return PlainResidual(body, nn.Conv2d(channels, channels, 1, 2)), channels
    if kind == 8:
        return Both(nn.Conv2d(channels, 2, 3, padding=1), Standardised(channels, 4, 5, padding=2)), 6
    if kind == 9:
        return Pad(), channels
    if kind == 10:
        return [nn.ReLU6(), nn.SiLU(), nn.BatchNorm2d(channels), nn.ZeroPad2d((1, 0, 0, 2))][pick(0, 3)], channels
    return Gate(), channels


def random_network(pick, height, width):
    layers, channels = [], 3
    if pick(0, 3):  # else the first operation may be of any kind
        layers, channels = [nn.Conv2d(3, 4, pick(1, 7), pick(1, 2), pick(0, 3))], 4
    for _ in range(pick(2, 7)):
        added, out = layer(pick, channels)
        grown = nn.Sequential(*layers, added).eval()
        try:
            shape = grown(torch.zeros(1, 3, height, width)).shape
        except RuntimeError:  # the map has become smaller than the kernel
            break
        if min(shape[2:]) < 2:
            break
        layers, channels = [*layers, added], out
    layers += [nn.AdaptiveAvgPool2d(pick(1, 2)), nn.Flatten(), nn.LazyLinear(5)]
    network = nn.Sequential(*layers).eval()
    network(torch.zeros(1, 3, height, width))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def random_canvas(pick, height, width):
    """Draw an image's place, the runs of the images, and the two parts."""
    top, left = pick(0, height - 2), pick(0, width - 2)
    bottom, right = pick(top + 1, height), pick(left + 1, width)
    runs = torch.tensor(sorted(pick(0, 2) for _ in range(pick(1, 5)))) if pick(0, 1) else torch.zeros(4).long()
    prompts = torch.randn(runs.max() + 1, 3, height, width, dtype=torch.float64)
    images = torch.randn(len(runs), 3, bottom - top, right - left, dtype=torch.float64)
    return ((top, bottom), (left, right)), runs, prompts, images


def dense_canvas(window, runs, prompts, images):
    (top, bottom), (left, right) = window
    canvas = prompts[runs].clone()
    canvas[:, :, top:bottom, left:right] = images
    return canvas


def split_canvas(window, runs, prompts, images):
    (top, bottom), (left, right) = window
    mask = torch.ones(prompts.shape[2:], dtype=prompts.dtype)
    mask[top:bottom, left:right] = 0
    return SharedMaps(prompts * mask, images, window, runs, is_canvas=True)


@pytest.mark.parametrize(
    "seed", [*range(30), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(30, 120))]
)
def test_outputs_and_prompt_gradients_are_those_of_the_dense_network(seed):
    torch.manual_seed(seed)
    pick = random.Random(seed).randint
    height, width = pick(18, 40), pick(18, 40)
    network = for_inference(random_network(pick, height, width).double(), CPU)
    window, runs, prompts, images = random_canvas(pick, height, width)
    prompts.requires_grad_()
    expected = network(dense_canvas(window, runs, prompts, images))
    direction = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad((expected * direction).sum(), prompts)
    for cover in (0.0, 0.5, 0.9, 1.0):
        output = SharedNetwork(network, cover)(split_canvas(window, runs, prompts, images))
        (gradient,) = torch.autograd.grad((output * direction).sum(), prompts)
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


REACHED = r"the image reaches \d+% of the map"
POOLED = "AdaptiveAvgPool2d is not served"


@pytest.mark.parametrize("size", [33, *(pytest.param(size, marks=pytest.mark.slow) for size in (16, 64))])
@pytest.mark.parametrize(
    ("build", "ends"),
    [
        (torchvision.models.resnet18, rf"layer\d_\d_conv\d: {REACHED}"),
        pytest.param(
            lambda: controls.random_network("int8_resnet18"),
            rf"layer\d_\d_layers_conv\d_conv: {REACHED}",
            marks=pytest.mark.slow,
        ),
        pytest.param(torchvision.models.resnet50, rf"layer\d_\d_conv\d: {REACHED}", marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("resnet18"), rf"layer\d_\d_conv\d: {REACHED}", marks=pytest.mark.slow),
        (lambda: timm.create_model("resnet50d"), rf"layer\d_\d_conv\d: {REACHED}"),
        (torchvision.models.mobilenet_v2, rf"features_\d+_conv_1_0: {REACHED}"),
        pytest.param(
            torchvision.models.vgg11_bn, rf"features_\d+: {REACHED}|avgpool: {POOLED}", marks=pytest.mark.slow
        ),
        (torchvision.models.densenet121, rf"features_\w+: {REACHED}"),
        (torchvision.models.mobilenet_v3_small, f"features_1_block_1_avgpool: {POOLED}"),  # squeeze and excite
        (lambda: torchvision.models.VisionTransformer(96, 32, 2, 4, 64, 128), "getattr_1: getattr is not served"),
    ],
    ids=[
        "resnet18",
        "int8",
        "resnet50",
        "timm-resnet18",
        "timm-resnet50d",
        "mobilenetv2",
        "vgg",
        "densenet",
        "se",
        "vit",
    ],
)
def test_real_architectures_are_shared_as_far_as_they_can_be(build, ends, size, threads):
    torch.manual_seed(0)
    network = for_inference(build().eval().double(), CPU)
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    prompts = torch.randn(2, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    mean, std = (torch.full((3, 1, 1), value, dtype=torch.float64) for value in (0.5, 0.25))
    border = BorderPrompt(canvas=96, image_size=size)
    canvas = border.compose(images, {"prompt": prompts}, torch.tensor([0, 0, 1]), border.mask(), mean, std)
    shared = SharedNetwork(network, 0.99)
    expected, output = network(paste(canvas)), shared(canvas)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(expected)
    gradients = (
        torch.autograd.grad((y * direction).sum(), prompts, retain_graph=True)[0] for y in (output, expected)
    )
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    node, reason = next(iter(shared.ended.items()))
    assert re.fullmatch(ends, f"{node}: {reason}")


def test_gradients_of_runs_are_summed_precisely_in_bf16(threads):
    """A border's gradient is a sum over many images: in bf16 itself it would stall."""
    torch.manual_seed(0)
    network = for_inference(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)).eval(), CPU)
    half = copy.deepcopy(network).bfloat16()
    count = 1200
    window, runs = ((6, 10), (6, 10)), torch.arange(2).repeat_interleave(count // 2)
    prompts, images = torch.randn(2, 3, 16, 16), torch.randn(count, 3, 4, 4)
    gradients = []
    for one, dtype in ((network, torch.float32), (half, torch.bfloat16)):
        leaf = prompts.to(dtype).requires_grad_()
        output = SharedNetwork(one, 0.9)(split_canvas(window, runs, leaf, images.to(dtype)))
        gradients.append(torch.autograd.grad(output.float()[:, 0].sum(), leaf)[0].float())
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


def test_a_stride_that_steps_over_the_window():
    assert slide(((3, 4), (3, 4)), (4, 4), (1, 1), (4, 4), (0, 0)) == (((1, 2), (1, 2)), ((4, 5), (4, 5)))
