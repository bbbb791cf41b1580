"""What a network reaches on its upstream test images."""

from collections.abc import Sequence

import torch
from torch import nn

from hiddencost.catalog.entries import Preprocessing
from hiddencost.networks import inference
from hiddencost.study.upstream_recipe import UpstreamRecipe
from hiddencost.upstream.data import Tested, Upstream, eval_transform, in_order


@torch.inference_mode()
def correct_of(
    network: nn.Module,
    data: Upstream,
    indices: Sequence[int],
    recipe: UpstreamRecipe,
    image_size: int,
    preprocessing: Preprocessing,
    device: torch.device,
    workers: int = 0,
) -> int:
    """Return how many of the upstream test images at `indices` a network classifies rightly, in float32.

    Args:
        network: on the device.
        data: the upstream data set.
        indices: of test images.
        recipe: of its training.
        image_size: side of the images that it sees, in pixels.
        preprocessing: of its manifest.
        device: to compute on.
        workers: processes that read images.
    """
    network = network.eval()
    images = Tested(data.test, indices, eval_transform(recipe, image_size, preprocessing))
    correct = 0
    for inputs, labels in in_order(images, inference.FORWARD_BATCH[device.type], preprocessing, device, workers):
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        correct += int((logits.argmax(1) == labels).sum())
    return correct
