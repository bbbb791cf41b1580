"""timm's format: a state dict, keys as in the model, as safetensors (Hugging Face) or pickled."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, read_weights


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict. Raises ValueError if it is damaged or not one."""
    state = read_weights(files["weights"])
    return ImportedCheckpoint(state, {}, {"keys": len(state)})
