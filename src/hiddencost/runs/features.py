"""Features of the frozen network: what its classifier sees."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from hiddencost.compression.verification import VerificationReport
from hiddencost.datasets import prepared
from hiddencost.files import atomic
from hiddencost.networks import backbones, inference, layers
from hiddencost.networks.families import family_of
from hiddencost.prompting.images import fill


@torch.inference_mode()
def features_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return what enters the network's last linear layer, float32 [N, D], for normalised images [N, 3, S, S]."""
    caught: list[Tensor] = []
    hook = layers.head_of(network).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    try:
        network(images)
    finally:
        hook.remove()
    return caught[0]


@torch.inference_mode()
def compute_features(folder: str | Path, parts: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Return the features of images that a backbone sees at their size, or on CLIP at that of its canvas.

    Args:
        folder: of the backbone.
        parts: images by name, uint8 [N, 3, s, s], of one s, in memory or files that are mapped into it.
        device: to compute on.

    Returns:
        For each part float32 [N, D], on the host.
    """
    network, _, manifest = backbones.load(folder)
    family = family_of(manifest.architecture)
    mean, std = backbones.normalisation(manifest.preprocessing, device)
    canvas = family.input_side(network) or next(iter(parts.values())).shape[-1]
    network = family.for_inference(family.classifier(network, manifest.architecture), device)
    size = inference.FORWARD_BATCH[device.type]
    features: dict[str, Tensor] = {}
    with tqdm(total=sum(map(len, parts.values())), unit=" images", mininterval=10) as bar:
        for part, images in parts.items():
            chunks = []
            for start in range(0, len(images), size):
                batch = torch.tensor(images[start : start + size])
                filled = fill(batch.to(device), canvas, manifest.preprocessing.interpolation)
                chunks.append(features_of(network, (filled.float() / 255 - mean) / std).cpu())
                bar.update(len(batch))
            features[part] = torch.cat(chunks)
    return features


def extract_features(
    folder: str | Path,
    verification: str | Path,
    dataset_folder: str | Path,
    output: str | Path,
    device: torch.device,
) -> None:
    """Write the features of a dataset's training and test images, at the prepared size and without augmentation.

    On CLIP images fill its canvas, and its features are embeddings of unit length. The output is a safetensors file
    of `train` and `test`, float32 [N, D] each; it is empty where the backbone or the dataset has failed.
    """
    if not VerificationReport.read(verification).passed or prepared.PreparedReport.read(dataset_folder).failed:
        with atomic(output) as temporary:
            save_file({}, temporary)
        return
    dataset = prepared.load(dataset_folder)
    features = compute_features(folder, {"train": dataset.train_images, "test": dataset.test_images}, device)
    with atomic(output) as temporary:
        save_file(features, temporary)
