"""The family of CLIP: networks that tell images by texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hiddencost import catalog
from hiddencost.networks.clip import words
from hiddencost.networks.family import Family

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hiddencost.networks.layers import Weight
    from hiddencost.networks.manifest import Manifest


class Clip(Family):
    """Networks with an image and a text tower (`networks.clip`), both of which pruning reaches.

    Their input is a square of one size, which images fill; their source classes are texts.
    """

    name = "clip"
    prefixes = ("clip/",)
    recipe = "clip"
    prompt = "additive"
    has_texts = True
    trained_upstream = False
    sparsity_over = "towers"

    def canvas(self, checkpoint: str, study_canvas: int | str | None) -> int:
        canvas = catalog.checkpoint(checkpoint).canvas
        assert canvas is not None, "a CLIP's entry has a canvas"
        return canvas

    def prepared_sizes(
        self, checkpoint: str, image_size: int | None, canvas: int, native_size: int | None
    ) -> dict[str, str]:
        """Images fill the canvas. Those that are smaller squares as published are kept at their own size, and
        enlarged where they are used: at 336 pixels CIFAR-10 would be 20 GB."""
        preprocessing = catalog.checkpoint(checkpoint).preprocessing
        size = f"{canvas}-{preprocessing.resize}-{preprocessing.interpolation}"
        if native_size is not None and native_size <= canvas:
            size = str(native_size)
        return {"train": size, "probe": size}

    def prompted_side(self, image_size: int | None, canvas: int) -> int:
        return canvas

    def run_settings(self, checkpoint: str, image_size: int | None) -> dict:
        entry = catalog.checkpoint(checkpoint)
        return {"canvas": entry.canvas, "interpolation": entry.preprocessing.interpolation}

    def source_classes(self, manifest: Manifest) -> int | None:
        return None

    def check_class_names(self, classes: Sequence[str] | None, given: bool) -> None:
        words.check_class_names(classes, given)

    def build(self, architecture: str, widths: dict | None = None) -> nn.Module:
        from hiddencost.networks.clip import model

        return model.build(model.configuration_of(architecture), widths)

    def classifier(self, network: nn.Module, architecture: str, texts: str | Path | None = None) -> nn.Module:
        from hiddencost.networks.clip import model
        from hiddencost.networks.clip.texts import read_texts

        if texts is None:
            return model.without_texts(network, model.configuration_of(architecture))
        embeddings, scale = read_texts(texts)
        return model.text_classifier(network, embeddings.flatten(0, 1), scale)

    def embed_texts(
        self,
        network: nn.Module,
        architecture: str,
        classes: Sequence[str],
        templates: list[str] | str,
        output: str | Path,
    ) -> None:
        from hiddencost.networks.clip import model, texts

        name = model.configuration_of(architecture)
        texts.write_texts(network, name, texts.expand_templates(templates), classes, output)

    def text_head(self, texts: str | Path) -> Tensor:
        from hiddencost.networks.clip.texts import read_texts, zero_shot_head

        return zero_shot_head(*read_texts(texts))

    def saved_settings(self, classifier: nn.Module, manifest: Manifest) -> dict:
        from hiddencost.networks.layers import head_of

        return {"widths": manifest.widths, "texts": head_of(classifier).out_features}

    def saved_classifier(self, saved: dict) -> nn.Module:
        from torch import nn

        from hiddencost.networks.layers import head_of

        network = self.classifier(self.build(saved["architecture"], saved["widths"]), saved["architecture"])
        network.head = nn.Linear(head_of(network).in_features, saved["texts"], bias=False)
        return network

    def for_inference(self, network: nn.Module, device: torch.device) -> nn.Module:
        from hiddencost.networks import inference
        from hiddencost.networks.clip.model import TextClassifier

        return inference.placed(cast(TextClassifier, network).lean(), device)

    def input_side(self, network: nn.Module) -> int | None:
        from hiddencost.networks.clip import model

        return model.image_size(network)

    def image_encoder(self, network: nn.Module) -> nn.Module:
        from hiddencost.networks.clip import model

        return model.image_tower(network)

    def prunable_weights(self, network: nn.Module) -> dict[str, Weight]:
        from hiddencost.networks import layers

        return layers.layer_weights(network)

    def sparsity_groups(self, network: nn.Module, stem: str | None) -> dict[str, list[str]]:
        return {"towers": list(self.prunable_weights(network))}

    def layer_keys(self, network: nn.Module) -> dict[str, str]:
        return {key: key for key in self.prunable_weights(network)}

    def photo_classifier(
        self, network: nn.Module, architecture: str, labels: Sequence[int], class_names: Sequence[str]
    ) -> tuple[nn.Module, list[int]]:
        """Among the photos' own classes, by their names: of a thousand it would miss many that it was not trained to
        tell apart, and the question is whether it is really loaded."""
        from hiddencost.networks.clip import model
        from hiddencost.networks.clip.texts import DEFAULT_TEMPLATE, classifier_of_texts

        classes = sorted(set(labels))
        texts = [DEFAULT_TEMPLATE.format(class_names[label]) for label in classes]
        name = model.configuration_of(architecture)
        return classifier_of_texts(network, texts, name), [classes.index(label) for label in labels]

    def fingerprint_outputs(self, network: nn.Module, architecture: str, images: Tensor) -> Tensor:
        """The embedding of the image, and that of a fixed text."""
        import torch

        from hiddencost.networks.clip import model
        from hiddencost.networks.clip.texts import DEFAULT_TEMPLATE, embed

        text = embed(network, [DEFAULT_TEMPLATE.format("wave")], model.configuration_of(architecture))
        return torch.cat([self.image_encoder(network)(images)[0], text[0]]).double()
