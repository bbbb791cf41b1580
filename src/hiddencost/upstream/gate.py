"""What the gate asks of a network that the study has trained itself."""

import math
from typing import Any

import torch
from torch import nn

from hiddencost.compression.photos import Recognised
from hiddencost.compression.registry import CONTROLS
from hiddencost.files import is_away
from hiddencost.messages import one_line
from hiddencost.networks.manifest import Manifest
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream import sparsifiers
from hiddencost.upstream.data import load
from hiddencost.upstream.testing import correct_of

IMAGES = 1000  # that it looks at: all of ImageNet's would take a CPU an hour


def recognised(network: nn.Module, manifest: Manifest, least: float) -> Recognised:
    """Return how many of the upstream test images a network classifies rightly: of `IMAGES`, evenly spaced, or all.

    Args:
        network: on the CPU.
        manifest: of the network.
        least: how many of them it must classify rightly, in %.

    Raises:
        ValueError: where the images are not there, or not what they were.
        FileNotFoundError: where a folder of them is gone, as a disk is not mounted: no property of the network.
    """
    training = _training(manifest)
    if (folder := training["data"].get("folder")) and is_away(folder):
        raise FileNotFoundError(f"{one_line(folder)} is gone since the call was planned; expected the images")
    data = load(training["data"])
    count = min(len(data.test), IMAGES)
    indices = [number * len(data.test) // count for number in range(count)]
    recipe = UpstreamRecipe.model_validate(training["recipe"])
    size, preprocessing = training["image_size"], manifest.preprocessing
    correct = correct_of(network, data, indices, recipe, size, preprocessing, torch.device("cpu"))
    return Recognised(correct, count, "upstream test images", math.ceil(least * count / 100))


def _training(manifest: Manifest) -> dict[str, Any]:
    assert manifest.upstream is not None, "a network that the study has trained"
    return manifest.upstream


def masked_keys(network: nn.Module, manifest: Manifest) -> list[str]:
    """Return the keys of weights that must have masks: those that its sparsifier prunes, unless it never learned."""
    settings = _training(manifest)["sparsify"]
    control = manifest.control
    if settings is None or (control and not CONTROLS[control].keeps_weights):
        return []
    return list(sparsifiers.pruned_weights(network, settings))
