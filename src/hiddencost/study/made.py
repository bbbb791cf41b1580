"""A network that another study has made, in the place of a published checkpoint."""

from hiddencost.catalog.entries import CheckpointEntry
from hiddencost.networks.manifest import Manifest
from hiddencost.sources import Source, SourceFile

# as a backbone's folder has them
FILES = {"weights": "weights.safetensors", "masks": "masks.safetensors", "manifest": "manifest.json"}


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
    files = {key: SourceFile(name=name, sources=[Source(path=f"{folder}/{name}")]) for key, name in FILES.items()}
    stated = {
        **{"preprocessing": manifest.preprocessing, "stem": manifest.stem, "upstream_top1": manifest.upstream_top1},
        **{"sparsity": manifest.sparsity_declared, "sparsity_over": manifest.sparsity_over},
    }
    return entry.model_copy(update=stated | {"format": "made", "files": files, "unavailable": None})
