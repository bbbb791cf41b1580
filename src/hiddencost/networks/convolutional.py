"""The family of networks with a head over classes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hiddencost import catalog
from hiddencost.networks.family import Family

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hiddencost.networks.layers import Weight
    from hiddencost.networks.manifest import Manifest

IMAGENET_CLASSES = 1000  # of ImageNet-1k, which published networks are trained on
IMAGENET_SIDE = 224  # in pixels, of the images that they take where their entry has no `canvas`


class Convolutional(Family):
    """Networks with a head over classes of their own; pruning reaches their convolutions, the head stays dense."""

    name = "convolutional"
    prefixes: ClassVar[tuple[str, ...]] = ("", "timm/")
    recipe = "protocol"
    prompt = "border"
    has_texts = False
    trained_upstream = True
    sparsity_over = "convolutions"

    def canvas(self, checkpoint: str, study_canvas: int | str | None) -> int:
        if isinstance(study_canvas, int):
            return study_canvas
        assert study_canvas is not None, "a study of it has a protocol"
        return catalog.checkpoint(checkpoint).canvas or IMAGENET_SIDE

    def prepared_sizes(
        self, checkpoint: str, image_size: int | None, canvas: int, native_size: int | None
    ) -> dict[str, str]:
        return {"train": str(image_size), "probe": str(canvas)}

    def prompted_side(self, image_size: int | None, canvas: int) -> int:
        assert image_size is not None, "a study of it has image sizes"
        return image_size

    def run_settings(self, checkpoint: str, image_size: int | None) -> dict:
        return {"image_size": image_size}

    def source_classes(self, manifest: Manifest) -> int | None:
        return len(manifest.classes or range(IMAGENET_CLASSES))

    def build(self, architecture: str, widths: dict | None = None) -> nn.Module:
        from hiddencost.networks import architectures

        return architectures.build(architecture)

    def classifier(self, network: nn.Module, architecture: str, texts: str | Path | None = None) -> nn.Module:
        return network

    def saved_settings(self, classifier: nn.Module, manifest: Manifest) -> dict:
        return {}

    def saved_classifier(self, saved: dict) -> nn.Module:
        return self.build(saved["architecture"])

    def for_inference(self, network: nn.Module, device: torch.device) -> nn.Module:
        from hiddencost.networks import inference

        return inference.for_inference(network, device)

    def input_side(self, network: nn.Module) -> int | None:
        configuration = getattr(network, "pretrained_cfg", None) or {}  # of timm's, whose ViTs take one size alone
        return configuration["input_size"][-1] if configuration.get("fixed_input_size") else None

    def image_encoder(self, network: nn.Module) -> nn.Module:
        return network

    def prunable_weights(self, network: nn.Module) -> dict[str, Weight]:
        from hiddencost.networks import layers

        return layers.convolution_weights(network)

    def sparsity_groups(self, network: nn.Module, stem: str | None) -> dict[str, list[str]]:
        """The convolutions; without the stem, as lottery-ticket papers count; with the linear layers, as AC/DC and
        RigL count; and these without the stem, as RigL's uniform distribution."""
        kernels, all_layers = list(self.prunable_weights(network)), list(self.layer_keys(network).values())
        behind_stem, layers_behind_stem = (
            [key for key in keys if key != f"{stem}.weight"] for keys in (kernels, all_layers)
        )
        return {
            "convolutions": kernels,
            "convolutions_without_stem": behind_stem,
            "convolutions_and_classifier": all_layers,
            "convolutions_and_classifier_without_stem": layers_behind_stem,
        }

    def layer_keys(self, network: nn.Module) -> dict[str, str]:
        from torch import nn

        layers = (name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear))
        return {name: f"{name}.weight" for name in layers}

    def photo_classifier(
        self, network: nn.Module, architecture: str, labels: Sequence[int], class_names: Sequence[str]
    ) -> tuple[nn.Module, list[int]]:
        return network, list(labels)

    def fingerprint_outputs(self, network: nn.Module, architecture: str, images: Tensor) -> Tensor:
        return network(images)[0].double()
