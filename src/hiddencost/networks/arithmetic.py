"""What a network costs, by its architecture."""

from hiddencost.networks.families import family_of
from hiddencost.networks.inputs import outputs


def count_multiply_adds(architecture: str, side: int = 224) -> tuple[float, int]:
    """Return the multiply-adds, in billions, of an image, and the number of all parameters.

    Args:
        architecture: see `build.build`.
        side: of the image, in pixels. Networks that take images of another size alone are counted at theirs, and the
            number is scaled by the square of the sides.

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    # the Snakefile reads this module, and does without the seconds that PyTorch takes
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    family = family_of(architecture)
    with torch.device("meta"):
        network = family.build(architecture)
    input_side = family.input_side(network) or side
    try:
        with FlopCounterMode(display=False) as counter:
            outputs(network, family, input_side)
    except ValueError as error:
        raise ValueError(f"architecture {architecture!r}: {error}") from None
    multiply_adds = counter.get_total_flops() / 2e9 * (side / input_side) ** 2
    return multiply_adds, sum(parameter.numel() for parameter in network.parameters())
