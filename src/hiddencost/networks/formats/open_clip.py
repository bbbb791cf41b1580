"""open_clip's format: the state dict of both towers, keys as in the model, as safetensors or pickled."""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, read_weights, strip_prefix


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, alone in the file or under state_dict, with DataParallel's `module.` before its keys or
    without. Raises ValueError if the file is damaged or holds something else."""
    path = files["weights"]
    state = strip_prefix(read_weights(path, "state_dict"), "module.", path)
    return ImportedCheckpoint(state, {}, {"keys": len(state)})
