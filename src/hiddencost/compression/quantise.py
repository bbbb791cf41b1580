"""Quantisation of weights, without retraining."""

import torch
from torch import nn

from hiddencost.networks.layers import weights


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
