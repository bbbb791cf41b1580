"""What of a prompt is computed from a run's whole batch: before the chunks of a step, its gradients behind them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hiddencost.prompting.chunk import stacked
from hiddencost.prompting.engine import PromptedNetwork
from hiddencost.prompting.prompt import Parameters

MOST_IMAGES = {"cpu": 128, "cuda": 512}  # of runs at once, whose batches are as large: kernels are as few for all


@dataclass
class WholeBatches:
    """The batches of a step's runs, whose masks are made of whole batches (`Prompt.of_batch`).

    Runs with batches of one size go together. Nothing is kept between the two passes but the masks: the second
    computes them again.

    Attributes:
        name: what `Prompt.compose` calls what is made of them.
        prompted: the network.
        read: returns images of the step, two columns, and what was drawn of how training sees them.
        counts: of the images of each run, which stand one run after another.
        parameters: of the runs, [R, ...].
        masks: of all images, [N, ...].
        kept: what is not trained, as the step leaves it, [R, ...].
    """

    name: ClassVar[str] = "masks"

    prompted: PromptedNetwork
    read: Callable[[slice], list[Tensor]]
    counts: Sequence[int]
    parameters: Parameters
    masks: Tensor = field(init=False)
    kept: Parameters = field(init=False)

    def _groups(self) -> Iterator[tuple[list[int], Tensor, list[slice]]]:
        """Yield runs that go together, their images, uint8 [R, B, 3, s, s], and where these are in the step."""
        ends = torch.tensor(self.counts).cumsum(0).tolist()
        for count in dict.fromkeys(self.counts):
            alike = [run for run, of_run in enumerate(self.counts) if of_run == count]
            together = max(1, MOST_IMAGES[self.prompted.device.type] // count)
            for start in range(0, len(alike), together):
                runs = alike[start : start + together]
                places = [slice(ends[run] - count, ends[run]) for run in runs]
                yield runs, torch.stack([self._pictures(place) for place in places]), places

    def _pictures(self, place: slice) -> Tensor:
        pictures, _, _, *drawn = self.read(place)
        return self.prompted.prompt.view(pictures, drawn)

    def _of(self, runs: list[int], names: Iterable[str]) -> Parameters:
        # one by one, as a GPU would wait for a list of indices
        return {name: torch.stack([self.parameters[name][run] for run in runs]) for name in names}

    @torch.no_grad()
    def __post_init__(self) -> None:
        prompted, made = self.prompted, dict[int, Tensor]()
        kept: dict[int, Parameters] = {}
        for runs, images, _ in self._groups():
            parameters = self._of(runs, self.parameters)
            masks, means = prompted.prompt.of_batch(images, parameters, prompted.mean, prompted.std)
            for place, run in enumerate(runs):
                made[run] = masks[place]
                kept[run] = {name: values[place] for name, values in means.items()}
        every = range(len(self.counts))
        self.masks = torch.cat([made[run] for run in every])
        self.kept = stacked([kept[run] for run in every])

    def in_chunk(self, images: slice, parameters: Parameters) -> Parameters:
        """Return what `Prompt.compose` takes of some images, and of their runs."""
        own = self.prompted.prompt.in_chunk(1, 1).keys() - {self.name}
        return {name: one for name, one in parameters.items() if name in own} | {self.name: self.masks[images]}

    def gradients(self, of_masks: Tensor) -> Parameters:
        """Return the gradients of what makes masks, [R, ...] each, for those of the masks, [N, ...]."""
        prompted = self.prompted
        kept = prompted.prompt.not_trained
        trained = [name for name in self.parameters if name not in kept | prompted.prompt.in_chunk(1, 1).keys()]
        found: dict[int, Parameters] = {}
        for runs, images, places in self._groups():
            own = {name: one.requires_grad_() for name, one in self._of(runs, trained).items()}
            of_runs = self._of(runs, self.parameters) | own
            masks, _ = prompted.prompt.of_batch(images, of_runs, prompted.mean, prompted.std)
            of_group = torch.stack([of_masks[place] for place in places])
            computed = torch.autograd.grad(masks, list(own.values()), of_group)
            for place, run in enumerate(runs):
                found[run] = {name: one[place] for name, one in zip(own, computed, strict=True)}
        return stacked([found[run] for run in range(len(self.counts))])
