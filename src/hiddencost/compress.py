"""Compression made here, and the controls: a network that never learned, and one whose weights are shuffled."""

import logging
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from hiddencost import backbone, clip
from hiddencost.compression import label
from hiddencost.files import read_json
from hiddencost.layers import Weight, erk_densities, is_clip, prunable, weights

log = logging.getLogger(__name__)

UNSTRUCTURED = {"magnitude": prune.L1Unstructured, "random": prune.RandomUnstructured}


def compress(source: str | Path, folder: str | Path, compression: dict | None, control: str | None) -> None:
    """Make a backbone of an imported checkpoint: compressed, replaced by a control, or passed on as it is.

    compression: None, or one of these (a key that is None counts as absent):
      {algorithm: magnitude | random, sparsity, scope: global (default) | layer | erk}   see `prune_unstructured`
      {algorithm: nm, n, m}                                                             see `prune_nm`
      {algorithm: channel, sparsity}                                                    see `prune_channels`
      {algorithm: quantise, bits: 2..8}                                                 see `quantise`
    control: None, `random_init` (see `random_network`) or `shuffled` (see `shuffle`).

    Pruning reaches the convolutions and leaves the head dense; of a CLIP it reaches the layers of both towers (see
    `layers.prunable`). Weights that are zero already stay zero and count. The manifest gains `compression` ("none",
    what `label` calls it, that of the checkpoint, or both: "acdc+int8"),
    `compression_settings`, `quantisation_bits`, `control` and, of what is pruned, `sparsity_declared`: the share that
    the masks take from all these weights together, whichever of them the algorithm reached.

    A checkpoint that failed, or that is sparser than asked, gives a backbone that says so.
    """
    settings = {key: value for key, value in (compression or {}).items() if value is not None}
    if settings.get("algorithm") in UNSTRUCTURED:
        settings = {"scope": "global"} | settings
    manifest = read_json(Path(source) / "manifest.json")
    before = [] if control == "random_init" or manifest["compression"] == "none" else [manifest["compression"]]
    manifest |= {
        "compression": "+".join([*before, *([label(settings)] if settings else [])]) or "none",
        "compression_settings": settings or None,
        "quantisation_bits": settings.get("bits"),
        "control": control,
    }
    if manifest.get("failed"):
        return backbone.save_failure(folder, manifest["failed"], manifest)
    network, masks, _ = backbone.load(source)
    over = "towers" if is_clip(network) else "convolutions"
    try:
        if control == "random_init":
            network, masks = random_network(manifest["architecture"]), {}
            manifest |= {"sparsity_declared": 0.0, "sparsity_over": over, "widths": None}
        elif control == "shuffled":
            masks = shuffle(network, masks)
        elif settings.get("algorithm") == "quantise":
            quantise(network, settings["bits"])
        elif settings:
            if manifest.get("widths"):
                raise ValueError(
                    f"{manifest['compression']}: its layers are narrower already; expected a dense network"
                )
            zeros = _zeros(network)
            masks |= prune_weights(network, settings)
            if zeros == _zeros(network):
                raise ValueError(
                    f"{manifest['compression']}: no weight to prune, as all that it asks for are zero already"
                )
            manifest |= {"sparsity_declared": masked_share(network, masks), "sparsity_over": over}
    except ValueError as error:
        log.error("%s fails: %s", folder, error)
        return backbone.save_failure(folder, str(error), manifest)
    backbone.save(folder, network.state_dict(), masks, manifest)
    told = (manifest["compression"], control, manifest["sparsity_declared"])
    log.info("%s: compression %s, control %s, sparsity %g", folder, *told)


def _zeros(network: nn.Module) -> int:
    return sum(int((weight.tensor == 0).sum()) for weight in prunable(network).values())


def masked_share(network: nn.Module, masks: dict[str, Tensor]) -> float:
    """Return the share of all prunable weights that masks (True where kept, by key) leave out, to 4 digits."""
    found = prunable(network)
    left_out = sum(int((~masks[key]).sum()) for key in found if key in masks)
    return round(left_out / sum(weight.tensor.numel() for weight in found.values()), 4)


# ------------------------------------------------------------------------------------------------- pruning


def prune_weights(network: nn.Module, settings: dict) -> dict[str, Tensor]:
    """Prune a network in place, once and without retraining; weights that are zero already stay so.

    settings: as for `compress`. Returns the masks of the weights that the algorithm reaches, bool by their keys, True
    where kept. Raises ValueError if the network is sparser than asked already, or nothing is reached.
    """
    found = reached(network, settings)
    if not found:
        raise ValueError(f"{settings['n']}:{settings['m']}: no layer has inputs in groups of {settings['m']}")
    for weight in found.values():
        prune.custom_from_mask(*weight, weight.tensor != 0)
    if settings["algorithm"] == "nm":
        prune_nm(found, settings["n"], settings["m"])
    elif settings["algorithm"] == "channel":
        prune_channels(found, settings["sparsity"])
    else:
        prune_unstructured(found, settings["algorithm"], settings["sparsity"], settings["scope"])
    masks = {key: getattr(module, f"{name}_mask").bool() for key, (module, name) in found.items()}
    for weight in found.values():
        prune.remove(*weight)
    return masks


def reached(network: nn.Module, settings: dict) -> dict[str, Weight]:
    """Return the weights that a pruning algorithm reaches: all, or for N:M those with whole groups of inputs."""
    found = prunable(network)
    if settings["algorithm"] != "nm":
        return found
    return {key: weight for key, weight in found.items() if weight.tensor.shape[1] % settings["m"] == 0}


def prune_unstructured(found: dict[str, Weight], algorithm: str, sparsity: float, scope: str) -> None:
    """Prune single weights of masked layers: the smallest (`magnitude`) or, with a fixed seed, any (`random`).

    scope: `global` ranks all layers together (Han et al., Learning both Weights and Connections, 2015), `layer` takes
    the same share of each, `erk` the share of `erk_densities`; a layer that is sparser already keeps its zeros.
    Raises ValueError if, with `global`, all together are sparser than asked.
    """
    method = UNSTRUCTURED[algorithm]
    zeros = {key: int((weight.tensor == 0).sum()) for key, weight in found.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        if scope == "global":
            total = sum(weight.tensor.numel() for weight in found.values())
            amount = round(sparsity * total) - sum(zeros.values())
            if amount < 0:
                raise ValueError(
                    f"{sum(zeros.values()) / total:.4f} of the weights to prune are zero already, expected at most "
                    f"compression.sparsity, {sparsity:g}"
                )
            prune.global_unstructured(found.values(), pruning_method=method, amount=amount)
        else:
            for key, wanted in zeros_wanted(found, sparsity, scope).items():
                method.apply(*found[key], amount=max(0, wanted - zeros[key]))


def zeros_wanted(found: dict[str, Weight], sparsity: float, scope: str) -> dict[str, int]:
    """Return how many weights of each layer are to be zero, with scope `layer` or `erk`."""
    shapes = {key: weight.tensor.shape for key, weight in found.items()}
    densities = erk_densities(shapes, 1 - sparsity) if scope == "erk" else dict.fromkeys(found, 1 - sparsity)
    return {key: round((1 - densities[key]) * prod(shape)) for key, shape in shapes.items()}


def prune_nm(found: dict[str, Weight], n: int, m: int) -> None:
    """Keep the n largest of each m consecutive weights of masked layers (N:M sparsity, Zhou et al., ICLR 2021).

    The groups lie along the inputs (at one place of a kernel), as sparse tensor cores want them (Mishra et al.,
    Accelerating Sparse Deep Neural Networks, 2021): see `groups_of_inputs`. A layer whose inputs do not divide by m,
    such as a stem of 3 or a depthwise convolution of 1, is not reached and stays dense.
    """
    for weight in found.values():
        groups = groups_of_inputs(weight.tensor.abs(), m)
        kept = torch.zeros_like(groups).scatter_(1, groups.topk(n).indices, 1)
        shape = weight.tensor.movedim(1, -1).shape
        prune.custom_from_mask(*weight, kept.reshape(shape).movedim(-1, 1))


def groups_of_inputs(weight: Tensor, m: int) -> Tensor:
    """Lay a weight [out, in, h, w] or [out, in] out as [out h w in / m, m]: inputs vary fastest."""
    return weight.movedim(1, -1).reshape(-1, m)


def prune_channels(found: dict[str, Weight], sparsity: float) -> None:
    """Prune the filters of smallest L2 norm of masked layers, the same share of each (Li et al., Pruning Filters for
    Efficient ConvNets, ICLR 2017, there by L1 norm).

    The filters (of a linear layer its rows) stay in place as zeros; batch norm's shift of their channels stays.
    """
    for weight in found.values():
        gone = int((weight.tensor == 0).flatten(1).all(1).sum())
        amount = filters_wanted(weight.tensor, sparsity) - gone
        prune.ln_structured(*weight, amount=max(0, amount), n=2, dim=0)


def filters_wanted(weight: Tensor, sparsity: float) -> int:
    """Return how many filters of a layer's weight channel pruning sets to zero."""
    return round(sparsity * len(weight))


# ------------------------------------------------------------------------------------------------- quantisation


@torch.no_grad()
def quantise(network: nn.Module, bits: int) -> None:
    """Round the weights of all layers, stem and head too (see `layers.weights`), to integers of `bits`, in place.

    Symmetric, one scale for each output channel, its largest weight by magnitude at 2^(bits-1) - 1, rounded to
    nearest (Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018, section 2). Weights
    alone: activations, biases and batch norm stay float32. The network holds the float32 values that the integers
    stand for, and so computes what weight-only quantisation does. Zeros stay zeros, and small weights become zeros.
    """
    # a slow import that only this needs
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    largest = 2 ** (bits - 1) - 1
    for weight in (one.tensor for one in weights(network).values()):
        block = (1, *weight.shape[1:])
        grid = {"quant_min": -largest, "quant_max": largest}
        scale, zero = choose_qparams_affine(weight, MappingType.SYMMETRIC, block, torch.int8, **grid)
        integers = quantize_affine(weight, block, scale, zero, torch.int8, **grid)
        weight.copy_(dequantize_affine(integers, block, scale, zero, torch.int8, **grid))


# ------------------------------------------------------------------------------------------------- controls


def random_network(architecture: str) -> nn.Module:
    """Return a network as PyTorch initialises it, always the same, with batch norm's statistics taken from noise.

    With the statistics that batch norm starts from, the signal of a deep network fades (MobileNetV2's logits vary by
    1e-10 over images): it would give every image the same answer, whatever it is asked.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        network = backbone.build(architecture).train()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the plain mean over what follows
        if norms:
            with torch.no_grad():
                tower = clip.image_tower(network) if is_clip(network) else network
                side = clip.image_size(network) if is_clip(network) else 64
                tower(torch.randn(32, 3, side, side))
    return network.eval()


@torch.no_grad()
def shuffle(network: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permute the weights within each layer (see `layers.weights`), in place, always alike. Batch norm stays.

    Each layer keeps the values of its weights, and so their scale, distribution and sparsity, but not what they
    compute. It tells whether a result needs learned features or only weights of that size. Returns the masks (bool by
    key), permuted with their weights.
    """
    generator = torch.Generator().manual_seed(0)  # the seeds of a study vary the adaptation, not this
    masks = dict(masks)
    for key, (module, name) in weights(network).items():
        weight = getattr(module, name)
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order].view_as(weight))
        if (mask := masks.get(key)) is not None:
            masks[key] = mask.flatten()[order].view_as(mask)
    return masks
