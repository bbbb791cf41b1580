"""torchvision's own format: a pickled state dict, keys as in the model."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, imported, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, see `read_state_dict`."""
    return imported(read_state_dict(files["weights"]), files["weights"])
