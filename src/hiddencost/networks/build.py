"""Networks by the name of their architecture."""

from torch import nn

from hiddencost.networks.families import family_of


def build(architecture: str, widths: dict | None = None) -> nn.Module:
    """Return a network, randomly initialised, in evaluation mode.

    Args:
        architecture: a name of torchvision, one of this project (`architectures`, `own`), or timm/NAME; with
            :K behind it, the network has K classes. clip/NAME is a CLIP, both towers of it.
        widths: of blocks that are narrower than the architecture says, of a family that has such.

    Raises:
        ValueError: there is no such network, or it cannot have another number of classes.
    """
    return family_of(architecture).build(architecture, widths)
