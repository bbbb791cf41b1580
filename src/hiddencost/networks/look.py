"""What a network of one's own is: asked of its file, before a job is planned."""

from difflib import get_close_matches
from pathlib import Path

from hiddencost.messages import Record


class Found(Record):
    """What a file of weights is, as a network of an architecture.

    Attributes:
        stem: the name of its first convolution over colours, None where it has none.
        sparsity: share of zeros among the weights that pruning reaches in its family.
        is_pruned: whether so many are 0 that they were removed, and did not happen to be.
    """

    stem: str | None
    sparsity: float
    is_pruned: bool


def look(file: str | Path, architecture: str) -> Found:
    """Read the weights of a network of one's own, all keys accounted for.

    Args:
        file: of torch.save or safetensors, see `formats.reading.read_state_dict`.
        architecture: see `build.build`.

    Raises:
        ValueError: in a line, with the file: it is none, or of another architecture; or the network is over other
            classes than ImageNet-1k's, as it seems by their number.
    """
    # the Snakefile reads this module, and does without the seconds that PyTorch takes
    from torch import nn

    from hiddencost.networks import backbones
    from hiddencost.networks.build import build
    from hiddencost.networks.convolutional import IMAGENET_CLASSES
    from hiddencost.networks.families import family_of
    from hiddencost.networks.formats.registry import READERS
    from hiddencost.networks.layers import head_name

    try:
        family, network = family_of(architecture), build(architecture)
    except ValueError as error:
        raise ValueError(f"{error}{_near(architecture)}") from None
    head = head_name(network)
    state, masks, *_ = READERS["own"]({"weights": Path(file)})
    key = f"{head}.weight"
    classes = [len(each[key]) for each in (state, network.state_dict()) if key in each and each[key].ndim]
    if others := [count for count in classes if count != IMAGENET_CLASSES]:
        raise ValueError(
            f"{file}: {head}, the head of {architecture}, is over {others[0]} classes; expected a network over the "
            f"{IMAGENET_CLASSES} of ImageNet-1k, on whose photos it is verified"
        )
    try:
        backbones.load_strictly(network, state, str(file))
    except ValueError as error:
        raise ValueError(f"{error}; expected the keys of {architecture}") from None
    parameters, over = dict(network.named_parameters()), family.sparsity_over
    stems = (name for name, one in network.named_modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3)
    stem = next(stems, None)
    weights = [parameters[key] for key in family.sparsity_groups(network, stem)[over]]
    zeros, count = sum(int((one == 0).sum()) for one in weights), sum(one.numel() for one in weights)
    return Found(stem=stem, sparsity=zeros / count if count else 0.0, is_pruned=bool(masks))


def _near(architecture: str) -> str:
    """Return the architectures whose names are nearest to one, as the end of a message."""
    import torchvision

    from hiddencost.networks.architectures import ARCHITECTURES

    known = [*torchvision.models.list_models(module=torchvision.models), *ARCHITECTURES]
    near = get_close_matches(architecture, known)
    return f"; near it: {', '.join(near)}" if near else ""
