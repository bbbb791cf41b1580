"""Controls: networks that keep an architecture, and not what it has learned."""

import torch
from torch import Tensor, nn

from hiddencost.networks import inputs
from hiddencost.networks.families import family_of
from hiddencost.networks.layers import layer_weights


def random_network(architecture: str) -> nn.Module:
    """Return a network as PyTorch initialises it, always the same, with batch norm's statistics, and the steps of
    quantisers, taken from noise.

    With the statistics that batch norm starts from, the signal of a deep network fades (MobileNetV2's logits vary by
    1e-10 over images): it would give every image the same answer, whatever it is asked.

    Raises:
        ValueError: it does not take images of 64 pixels, and is not made for another size.
    """
    family = family_of(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        network = family.build(architecture).train()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the plain mean over what follows
        quantised = any(hasattr(module, "start_from") for module in network.modules())  # see `quantisers.Quantiser`
        if norms or quantised:
            side = family.input_side(network) or 64
            with torch.no_grad():
                inputs.run(family.image_encoder(network), torch.randn(32, 3, side, side))
    return network.eval()


@torch.no_grad()
def shuffle(network: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permute the weights within each layer (see `layers.layer_weights`), in place, always alike. Batch norm stays.

    Each layer keeps the values of its weights, and so their scale, distribution and sparsity, but not what they
    compute. It tells whether a result needs learned features or only weights of that size. Returns the masks (bool by
    key), permuted with their weights.
    """
    generator = torch.Generator().manual_seed(0)  # the seeds of a study vary the adaptation, not this
    masks = dict(masks)
    for key, (module, name) in layer_weights(network).items():
        weight = getattr(module, name)
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order].view_as(weight))
        if (mask := masks.get(key)) is not None:
            masks[key] = mask.flatten()[order].view_as(mask)
    return masks
