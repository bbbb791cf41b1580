"""torchvision's own format: a pickled state dict, keys as in the model."""

import pickle
from pathlib import Path

import torch
from torch import Tensor


def read(path: Path) -> dict[str, Tensor]:
    """Read a state dict. Raises ValueError if the file is not one, or holds anything but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a file of weights alone: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state dict {{name: tensor}}")
    return dict(state)
