"""Compression made here, and the controls: a network that never learned, and one whose weights are shuffled."""

import logging
from pathlib import Path

from hiddencost.compression.controls import random_network, shuffle
from hiddencost.compression.prune import UNSTRUCTURED, _zeros, masked_share, prune_weights
from hiddencost.compression.quantise import quantise
from hiddencost.compression.registry import label
from hiddencost.files import read_json
from hiddencost.networks import backbones
from hiddencost.networks.layers import is_clip

log = logging.getLogger(__name__)


def compress(source: str | Path, folder: str | Path, compression: dict | None, control: str | None) -> None:
    """Make a backbone of an imported checkpoint: compressed, replaced by a control, or passed on as it is.

    compression: None, or one of these (a key that is None counts as absent):
      {algorithm: magnitude | random, sparsity, scope: global (default) | layer | erk}   see `prune_unstructured`
      {algorithm: nm, n, m}                                                             see `prune_nm`
      {algorithm: channel, sparsity}                                                    see `prune_channels`
      {algorithm: quantise, bits: 2..8}                                                 see `quantise`
    control: None, `random_init` (see `random_network`) or `shuffled` (see `shuffle`).

    Pruning reaches the convolutions and leaves the head dense; of a CLIP it reaches the layers of both towers (see
    `layers.prunable`). Weights that are zero already stay zero and count. The manifest gains `compression` ("none",
    what `label` calls it, that of the checkpoint, or both: "acdc+int8"),
    `compression_settings`, `quantisation_bits`, `control` and, of what is pruned, `sparsity_declared`: the share that
    the masks take from all these weights together, whichever of them the algorithm reached.

    A checkpoint that failed, or that is sparser than asked, gives a backbone that says so.
    """
    settings = {key: value for key, value in (compression or {}).items() if value is not None}
    if settings.get("algorithm") in UNSTRUCTURED:
        settings = {"scope": "global"} | settings
    manifest = read_json(Path(source) / "manifest.json")
    before = [] if control == "random_init" or manifest["compression"] == "none" else [manifest["compression"]]
    manifest |= {
        "compression": "+".join([*before, *([label(settings)] if settings else [])]) or "none",
        "compression_settings": settings or None,
        "quantisation_bits": settings.get("bits"),
        "control": control,
    }
    if manifest.get("failed"):
        return backbones.save_failure(folder, manifest["failed"], manifest)
    network, masks, _ = backbones.load(source)
    over = "towers" if is_clip(network) else "convolutions"
    try:
        if control == "random_init":
            network, masks = random_network(manifest["architecture"]), {}
            manifest |= {"sparsity_declared": 0.0, "sparsity_over": over, "widths": None}
        elif control == "shuffled":
            masks = shuffle(network, masks)
        elif settings.get("algorithm") == "quantise":
            quantise(network, settings["bits"])
        elif settings:
            if manifest.get("widths"):
                raise ValueError(
                    f"{manifest['compression']}: its layers are narrower already; expected a dense network"
                )
            zeros = _zeros(network)
            masks |= prune_weights(network, settings)
            if zeros == _zeros(network):
                raise ValueError(
                    f"{manifest['compression']}: no weight to prune, as all that it asks for are zero already"
                )
            manifest |= {"sparsity_declared": masked_share(network, masks), "sparsity_over": over}
    except ValueError as error:
        log.error("%s fails: %s", folder, error)
        return backbones.save_failure(folder, str(error), manifest)
    backbones.save(folder, network.state_dict(), masks, manifest)
    told = (manifest["compression"], control, manifest["sparsity_declared"])
    log.info("%s: compression %s, control %s, sparsity %g", folder, *told)
