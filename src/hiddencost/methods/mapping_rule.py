"""How a method maps labels: what draws its mappings, and when. Runs stand on this, see `Method.digest`."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the Snakefile reads this module, and does without the seconds that PyTorch takes
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MappingRule:
    """How label mappings are drawn.

    Attributes:
        mapping: of visual prompting, "module:function" of what draws a label mapping. It is imported when it draws.
            The function's arguments: the source class that the network predicts for each chosen image, int64 [N], on
            the CPU, or None (see first_pass), or something else (see top_share, reads_names); the images' labels,
            int64 [N]; the numbers of source and of target classes; a random generator on the CPU. It returns the
            source class of each target class, int64 [K], no source class twice, or weights (see weighted).
        first_pass: whether the first mapping is drawn from predictions under the untrained prompt, which take a pass
            over the chosen images; if not, the function gets None in their place.
        redraws: whether the mapping is drawn again at the start of each `mapping_interval`-th epoch, from predictions
            under the prompt of that time.
        weighted: whether the function returns a matrix of weights, floating [K, source classes], by which a target
            class's logit is a sum over source classes (see `prompting.matrix`).
        top_share: the function gets, in place of predictions, so many of the highest source classes of each image as
            this share of the number of target classes is, at least one, the highest first, int64 [N, k], and their
            probabilities, [N, k].
        reads_names: the function gets, in place of predictions, how alike the names of target and source classes are,
            by the study's `text_encoder`: float32 [K, source classes].
        learning_rate: of a mapping that is trained with the prompt, beginning with what the function returns: weights
            with a bias as the last column, [K, source classes + 1].
    """

    mapping: str | None = None
    first_pass: bool = False
    redraws: bool = False
    weighted: bool = False
    top_share: float | None = None
    reads_names: bool = False
    learning_rate: float | None = None

    @property
    def learns_mapping(self) -> bool:
        """Whether its mapping is trained with the prompt."""
        return self.learning_rate is not None

    @property
    def moves_mapping(self) -> bool:
        """Whether its mapping changes while it trains."""
        return self.redraws or self.learns_mapping

    @property
    def maps_by_predictions(self) -> bool:
        """Whether its mapping depends on what the network predicts."""
        return self.first_pass or self.moves_mapping

    def shape_of_mapping(self, source_classes: int, classes: int) -> tuple[int, ...]:
        """Return the shape of its mappings: [classes] of source classes, or that of a matrix."""
        return (classes, source_classes + self.learns_mapping) if self.weighted else (classes,)

    def redraws_at(self, epoch: int, interval: int) -> bool:
        """Say whether the mapping is drawn again at the start of an epoch, counted from 0."""
        return self.redraws and epoch > 0 and epoch % interval == 0

    def highest(self, source_classes: int, classes: int) -> int:
        """Return how many of the highest source classes of an image it reads; 0: the predicted class alone."""
        return min(max(1, int(classes * self.top_share)), source_classes) if self.top_share else 0

    def sources_of(self, mapping: "Tensor") -> "Tensor":
        """Return the source class of each target class, of weights that of the largest, int64 [classes]."""
        if not self.weighted:
            return mapping
        return (mapping[:, :-1] if self.learns_mapping else mapping).argmax(1)

    def draw_mapping(
        self,
        predictions: "Tensor | tuple[Tensor, Tensor] | None",
        labels: "Tensor",
        source_classes: int,
        classes: int,
        generator: "torch.Generator",
    ) -> "Tensor":
        """Draw a label mapping, int64 [classes] or weights; see `mapping` for the arguments."""
        assert self.mapping, "a method that draws no mapping"
        return resolve_name(self.mapping)(predictions, labels, source_classes, classes, generator)
