"""Architectures that no library has and that have a module of their own, by what their names begin with.

Such a module has `ARCHITECTURES`, makers by name, and is imported when it makes one: a backbone stands on the module
of its own architecture alone (`own_files`), and a new one trains no other backbone's runs again.
"""

from pathlib import Path

from hiddencost.digest import module_file

# what is before the first "_" of a name
OWN_MODULES = {"ofq": "hiddencost.networks.ofq", "int8": "hiddencost.networks.int8"}


def own_module(architecture: str) -> str | None:
    """Return the name of the module that makes an architecture, None of those of `architectures` and of libraries."""
    return OWN_MODULES.get(architecture.partition("_")[0])


def own_files(architecture: str) -> list[Path]:
    """Return the file of that module, for digests; none where there is none."""
    module = own_module(architecture)
    return [module_file(module)] if module else []
