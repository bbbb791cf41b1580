"""A network that another study has made, in the place of a published checkpoint."""

from collections.abc import Sequence

from hiddencost.catalog.entries import CheckpointEntry
from hiddencost.files import sha256_text
from hiddencost.networks.manifest import Manifest
from hiddencost.sources import Source, SourceFile

# as a backbone's folder has them
FILES = {"weights": "weights.safetensors", "masks": "masks.safetensors", "manifest": "manifest.json"}
# the SHA-256 of ImageNet-1k's wnids in order, n01440764 to n15075141, a line each
WNIDS = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
SAME_SPARSITY = 0.005  # as far as rounding goes: catalog and names have whole percents


def made_entry(entry: CheckpointEntry, folder: str) -> CheckpointEntry:
    """Return a checkpoint's entry with the files of a network in place of the published ones, and with what its
    manifest says: how it was made sparse, how sparse it is, its upstream accuracy as it was measured.

    Args:
        entry: of the catalog.
        folder: of a backbone, absolute.

    Raises:
        FileNotFoundError: where none is.
        ValueError: where its manifest is damaged, or it is another network than the entry is of.
    """
    manifest = Manifest.read(folder)
    architectures = entry.architecture, f"{entry.architecture}:1000"  # the catalog's have ImageNet-1k's classes
    if manifest.architecture not in architectures:
        raise ValueError(f"{folder} is a network {manifest.architecture}; expected {entry.architecture}")
    if manifest.compression != entry.compression or manifest.control:
        found = manifest.control or manifest.compression
        raise ValueError(f"{folder}: compression is {found}; expected {entry.compression}")
    declared = manifest.sparsity_declared
    if entry.sparsity is not None and (declared is None or abs(declared - entry.sparsity) > SAME_SPARSITY):
        raise ValueError(f"{folder}: sparsity is {declared}; expected {entry.sparsity}")
    if manifest.classes and len(manifest.classes) == 1000 and not _are_imagenets(manifest.classes):
        expected = "expected ImageNet-1k's, n01440764 to n15075141, in their order"
        raise ValueError(f"{folder}: its classes are {manifest.classes[0]} to {manifest.classes[-1]}; {expected}")
    files = {key: SourceFile(name=name, sources=[Source(path=f"{folder}/{name}")]) for key, name in FILES.items()}
    stated = {
        **{"preprocessing": manifest.preprocessing, "stem": manifest.stem, "upstream_top1": manifest.upstream_top1},
        **{"sparsity": declared, "sparsity_over": manifest.sparsity_over},
    }
    return entry.model_copy(update=stated | {"format": "made", "files": files, "unavailable": None})


def _are_imagenets(classes: Sequence[str]) -> bool:
    """Whether classes are ImageNet-1k's in their order, by their wnids or by their numbers."""
    numbers = all(name.isdecimal() and int(name) == number for number, name in enumerate(classes))
    return numbers or sha256_text("\n".join(classes)) == WNIDS
