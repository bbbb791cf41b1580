"""open_clip's format: the state dict of both towers, keys as in the model, as safetensors or pickled."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, imported, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, see `read_state_dict`."""
    return imported(read_state_dict(files["weights"]), files["weights"])
