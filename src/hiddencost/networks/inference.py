"""A backbone as it computes: batch norm folded, in channels-last layout, with no more memory than it needs."""

import copy
import logging

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

log = logging.getLogger(__name__)


# images a forward pass where no gradient is needed: fewer are slower (bench/README.md), more no faster
FORWARD_BATCH = {"cpu": 64, "cuda": 256}


class _ReLU6(Function):
    """min(max(x, 0), 6) in place. PyTorch's keeps a copy of x for its gradient, which the result tells as well."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.mark_dirty(x.clamp_(0, 6))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, result, 0.0, 6.0)


class ReLU6(nn.ReLU6):
    """nn.ReLU6, in place, with half the memory for its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return _ReLU6.apply(x)


def _with_plain_layers(network: nn.Module) -> nn.Module:
    """Return a copy with torch's own layers where timm subclasses them: torch.fx would walk into a subclass, and
    neither a batch norm to fold nor a head to find would be left. One with layers of its own is no plain layer."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if type(module).__name__ == "BatchNormAct2d":  # one module in timm: its activation is no batch norm's
            norm = nn.BatchNorm2d(module.num_features, module.eps, affine=module.affine).to(module.running_mean)
            norm.load_state_dict({key: tensor for key, tensor in module.state_dict().items() if "." not in key})
            network.set_submodule(name, nn.Sequential(norm.eval(), module.drop, module.act))
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear and not list(module.children()):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None).to(module.weight)
            linear.load_state_dict(module.state_dict())
            network.set_submodule(name, linear)
    return network


def for_inference(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a network with batch norm folded into its convolutions, `placed` on a device.

    The outputs are those of the network up to rounding. A network that torch.fx cannot walk is not copied, and keeps
    its batch norm.

    Args:
        network: images [N, 3, S, S] to logits, in evaluation mode; a torch.fx.GraphModule comes out, if it can.
        device: to compute on.
    """
    try:
        network = fuse(_with_plain_layers(network), inplace=True)
    except (TraceError, TypeError) as reason:  # control flow that depends on the data
        log.warning("batch norm is not folded, as torch.fx cannot walk the network: %s", reason)
    return placed(network, device)


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network, changed in place, without trainable weights, in channels-last layout, on a device.

    Its ReLU6 in place keep half the memory for a gradient.
    """
    # float32 is meant: cuDNN would take TF32
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch's types lack it
    for name, module in list(network.named_modules()):
        if type(module) is nn.ReLU6 and module.inplace:
            network.set_submodule(name, ReLU6(inplace=True))
    network = network.requires_grad_(False).to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        if (
            tensor.ndim == 4
        ):  # nn.Module.to would change those of five, too, such as the masks of a Swin's windows, and fail
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
