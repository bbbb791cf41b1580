"""How many heads a network has: asked of its architecture, before anything is made."""

from functools import cache

from hiddencost.networks.families import family_of
from hiddencost.networks.inputs import SIDES, outputs

# of the architectures that are no library's; the others have one
TWO_HEADS = {name for name in SIDES if name.startswith("ofq_deit_tiny_distilled_")}


@cache
def heads(architecture: str, side: int) -> int:
    """Return how many linear layers over its classes a network's output is made of: two of a DeiT with a distillation
    token, which takes their mean (timm's VisionTransformerDistilled.forward_head), 1 of others.

    Args:
        architecture: see `build.build`.
        side: of the images that it takes, in pixels; see `inputs.why_not`.
    """
    if not architecture.startswith("timm/"):
        return 2 if architecture in TWO_HEADS else 1
    return count_heads(architecture, side)


def count_heads(architecture: str, side: int) -> int:
    """Count the heads of any network, with PyTorch; see `heads`."""
    import torch
    from torch import nn

    family, found = family_of(architecture), []
    with torch.device("meta"):
        network = family.build(architecture)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, output: found.append(output.shape))
    return found.count(outputs(network, family, side).shape)
