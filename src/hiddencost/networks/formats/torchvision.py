"""torchvision's own format: a pickled state dict, keys as in the model."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict. Raises ValueError if the file is not one, or holds anything but tensors."""
    state = read_state_dict(files["weights"])
    return ImportedCheckpoint(state, {}, {"keys": len(state)})
