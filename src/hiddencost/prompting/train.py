"""Training of visual prompts: all runs of a pack, step by step."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hiddencost.messages import describe_unknown_name
from hiddencost.methods.method import Method
from hiddencost.methods.registry import METHODS, run_by
from hiddencost.prompting.chunk import Chunk, of_runs, runs_of_images, stacked, to_device
from hiddencost.prompting.engine import PromptedNetwork
from hiddencost.prompting.prompt import Parameters
from hiddencost.prompting.schedule import epoch_batches, not_finite, optimiser, stream
from hiddencost.study.recipes import PromptingProtocol

Progress = Callable[[int], object]  # gets the number of images trained on since the last call
State = dict[str, Any]  # of a run half-way: tensors, numbers, lists and dicts of them
Keep = Callable[[Callable[[], dict[int, State]]], object]  # given, after each step, the way to the states of all runs


@dataclass
class TrainedPrompt:
    """What a run has learned, and how it came about.

    Attributes:
        parameters: what was trained, by name, float32: the prompt's (`Prompt.new`), such as W, `prompt`, [3, S, S].
        mapping: the source class of each target class, int64 [K].
        losses: of each step.
        mappings: of each epoch.
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


@lru_cache(maxsize=64)
def _weights(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 1 / counts[r] for each image of run r, on the device."""
    return to_device((1 / torch.tensor(counts, dtype=torch.float64))[runs_of_images(counts)].to(dtype), device)


@dataclass(eq=False)
class _Run:
    """A run on its way."""

    number: int
    method: Method
    recipe: PromptingProtocol
    chosen: Tensor  # indices of its images, on the host, as are all indices and mappings
    parameters: Parameters
    optimiser: Optimizer
    schedule: LRScheduler
    shuffle: torch.Generator
    outcome: TrainedPrompt
    epoch: int = 0
    batches: list[Tensor] = field(default_factory=list)  # left in the epoch: places among those chosen
    losses: list[Tensor] = field(default_factory=list)  # of the epoch, on the device
    twin: "_Run | None" = None  # a run, not redrawn, that this one has been the same as so far

    def steps_left(self) -> int:
        """Return how many steps are left of a run that is between two epochs."""
        return self.recipe.steps_on(len(self.chosen)) - len(self.outcome.losses)

    def state(self) -> State:
        """Return all that the run needs to go on as if it had not been interrupted: on a CPU equal to the bit."""
        return {
            "parameters": {name: tensor.detach() for name, tensor in self.parameters.items()},
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
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
        fused = self.optimiser.param_groups[0]["fused"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.optimiser.param_groups[0]["fused"] = fused  # of this device, which may not be that of before
        self.schedule.load_state_dict(state["schedule"])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.epoch, self.losses = state["epoch"], state["losses of the epoch"]
        self.batches = [batch.cpu() for batch in state["batches"]]
        for key in HISTORY:
            setattr(self.outcome, key, state[key])


def train_prompts(
    prompted: PromptedNetwork,
    images: Tensor,
    labels: Tensor,
    classes: int,
    runs: Sequence[tuple[str, Sequence[int]]],
    seed: int,
    protocol: PromptingProtocol,
    progress: Progress = lambda images: None,
    states: dict[int, State] | None = None,
    keep: Keep = lambda states: None,
    batch_sizes: Sequence[int] | None = None,
) -> Iterator[tuple[int, TrainedPrompt]]:
    """Train prompts with label mappings, as published (arXiv 2308.14969; ILM-VP, arXiv 2211.11635), side by side.

    W starts at zero. The method draws the mapping under the untrained prompt and, if it redraws, under the current
    one at the start of each `mapping_interval`-th epoch. Cross-entropy on the mapped logits, the protocol's optimiser
    on W. The random streams depend on `seed` alone: one for mappings, one for the order of the batches. So a run sees
    the same batches alone and beside others, and runs on the same images see the same whatever their method: until
    its mapping changes, a run of ilm is that of flm, and is not computed twice.

    With `steps` in the protocol, in place of epochs, a run ends after so many, within a pass over its images or not.
    A pass begins as an epoch does.

    Args:
        prompted: the network.
        images: uint8 [M, 3, s, s], on the device or on the host.
        labels: int64 [M].
        classes: the number of target classes.
        runs: the name of each one's method, and the indices of its images. Each step takes every run's next batch
            through the network.
        seed: of all random streams.
        protocol: the recipe.
        progress: called with the number of images that were trained on since its last call.
        states: by number, of runs to go on from, on the network's device. With those of all runs the result is that
            of a run that was not interrupted, on a CPU to the bit (a GPU adds up in no certain order); with some (as
            others have finished) up to the rounding of other chunks.
        keep: called after each step. What it is given returns the states, by number, of the runs under way, to be
            stored at once, as the next step changes them.
        batch_sizes: of each run, where they are not all the protocol's.

    Returns:
        An iterator over the runs as they finish: a run's number, and what it has learned. A run whose loss is not
        finite ends with its epoch (`diverged`).

    Raises:
        ValueError: a run's method is no prompting method.
    """
    pack = _Pack(prompted, images, labels.cpu(), classes, seed, protocol, batch_sizes)
    return pack.train(runs, states or {}, progress, keep)


@dataclass(frozen=True)
class _Pack:
    """What the runs of a pack share (see `train_prompts`), and what is done for several of them at once."""

    prompted: PromptedNetwork
    images: Tensor
    labels: Tensor  # on the host
    classes: int
    seed: int
    protocol: PromptingProtocol
    batch_sizes: Sequence[int] | None

    def train(
        self, runs: Sequence[tuple[str, Sequence[int]]], states: dict[int, State], progress: Progress, keep: Keep
    ) -> Iterator[tuple[int, TrainedPrompt]]:
        """See `train_prompts`."""
        active = self.begin(runs, states)
        progress(sum(run.outcome.images for run in active))
        while active:
            self.begin_epochs([run for run in active if not run.batches])
            start = time.perf_counter()
            counts = self.step(active)
            ended = [run for run in active if not run.batches]
            _end_epoch(ended)
            _share(active, counts, start)
            progress(sum(counts))
            active = [run for run in active if run.steps_left() and not run.outcome.diverged]
            for run in ended:
                if run not in active:
                    run.outcome.parameters = {name: one.detach() for name, one in run.parameters.items()}
                    yield run.number, run.outcome
            keep(partial(_states, active))

    def begin(self, runs: Sequence[tuple[str, Sequence[int]]], states: dict[int, State]) -> list[_Run]:
        """Return the runs at their beginning, with their first mappings, or where `states` were taken of them."""
        if strange := [name for name, _ in runs if name not in run_by("train")]:
            raise ValueError(f"method {describe_unknown_name(strange[0], run_by('train'))}")
        methods = [METHODS[name] for name, _ in runs]
        chosen = [torch.as_tensor(indices) for _, indices in runs]
        new = [number for number in range(len(runs)) if number not in states]
        start = time.perf_counter()
        predictions = self._predict_unprompted([chosen[number] for number in new if methods[number].first_pass])
        begun = []
        for number, method in enumerate(methods):
            parameters = {name: one.requires_grad_() for name, one in self.prompted.new_prompt().items()}
            if number in states:
                mapping = states[number]["mapping"].cpu()
            else:
                of_run = predictions[chosen[number]] if method.first_pass else None
                mapping = self._draw_mapping(method, chosen[number], of_run)
            own = {"batch_size": self.batch_sizes[number]} if self.batch_sizes else {}
            recipe = self.protocol.model_copy(update=own)
            training = (
                *optimiser(list(parameters.values()), recipe, len(chosen[number])),
                stream(self.seed, "batches"),
            )
            outcome = TrainedPrompt(parameters, mapping)
            run = _Run(number, method, recipe, chosen[number], parameters, *training, outcome)
            if number in states:
                run.resume(states[number])
            begun.append(run)
        for run in begun:
            if run.method.redraws:
                run.twin = next((other for other in begun if not other.method.redraws and _equal(other, run)), None)
        passes = [len(chosen[number]) * methods[number].first_pass for number in new]
        _share([begun[number] for number in new], passes, start)
        return begun

    def _predict_unprompted(self, chosen: list[Tensor]) -> Tensor:
        """Return the source class of each image that a run has chosen, int64 [M]: under the new prompt, which is the
        same for all runs, each goes through the network once."""
        predictions = torch.zeros(len(self.labels), dtype=torch.int64)
        if chosen:
            used = torch.cat(chosen).unique()
            predictions[used] = self.prompted.predict(self.images, [used], stacked([self.prompted.new_prompt()]))
        return predictions

    def _draw_mapping(self, method: Method, chosen: Tensor, predictions: Tensor | None) -> Tensor:
        sizes = self.prompted.source_classes, self.classes
        return method.draw_mapping(predictions, self.labels[chosen], *sizes, stream(self.seed, "mapping"))

    def begin_epochs(self, runs: list[_Run]) -> None:
        """Draw the batches of the runs that begin an epoch, and the mappings that are due anew."""
        self._map_anew([run for run in runs if run.method.redraws_at(run.epoch, run.recipe.mapping_interval)])
        for run in runs:
            run.outcome.mappings.append(run.outcome.mapping.tolist())
            run.batches = list(epoch_batches(len(run.chosen), run.recipe, run.shuffle))[: run.steps_left()]

    def _map_anew(self, runs: list[_Run]) -> None:
        if not runs:
            return
        start = time.perf_counter()
        counts = [len(run.chosen) for run in runs]
        prompts = stacked([run.parameters for run in runs])
        predictions = self.prompted.predict(self.images, [run.chosen for run in runs], prompts)
        for run, of_run in zip(runs, predictions.split(counts), strict=True):
            run.outcome.mapping = self._draw_mapping(run.method, run.chosen, of_run)
            if run.twin and not torch.equal(run.outcome.mapping, run.twin.outcome.mapping):
                run.twin = None
        _share(runs, counts, start)

    def step(self, runs: list[_Run]) -> list[int]:
        """Take one step of each run, with one batch of its own. Returns the sizes of the batches."""
        batches = {run: run.chosen[run.batches.pop(0)] for run in runs}
        computed = [run for run in runs if not run.twin]
        losses, gradients = self._gradients(computed, [batches[run] for run in computed])
        place = {run: number for number, run in enumerate(computed)}
        for run in runs:
            loss = losses[place[run.twin or run]]
            for name, tensor in run.parameters.items():
                tensor.grad = gradients[name][place[run.twin or run]]
            run.optimiser.step()
            self.prompted.constrain(run.parameters)
            run.schedule.step()
            run.losses.append(loss)
            run.outcome.images += len(batches[run])
        return [len(batch) for batch in batches.values()]

    def _gradients(self, runs: list[_Run], batches: list[Tensor]) -> tuple[Tensor, Parameters]:
        """Return the mean loss of each run on its batch, [R], and its gradients, [R, ...] each."""
        prompted, counts, together = self.prompted, [len(batch) for batch in batches], torch.cat(batches)
        read = prompted.reader(self.images, together, self.labels[together], runs_of_images(counts))
        weights = _weights(tuple(counts), prompted.device, prompted.mean.dtype)
        parameters = stacked([run.parameters for run in runs])
        mappings = to_device(torch.stack([run.outcome.mapping for run in runs]), prompted.device)

        def compute(part: slice, present: slice) -> tuple[Tensor, Parameters]:
            pictures, labels, of_run = read(part)
            inputs = pictures, labels, weights[part], of_run - present.start
            return prompted.gradients(Chunk(*inputs, mappings[present], of_runs(parameters, present)))

        losses = weights.new_zeros(len(runs))
        gradients = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        for (loss, of_chunk), _, present in prompted.in_chunks(counts, compute, gradient=True):
            losses[present] += loss
            for name, gradient in of_chunk.items():
                gradients[name][present] += gradient
        return losses, gradients


def _equal(run: _Run, other: _Run) -> bool:
    """Say whether two runs are on the same images, in one order, and have come to the same place by the same way."""
    ways = [(each.outcome.images, each.outcome.mappings, each.outcome.mapping.tolist()) for each in (run, other)]
    same = run.recipe == other.recipe and torch.equal(run.chosen, other.chosen)
    equal = all(torch.equal(tensor, other.parameters[name]) for name, tensor in run.parameters.items())
    return same and ways[0] == ways[1] and equal


def _states(runs: list[_Run]) -> dict[int, State]:
    return {run.number: run.state() for run in runs}


def _end_epoch(runs: list[_Run]) -> None:
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


def _share(runs: list[_Run], counts: list[int], start: float) -> None:
    """Charge the time since `start` to runs by their numbers of images."""
    seconds = (time.perf_counter() - start) / max(1, sum(counts))
    for run, count in zip(runs, counts, strict=True):
        run.outcome.seconds += seconds * count
