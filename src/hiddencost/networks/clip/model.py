"""CLIP (Radford et al., 2021) of open_clip: its towers, narrowed where they were pruned in structure, and an image
classifier whose source classes are texts.

open_clip is imported where it is needed: it takes seconds, and other networks go without.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

QUICK = 1.702  # of QuickGELU
CONVOLUTION_OF = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "1": "0"}  # of a batch norm, in CLIP's ResNets
OpenClip = Any  # a network of open_clip, or a block of one: an nn.Module, of a library without types
Widths = dict[str, list[int]]  # of a block by its name: [of an attention head, of the MLP]
TINIER_THAN = "ViT-B-32"  # open_clip's, from whose weights those of TinyCLIP were taken
# TinyCLIP's, which open_clip lacks: the width of the image tower, the layers of the text tower
# (github.com/wkcn/TinyCLIP, src/open_clip/model_configs)
TINY = {"TinyCLIP-ViT-61M-32-Text-29M": (640, 9), "TinyCLIP-ViT-40M-32-Text-19M": (512, 6)}


def build(name: str, widths: Widths | None = None) -> nn.Module:
    """Return a CLIP of open_clip, randomly initialised, in evaluation mode.

    Args:
        name: of open_clip's configurations, or of TINY.
        widths: of those blocks that are narrower than the configuration says, as UPop makes them.

    Raises:
        ValueError: there is no such configuration, or its texts need a tokenizer that is downloaded.
    """
    import open_clip

    config = _config(name)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    network = (open_clip.CoCa if "multimodal_cfg" in config else kind)(**config)
    for block, (head, hidden) in (widths or {}).items():
        narrow(network.get_submodule(block), head, hidden)
    return network.eval()


def _config(name: str) -> dict:
    import open_clip

    if name in TINY:
        config = open_clip.get_model_config(TINIER_THAN)
        config["vision_cfg"]["width"], config["text_cfg"]["layers"] = TINY[name]
        return config
    if name not in open_clip.list_models():  # other names it would ask of a hub, or of a folder
        raise ValueError(f"architecture {f'clip/{name}'!r}: open_clip has no such configuration")
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
        raise ValueError(
            f"architecture 'clip/{name}': its texts go through a tokenizer of Hugging Face, which is not among the "
            "files of its weights; expected one that reads CLIP's own vocabulary"
        )
    return config


def configuration_of(architecture: str) -> str:
    """Return the name of a configuration, which an architecture has behind clip/."""
    return architecture.removeprefix("clip/")


def vocabulary_of(name: str) -> str:
    """Return the name of the configuration of open_clip that has the tokenizer of another."""
    return TINIER_THAN if name in TINY else name


def image_size(network: OpenClip) -> int:
    """Return the side of a CLIP's input, in pixels.

    Raises:
        ValueError: it is not a square.
    """
    side = network.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    if height != width:
        raise ValueError(f"its images are {height} x {width} pixels; expected squares")
    return height


def narrow(block: OpenClip, head: int, hidden: int) -> None:
    """Make a residual attention block narrower, in place, with new weights.

    Args:
        block: of open_clip's.
        head: the width of an attention head.
        hidden: the width of its MLP.
    """
    old, mlp = block.attn, block.mlp
    block.attn = Attention(old.embed_dim, old.num_heads, head)
    width = mlp.c_fc.in_features
    mlp.c_fc, mlp.c_proj = nn.Linear(width, hidden), nn.Linear(hidden, width)


class Attention(nn.Module):
    """Self-attention of a CLIP's block, with nn.MultiheadAttention's names of weights, and heads of any width.

    Scores are scaled by the root of that width, in UPop as in the original (its clip/mock.py). Batches come first.
    """

    def __init__(self, width: int, heads: int, head: int):
        super().__init__()
        self.embed_dim, self.num_heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * heads * head, width).normal_(std=width**-0.5))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * heads * head))
        self.out_proj = nn.Linear(heads * head, width)

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return the attention of x, float [N, L, width], over itself (key and value are x), as
        nn.MultiheadAttention does, and None for its weights."""
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _as_attention(old: nn.MultiheadAttention) -> Attention:
    new = Attention(old.embed_dim, old.num_heads, old.head_dim)
    new.load_state_dict(old.state_dict())
    return new.to(old.in_proj_weight).eval()


class ImageTower(nn.Module):
    """The image encoder of a CLIP: normalised images [N, 3, S, S] to embeddings [N, D]."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.visual(images)
        return outputs[0] if isinstance(outputs, tuple) else outputs  # CoCa's gives its tokens, too


def image_tower(network: OpenClip) -> ImageTower:
    """Return the image encoder of a CLIP."""
    return ImageTower(network.visual)


class TextClassifier(nn.Module):
    """An image tower and texts: the logits are the scaled cosines of an image's embedding with those of the texts.

    forward: normalised images [N, 3, S, S] to logits [N, texts]. The head is a linear layer over the embedding of
    unit length, whose weights are the texts' embeddings times CLIP's temperature (its logit_scale): softmax of the
    logits is calibrated as CLIP is.
    """

    def __init__(self, tower: ImageTower, embeddings: Tensor, scale: float):
        """embeddings: float32 [texts, D], of unit length; scale: what cosines are multiplied by."""
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(embeddings.shape[1], len(embeddings), bias=False)
        self.head.weight = nn.Parameter(scale * embeddings)

    def forward(self, images: Tensor) -> Tensor:
        embedding = self.tower(images).to(self.head.weight.dtype)  # cosines are close to each other: bf16 ties
        return self.head(functional.normalize(embedding, dim=1))

    @torch.no_grad()
    def lean(self) -> "TextClassifier":
        """Return a copy that computes the same, up to rounding, with less.

        nn.MultiheadAttention gives way to `Attention`, which does not copy its batch to another order and back;
        z σ(1.702 z) to SiLU, one kernel, with 1.702 in the layers around it; batch norm is folded into the
        convolution before it.
        """
        from open_clip.transformer import QuickGELU

        network = copy.deepcopy(self)
        modules: list[OpenClip] = list(network.tower.modules())
        for module in modules:
            for name, child in list(module.named_children()):
                if type(child) is nn.MultiheadAttention and child._qkv_same_embed_dim:
                    setattr(module, name, _as_attention(child))
                elif type(child) is nn.BatchNorm2d and (before := CONVOLUTION_OF.get(name, "")) in module._modules:
                    setattr(module, before, fuse_conv_bn_eval(getattr(module, before), child))
                    setattr(module, name, nn.Identity())
                elif type(child) is QuickGELU:
                    module.c_fc.weight.mul_(QUICK), module.c_fc.bias.mul_(QUICK), module.c_proj.weight.div_(QUICK)
                    setattr(module, name, nn.SiLU())
        return network


def scale(network: OpenClip) -> float:
    """Return what a CLIP multiplies cosines by."""
    return network.logit_scale.exp().item()


def text_classifier(network: OpenClip, embeddings: Tensor, scale: float) -> TextClassifier:
    """Return the classifier of a CLIP over texts, in evaluation mode, without gradients.

    Args:
        network: both towers.
        embeddings: of the texts, float32 [texts, D], of unit length.
        scale: what cosines are multiplied by.
    """
    return TextClassifier(image_tower(network), embeddings, scale).requires_grad_(False).eval()


def without_texts(network: OpenClip, name: str) -> TextClassifier:
    """Return the classifier of a CLIP over nothing: an image tower and unit length, with a head of one zero.

    Args:
        network: both towers.
        name: of its configuration, see `build`.
    """
    return text_classifier(network, torch.zeros(1, _config(name)["embed_dim"]), 1.0)
