"""Readers of published checkpoint formats: each returns weights under torchvision's names."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from hiddencost.formats import torchvision

READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {"torchvision": torchvision.read}
