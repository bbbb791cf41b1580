"""The constants of the outside world: checkpoints, datasets, photos and the claims of the paper.

In come YAML files, written by hand, and the lists of timm and open_clip (`libraries`). Out go typed entries by name
(`entries`): what a thing is, where its files are and how to know them. A wrong key is one line with file and key.
Nothing is downloaded here.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from hiddencost import yaml_file
from hiddencost.catalog.entries import UNCOMPRESSED, CheckpointEntry, DatasetEntry, PhotosEntry
from hiddencost.catalog.libraries import LIBRARIES
from hiddencost.messages import Model, validate
from hiddencost.sources import SourceFile

LIST = "src/hiddencost/catalog/checkpoints.yaml"  # where its names stand, for messages
ANY = "timm-NAME, or openclip-NAME.TAG"


@cache
def load(name: str) -> dict:
    """Return catalog/{name}.yaml as it stands: {entry name: entry}."""
    return yaml_file.read(file_of(name))


def file_of(name: str) -> Path:
    """Return the path of catalog/{name}.yaml."""
    return Path(__file__).with_name(f"{name}.yaml")


@cache
def checkpoints() -> dict[str, CheckpointEntry]:
    """Return the published checkpoints by name."""
    return _entries("checkpoints", CheckpointEntry)


@cache
def datasets() -> dict[str, DatasetEntry]:
    """Return the target tasks by name."""
    return _entries("datasets", DatasetEntry)


@cache
def photos() -> dict[str, PhotosEntry]:
    """Return the sets of photos by name."""
    return _entries("photos", PhotosEntry)


def _entries(name: str, model: type[Model]) -> dict[str, Model]:
    return {key: validate(model, entry, f"{file_of(name)}: {key}") for key, entry in load(name).items()}


def _check_not_compressed(name: str, entry: CheckpointEntry) -> None:
    for own, known in checkpoints().items():
        if known.compression != UNCOMPRESSED and known.files["weights"].sources == entry.files["weights"].sources:
            raise ValueError(
                f"checkpoint {name!r} is compressed ({known.compression}); expected it by its name {own}"
            )


@cache
def checkpoint(name: str) -> CheckpointEntry:
    """Return a checkpoint's entry.

    Args:
        name: of catalog/checkpoints.yaml; or timm-NAME, a pretrained model of timm, or openclip-NAME.TAG, a
            pretrained CLIP of open_clip, in small letters, whose entries are made from the library's own.

    Raises:
        ValueError: there is none of that name; with the names that are near. Or a library's model is one that the
            catalog knows as compressed, which the library does not say.
    """
    for prefix, library in LIBRARIES.items():
        if name.startswith(prefix):
            entry = library.entry(name.removeprefix(prefix))
            _check_not_compressed(name, entry)
            return entry
    if name not in checkpoints():
        near = get_close_matches(name, checkpoints())
        raise ValueError(f"checkpoint {name!r} is unknown; near it: {', '.join(near) or 'nothing'}; or {ANY}")
    return checkpoints()[name]


def published(name: str, sha256: Mapping[str, str], first_uses: Mapping[str, str]) -> str | None:
    """Return the checkpoint that files are the published ones of, None where these are of none that can be told.

    Args:
        name: of the checkpoint that they stand for, which is asked first; any other name may be one, too.
        sha256: of the files, by their keys.
        first_uses: of files that are published without a checksum, see `sources.first_uses`.
    """

    def is_of(one: str) -> bool:
        files = checkpoint(one).files
        known = {key: first_uses.get(f"{one}/{file.name}") for key, file in files.items()}
        return files.keys() == sha256.keys() and all(
            _is(file, sha256[key], known[key]) for key, file in files.items()
        )

    names = [name] if architecture(name) else []
    return next(filter(is_of, [*names, *checkpoints()]), None)


def _is(file: SourceFile, sha256: str, first_use: str | None) -> bool:
    if file.sha256:
        return sha256 == file.sha256
    return sha256 == first_use or bool(file.sha256_prefix and sha256.startswith(file.sha256_prefix))


def architecture(name: str) -> str:
    """Return a checkpoint's architecture, without making its entry: of a library's model the first of its name, which
    tells its family; "" where there is no checkpoint of that name."""
    for prefix, library in LIBRARIES.items():
        if name.startswith(prefix):
            return library.architectures + name.removeprefix(prefix)
    entry = checkpoints().get(name)
    return entry.architecture if entry else ""
