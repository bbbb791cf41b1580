"""Quantisers of weights and activations: LSQ and OFQ's StatsQ, learned in training, and PyTorch's to 8 bits.

Gradients pass a rounding as if it were none, and stop where a value was clamped. Steps are buffers: nothing here
trains them. OFQ's code (github.com/nbasyl/OFQ, src/quantization/quantizer) scales the gradient of a step by a factor
of the batch, in a way that may round its value; here a step is what a file says.
"""

import torch
from torch import Tensor, nn

LEAST_STEP = 1e-5


def lsq(x: Tensor, step: Tensor, bits: int, signed: bool = True) -> Tensor:
    """Return numbers at the nearest multiple of a step that bits can count (Esser et al., Learned Step Size
    Quantization, ICLR 2020, equations 1 and 2): -2^(bits-1) to 2^(bits-1) - 1 times, or 0 to 2^bits - 1 times.

    Args:
        x: any shape. Of bfloat16 it is computed in float32.
        step: that broadcasts against it; of less than 1e-5 it is 1e-5.
        bits: of the result.
        signed: whether they count below 0, too.
    """
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    step = _precise(step).clamp(min=LEAST_STEP)
    counts = (_precise(x) / step).clamp(low, high)
    return (_straight_through(counts, counts.round()) * step).to(x.dtype)


def statsq(weight: Tensor, bits: int, clip: Tensor) -> Tensor:
    """Return weights at the nearest of 2^bits levels, which lie evenly on both sides of 0 (StatsQ, Liu et al., 2023,
    section 4.1): the scale of a row is twice the mean of its magnitudes.

    Args:
        weight: [outputs, inputs]. Of bfloat16 it is computed in float32.
        bits: of the result.
        clip: [1], where weights are clamped, in halves of the scale: 2.
    """
    exact, half = _precise(weight), 2 ** (bits - 1)
    scale = 2 * exact.abs().mean(1, keepdim=True)
    within = (exact / scale).clamp(-_precise(clip) / 2, _precise(clip) / 2 - 1e-6)
    levels = ((within * half - 0.5).round() + 0.5) / half
    return _straight_through(exact, scale * levels).to(weight.dtype)


def affine(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return numbers as PyTorch's quint8 holds them: the nearest of 256 multiples of a scale, from -zero_point on.

    Args:
        x: any shape. Of bfloat16 it is computed in float32.
        scale, zero_point: one number each, both floating-point.
    """
    step, zero = _precise(scale), _precise(zero_point)
    counts = (_precise(x) / step).clamp(-zero, 255 - zero)
    return (_straight_through(counts, counts.round()) * step).to(x.dtype)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return what was rounded, with the gradient of what it was rounded from."""
    return x + (rounded - x).detach()


torch.fx.wrap("lsq")  # what they ask of a tensor's type, torch.fx cannot follow
torch.fx.wrap("statsq")
torch.fx.wrap("affine")
affine.is_pointwise = True  # type: ignore[attr-defined]  # for `prompting.sharing`: no value stands on another's place


class Quantiser(nn.Module):
    """A quantiser of activations. In training mode it takes its steps from the input: so networks with random weights
    get theirs."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.start_from(x.detach())
        return self.quantised(x)

    def start_from(self, x: Tensor) -> None:
        """Take the steps from an input."""
        raise NotImplementedError

    def quantised(self, x: Tensor) -> Tensor:
        """Return an input by the steps that there are."""
        raise NotImplementedError


class LSQ(Quantiser):
    """A quantiser by learned steps, `s`, one for each index of a dimension.

    In training mode the steps are those that the published code starts from, of the input: 2 mean(|x|) / sqrt(h), of
    unsigned ones 4, where h is the largest count.

    Args:
        steps: their number.
        behind: how many dimensions there are behind that one.
        bits, signed: see `lsq`.
    """

    s: Tensor

    def __init__(self, steps: int, behind: int, bits: int, signed: bool = True):
        super().__init__()
        self.behind, self.bits, self.signed_range = behind, bits, signed
        self.register_buffer("s", torch.ones(steps))

    def quantised(self, x: Tensor) -> Tensor:
        return lsq(x, self.s.reshape(-1, *[1] * self.behind), self.bits, self.signed_range)

    def start_from(self, x: Tensor) -> None:
        alone = x.ndim - 1 - self.behind
        every = [dimension for dimension in range(x.ndim) if len(self.s) == 1 or dimension != alone]
        factor, most = (2, 2 ** (self.bits - 1) - 1) if self.signed_range else (4, 2**self.bits - 1)
        self.s.copy_(factor * x.abs().mean(every).reshape(-1) / most**0.5)


class Affine(Quantiser):
    """A quantiser to quint8, see `affine`. In training mode its scale is that of PyTorch's observer of activations:
    the input's range, with 0 in it, is 127 multiples."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def quantised(self, x: Tensor) -> Tensor:
        return affine(x, self.scale, self.zero_point)

    def start_from(self, x: Tensor) -> None:
        low, high = x.min().clamp(max=0), x.max().clamp(min=0)
        self.scale.copy_(((high - low) / 127).clamp(min=torch.finfo(torch.float32).eps))
        self.zero_point.copy_((-low / self.scale).round())


class ImageLSQ(LSQ):
    """That of images, a step for each colour. Of published networks `signed` is 1, and images are counted below 0:
    the code sets it once it sees a value below 0, and `formats.ofq` holds it."""

    def __init__(self, channels: int, bits: int):
        super().__init__(channels, 2, bits)
        self.register_buffer("signed", torch.ones(1))


class StatsQ(nn.Module):
    """A quantiser of weights, see `statsq`. `clip_val`, 2, is never changed (`formats.ofq` holds it)."""

    clip_val: Tensor

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits
        self.register_buffer("clip_val", torch.full((1,), 2.0))

    def forward(self, weight: Tensor) -> Tensor:
        return statsq(weight, self.bits, self.clip_val)
