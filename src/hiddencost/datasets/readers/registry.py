"""Readers of datasets, by the name that an entry of the catalog gives as its `reader`, a module each.

A reader is imported when it reads, and no other module imports it: a prepared dataset stands on its own reader alone
(`Reader.file`). A new one is a module here, with `Options` and `read`, and its line in READERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddencost.digest import module_file
from hiddencost.messages import validate

if TYPE_CHECKING:
    from hiddencost.datasets.readers.raw import RawDataset


@dataclass(frozen=True)
class Reader:
    """A reader of datasets: the class `Options` and the function `read` of a module."""

    module: str  # its full name

    def __call__(self, name: str, options: dict[str, Any], files: dict[str, Path], scratch: Path) -> RawDataset:
        """Read a dataset.

        Args:
            name: of the dataset, for messages.
            options: of its entry in the catalog.
            files: by their key in the catalog.
            scratch: a folder to unpack archives in; images are read from it as they are taken.

        Returns:
            The images as they are published. Counts, classes and sizes are checked afterwards (`datasets.prepare`).

        Raises:
            ValueError: in a line, for options or files that are not as the reader expects.
        """
        module = import_module(self.module)
        return module.read(validate(module.Options, options, f"{name}: options"), files, scratch)

    @property
    def file(self) -> Path:
        """The file of the module."""
        return module_file(self.module)


READERS: dict[str, Reader] = {
    name: Reader(f"hiddencost.datasets.readers.{module}")
    for name, module in {
        "cifar_binary": "cifar_binary",
        "cifar_png": "cifar_sheets",
        "coop": "coop",
        "digits": "digits",
        "folder": "folder",
        "npz": "npz",
        "torchvision": "torchvision",
    }.items()
}
