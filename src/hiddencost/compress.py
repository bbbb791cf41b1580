"""Compression made here, and the control of a network that never learned."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from hiddencost import backbone

log = logging.getLogger(__name__)


def compress(source: str | Path, folder: str | Path, compression: dict | None, control: str | None) -> None:
    """Make a backbone of an imported checkpoint: pruned, replaced by a control, or passed on as it is.

    compression: {algorithm: magnitude, sparsity: 0..1} or None; control: `random_init` or None.
    The manifest declares the sparsity, of all convolutions together.
    """
    network, masks, manifest = backbone.load(source)
    sparsity = 0.0
    if control == "random_init":
        network = random_network(manifest["architecture"])
    elif compression:
        sparsity = compression["sparsity"]
        masks = prune_by_magnitude(network, sparsity)
    manifest |= {
        "compression": compression["algorithm"] if compression else "none",
        "control": control,
        "sparsity_declared": sparsity,
    }
    backbone.save(folder, network.state_dict(), masks, manifest)
    log.info("%s: compression %s, control %s, sparsity %g", folder, manifest["compression"], control, sparsity)


def random_network(architecture: str) -> nn.Module:
    """Return a network as PyTorch initialises it, always the same, with batch norm's statistics taken from noise.

    With the statistics that batch norm starts from, the signal of a deep network fades (MobileNetV2's logits vary by
    1e-10 over images): it would give every image the same answer, whatever it is asked.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        network = backbone.build(architecture).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean over what follows
        with torch.no_grad():
            network(torch.randn(32, 3, 64, 64))
    return network.eval()


def prune_by_magnitude(network: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Set the smallest weights by magnitude of all convolutions together to zero, in place.

    One-shot and global, without retraining (Han et al., Learning both Weights and Connections, 2015).
    Returns the masks, bool by the weights' keys, True where kept.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    weights = [(layer, "weight") for layer in layers.values()]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=sparsity)
    masks = {f"{name}.weight": layer.weight_mask.bool() for name, layer in layers.items()}
    for layer, parameter in weights:
        prune.remove(layer, parameter)
    return masks
