"""Networks with a head over their own classes, by name: torchvision's, timm's, and those that neither has.

These are ResNet-50 as TensorFlow's and Keras' published weights need it, ResNets for images of 32 pixels, and those
of modules of their own (`own`): OFQ's quantised vision transformers, torchvision's networks of 8 bits.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from hiddencost.networks.own import own_module


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution with batch norm and, unless said otherwise, ReLU, padded by half the kernel on each side."""
    layers = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        "bn": nn.BatchNorm2d(outputs),
    }
    return nn.Sequential(OrderedDict(layers | ({"relu": nn.ReLU(inplace=True)} if relu else {})))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, project: bool):
        super().__init__()
        self.shortcut = _unit(inputs, 4 * width, 1, stride, relu=False) if project else nn.Identity()
        self.conv1 = _unit(inputs, width, 1)
        self.conv2 = _unit(width, width, 3, stride)
        self.conv3 = _unit(width, 4 * width, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x), inplace=True)


def _group(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(inputs, width, stride, project=True)
    rest = [_Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)]
    return nn.Sequential(OrderedDict(block=nn.Sequential(first, *rest)))


def resnet50_rigl(num_classes: int = 1000) -> nn.Module:
    """RigL's ResNet-50, by the names of sparse-imagenet-transfer's ResnetTF (models/external/rigl/resnet.py).

    TensorFlow's padding "SAME" puts one pixel more after a map than before it where it cannot share them evenly. For
    the max-pooling, 3 x 3 with stride 2, of a map of even size that is none before and one after, where torchvision
    has one on each side. RigL pads its strided convolutions evenly itself (google-research/rigl, resnet_model.py,
    fixed_padding). As in ResnetTF, the padding is that of even maps: the input's side must be a multiple of 4.
    """
    return nn.Sequential(
        OrderedDict(
            initial_conv=_unit(3, 64, 7, 2),
            pad=nn.ZeroPad2d((0, 1, 0, 1)),  # 0 stands for -inf: what is pooled is past a ReLU
            initial_max_pool=nn.MaxPool2d(3, 2),
            layer1=_group(64, 64, 3, 1),
            layer2=_group(256, 128, 4, 2),
            layer3=_group(512, 256, 6, 2),
            layer4=_group(1024, 512, 3, 2),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(2048, num_classes),
        )
    )


def resnet50_keras(num_classes: int = 1000) -> nn.Module:
    """Keras' ResNet-50, by torchvision's names: batch norm's epsilon is 1e-3, and in the first block of groups 2 to 4
    the stride is that of the first convolution, as He et al. had it (keras-applications, resnet50.py)."""
    network = torchvision.models.resnet50(num_classes=num_classes, norm_layer=partial(nn.BatchNorm2d, eps=1e-3))
    for group in (network.layer2, network.layer3, network.layer4):
        group[0].conv1.stride, group[0].conv2.stride = (2, 2), (1, 1)
    return network


def resnet18_cifar(num_classes: int = 10) -> nn.Module:
    """torchvision's ResNet-18 for images of 32 pixels: its stem is 3 x 3 without stride, and nothing is pooled behind
    it. The network that the sparsity papers mean by ResNet-18 on CIFAR-10 (kuangliu/pytorch-cifar, models/resnet.py).
    """
    network = torchvision.models.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as its other convolutions
    network.maxpool = nn.Identity()
    return network


def resnet20_cifar(num_classes: int = 10) -> nn.Module:
    """ResNet-20 of 16, 32 and 64 channels (He et al., Deep Residual Learning, CVPR 2016, section 4.2), with
    projecting shortcuts (there option B; their CIFAR networks have A, which pads with zeros)."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 16, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(16),
        "relu": nn.ReLU(inplace=True),
    }
    inputs = 16
    for number, width in enumerate((16, 32, 64), 1):
        stride, project = (1, None) if width == inputs else (2, _unit(inputs, width, 1, 2, relu=False))
        first = BasicBlock(inputs, width, stride, project)
        layers[f"layer{number}"] = nn.Sequential(first, BasicBlock(width, width), BasicBlock(width, width))
        inputs = width
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(64, num_classes)}
    network = nn.Sequential(OrderedDict(layers))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "resnet50_rigl": resnet50_rigl,
    "resnet50_keras": resnet50_keras,
    "resnet18_cifar": resnet18_cifar,
    "resnet20_cifar": resnet20_cifar,
}


def build(architecture: str) -> nn.Module:
    """Return a network, randomly initialised, in evaluation mode.

    Args:
        architecture: a name of torchvision, one of ARCHITECTURES or of a module's own, or timm/NAME; with :K behind
            it, the network has K classes.

    Raises:
        ValueError: there is no such network, or it cannot have another number of classes.
    """
    name, _, count = architecture.partition(":")
    try:
        classes: dict[str, Any] = {"num_classes": int(count)} if count else {}
        module = own_module(name)
        ours = import_module(module).ARCHITECTURES if module else ARCHITECTURES
        if name in ours:
            return ours[name](**classes).eval()
        if name.startswith("timm/"):
            import timm  # takes seconds, and only its own networks need it

            return timm.create_model(name.removeprefix("timm/"), pretrained=False, **classes).eval()
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise ValueError("torchvision has no such classifier")
        return torchvision.models.get_model(name, weights=None, **classes).eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"architecture {architecture!r}: {error}") from error
