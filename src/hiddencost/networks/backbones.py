"""Backbones: frozen networks on disk (weights.safetensors, masks.safetensors, manifest.json) and in memory."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hiddencost import contents
from hiddencost.catalog.entries import Preprocessing
from hiddencost.files import atomic, sha256_file
from hiddencost.messages import describe_mismatch
from hiddencost.networks.build import build
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest


def weights_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out batch norm's `num_batches_tracked`: a counter of training that no output depends on."""
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


def load_strictly(network: nn.Module, state: dict[str, Tensor], origin: str) -> int:
    """Load weights into a network, all keys of both accounted for.

    Args:
        network: changed in place.
        state: its weights by key.
        origin: what messages call the weights: their file.

    Returns:
        The number of keys matched.

    Raises:
        ValueError: a key is missing or unexpected, or a shape differs; with the keys and the two shapes.
    """
    wanted, given = weights_of(network.state_dict()), weights_of(state)
    expected, shapes = ({key: list(tensor.shape) for key, tensor in each.items()} for each in (wanted, given))
    if expected != shapes:
        raise ValueError(f"{origin}: {describe_mismatch(expected, shapes)}")
    counters = {key: tensor for key, tensor in network.state_dict().items() if key not in wanted}
    network.load_state_dict(given | counters)
    return len(given)


def save(folder: str | Path, state: dict[str, Tensor], masks: dict[str, Tensor], manifest: Manifest) -> None:
    """Write a backbone.

    Args:
        folder: for weights.safetensors, masks.safetensors and manifest.json.
        state: the weights under the architecture's names.
        masks: bool, True where a weight is kept, for each pruned tensor by its key.
        manifest: `weights_sha256` and `masks_sha256` are added to it.
    """
    folder = Path(folder)
    for name, tensors in (("weights", weights_of(state)), ("masks", masks)):
        with atomic(folder / f"{name}.safetensors") as temporary:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        manifest = manifest.replace(**{f"{name}_sha256": sha256_file(folder / f"{name}.safetensors")})
    manifest.write(folder)
    contents.keep(folder, manifest.sha256)


def save_failure(folder: str | Path, reason: str, manifest: Manifest) -> None:
    """Write a backbone that could not be made: no tensors; the manifest's `failed` says why, and `load` raises it."""
    save(folder, {}, {}, manifest.replace(failed=reason))


def load(folder: str | Path) -> tuple[nn.Module, dict[str, Tensor], Manifest]:
    """Load a backbone.

    Returns:
        The network, in evaluation mode and without gradients; its masks, bool by key, True where a weight is kept;
        and its manifest, with the number of `keys_matched`.

    Raises:
        ValueError: the backbone could not be made, or the keys do not match the architecture.
        OSError: a file is not as it was made. It fails the job; the next call makes the backbone again.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    if manifest.failed:
        raise ValueError(manifest.failed)
    # read whole, as a disk may change bits and no times; what is found is on record for the next plan
    contents.refuse_unlike(folder, manifest.sha256, "made", full=True)
    network = build(manifest.architecture, manifest.widths)
    weights = folder / "weights.safetensors"
    matched = load_strictly(network, load_file(weights), str(weights))
    masks = load_file(folder / "masks.safetensors")
    return network.requires_grad_(False), masks, manifest.replace(keys_matched=matched)


def load_classifier(folder: str | Path, texts: str | Path | None = None) -> tuple[nn.Module, Manifest]:
    """Load a backbone as a classifier over its source classes, and its manifest; see `load`, `Family.classifier`."""
    network, _, manifest = load(folder)
    return family_of(manifest.architecture).classifier(network, manifest.architecture, texts), manifest


def normalisation(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of a backbone's input, float32 [3, 1, 1] each."""
    return per_channel(preprocessing.mean, device), per_channel(preprocessing.std, device)


def per_channel(values: list[float], device: torch.device) -> Tensor:
    """Return a value a channel, float32 [3, 1, 1]."""
    return torch.tensor(values, device=device).reshape(3, 1, 1)
