"""Compression made here, and the controls: a network that never learned, and one whose weights are shuffled."""

import logging
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from hiddencost import backbone
from hiddencost.compression import label
from hiddencost.files import read_json
from hiddencost.layers import convolutions, erk_densities

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

    Pruning reaches the convolutions and leaves the head dense; weights that are zero already stay zero and count. The
    manifest gains `compression` ("none", what `label` calls it, that of the checkpoint, or both: "acdc+int8"),
    `compression_settings`, `quantisation_bits`, `control` and, of what is pruned, `sparsity_declared`: the share that
    the masks take from all convolutions together, whichever of them the algorithm reached.

    A checkpoint that failed, or whose convolutions are sparser than asked, gives a backbone that says so.
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
    try:
        if control == "random_init":
            network, masks = random_network(manifest["architecture"]), {}
            manifest |= {"sparsity_declared": 0.0, "sparsity_over": "convolutions"}
        elif control == "shuffled":
            masks = shuffle(network, masks)
        elif settings.get("algorithm") == "quantise":
            quantise(network, settings["bits"])
        elif settings:
            zeros = sum(int((layer.weight == 0).sum()) for layer in convolutions(network).values())
            masks |= prune_convolutions(network, settings)
            if zeros == sum(int((layer.weight == 0).sum()) for layer in convolutions(network).values()):
                raise ValueError(
                    f"{manifest['compression']}: no weight to prune, as all that it asks for are zero already"
                )
            manifest |= {"sparsity_declared": masked_share(network, masks), "sparsity_over": "convolutions"}
    except ValueError as error:
        log.error("%s fails: %s", folder, error)
        return backbone.save_failure(folder, str(error), manifest)
    backbone.save(folder, network.state_dict(), masks, manifest)
    told = (manifest["compression"], control, manifest["sparsity_declared"])
    log.info("%s: compression %s, control %s, sparsity %g", folder, *told)


def masked_share(network: nn.Module, masks: dict[str, Tensor]) -> float:
    """Return the share of all convolutions' weights that masks (True where kept, by key) leave out, to 4 digits."""
    layers = convolutions(network)
    left_out = sum(int((~masks[key]).sum()) for name in layers if (key := f"{name}.weight") in masks)
    return round(left_out / sum(layer.weight.numel() for layer in layers.values()), 4)


# ------------------------------------------------------------------------------------------------- pruning


def prune_convolutions(network: nn.Module, settings: dict) -> dict[str, Tensor]:
    """Prune convolutions in place, once and without retraining; weights that are zero already stay so.

    settings: as for `compress`. Returns the masks of the layers that the algorithm reaches, bool by the weights'
    keys, True where kept. Raises ValueError if the network is sparser than asked already, or no layer is reached.
    """
    layers = reached(network, settings)
    if not layers:
        raise ValueError(
            f"{settings['n']}:{settings['m']}: no convolution has input channels in groups of {settings['m']}"
        )
    for layer in layers.values():
        prune.custom_from_mask(layer, "weight", layer.weight != 0)
    if settings["algorithm"] == "nm":
        prune_nm(layers, settings["n"], settings["m"])
    elif settings["algorithm"] == "channel":
        prune_channels(layers, settings["sparsity"])
    else:
        prune_unstructured(layers, settings["algorithm"], settings["sparsity"], settings["scope"])
    masks = {f"{name}.weight": layer.weight_mask.bool() for name, layer in layers.items()}
    for layer in layers.values():
        prune.remove(layer, "weight")
    return masks


def reached(network: nn.Module, settings: dict) -> dict[str, nn.Conv2d]:
    """Return the convolutions that a pruning algorithm reaches: all, or for N:M those with whole groups of inputs."""
    layers = convolutions(network)
    if settings["algorithm"] != "nm":
        return layers
    return {name: layer for name, layer in layers.items() if layer.weight.shape[1] % settings["m"] == 0}


def prune_unstructured(layers: dict[str, nn.Conv2d], algorithm: str, sparsity: float, scope: str) -> None:
    """Prune single weights of masked layers: the smallest (`magnitude`) or, with a fixed seed, any (`random`).

    scope: `global` ranks all layers together (Han et al., Learning both Weights and Connections, 2015), `layer` takes
    the same share of each, `erk` the share of `erk_densities`; a layer that is sparser already keeps its zeros.
    Raises ValueError if, with `global`, all together are sparser than asked.
    """
    method = UNSTRUCTURED[algorithm]
    zeros = {name: int((layer.weight == 0).sum()) for name, layer in layers.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the seeds of a study vary the adaptation, not this
        if scope == "global":
            total = sum(layer.weight.numel() for layer in layers.values())
            amount = round(sparsity * total) - sum(zeros.values())
            if amount < 0:
                raise ValueError(
                    f"{sum(zeros.values()) / total:.4f} of the convolutions are zero already, expected at most "
                    f"compression.sparsity, {sparsity:g}"
                )
            parameters = [(layer, "weight") for layer in layers.values()]
            prune.global_unstructured(parameters, pruning_method=method, amount=amount)
        else:
            for name, wanted in zeros_wanted(layers, sparsity, scope).items():
                method.apply(layers[name], "weight", amount=max(0, wanted - zeros[name]))


def zeros_wanted(layers: dict[str, nn.Conv2d], sparsity: float, scope: str) -> dict[str, int]:
    """Return how many weights of each layer are to be zero, with scope `layer` or `erk`."""
    shapes = {name: layer.weight.shape for name, layer in layers.items()}
    densities = erk_densities(shapes, 1 - sparsity) if scope == "erk" else dict.fromkeys(layers, 1 - sparsity)
    return {name: round((1 - densities[name]) * prod(shape)) for name, shape in shapes.items()}


def prune_nm(layers: dict[str, nn.Conv2d], n: int, m: int) -> None:
    """Keep the n largest of each m consecutive weights of masked layers (N:M sparsity, Zhou et al., ICLR 2021).

    The groups lie along the input channels at one place of the kernel, as sparse tensor cores want them (Mishra et
    al., Accelerating Sparse Deep Neural Networks, 2021): see `groups_of_inputs`. A layer whose input channels do not
    divide by m, such as a stem of 3 or a depthwise convolution of 1, is not reached and stays dense.
    """
    for layer in layers.values():
        groups = groups_of_inputs(layer.weight.abs(), m)
        kept = torch.zeros_like(groups).scatter_(1, groups.topk(n).indices, 1)
        out, inputs, height, width = layer.weight.shape
        prune.custom_from_mask(layer, "weight", kept.reshape(out, height, width, inputs).movedim(-1, 1))


def groups_of_inputs(weight: Tensor, m: int) -> Tensor:
    """Lay a convolution's weight [out, in, h, w] out as [out h w in / m, m]: input channels vary fastest."""
    return weight.movedim(1, -1).reshape(-1, m)


def prune_channels(layers: dict[str, nn.Conv2d], sparsity: float) -> None:
    """Prune the filters of smallest L2 norm of masked layers, the same share of each (Li et al., Pruning Filters for
    Efficient ConvNets, ICLR 2017, there by L1 norm).

    The filters stay in place as zeros; batch norm's shift of their channels stays.
    """
    for layer in layers.values():
        gone = int((layer.weight == 0).flatten(1).all(1).sum())
        amount = filters_wanted(layer, sparsity) - gone
        prune.ln_structured(layer, "weight", amount=max(0, amount), n=2, dim=0)


def filters_wanted(layer: nn.Conv2d, sparsity: float) -> int:
    """Return how many filters of a layer channel pruning sets to zero."""
    return round(sparsity * layer.out_channels)


# ------------------------------------------------------------------------------------------------- quantisation


@torch.no_grad()
def quantise(network: nn.Module, bits: int) -> None:
    """Round the weights of all convolutions and linear layers, stem and head too, to integers of `bits`, in place.

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
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
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
                network(torch.randn(32, 3, 64, 64))
    return network.eval()


@torch.no_grad()
def shuffle(network: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permute the weights within each convolution and linear layer, in place, always alike. Batch norm stays.

    Each layer keeps the values of its weights, and so their scale, distribution and sparsity, but not what they
    compute. It tells whether a result needs learned features or only weights of that size. Returns the masks (bool by
    key), permuted with their weights.
    """
    generator = torch.Generator().manual_seed(0)  # the seeds of a study vary the adaptation, not this
    masks = dict(masks)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            order = torch.randperm(module.weight.numel(), generator=generator)
            module.weight.copy_(module.weight.flatten()[order].view_as(module.weight))
            if (mask := masks.get(key := f"{name}.weight")) is not None:
                masks[key] = mask.flatten()[order].view_as(mask)
    return masks
