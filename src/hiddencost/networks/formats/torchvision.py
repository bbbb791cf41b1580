"""torchvision's own format: a pickled state dict, keys as in the model."""

from pathlib import Path

from hiddencost.networks.formats.reading import Imported, state_dict


def read(files: dict[str, Path]) -> Imported:
    """Read a state dict. Raises ValueError if the file is not one, or holds anything but tensors."""
    state = state_dict(files["weights"])
    return Imported(state, {}, {"keys": len(state)})
