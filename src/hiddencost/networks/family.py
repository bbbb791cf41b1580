"""A family of networks: all that the rest of the code asks of a kind of network.

PyTorch is imported where networks are made, in each family too: the Snakefile reads these modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hiddencost.networks.layers import Weight
    from hiddencost.networks.manifest import Manifest


@dataclass(frozen=True)
class Family(ABC):
    """A kind of network.

    What messages call it, its registry says: no result stands on that.

    Attributes:
        title: what messages call one of its networks, with its article.
        pruned_layers: what messages call the layers that pruning reaches, all together.
        photos: what messages call the photos that its networks are verified on.
        name: its key in FAMILIES.
        prefixes: what the names of its architectures begin with, up to the slash; "": names without one.
        recipe: the key of a study that holds the recipe of visual prompting on it.
        prompt: the kind of prompt, by its name in `prompting.prompts.PROMPTS`.
        has_texts: whether its source classes are texts, which a study embeds for each dataset.
        trained_upstream: whether a study can train such a network itself.
        sparsity_over: the weights that pruning reaches, of which sparsity is declared and measured.
    """

    title: str
    pruned_layers: str
    photos: str

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    recipe: ClassVar[str]
    prompt: ClassVar[str]
    has_texts: ClassVar[bool]
    trained_upstream: ClassVar[bool]
    sparsity_over: ClassVar[str]

    # what a study asks
    @abstractmethod
    def canvas(self, checkpoint: str, study_canvas: int | str | None) -> int:
        """Return the side of a network's input, in pixels: the study's, or the checkpoint's own, which "native" asks
        for."""

    @abstractmethod
    def prepared_sizes(
        self, checkpoint: str, image_size: int | None, canvas: int, native_size: int | None
    ) -> dict[str, str]:
        """Return the sizes at which a dataset is prepared, in the words of `datasets.prepare.sized`.

        Args:
            checkpoint: its name.
            image_size: of the dataset in the study, in pixels.
            canvas: the side of the network's input, in pixels.
            native_size: of images that are published as squares of one size, in pixels; None of others.

        Returns:
            The size for jobs that prompt (`train`), and for those that probe features (`probe`).
        """

    @abstractmethod
    def prompted_side(self, image_size: int | None, canvas: int) -> int:
        """Return the side of the image on the canvas under a prompt, in pixels.

        Args:
            image_size: of the dataset in the study, in pixels.
            canvas: the side of the network's input, in pixels.
        """

    @abstractmethod
    def run_settings(self, checkpoint: str, image_size: int | None) -> dict:
        """Return what the recipe of a prompting run states beyond the study's recipe."""

    @abstractmethod
    def source_classes(self, manifest: Manifest) -> int | None:
        """Return how many classes a backbone has to map target classes to; None: any number."""

    def check_class_names(self, classes: Sequence[str] | None, given: bool) -> None:
        """Raise ValueError where the names of a dataset's classes do not serve as texts: only of a family that
        `has_texts`.

        Args:
            classes: the names; None where there are none.
            given: whether somebody stated them as names; else they are those of folders.
        """
        raise TypeError(f"{self.name}: its source classes are no texts")

    # networks
    @abstractmethod
    def build(self, architecture: str, widths: dict | None = None) -> nn.Module:
        """Return a network, randomly initialised, in evaluation mode; see `build.build`."""

    @abstractmethod
    def classifier(self, network: nn.Module, architecture: str, texts: str | Path | None = None) -> nn.Module:
        """Return a backbone's network as one that gives logits over source classes for images [N, 3, S, S].

        Args:
            network: as `backbones.load` returns it.
            architecture: the network's.
            texts: the file of the embedded texts, for a family whose source classes are texts. Without it the
                classifier has the features of one, in front of a head of zeros.
        """

    def embed_texts(
        self,
        network: nn.Module,
        architecture: str,
        classes: Sequence[str],
        templates: list[str] | str,
        output: str | Path,
    ) -> None:
        """Write the texts of a dataset's classes as the network embeds them: only of a family that `has_texts`.

        Args:
            network: as `backbones.load` returns it, on the device that embeds.
            architecture: the network's.
            classes: their names.
            templates: as a study states them.
            output: the file, for `classifier` and `text_head`.
        """
        raise TypeError(f"{self.name}: its source classes are no texts")

    def text_head(self, texts: str | Path) -> Tensor:
        """Return the weights of the classifier that embedded texts make, over a network's features: float32
        [classes, D]. Only of a family that `has_texts`.

        Args:
            texts: a file of `embed_texts`.
        """
        raise TypeError(f"{self.name}: its source classes are no texts")

    @abstractmethod
    def saved_settings(self, classifier: nn.Module, manifest: Manifest) -> dict:
        """Return what a saved classifier keeps beside its architecture, for `saved_classifier`."""

    @abstractmethod
    def saved_classifier(self, saved: dict) -> nn.Module:
        """Return a classifier to load saved weights into, of its `architecture` and `saved_settings`."""

    @abstractmethod
    def for_inference(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return a classifier that computes the same up to rounding with less; see `inference.for_inference`."""

    @abstractmethod
    def input_side(self, network: nn.Module) -> int | None:
        """Return the side of the images that a network takes, in pixels; None: any."""

    @abstractmethod
    def image_encoder(self, network: nn.Module) -> nn.Module:
        """Return the part of a network that reads images, normalised [N, 3, S, S]."""

    # its weights
    @abstractmethod
    def prunable_weights(self, network: nn.Module) -> dict[str, Weight]:
        """Return the weights that pruning reaches, by their keys, in order."""

    @abstractmethod
    def sparsity_groups(self, network: nn.Module, stem: str | None) -> dict[str, list[str]]:
        """Return the keys of the weights that sparsity is measured over, by what manifests call them together.

        Args:
            network: as `backbones.load` returns it.
            stem: the name of its first convolution, where it has one that others leave out of their counts.
        """

    @abstractmethod
    def layer_keys(self, network: nn.Module) -> dict[str, str]:
        """Return the key of the weight of each layer whose sparsity is measured by itself, by the layer's name."""

    def count_removed_weights(self, network: nn.Module, whole: str | None) -> int:
        """Return how many prunable weights of the architecture `whole` a network lacks, being narrower; None: 0."""
        import torch

        if whole is None:
            return 0
        with torch.device("meta"):
            dense = self.build(whole)
        in_whole, in_network = (
            sum(weight.tensor.numel() for weight in self.prunable_weights(one).values()) for one in (dense, network)
        )
        return in_whole - in_network

    # its verification
    @abstractmethod
    def photo_classifier(
        self, network: nn.Module, architecture: str, labels: Sequence[int], class_names: Sequence[str]
    ) -> tuple[nn.Module, list[int]]:
        """Return a classifier of photos, and the photos' labels among its classes.

        Args:
            network: as `backbones.load` returns it.
            architecture: its name.
            labels: of the photos, among ImageNet-1k's classes.
            class_names: of ImageNet-1k.
        """

    @abstractmethod
    def fingerprint_outputs(self, network: nn.Module, architecture: str, images: Tensor) -> Tensor:
        """Return what a network says of a normalised image [1, 3, S, S], to recognise it by: float64 [outputs]."""
