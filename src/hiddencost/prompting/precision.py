"""Number formats: what computes in bfloat16, in a GPU's TF32, and what stays in float32.

Training computes in bf16 where the device has it; test metrics and label mappings are those of float32. Over six
seeds bf16 moves accuracies by less than the seeds scatter: FLM-VP's by +0.27 ± 0.52 points, ILM-VP's by -0.57 ± 1.42
(`bench/precision.py`, bench/results/precision.md).
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hiddencost.networks.layers import head_name, head_of

EXACT = "s", "scale", "zero_point"  # steps of quantisers (`networks.quantisers`), by the names of their buffers


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 where the device computes in it natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = features.get("avx512_bf16", False) or features.get("amx_bf16", False)
    return "bf16" if native else "fp32"


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 within a network of bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).bfloat16()


class _FullHead(nn.Linear):
    """A classifier in float32 behind a network of lower precision: its logits do not tie by rounding."""

    def __init__(self, head: nn.Linear):
        nn.Module.__init__(self)  # nn.Linear's own would draw random weights
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight, self.bias = head.weight, head.bias

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.float())


def in_bf16(network: nn.Module, in_float32: Sequence[str] = ()) -> nn.Module:
    """Return a copy of a network that computes in bfloat16 up to its classifier, which stays in float32.

    Steps of quantisers stay as they are: rounded to bfloat16, a scale of 8 bits would move its last levels by up to
    a step. torch.fx leaves no modules of their class, so that their buffers are known by name.

    Args:
        network: in float32.
        in_float32: names of convolutions, of nn.Conv2d itself, that stay in it, too.
    """
    head = _FullHead(head_of(network))
    copied = copy.deepcopy(network).bfloat16()
    copied.set_submodule(head_name(copied), head)
    for name in in_float32:
        convolution = copy.deepcopy(network.get_submodule(name))
        convolution.__class__ = Float32Conv2d
        copied.set_submodule(name, convolution)
    for name, buffer in network.named_buffers():
        module, _, own = name.rpartition(".")
        if own in EXACT:
            setattr(copied.get_submodule(module), own, buffer)
    return copied


@contextmanager
def tf32() -> Iterator[None]:
    """Let a GPU's products of float32 be those of TF32, which has a mantissa of 10 bits."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch's types lack it
    flags = convolutions, torch.backends.cuda.matmul
    kept = [flag.fp32_precision for flag in flags]
    try:
        for flag in flags:
            flag.fp32_precision = "tf32"
        yield
    finally:
        for flag, before in zip(flags, kept, strict=True):
            flag.fp32_precision = before
