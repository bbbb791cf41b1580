"""A state dict, keys as in the network, as torchvision, timm (Hugging Face) and open_clip publish them."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, imported, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, see `read_state_dict`."""
    return imported(read_state_dict(files["weights"]), files["weights"])
