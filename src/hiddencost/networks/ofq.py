"""Vision transformers as OFQ quantises them: DeiT-T and Swin-T with weights and activations of 2, 3 or 4 bits.

OFQ is Liu et al., Oscillation-free Quantization for Low-bit Vision Transformers, ICML 2023 (github.com/nbasyl/OFQ,
src/quantization; evaluated with `--wq-mode statsq --aq-mode lsq --qk_reparam --qk_reparam_type 0`). As there, layers
of the dense network are replaced: timm's DeiT and torchvision's Swin. Parameters have the names that the published
files give them, those of heads aside (`formats.ofq`).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention, swin_t

from hiddencost.networks.quantisers import LSQ, ImageLSQ, StatsQ

SIDE = 224  # of the images: a step of its own for each token, a bias for each pixel
OUTER_BITS = 8  # of the first layer and the heads


class Shift(nn.Module):
    """A learned bias for each channel or, of images, for each pixel: their columns are its rows."""

    def __init__(self, size: int, side: int | None = None):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.bias if self.side is None else self.bias.reshape(self.side, self.side))


def _add_shifts(module: nn.Module, quantiser: LSQ, shift: Callable[[], Shift]) -> None:
    """Give a layer the quantiser of its input, with a shift before and after it, by their published names."""
    module.input_quant_fn = quantiser
    module.move_b4, module.move_aft = shift(), shift()


def _quantised_input(module: Any, x: Tensor) -> Tensor:
    return module.move_aft(module.input_quant_fn(module.move_b4(x)))


class Input(nn.Module):
    """A quantised input [..., channels], with a step for each token, or one for all."""

    def __init__(self, channels: int, quantiser: LSQ):
        super().__init__()
        _add_shifts(self, quantiser, partial(Shift, channels))

    def forward(self, x: Tensor) -> Tensor:
        return _quantised_input(self, x)


class QLinear(nn.Linear):
    """A linear layer of quantised weights and inputs [..., tokens, channels]; it always has a bias."""

    def __init__(self, inputs: int, outputs: int, tokens: int, bits: int, signed: bool = True):
        super().__init__(inputs, outputs)
        _add_shifts(self, LSQ(tokens, 1, bits, signed), partial(Shift, inputs))
        self.statsq_fn = StatsQ(bits)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(_quantised_input(self, x), self.statsq_fn(self.weight), self.bias)


class QConv2d(nn.Conv2d):
    """The convolution that makes patches of images, of 8 bits."""

    def __init__(self, dense: nn.Conv2d, side: int):
        super().__init__(dense.in_channels, dense.out_channels, dense.kernel_size, dense.stride)  # type: ignore[arg-type]  # torch's types lack tuples of any length
        _add_shifts(self, ImageLSQ(dense.in_channels, OUTER_BITS), partial(Shift, side * side, side))
        self.lsqw_fn = LSQ(dense.out_channels, 3, OUTER_BITS)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(_quantised_input(self, x), self.lsqw_fn(self.weight), self.bias)


def _head(dense: nn.Linear) -> nn.Module:
    """A head, of 8 bits. Its weights are quantised where they are read (`formats.ofq.read`), and its linear layer is
    a plain one, as whoever takes a network's features or exchanges its head asks for."""
    read = Input(dense.in_features, LSQ(1, 0, OUTER_BITS))
    return nn.Sequential(OrderedDict(input=read, linear=nn.Linear(dense.in_features, dense.out_features)))


class Attention(nn.Module):
    """Self-attention in which the product of queries' and keys' weights is quantised, not each (QKR, section 4.3).

    Args:
        width: channels.
        heads: their number.
        tokens: of the input [N, tokens, channels].
        bits: of weights and activations.
    """

    def __init__(self, width: int, heads: int, tokens: int, bits: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.quant_x_4_qkv = Input(width, LSQ(tokens, 1, bits))
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width)
        self.qk_quant, self.v_quant = StatsQ(bits), StatsQ(bits)
        self.move_qkx_b4, self.move_qkx_aft = Shift(heads * width), Shift(heads * width)
        self.quan_a_qkx_fn = LSQ(tokens * heads, 1, bits)
        self.move_v_b4, self.move_v_aft = Shift(width), Shift(width)
        self.quan_a_v_fn = LSQ(width, 0, bits)
        self.quan_a_softmax_fn = LSQ(tokens, 1, bits, signed=False)
        self.proj = QLinear(width, width, tokens, bits)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return what each token makes of the others, as the input.

        Args:
            x: [N, tokens, channels].
            attn_mask, is_causal: unused: timm's blocks pass them.
        """
        x = self.quant_x_4_qkv(x)
        v = functional.linear(x, self.v_quant(self.v.weight), self.v.bias)
        v = self.move_v_aft(self.quan_a_v_fn(self.move_v_b4(v))).unflatten(2, (self.heads, -1)).transpose(1, 2)
        q, k = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.q, self.k))  # [heads, inner, width]
        both = self.qk_quant((q.transpose(1, 2) @ k).flatten(0, 1))  # [heads * width, width]
        # [N, tokens, heads, width]
        keys = self.move_qkx_b4(functional.linear(x, both)).unflatten(2, (self.heads, -1))
        keys = self.quan_a_qkx_fn(keys.flatten(1, 2)).unflatten(1, (-1, self.heads)).flatten(2)
        keys = self.move_qkx_aft(keys).unflatten(2, (self.heads, -1))
        logits = self.placed(torch.einsum("bnc,bmhc->bhnm", x, keys) * self.scale)
        attention = self.quan_a_softmax_fn(logits.softmax(-1))
        return self.proj((attention @ v).transpose(1, 2).flatten(2))

    def placed(self, logits: Tensor) -> Tensor:
        """Return logits [N, heads, tokens, tokens] with what the places of tokens add to them: here nothing."""
        return logits


class WindowAttention(Attention):
    """That within windows of a map [N, side, side, channels], which may be shifted.

    Args:
        dense: the attention in whose place it stands.
        side: of the map: of whole windows.
        bits: of weights and activations.
    """

    relative_position_index: Tensor
    mask: Tensor

    def __init__(self, dense: ShiftedWindowAttention, side: int, bits: int):
        window = dense.window_size[0]
        super().__init__(dense.proj.in_features, dense.num_heads, window * window, bits)
        if side % window:
            raise ValueError(f"a map of {side} x {side} is not one of whole windows of {window} x {window}")
        self.side, self.window, self.windows = side, window, (side // window) ** 2
        self.shift = 0 if window >= side else dense.shift_size[0]
        self.relative_position_bias_table = nn.Parameter(dense.relative_position_bias_table.detach().clone())
        self.register_buffer("relative_position_index", dense.relative_position_index)
        self.register_buffer("mask", self._mask(), persistent=False)

    def _mask(self) -> Tensor:
        """Return -100 between tokens of a window that were no neighbours before the shift: [windows, 1, N, N]."""
        place = torch.arange(self.side)
        region = (place >= self.side - self.window).int() + (place >= self.side - self.shift).int()
        regions = self._windows((3 * region[:, None] + region)[None, :, :, None]).squeeze(2)
        return -100.0 * ((regions[:, None, :] != regions[:, :, None]) & bool(self.shift)).unsqueeze(1)

    def _windows(self, maps: Tensor) -> Tensor:
        """Cut maps [B, side, side, C] into windows [B * windows, window * window, C]."""
        number, window, channels = self.side // self.window, self.window, maps.shape[-1]
        rows = maps.reshape(-1, number, window, number, window, channels).transpose(2, 3)
        return rows.reshape(-1, window * window, channels)

    def _maps(self, windows: Tensor) -> Tensor:
        """Put windows together again, see `_windows`."""
        number, window, channels = self.side // self.window, self.window, windows.shape[-1]
        rows = windows.reshape(-1, number, number, window, window, channels).transpose(2, 3)
        return rows.reshape(-1, self.side, self.side, channels)

    def placed(self, logits: Tensor) -> Tensor:
        """Return logits with the bias of each pair of places and, where windows are shifted, the mask."""
        tokens = self.window**2
        bias = self.relative_position_bias_table[self.relative_position_index].unflatten(0, (tokens, tokens))
        of_windows = logits.unflatten(0, (-1, self.windows)) + (bias.permute(2, 0, 1) + self.mask)
        return of_windows.flatten(0, 1)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        windows = self._windows(torch.roll(x, (-self.shift, -self.shift), (1, 2)))
        return torch.roll(self._maps(super().forward(windows)), (self.shift, self.shift), (1, 2))


def deit(network: Any, bits: int, side: int = SIDE) -> nn.Module:
    """Quantise a DeiT of timm with random weights, with or without a distillation token, in place, and return it.

    Args:
        network: the dense one, a timm.models.VisionTransformer.
        bits: of weights and activations; first layer and heads have 8.
        side: of its images, in pixels.
    """
    tokens = network.pos_embed.shape[1]
    network.patch_embed.proj = QConv2d(network.patch_embed.proj, side)
    for block in network.blocks:
        width, inner = block.mlp.fc1.in_features, block.mlp.fc1.out_features
        block.attn = Attention(width, block.attn.num_heads, tokens, bits)
        block.mlp.fc1 = QLinear(width, inner, tokens, bits)
        block.mlp.fc2 = QLinear(inner, width, tokens, bits, signed=False)
    for name in ("head", "head_dist"):
        if hasattr(network, name):
            setattr(network, name, _head(getattr(network, name)))
    return network


def swin(network: Any, bits: int, side: int = SIDE) -> nn.Module:
    """Quantise a SwinTransformer of torchvision with random weights, in place, and return it; see `deit`.

    The steps of its MLPs and reductions are one for each column of a map.
    """
    patches = network.features[0][0]
    network.features[0][0] = QConv2d(patches, side)
    side //= patches.stride[0]
    for part in network.features[1:]:
        if isinstance(part, PatchMerging):
            side //= 2
            part.reduction = QLinear(part.reduction.in_features, part.reduction.out_features, side, bits)
            continue
        for block in part:
            width, inner = block.mlp[0].in_features, block.mlp[0].out_features
            block.attn = WindowAttention(block.attn, side, bits)
            first, second = QLinear(width, inner, side, bits), QLinear(inner, width, side, bits, signed=False)
            block.mlp = nn.Sequential(OrderedDict(fc1=first, act=nn.GELU(), fc2=second))
    network.head = _head(network.head)
    return network


def _deit_tiny(name: str, bits: int, num_classes: int = 1000) -> nn.Module:
    import timm  # takes seconds, and only its own networks need it

    return deit(timm.create_model(name, pretrained=False, num_classes=num_classes), bits)


def _swin_tiny(bits: int, num_classes: int = 1000) -> nn.Module:
    network: Any = swin(swin_t(num_classes=num_classes), bits)
    network.pretrained_cfg = {"input_size": (3, SIDE, SIDE), "fixed_input_size": True}  # as timm's have it
    return network


MAKERS: dict[str, Callable[..., nn.Module]] = {
    "deit_tiny": partial(_deit_tiny, "deit_tiny_patch16_224"),
    "deit_tiny_distilled": partial(_deit_tiny, "deit_tiny_distilled_patch16_224"),
    "swin_tiny": _swin_tiny,
}
ARCHITECTURES = {
    f"ofq_{name}_w{bits}a{bits}": partial(make, bits=bits) for name, make in MAKERS.items() for bits in (2, 3, 4)
}
