"""The family of vision transformers and ConvNeXts, of timm and torchvision: networks of blocks with LayerNorm."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hiddencost.networks.convolutional import Convolutional

if TYPE_CHECKING:
    from torch import nn

    from hiddencost.networks.layers import Weight

# of timm's ViT and DeiT, Swin's layers and ConvNeXt's stages; of torchvision's Swin and ConvNeXt, and its ViT
IN_A_BLOCK = re.compile(r"(^|\.)blocks\.\d+\.|^features\.\d+\.\d+\.|^encoder\.layers\.encoder_layer_\d+\.")
# small MLPs that make biases of attention from the places of tokens: in Swin V2, and in timm's `relpos` ViTs
OF_PLACES = re.compile(r"\.(cpb_mlp|meta_mlp|rel_pos)\.")


class Transformer(Convolutional):
    """Networks whose weights are in the linear layers of their blocks, which alone pruning reaches. Patch embedding,
    depthwise convolutions, merging of patches, MLPs of places and the head stay dense, as where Wanda's authors prune
    DeiT, ViT and ConvNeXt (Sun et al., arXiv 2306.11695; github.com/locuslab/wanda,
    image_classifiers/prune_utils.py)."""

    name = "transformer"
    prefixes = (
        *("timm/vit_", "timm/flexivit_", "timm/deit_", "timm/deit3_", "timm/beit", "timm/eva"),
        *("timm/swin_", "timm/swinv2_", "timm/convnext_", "timm/convnextv2_", "vit_", "swin_", "convnext_"),
    )
    sparsity_over = "blocks"

    def prunable_weights(self, network: nn.Module) -> dict[str, Weight]:
        """The linear layers of the blocks; in some ConvNeXts they are convolutions of 1 x 1."""
        from hiddencost.networks import layers

        return {
            key: weight
            for key, weight in layers.layer_weights(network).items()
            if IN_A_BLOCK.search(key)
            and not OF_PLACES.search(key)
            and all(side == 1 for side in weight.tensor.shape[2:])
        }

    def sparsity_groups(self, network: nn.Module, stem: str | None) -> dict[str, list[str]]:
        """The linear layers of the blocks, and the groups of a convolutional network."""
        convolutional = Convolutional(self.title, self.pruned_layers, self.photos)
        blocks = {self.sparsity_over: list(self.prunable_weights(network))}
        return blocks | convolutional.sparsity_groups(network, stem)
