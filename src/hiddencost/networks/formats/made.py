"""A backbone of this project, as a study has made it: weights, masks and manifest (`backbones.save`)."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from hiddencost.files import sha256_file
from hiddencost.messages import one_line
from hiddencost.networks.formats.reading import ImportedCheckpoint
from hiddencost.networks.manifest import Manifest


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read weights and masks, which the manifest beside them states.

    Raises:
        ValueError: the network could not be made, or a file is damaged.
        OSError: a file is another than its manifest is of, as where the network was made anew while the three were
            fetched. It fails the job and is no result.
    """
    manifest = Manifest.read(files["manifest"].parent)
    if manifest.failed:
        raise ValueError(f"the study that was to make it could not: {manifest.failed}")
    for key in ("weights", "masks"):
        stated, found = manifest.sha256[f"{key}.safetensors"], sha256_file(files[key])
        if found != stated:
            expected = f"expected {stated}, as {files['manifest']} states; call again when it is made"
            raise OSError(f"{files[key]}: sha256 is {found}, {expected}")
    try:
        weights, masks = (load_file(files[key]) for key in ("weights", "masks"))
    except SafetensorError as error:
        raise ValueError(f"{files['weights'].parent}: a damaged safetensors file: {one_line(error)}") from error
    counts = {"keys": len(weights), "masks": len(masks)}
    return ImportedCheckpoint(weights, masks, counts, upstream=manifest.upstream)
