"""Backbones: frozen networks on disk (weights.safetensors, masks.safetensors, manifest.json) and in memory."""

import copy
import logging
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd import Function
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torch.utils.flop_counter import FlopCounterMode

from hiddencost import clip
from hiddencost.architectures import ARCHITECTURES
from hiddencost.files import atomic, read_json, sha256_file, write_json
from hiddencost.layers import prunable

log = logging.getLogger(__name__)

# images a forward pass where no gradient is needed: fewer are slower (bench/README.md), more no faster
FORWARD_BATCH = {"cpu": 64, "cuda": 256}


def build(architecture: str, widths: dict | None = None) -> nn.Module:
    """Return a network, randomly initialised, in evaluation mode.

    architecture: a name of torchvision, one of this project (`architectures.ARCHITECTURES`), or timm/NAME; with :K
    behind it, the network has K classes. clip/NAME is a CLIP, both towers of it, with blocks as narrow as `widths`
    says (see `clip.build`). Raises ValueError where there is no such network, or where it cannot have other classes.
    """
    if architecture.startswith("clip/"):
        return clip.build(architecture.removeprefix("clip/"), widths)
    name, _, count = architecture.partition(":")
    try:
        classes = {"num_classes": int(count)} if count else {}
        if name in ARCHITECTURES:
            return ARCHITECTURES[name](**classes).eval()
        if name.startswith("timm/"):
            import timm  # takes seconds, and only its own networks need it

            return timm.create_model(name.removeprefix("timm/"), pretrained=False, **classes).eval()
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise ValueError("torchvision has no such classifier")
        return torchvision.models.get_model(name, weights=None, **classes).eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"architecture {architecture!r}: {error}") from error


def removed(network: nn.Module, architecture: str) -> int:
    """Return how many of the weights that pruning reaches (see `prunable`) a network lacks, where its blocks are
    narrower than its architecture's."""
    with torch.device("meta"):
        whole = build(architecture)
    counts = (sum(weight.tensor.numel() for weight in prunable(one).values()) for one in (whole, network))
    return next(counts) - next(counts)


def arithmetic(architecture: str, size: int) -> tuple[float, int]:
    """Return the multiply-adds, in billions, of an image of size x size pixels, and the number of parameters.

    Raises ValueError where there is no such network (see `build`), or where it does not take such images."""
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = build(architecture)
            network(torch.empty(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"architecture {architecture!r}: images of {size} pixels: {error}") from error
    return counter.get_total_flops() / 2e9, sum(parameter.numel() for parameter in network.parameters())


def weights_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out batch norm's `num_batches_tracked`: a counter of training that no output depends on."""
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


def load_strictly(network: nn.Module, state: dict[str, Tensor], origin: str) -> int:
    """Load weights into a network, all keys of both accounted for. Returns the number of keys matched.

    Raises ValueError, naming `origin`, the keys and the two shapes, if a key is missing or unexpected or a shape
    differs.
    """
    wanted, given = weights_of(network.state_dict()), weights_of(state)
    problems = [f"missing key {key}" for key in sorted(wanted.keys() - given.keys())]
    problems += [f"unexpected key {key}" for key in sorted(given.keys() - wanted.keys())]
    problems += [
        f"{key} has shape {list(given[key].shape)}, expected {list(wanted[key].shape)}"
        for key in sorted(wanted.keys() & given.keys())
        if given[key].shape != wanted[key].shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{origin}: " + "; ".join(problems[:5]) + more)
    counters = {key: tensor for key, tensor in network.state_dict().items() if key not in wanted}
    network.load_state_dict(given | counters)
    return len(given)


def save(folder: str | Path, state: dict[str, Tensor], masks: dict[str, Tensor], manifest: dict) -> None:
    """Write a backbone.

    state: the weights under the architecture's names; masks: bool, True where a weight is kept, for each pruned
    tensor by its key. `weights_sha256` and `masks_sha256` are added to the manifest.
    """
    folder = Path(folder)
    for name, tensors in (("weights", weights_of(state)), ("masks", masks)):
        with atomic(folder / f"{name}.safetensors") as temporary:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        manifest = manifest | {f"{name}_sha256": sha256_file(folder / f"{name}.safetensors")}
    write_json(folder / "manifest.json", manifest)


def save_failure(folder: str | Path, reason: str, manifest: dict) -> None:
    """Write a backbone that could not be made: no tensors; the manifest's `failed` says why, and `load` raises it."""
    save(folder, {}, {}, manifest | {"failed": reason})


def load(folder: str | Path) -> tuple[nn.Module, dict[str, Tensor], dict]:
    """Load a backbone. Returns the network (evaluation mode, no gradients), its masks and its manifest.

    Raises ValueError if the backbone could not be made, the keys do not match the architecture or the files are not
    those of the manifest.
    """
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json")
    if reason := manifest.get("failed"):
        raise ValueError(reason)
    for name in ("weights", "masks"):
        path = folder / f"{name}.safetensors"
        if (found := sha256_file(path)) != manifest[f"{name}_sha256"]:
            raise ValueError(f"{path}: sha256 is {found}, the manifest says {manifest[f'{name}_sha256']}")
    network = build(manifest["architecture"], manifest.get("widths"))
    weights = folder / "weights.safetensors"
    matched = load_strictly(network, load_file(weights), str(weights))
    masks = load_file(folder / "masks.safetensors")
    return network.requires_grad_(False), masks, manifest | {"keys_matched": matched}


def load_classifier(folder: str | Path, texts: str | Path | None = None) -> tuple[nn.Module, dict]:
    """Load a backbone as a classifier over its source classes, and its manifest; see `load`.

    texts: of a CLIP, the file of `clip.write_texts`, whose texts are its source classes, template by template.
    """
    network, _, manifest = load(folder)
    return (with_texts(network, texts) if texts else network), manifest


def with_texts(network: nn.Module, texts: str | Path) -> nn.Module:
    """Return the classifier of a CLIP over the texts of a file of `clip.write_texts`."""
    embeddings, scale = clip.read_texts(texts)
    return (
        clip.TextClassifier(clip.image_tower(network), embeddings.flatten(0, 1), scale).requires_grad_(False).eval()
    )


def normalisation(manifest: dict, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of a backbone's input, float32 [3, 1, 1] each."""
    preprocessing = manifest["preprocessing"]
    mean, std = (torch.tensor(preprocessing[key], device=device).reshape(3, 1, 1) for key in ("mean", "std"))
    return mean, std


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
    neither a batch norm to fold nor a head to find would be left."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if type(module).__name__ == "BatchNormAct2d":  # one module in timm: its activation is no batch norm's
            norm = nn.BatchNorm2d(module.num_features, module.eps, affine=module.affine).to(module.running_mean)
            norm.load_state_dict({key: tensor for key, tensor in module.state_dict().items() if "." not in key})
            network.set_submodule(name, nn.Sequential(norm.eval(), module.drop, module.act))
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None).to(module.weight)
            linear.load_state_dict(module.state_dict())
            network.set_submodule(name, linear)
    return network


def for_inference(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with batch norm folded into its convolutions, in channels-last layout, on the device.

    The outputs are those of the network up to rounding. It has no trainable weight. A network that torch.fx cannot
    walk keeps its batch norm.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # float32 is meant: cuDNN would take TF32
    if hasattr(network, "lean"):  # a CLIP
        network = network.lean()
    else:
        try:
            network = fuse(_with_plain_layers(network), inplace=True)
        except (TraceError, TypeError) as reason:  # control flow that depends on the data
            log.warning("batch norm is not folded, as torch.fx cannot walk the network: %s", reason)
    for name, module in list(network.named_modules()):
        if type(module) is nn.ReLU6 and module.inplace:
            network.set_submodule(name, ReLU6(inplace=True))
    return network.requires_grad_(False).to(device, memory_format=torch.channels_last)


def classifier(network: nn.Module) -> nn.Linear:
    """Return the network's last linear layer, the head over its source classes. Raises ValueError if it has none."""
    return network.get_submodule(classifier_name(network))


def classifier_name(network: nn.Module) -> str:
    """Return the name of the classifier within the network. Raises ValueError if it has none."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("the network has no linear layer, which its head over the source classes should be")
    return names[-1]
