"""A network that is quick to make and to save, in the place of any architecture."""

import torch
from torch import nn


def tiny(architecture):
    """Of any name: two convolutions, named as a ResNet's first ones are, and a head."""
    torch.manual_seed(0)
    network = nn.Sequential()
    for name, layer in {
        **{"conv1": nn.Conv2d(3, 4, 3, bias=False), "conv2": nn.Conv2d(4, 8, 3, bias=False)},
        **{"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(8, 1000)},
    }.items():
        network.add_module(name, layer)
    return network.eval()
