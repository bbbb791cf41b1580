"""Lottery tickets: two files, a state dict and a dict of masks {`model.` + name: 0/1}; the product is the network.

The published code looks masks up as "model." + name and, where the weights carry that prefix too, then overwrites
what it masked with the unmasked weights (github.com/landskape-ai/Reprogram_LT). Here the prefix is taken off both.
"""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict, strip_prefix

PREFIX = "model."


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read weights and masks, and multiply them.

    Raises ValueError if a file is damaged, some of its keys have the prefix and some not, or a mask does not fit.
    """
    weights, masks = (
        strip_prefix(read_state_dict(files[key], "state_dict"), PREFIX, files[key]) for key in ("weights", "mask")
    )
    return apply_masks(weights, masks, files["mask"])
