"""open_clip's format: the state dict of both towers, keys as in the model, as safetensors or pickled."""

from pathlib import Path

from hiddencost.networks.formats.reading import Imported, weights, without_prefix


def read(files: dict[str, Path]) -> Imported:
    """Read a state dict, alone in the file or under state_dict, with DataParallel's `module.` before its keys or
    without. Raises ValueError if the file is damaged or holds something else."""
    path = files["weights"]
    state = without_prefix(weights(path, "state_dict"), "module.", path)
    return Imported(state, {}, {"keys": len(state)})
