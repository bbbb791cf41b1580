"""A network of one's own, as people save them: a state dict by the architecture's names.

What is removed is 0, or masked by torch.nn.utils.prune (`NAME_orig`, `NAME_mask`).
"""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict

FEW = 0.005  # zeros: below this share nothing was pruned, and some weights of a dense network happen to be 0


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, see `read_state_dict`: with the masks of its zeros, of a dense network with none."""
    checkpoint = apply_masks(*read_state_dict(files["weights"]), files["weights"])
    zeros = sum(int((~mask).sum()) for mask in checkpoint.masks.values())
    weights = sum(mask.numel() for mask in checkpoint.masks.values())
    return checkpoint if zeros > FEW * weights else checkpoint._replace(masks={})
