"""A run of visual prompting on its way: what it trains, where it stands, and what it has learned so far."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hiddencost.methods.method import Method
from hiddencost.prompting.chunk import to_device
from hiddencost.prompting.matrix import as_matrix
from hiddencost.prompting.prompt import Parameters
from hiddencost.prompting.schedule import not_finite
from hiddencost.study.recipes import PromptingProtocol

log = logging.getLogger(__name__)
State = dict[str, Any]  # of a run half-way: tensors, numbers, lists and dicts of them


@dataclass
class TrainedPrompt:
    """What a run has learned, and how it came about.

    Attributes:
        parameters: what was trained, by name, float32: the prompt's (`Prompt.new`), such as W, `prompt`, [3, S, S].
        mapping: the source class of each target class, int64 [K], or weights (`MappingRule.weighted`).
        losses: of each step.
        mappings: of each epoch, the source class of each target class, of weights that of the largest: as they were
            drawn at its start, or learned at its end.
        images: how many it was trained on, epoch by epoch.
        seconds: its share of the pack's time, by its images.
        diverged: where the loss ceased to be finite.
    """

    parameters: Parameters
    mapping: Tensor
    losses: list[float] = field(default_factory=list)
    mappings: list[list[int]] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    diverged: str | None = None

    @property
    def prompt(self) -> Tensor:
        """W, float32 [3, S, S]."""
        return self.parameters["prompt"]


HISTORY = ("losses", "mappings", "images", "seconds")  # of TrainedPrompt, what grows while a run is under way


@dataclass(eq=False)
class Run:
    """A run on its way."""

    number: int
    method: Method
    recipe: PromptingProtocol
    chosen: Tensor  # indices of its images, on the host, as are all indices and mappings
    parameters: Parameters
    steps: list[tuple[Optimizer, LRScheduler]]  # one of each learning rate
    shuffle: torch.Generator
    outcome: TrainedPrompt
    epoch: int = 0
    batches: list[Tensor] = field(default_factory=list)  # left in the epoch: places among those chosen
    losses: list[Tensor] = field(default_factory=list)  # of the epoch, on the device
    twin: "Run | None" = None  # a run, computed, that this one has been the same as so far
    _matrix: Tensor | None = None

    @property
    def prompt(self) -> Parameters:
        """The parameters of its prompt."""
        return {name: tensor for name, tensor in self.parameters.items() if name != "mapping"}

    def map_by(self, mapping: Tensor) -> None:
        """Take another mapping."""
        self.outcome.mapping, self._matrix = mapping, None

    def matrix(self, columns: int) -> Tensor:
        """Return its mapping as a matrix with so many columns, on the device."""
        if self.method.learns_mapping:
            return self.parameters["mapping"].detach()
        if self._matrix is None or self._matrix.shape[1] != columns:  # a bias, as long as another run learns one
            like = next(iter(self.parameters.values()))
            self._matrix = to_device(as_matrix(self.outcome.mapping, columns).to(like.dtype), like.device)
        return self._matrix

    @property
    def step(self) -> int:
        """How many steps it has taken."""
        return len(self.outcome.losses) + len(self.losses)

    def steps_left(self) -> int:
        """Return how many steps are left of a run that is between two epochs."""
        return self.recipe.steps_on(len(self.chosen)) - len(self.outcome.losses)

    def advance(self, loss: Tensor, gradients: Parameters, images: int) -> None:
        """Take a step, on so many images, by the gradients of its parameters and the new values of those that are
        not trained."""
        for name, tensor in self.parameters.items():
            if tensor.requires_grad:
                tensor.grad = gradients[name]
            else:
                tensor.copy_(gradients[name])
        for optimiser, schedule in self.steps:
            optimiser.step()
            schedule.step()
        self.losses.append(loss)
        self.outcome.images += images

    def finish(self) -> TrainedPrompt:
        """Return what it has learned."""
        parameters = {name: one.detach() for name, one in self.parameters.items()}
        self.outcome.mapping = parameters.pop("mapping", self.outcome.mapping).cpu()
        self.outcome.parameters = parameters
        return self.outcome

    def state(self) -> State:
        """Return all that the run needs to go on as if it had not been interrupted: on a CPU equal to the bit."""
        return {
            "parameters": {name: tensor.detach() for name, tensor in self.parameters.items()},
            "steps": [[part.state_dict() for part in step] for step in self.steps],
            "shuffle": self.shuffle.get_state(),
            "epoch": self.epoch,
            "batches": self.batches,
            "losses of the epoch": self.losses,
            "mapping": self.outcome.mapping,
            **{key: getattr(self.outcome, key) for key in HISTORY},
        }

    def resume(self, state: State) -> None:
        """Go on where `state` was taken; the mapping is the caller's."""
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(state["parameters"][name])
        for (optimiser, schedule), (of_optimiser, of_schedule) in zip(self.steps, state["steps"], strict=True):
            fused = optimiser.param_groups[0]["fused"]
            optimiser.load_state_dict(of_optimiser)
            optimiser.param_groups[0]["fused"] = fused  # of this device, which may not be that of before
            schedule.load_state_dict(of_schedule)
        self.shuffle.set_state(state["shuffle"].cpu())
        self.epoch, self.losses = state["epoch"], state["losses of the epoch"]
        self.batches = [batch.cpu() for batch in state["batches"]]
        for key in HISTORY:
            setattr(self.outcome, key, state[key])


def equal(run: Run, other: Run) -> bool:
    """Say whether two runs are on the same images, in one order, and have come to the same place by the same way.

    A run that learns its mapping is equal to none.
    """
    if run.method.learns_mapping or other.method.learns_mapping:
        return False
    ways = [(each.outcome.images, each.outcome.mappings) for each in (run, other)]
    same = run.recipe == other.recipe and torch.equal(run.chosen, other.chosen)
    same &= torch.equal(run.outcome.mapping, other.outcome.mapping)
    equal = all(torch.equal(tensor, other.parameters[name]) for name, tensor in run.parameters.items())
    return same and ways[0] == ways[1] and equal


def pair(runs: list[Run]) -> None:
    """Make each run that equals an earlier one, which is computed itself, the twin of that."""
    for number, run in enumerate(runs):
        run.twin = next((other for other in runs[:number] if not other.twin and equal(other, run)), None)


def part(runs: list[Run]) -> None:
    """Part twins whose mappings are no longer the same; those that are the same stay so.

    runs: all that begin an epoch, as twins do together.
    """
    groups: dict[Run, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.twin or run, []).append(run)
    for members in groups.values():
        computed: list[Run] = []
        for run in members:
            alike = (one for one in computed if torch.equal(one.outcome.mapping, run.outcome.mapping))
            run.twin = next(alike, None)
            if not run.twin:
                computed.append(run)


def states_of(runs: list[Run]) -> dict[int, State]:
    return {run.number: run.state() for run in runs}


def end_epoch(runs: list[Run]) -> None:
    """Read the losses of an epoch, of all runs that end one at once, as a GPU is waited for."""
    if not runs:
        return
    losses = torch.stack([loss for run in runs for loss in run.losses]).cpu()
    for run, of_run in zip(runs, losses.split([len(run.losses) for run in runs]), strict=True):
        steps = len(run.outcome.losses)
        run.outcome.losses += of_run.tolist()
        run.losses = []
        run.epoch += 1
        run.outcome.diverged = not_finite(run.outcome.losses, steps, run.epoch)
    if learned := [run for run in runs if run.method.learns_mapping]:
        sources = [run.method.sources_of(run.parameters["mapping"].detach()) for run in learned]
        for run, of_run in zip(learned, torch.stack(sources).tolist(), strict=True):
            run.outcome.mappings.append(of_run)
    log.debug(
        "%d runs end an epoch",
        len(runs),
        extra={
            "ended": (  # see `logs.write_scalars`; where nobody reads it nothing is made
                (
                    *(run.method.name, len(run.chosen), run.epoch),
                    run.outcome.losses[(run.epoch - 1) * run.recipe.steps_of_pass(len(run.chosen)) :],
                    run.outcome.mappings if run.method.moves_mapping else (),
                )
                for run in runs
            )
        },
    )


def share(runs: list[Run], counts: list[int], start: float) -> None:
    """Charge the time since `start` to runs by their numbers of images."""
    seconds = (time.perf_counter() - start) / max(1, sum(counts))
    for run, count in zip(runs, counts, strict=True):
        run.outcome.seconds += seconds * count
