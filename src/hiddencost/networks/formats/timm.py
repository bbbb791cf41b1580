"""timm's format: a state dict, keys as in the model, as safetensors (Hugging Face) or pickled."""

from pathlib import Path

from hiddencost.networks.formats.reading import Imported, weights


def read(files: dict[str, Path]) -> Imported:
    """Read a state dict. Raises ValueError if it is damaged or not one."""
    state = weights(files["weights"])
    return Imported(state, {}, {"keys": len(state)})
