"""torchvision's networks of 8 bits (torchvision.models.quantization), computed in floating point.

There, weights are qint8, on a scale for each filter or each layer, and what each layer makes is quint8, on a scale of
its own, with batch norm in the convolutions, ReLU in the place of ReLU6, and sums and the pooling rounded, too. Here
weights are the numbers that the integers stand for (`formats.int8`), and activations are rounded to the same numbers.
Left out are the rounding of biases to 32 bits, that of the logits, which would tie, and the saturation of sums of 16
bits on some processors. Gradients pass a rounding as if it were none (`quantisers.affine`).
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet, mobilenet_v2, resnet18, resnet50
from torchvision.ops.misc import Conv2dNormActivation

from hiddencost.networks.quantisers import Affine


def _unit(dense: nn.Conv2d, relu: bool) -> nn.Sequential:
    """Return a convolution with a bias, ReLU behind it where it is asked for, and its rounding."""
    shape = dense.in_channels, dense.out_channels, dense.kernel_size, dense.stride, dense.padding
    conv = nn.Conv2d(*shape, groups=dense.groups)  # type: ignore[arg-type]  # torch's types lack tuples of any length
    conv.weight = dense.weight
    return nn.Sequential(OrderedDict({"conv": conv} | _rounded(relu)))


def _rounded(relu: bool) -> dict[str, nn.Module]:
    return ({"relu": nn.ReLU(inplace=True)} if relu else {}) | {"rounding": Affine()}


class Block(nn.Module):
    """Layers one after another, and what they make added to a shortcut of their input, rounded.

    Args:
        layers: by name.
        shortcut: None, if nothing is added.
        relu: whether it is of the sum.
    """

    def __init__(self, layers: dict[str, nn.Module], shortcut: nn.Module | None, relu: bool):
        super().__init__()
        self.layers, self.shortcut = nn.Sequential(OrderedDict(layers)), shortcut
        self.after = None if shortcut is None else nn.Sequential(OrderedDict(_rounded(relu)))

    def forward(self, x: Tensor) -> Tensor:
        made = self.layers(x)
        return made if self.shortcut is None or self.after is None else self.after(made + self.shortcut(x))


def _pooled(head: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the layers behind the last map: the pooling, rounded, and the head."""
    pooling = nn.Sequential(OrderedDict({"pool": nn.AdaptiveAvgPool2d(1)} | _rounded(relu=False)))
    return {"avgpool": pooling, "flatten": nn.Flatten()} | head


def _resnet_block(block: nn.Module) -> Block:
    convolutions = [(name, child) for name, child in block.named_children() if name.startswith("conv")]
    *_, (last, _) = convolutions
    layers: dict[str, nn.Module] = {name: _unit(child, relu=name != last) for name, child in convolutions}  # type: ignore[arg-type]  # children are modules
    projection = block.downsample
    shortcut = _unit(projection[0], relu=False) if isinstance(projection, nn.Sequential) else nn.Identity()  # type: ignore[arg-type]
    return Block(layers, shortcut, relu=True)


def resnet(network: ResNet) -> nn.Module:
    """Return a ResNet of torchvision with random weights as one of 8 bits."""
    layers: dict[str, nn.Module] = {"quant": Affine(), "conv1": _unit(network.conv1, relu=True)}
    layers["maxpool"] = network.maxpool
    for name in ("layer1", "layer2", "layer3", "layer4"):
        layers[name] = nn.Sequential(*map(_resnet_block, network.get_submodule(name).children()))
    return nn.Sequential(OrderedDict(layers | _pooled({"fc": network.fc})))


def _inverted_residual(block: nn.Module) -> Block:
    layers: dict[str, nn.Module] = {}
    for name, child in block.get_submodule("conv").named_children():
        if isinstance(child, Conv2dNormActivation):
            layers[name] = _unit(child[0], relu=True)
        elif isinstance(child, nn.Conv2d):
            layers[name] = _unit(child, relu=False)
    return Block(layers, nn.Identity() if block.use_res_connect else None, relu=False)


def mobilenet(network: MobileNetV2) -> nn.Module:
    """Return a MobileNetV2 of torchvision with random weights as one of 8 bits."""
    features = [
        _unit(one[0], relu=True) if isinstance(one, Conv2dNormActivation) else _inverted_residual(one)
        for one in network.features
    ]
    layers: dict[str, nn.Module] = {"quant": Affine(), "features": nn.Sequential(*features)}
    return nn.Sequential(OrderedDict(layers | _pooled({"classifier": network.classifier[1]})))


def _resnet18(num_classes: int = 1000) -> nn.Module:
    return resnet(resnet18(num_classes=num_classes))


def _resnet50(num_classes: int = 1000) -> nn.Module:
    return resnet(resnet50(num_classes=num_classes))


def _mobilenet_v2(num_classes: int = 1000) -> nn.Module:
    return mobilenet(mobilenet_v2(num_classes=num_classes))


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "int8_resnet18": _resnet18,
    "int8_resnet50": _resnet50,
    "int8_mobilenet_v2": _mobilenet_v2,
}
