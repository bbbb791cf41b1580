"""Quantisation of weights, without retraining."""

import torch
from torch import Tensor, nn

from hiddencost.compression.prune import layer_name
from hiddencost.networks.layers import layer_weights


@torch.no_grad()
def quantise(network: nn.Module, bits: int) -> None:
    """Round the weights of all layers, stem and head too (`layers.layer_weights`), to integers of `bits`, in place.

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
    for weight in (layer.tensor for layer in layer_weights(network).values()):
        block = (1, *weight.shape[1:])
        grid = {"quant_min": -largest, "quant_max": largest}
        scale, zero = choose_qparams_affine(weight, MappingType.SYMMETRIC, block, torch.int8, **grid)
        integers = quantize_affine(weight, block, scale, zero, torch.int8, **grid)
        weight.copy_(dequantize_affine(integers, block, scale, zero, torch.int8, **grid))


def quantisation_violations(network: nn.Module, bits: int) -> list[str]:
    """Return a line for each layer with an output channel of more values than the bits give."""
    counts = {key: _most_values(weight.tensor) for key, weight in layer_weights(network).items()}
    return [
        f"{layer_name(key)}: {most} values in an output channel, expected {bits} bits"
        for key, most in counts.items()
        if most > 2**bits
    ]


def _most_values(weight: Tensor) -> int:
    values = weight.flatten(1).sort(1).values
    return 1 + int((values[:, 1:] != values[:, :-1]).sum(1).max())
