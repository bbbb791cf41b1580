"""Readers of published checkpoint formats, by name, a module each.

A reader is imported when it reads: an imported checkpoint stands on the reader of its own format alone
(`Reader.file`), with what that imports, as RigL's does IST's. A new one is a module here and its line in READERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hiddencost.digest import module_file

if TYPE_CHECKING:
    from hiddencost.networks.formats.reading import ImportedCheckpoint


@dataclass(frozen=True)
class Reader:
    """The reader of a format: the function `read` of a module."""

    module: str  # its full name

    def __call__(self, files: dict[str, Path]) -> ImportedCheckpoint:
        """Read a checkpoint.

        Args:
            files: by their key in the catalog (`weights`, for lottery tickets also `mask`).

        Returns:
            What they hold, under the names of the catalog's architecture. Which keys the architecture has is checked
            afterwards (`backbones.load_strictly`).

        Raises:
            ValueError: in one line, with file and key, for anything that the reader does not know.
        """
        return import_module(self.module).read(files)

    @property
    def file(self) -> Path:
        """The file of the module."""
        return module_file(self.module)


READERS: dict[str, Reader] = {
    name: Reader(f"hiddencost.networks.formats.{module}")
    for name, module in {
        "torchvision": "plain",
        "timm": "plain",
        "ist": "ist",
        "rigl": "rigl",
        "sparseml": "sparseml",
        "zeros": "zeros",
        "str": "str_",
        "nncf": "nncf",
        "lth": "lth",
        "keras": "keras",
        "efficientnet_lite": "efficientnet_lite",
        "open_clip": "plain",
        "upop": "upop",
        "ofq": "ofq",
        "int8": "int8",
        "superblock": "superblock",
        "made": "made",  # by another study here
        "own": "own",
    }.items()
}
