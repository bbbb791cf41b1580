"""A network of one's own looked at: what its file holds, and the lines of a study that name it."""

import argparse
import json
import re
from pathlib import Path

from hiddencost import catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `add-checkpoint` to its parser."""
    parser.add_argument("file", metavar="FILE", help="a state dict, of torch.save or safetensors")
    parser.add_argument(
        "--architecture", metavar="NAME", help="of torchvision, or timm/NAME; without it torchvision's are tried"
    )
    parser.set_defaults(does=add_checkpoint)


def add_checkpoint(arguments: argparse.Namespace) -> str:
    """Return what a file is, and the lines of a study that have it as a backbone.

    Raises:
        ValueError: in a line, if it cannot be read, or is of another architecture, or of none of torchvision's.
    """
    from hiddencost.networks import look  # here alone: PyTorch takes seconds

    file = Path(arguments.file).expanduser().absolute()
    architecture = arguments.architecture or _architecture_of(file)
    found = look.look(file, architecture)
    what = f"pruned: {found.sparsity:.1%} of the weights that pruning reaches are 0" if found.is_pruned else "dense"
    dense = [
        name
        for name, entry in catalog.checkpoints().items()
        if (entry.architecture, entry.compression) == (architecture, "none")
    ]
    return "\n".join([f"{file}: {architecture}, {what}", "", *_backbones(file, architecture, found.is_pruned, dense)])


def _backbones(file: Path, architecture: str, is_pruned: bool, dense: list[str]) -> list[str]:
    """Return the lines: of a pruned network with the dense one that it is compared with; dense: what can be one."""
    stem = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    own = stem if stem.startswith("my-") else f"my-{stem or 'network'}"  # as no checkpoint of the catalog is called
    name = own[:64].rstrip("-")
    checkpoint = f"{{file: {json.dumps(str(file))}, architecture: {architecture}}}"
    if not is_pruned:
        return ["backbones:", f"  - {{name: {name}, checkpoint: {checkpoint}}}"]
    named = dense[0] if dense else "dense"
    beside = (
        f"  - {{name: {named}, checkpoint: {named}}}" if dense else f"  # and a dense {architecture}, named {named}"
    )
    return ["backbones:", beside, f"  - {{name: {name}, checkpoint: {checkpoint}, dense: {named}}}"]


def _architecture_of(file: Path) -> str:
    """Return the architecture of torchvision that has as many parameters as a file."""
    from torchvision import models

    from hiddencost.networks.formats.registry import READERS

    state = READERS["own"]({"weights": file}).state
    count = sum(one.numel() for key, one in state.items() if one.is_floating_point() and ".running_" not in key)
    for name in models.list_models(module=models):
        if models.get_model_weights(name).DEFAULT.meta["num_params"] == count:
            return name
    raise ValueError(
        f"{file}: no architecture of torchvision over 1000 classes has its {count:,} parameters; expected "
        "--architecture, such as timm/vit_base_patch16_224"
    )
