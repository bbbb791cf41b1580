"""timm's format: a state dict, keys as in the model, as safetensors (Hugging Face) or pickled."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from hiddencost.formats.reading import Imported, first_line, state_dict


def read(files: dict[str, Path]) -> Imported:
    """Read a state dict, safetensors if the file's name ends so. Raises ValueError if it is damaged or not one."""
    path = files["weights"]
    if path.suffix != ".safetensors":
        state = state_dict(path)
    else:
        try:
            state = {key: t.float() if t.is_floating_point() else t for key, t in load_file(path).items()}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a safetensors file, or a damaged one: {first_line(error)}") from error
    return Imported(state, {}, {"keys": len(state)})
