"""Pruning that looks at images: Wanda and SparseGPT."""

import numpy as np
import pytest
import reference_pruning
import torch
from torch import nn
from torch.nn import functional

from hiddencost.compression.calibrated import METHODS, Method, as_rows, prune_in_order
from hiddencost.compression.registry import COMPRESSIONS
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.layers import Weight, layer_weights

CONVOLUTIONAL = FAMILIES["convolutional"]
HALF = {"sparsity": 0.5, "n": None, "m": None}
TWO_OF_FOUR = {"sparsity": None, "n": 2, "m": 4}
WAYS = [(method, settings) for method in ("wanda", "sparsegpt") for settings in (HALF, TWO_OF_FOUR)]


def made(sparse=False):
    """Convolutions with stride, groups, dilation and none of these, and a linear layer of more than a block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = nn.Sequential(
            *(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, groups=2, padding=2, dilation=2), nn.ReLU()),
            *(nn.Conv2d(8, 12, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(192, 10)),
        ).requires_grad_(False)
    if sparse:  # of a checkpoint that is sparse already; and a map that is black on all images
        for layer in network[::2][:3]:
            layer.weight[layer.weight.abs() < 0.05] = 0
        network[2].weight[3], network[2].bias[3] = 0, -1
    return network


def photos():
    return torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def plain(network):
    """The network as `reference_pruning` takes it."""
    others = {nn.ReLU: lambda x: np.maximum(x, 0), nn.Flatten: lambda x: x.reshape(len(x), -1)}
    return [others.get(type(layer), layer) for layer in network]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("method", "settings"), WAYS)
def test_masks_and_weights_are_those_of_a_plain_reimplementation(method, settings, sparse):
    network = made(sparse)
    expected = reference_pruning.prune(plain(network), photos().double().numpy(), method, **settings)
    weights = layer_weights(network)
    masks = prune_in_order(network, weights, photos(), method, settings)
    assert list(masks) == list(weights)
    for (key, weight), plainly in zip(weights.items(), expected, strict=True):
        assert torch.equal(masks[key], torch.from_numpy(plainly != 0)), key
        torch.testing.assert_close(weight.tensor.double(), torch.from_numpy(plainly), rtol=0, atol=1e-6)
        assert torch.equal(masks[key], weight.tensor != 0)


class Branches(nn.Module):
    """Layers that are reached in another order than they are defined in, one of which pads by itself."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(8, 4, 1)
        self.shortcut = nn.Conv2d(4, 8, 1)
        self.first = nn.Conv2d(4, 8, 3)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        wide = functional.pad(x, [0, 2, 0, 2])
        x = functional.conv2d(wide, self.first.weight, self.first.bias) + self.shortcut(x)
        return self.last(x.relu()).mean((2, 3))


def of_branches():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Branches().requires_grad_(False)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_layers_are_pruned_as_images_reach_them_and_see_what_is_pruned_already(method):
    network, dense, seen = of_branches(), of_branches(), []
    weights = layer_weights(network)
    del weights["unused.weight"]
    network.last.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    assert list(prune_in_order(network, weights, photos(), method, HALF)) == [
        *("first.weight", "shortcut.weight", "last.weight")
    ]
    dense.first, dense.shortcut = network.first, network.shortcut
    x = functional.conv2d(functional.pad(photos(), [0, 2, 0, 2]), network.first.weight, network.first.bias)
    x = (x + network.shortcut(photos())).relu()
    assert torch.equal(seen[0], x)
    rows, maps = dense.last.weight.flatten(1).double().numpy(), x.movedim(1, 0).flatten(1).double().numpy()
    plainly = reference_pruning.wanda(rows, maps, 0.5, None, None)
    if method == "sparsegpt":
        (plainly,) = reference_pruning.sparsegpt([rows], [maps], len(x), 0.5, None, None)
    assert torch.allclose(network.last.weight.flatten(1).double(), torch.from_numpy(plainly), rtol=0, atol=1e-6)


def test_a_layer_that_no_image_reaches_is_a_reason():
    network = of_branches()
    with pytest.raises(ValueError, match="wanda: calibration images do not reach unused"):
        prune_in_order(network, layer_weights(network), photos(), "wanda", HALF)


@pytest.mark.parametrize(("method", "settings"), WAYS)
def test_the_gate_holds_each_layer_against_the_settings(method, settings):
    network, entry = made(), COMPRESSIONS[method]
    settings = entry.complete({"calibration": "cifar10"} | settings)
    assert len(entry.check(network, CONVOLUTIONAL, settings)) == 3
    masks = entry.apply(network, CONVOLUTIONAL, settings, photos())
    assert list(masks) == ["0.weight", "2.weight", "4.weight"]
    assert entry.check(network, CONVOLUTIONAL, settings) == []
    network[2].weight[3] = 1
    assert len(violations := entry.check(network, CONVOLUTIONAL, settings)) == 1
    assert violations[0].startswith("2: ")


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_its_name_is_that_of_the_convolution(padding):
    """The columns times the weights are what the layer makes: of an even kernel one zero more is after the map."""
    layer = nn.Conv2d(4, 4, (2, 3), padding=padding, dilation=(1, 2), bias=False).requires_grad_(False)
    weight, images = layer.weight.clone(), photos()
    given = []
    record = Method(lambda rows, inputs, settings: given.append(inputs) or rows, METHODS["wanda"].zeros)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "wanda", record)
        prune_in_order(layer, {"weight": Weight(layer, "weight")}, images, "wanda", HALF)
    (columns,) = given[0].columns()
    made = (as_rows(weight, 1) @ columns)[0]
    assert torch.allclose(made, layer(images).double().movedim(1, 0).flatten(1), atol=1e-5)
