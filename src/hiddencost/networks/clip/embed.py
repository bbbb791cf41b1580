"""The source classes of a CLIP: texts, embedded once for each network and dataset."""

import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.files import atomic
from hiddencost.networks import backbones
from hiddencost.networks.clip import model, texts

log = logging.getLogger(__name__)


def embed_texts(
    folder: str | Path,
    classes: list[str],
    templates: list[str] | str,
    output: str | Path,
    device: torch.device,
) -> None:
    """Write the texts of a CLIP for a dataset's classes; see `texts.write_texts`.

    Args:
        folder: of the backbone.
        classes: the dataset's; none where it or the backbone has failed.
        templates: as a study states them, see `texts.expand_templates`.
        output: a file without tensors where there are no classes.
        device: that embeds.
    """
    if not classes:
        with atomic(output) as temporary:
            save_file({}, temporary)
        return
    templates = texts.expand_templates(templates)
    network, _, manifest = backbones.load(folder)
    name = model.configuration_of(manifest.architecture)
    bar = tqdm(total=len(templates) * len(classes), unit=" texts", mininterval=10)
    with bar, logging_redirect_tqdm():
        texts.write_texts(network.to(device), name, templates, classes, output, bar.update)
    log.info("%s: %d templates with %d classes", output, len(templates), len(classes))
