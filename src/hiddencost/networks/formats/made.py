"""A backbone of this project, as a study has made it: weights, masks and manifest (`backbones.save`)."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from hiddencost.files import sha256_file
from hiddencost.messages import one_line
from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks
from hiddencost.networks.manifest import Manifest


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read weights and masks, as the manifest beside them states them.

    Raises ValueError where the network could not be made, or a file is another than its manifest is of.
    """
    manifest = Manifest.read(files["manifest"].parent)
    if manifest.failed:
        raise ValueError(f"the study that was to make it could not: {manifest.failed}")
    for key in ("weights", "masks"):
        stated, found = manifest.sha256[f"{key}.safetensors"], sha256_file(files[key])
        if found != stated:
            raise ValueError(f"{files[key]}: sha256 is {found}, expected {stated}, as {files['manifest']} states")
    try:
        weights, masks = (load_file(files[key]) for key in ("weights", "masks"))
    except SafetensorError as error:
        raise ValueError(f"{files['weights'].parent}: a damaged safetensors file: {one_line(error)}") from error
    return apply_masks(weights, masks, files["masks"])
