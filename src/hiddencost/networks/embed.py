"""The source classes of a network that has texts: embedded once for each network and dataset."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from hiddencost.files import atomic
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of


def embed_texts(
    folder: str | Path,
    classes: Sequence[str],
    templates: list[str] | str,
    output: str | Path,
    device: torch.device,
) -> None:
    """Write the texts of a backbone for a dataset's classes; see `Family.embed_texts`.

    Args:
        folder: of the backbone.
        classes: the dataset's; none where it or the backbone has failed.
        templates: as a study states them.
        output: a file without tensors where there are no classes.
        device: that embeds.
    """
    if not classes:
        with atomic(output) as temporary:
            save_file({}, temporary)
        return
    network, _, manifest = backbones.load(folder)
    architecture = manifest.architecture
    family_of(architecture).embed_texts(network.to(device), architecture, classes, templates, output)
