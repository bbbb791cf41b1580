"""Compression made here, and the controls: a network that never learned, and one whose weights are shuffled."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from hiddencost.compression.prune import count_zeros, masked_share
from hiddencost.compression.registry import COMPRESSIONS, CONTROLS, OneShotCompression, label
from hiddencost.datasets import prepared
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.family import Family
from hiddencost.networks.layers import head_name, layer_weights
from hiddencost.networks.manifest import Manifest

LEAST_REACHED = 0.5  # of a network's weights, so that what is said of a pruned network is said of the network
log = logging.getLogger(__name__)


def compress(
    source: str | Path,
    folder: str | Path,
    compression: dict | None,
    control: str | None,
    images: str | Path | None = None,
) -> None:
    """Make a backbone of an imported checkpoint: compressed, replaced by a control, or passed on as it is.

    Which weights pruning reaches the network's family says (`Family.prunable_weights`). Weights that are zero already
    stay zero and count. The manifest gains `compression` (see `registry.label`), `compression_settings`,
    `quantisation_bits`, `control` and, of what is pruned, `sparsity_declared`: the share that the masks take from all
    these weights together, whichever of them the compression reached.

    A checkpoint that failed, or that is sparser than asked, gives a backbone that says so.

    Args:
        source: folder of the checkpoint as a backbone.
        folder: of the backbone to write.
        compression: `algorithm`, a name of `COMPRESSIONS`, with its settings, of which None counts as absent; None to
            compress nothing.
        control: a name of `CONTROLS`, or None.
        images: folder of the prepared dataset that a compression looks at which is calibrated.
    """
    made_here = COMPRESSIONS[compression["algorithm"]] if compression else None
    settings = made_here.complete(compression) if made_here and compression else None
    replaced = CONTROLS[control] if control else None
    manifest = Manifest.read(source)
    manifest = manifest.replace(
        compression=label(manifest.compression, settings, control),
        compression_settings=settings,
        quantisation_bits=settings.get("bits") if settings else None,
        control=control,
    )
    if manifest.failed:
        return backbones.save_failure(folder, manifest.failed, manifest)
    network, masks, _ = backbones.load(source)
    family = family_of(manifest.architecture)
    try:
        if replaced:
            network, masks = replaced.apply(network, masks, manifest.architecture)
            if not replaced.keeps_weights:
                over = family.sparsity_over
                manifest = manifest.replace(
                    sparsity_declared=0.0, sparsity_over=over, widths=None, narrowed_from=None
                )
        elif made_here and settings and made_here.quantises:
            made_here.apply(network, family, settings)
        elif made_here:
            masks |= _prune(network, family, manifest, made_here, images)
            share = masked_share(family.prunable_weights(network), masks)
            manifest = manifest.replace(sparsity_declared=share, sparsity_over=family.sparsity_over)
    except ValueError as error:
        log.error("%s fails: %s", folder, error)
        return backbones.save_failure(folder, str(error), manifest)
    backbones.save(folder, network.state_dict(), masks, manifest)
    arguments = (manifest.compression, control, manifest.sparsity_declared)
    log.info("%s: compression %s, control %s, sparsity %g", folder, *arguments)


def share_reached(network: nn.Module, family: Family) -> float:
    """Return the share of the weights of a network's layers that pruning reaches, of all but its head's, which stays
    dense."""
    reached, layers = family.prunable_weights(network), layer_weights(network)
    before_head = {key: one for key, one in layers.items() if key != f"{head_name(network)}.weight"} | reached
    of_reached, of_all = (sum(one.tensor.numel() for one in some.values()) for some in (reached, before_head))
    return of_reached / of_all


def _prune(
    network: nn.Module,
    family: Family,
    manifest: Manifest,
    compression: OneShotCompression,
    images: str | Path | None,
) -> dict[str, Tensor]:
    """Prune a network in place; return the masks. Raises ValueError where there is nothing to prune, too little of
    the network to speak of, or where there are no images to look at."""
    if manifest.whole:
        raise ValueError(f"{manifest.compression}: its layers are narrower already; expected a dense network")
    if (reached := share_reached(network, family)) < LEAST_REACHED:
        raise ValueError(
            f"{manifest.compression}: of {manifest.architecture}, pruning reaches {family.pruned_layers}, "
            f"{100 * reached:.2g} % of the weights before the head; expected at least {100 * LEAST_REACHED:g} %"
        )
    zeros, settings = count_zeros(family.prunable_weights(network)), manifest.compression_settings or {}
    seen = {"images": _calibration(images, manifest, settings)} if compression.calibrated and images else {}
    masks = compression.apply(network, family, settings, **seen)
    if zeros == count_zeros(family.prunable_weights(network)):
        raise ValueError(f"{manifest.compression}: no weight to prune, as all that it asks for are zero already")
    return masks


def _calibration(folder: str | Path, manifest: Manifest, settings: dict) -> Tensor:
    """Return training images of a prepared dataset as the network takes them, float32 [samples, 3, S, S]: those that
    the seed draws. Raises ValueError where there are fewer, or none could be prepared."""
    images, samples = prepared.load(folder).train_images, settings["samples"]
    if samples > len(images):
        raise ValueError(f"compression.samples is {samples}; expected at most the {len(images)} training images")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings["seed"]))[:samples]
    pixels = torch.from_numpy(images[drawn.sort().values.numpy()])
    mean, std = backbones.normalisation(manifest.preprocessing, torch.device("cpu"))
    return (pixels.float() / 255 - mean) / std
