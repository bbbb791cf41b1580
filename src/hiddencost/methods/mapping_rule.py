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
            the CPU, or None (see first_pass); the images' labels, int64 [N]; the numbers of source and of target
            classes; a random generator on the CPU. It returns the source class of each target class, int64 [K], no
            source class twice.
        first_pass: whether the first mapping is drawn from predictions under the untrained prompt, which take a pass
            over the chosen images; if not, the function gets None in their place.
        redraws: whether the mapping is drawn again at the start of each `mapping_interval`-th epoch, from predictions
            under the prompt of that time.
    """

    mapping: str | None = None
    first_pass: bool = False
    redraws: bool = False

    @property
    def maps_by_predictions(self) -> bool:
        """Whether its mapping depends on what the network predicts."""
        return self.first_pass or self.redraws

    def redraws_at(self, epoch: int, interval: int) -> bool:
        """Say whether the mapping is drawn again at the start of an epoch, counted from 0."""
        return self.redraws and epoch > 0 and epoch % interval == 0

    def draw_mapping(
        self,
        predictions: "Tensor | None",
        labels: "Tensor",
        source_classes: int,
        classes: int,
        generator: "torch.Generator",
    ) -> "Tensor":
        """Draw a label mapping, int64 [classes]; see `mapping` for the arguments."""
        assert self.mapping, "a method that draws no mapping"
        return resolve_name(self.mapping)(predictions, labels, source_classes, classes, generator)
