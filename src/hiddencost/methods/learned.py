"""A label mapping that is learned with the prompt: AutoVP's FullyMap, a linear layer on the network's logits.

Source: Tsao et al., AutoVP (ICLR 2024, arXiv 2310.08381), section 3, and its published code (IBM/AutoVP,
auto_vp/programs.py: Output_Mapping.layers; auto_vp/training_process.py: Training). There one Adam, at 0.001, trains
prompt and layer, on networks with 1000 classes; here the study's recipe trains the prompt, and the layer has 0.001.
"""

import math

import torch
from torch import Tensor


def linear_layer(
    predictions: None, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    """Draw the layer that FullyMap begins with, for the arguments see `Method.mapping`.

    Weights and bias are uniform in ±1/√(source classes), PyTorch's initialisation of a linear layer, as published.

    Returns:
        Weights and, as the last column, the bias: float32 [classes, source classes + 1].
    """
    reach = 1 / math.sqrt(source_classes)
    shapes = (classes, source_classes), (classes, 1)
    return torch.cat([torch.empty(shape).uniform_(-reach, reach, generator=generator) for shape in shapes], 1)
