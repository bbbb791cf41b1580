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

from hiddencost.methods.mapping import count_predictions, greedy_mapping, random_mapping
from hiddencost.prompting.engine import Chunk, PromptedNetwork, runs_of_images, to_device
from hiddencost.prompting.schedule import epoch_batches, not_finite, optimiser, stream
from hiddencost.study.recipes import RunClipProtocol, RunProtocol

Progress = Callable[[int], object]  # told how many images were trained on since the last call
State = dict[str, Any]  # of a run half-way: tensors, numbers, lists and dicts of them
Keep = Callable[[Callable[[], dict[int, State]]], object]  # given, after each step, the way to the states of all runs


@dataclass
class Trained:
    """A finished run: the prompt W, float32 [3, S, S], its label mapping, int64 [K], and how they came about."""

    prompt: Tensor
    mapping: Tensor
    losses: list[float] = field(default_factory=list)  # one a step
    mappings: list[list[int]] = field(default_factory=list)  # one an epoch
    images: int = 0  # trained on, epoch by epoch
    seconds: float = 0.0  # of the pack's time, by the run's share of its images
    diverged: str | None = None  # where the loss ceased to be finite


TOLD = ("losses", "mappings", "images", "seconds")  # of Trained, what grows while a run is under way


@lru_cache(maxsize=64)
def _weights(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 1 / counts[r] for each image of run r, on the device."""
    return to_device((1 / torch.tensor(counts, dtype=torch.float64))[runs_of_images(counts)].to(dtype), device)


@dataclass(eq=False)
class _Run:
    """A run on its way."""

    number: int
    method: str
    chosen: Tensor  # indices of its images, on the host, as are all indices and mappings
    prompt: Tensor
    optimiser: Optimizer
    schedule: LRScheduler
    shuffle: torch.Generator
    trained: Trained
    epoch: int = 0
    batches: list[Tensor] = field(default_factory=list)  # left in the epoch: places among those chosen
    losses: list[Tensor] = field(default_factory=list)  # of the epoch, on the device
    twin: "_Run | None" = None  # the flm run that this ilm run has been the same as so far

    def state(self) -> State:
        """Return all that the run needs to go on as if it had not been interrupted: on a CPU equal to the bit."""
        return {
            "prompt": self.prompt.detach(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "epoch": self.epoch,
            "batches": self.batches,
            "losses of the epoch": self.losses,
            "mapping": self.trained.mapping,
            **{key: getattr(self.trained, key) for key in TOLD},
        }

    def resume(self, state: State) -> None:
        """Go on where `state` was taken; the mapping is the caller's."""
        with torch.no_grad():
            self.prompt.copy_(state["prompt"])
        fused = self.optimiser.param_groups[0]["fused"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.optimiser.param_groups[0]["fused"] = fused  # of this device, which may not be that of before
        self.schedule.load_state_dict(state["schedule"])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.epoch, self.losses = state["epoch"], state["losses of the epoch"]
        self.batches = [batch.cpu() for batch in state["batches"]]
        for key in TOLD:
            setattr(self.trained, key, state[key])


def train_prompts(
    prompted: PromptedNetwork,
    images: Tensor,
    labels: Tensor,
    classes: int,
    runs: Sequence[tuple[str, Sequence[int]]],
    seed: int,
    protocol: RunProtocol | RunClipProtocol,
    progress: Progress = lambda images: None,
    states: dict[int, State] | None = None,
    keep: Keep = lambda states: None,
) -> Iterator[tuple[int, Trained]]:
    """Train prompts with label mappings, as published (arXiv 2308.14969; ILM-VP, arXiv 2211.11635), side by side.

    W starts at zero. The mapping is drawn at random (rlm), by frequency under the untrained prompt (flm), or by
    frequency under the current prompt at the start of each `mapping_interval`-th epoch (ilm). Cross-entropy on
    the mapped logits, the protocol's optimiser on W. The random streams depend on `seed` alone: one for rlm's
    mapping, one for the order of the batches. So a run sees the same batches alone and beside others, and runs on the
    same images see the same whatever their method: until its mapping changes, ilm is flm, and is not computed twice.

    images: uint8 [M, 3, s, s], on the device or on the host; labels: int64 [M]. runs: the method of each, and the
    indices of its images. Each step takes every run's next batch through the network. Yields a run's number and
    result when it has finished. A run whose loss is not finite ends with its epoch (`diverged`).

    keep: called after each step; what it is given returns the states, by number, of the runs under way, to be stored
    at once, as the next step changes them. states: such, on the network's device, to go on from: with those of all
    runs the result is the same, on a CPU to the bit (a GPU adds up in no certain order), with some (as others have
    finished) up to the rounding of other chunks.
    """
    states, labels = states or {}, labels.cpu()
    grey = prompted.new_prompt()
    new = [(method, chosen) for number, (method, chosen) in enumerate(runs) if number not in states]
    mapped = sorted({int(index) for method, chosen in new if method != "rlm" for index in chosen})
    predictions = torch.zeros(len(labels), dtype=torch.int64)
    start = time.perf_counter()
    if mapped:  # the border is still the same for all: each image once
        predictions[mapped] = prompted.predict(images, [torch.tensor(mapped)], grey[None])

    def frequency_mapping(chosen: Tensor, predictions: Tensor) -> Tensor:
        return greedy_mapping(count_predictions(predictions, labels[chosen], prompted.source_classes, classes))

    def begin(number: int, method: str, chosen: Tensor) -> _Run:
        prompt = grey.clone().requires_grad_()
        if number in states:
            mapping = states[number]["mapping"].cpu()
        elif method == "rlm":
            mapping = random_mapping(prompted.source_classes, classes, stream(seed, "mapping"))
        else:
            mapping = frequency_mapping(chosen, predictions[chosen])
        steps = optimiser([prompt], protocol, len(chosen))
        run = _Run(number, method, chosen, prompt, *steps, stream(seed, "batches"), Trained(prompt, mapping))
        if number in states:
            run.resume(states[number])
        return run

    active = [begin(number, method, torch.as_tensor(chosen)) for number, (method, chosen) in enumerate(runs)]
    for run in active:
        if run.method == "ilm":
            same = (other for other in active if other.method == "flm" and torch.equal(other.chosen, run.chosen))
            run.twin = next((flm for flm in same if _equal(flm, run)), None)
    began = [run for run in active if run.number not in states]
    _share(began, [len(run.chosen) * (run.method != "rlm") for run in began], start)
    progress(sum(run.trained.images for run in active))
    while active:
        beginning = [run for run in active if not run.batches]
        due = [
            run
            for run in beginning
            if run.method == "ilm" and run.epoch and not run.epoch % protocol.mapping_interval
        ]
        if due:
            start = time.perf_counter()
            counts = [len(run.chosen) for run in due]
            prompts = torch.stack([run.prompt.detach() for run in due])
            predictions = prompted.predict(images, [run.chosen for run in due], prompts)
            for run, some in zip(due, predictions.split(counts), strict=True):
                run.trained.mapping = frequency_mapping(run.chosen, some)
                if run.twin and not torch.equal(run.trained.mapping, run.twin.trained.mapping):
                    run.twin = None
            _share(due, counts, start)
        for run in beginning:
            run.trained.mappings.append(run.trained.mapping.tolist())
            run.batches = list(epoch_batches(len(run.chosen), protocol, run.shuffle))
        start = time.perf_counter()
        counts = _step(prompted, images, labels, active)
        ended = [run for run in active if not run.batches]
        _end_epoch(ended)
        _share(active, counts, start)
        progress(sum(counts))
        active = [run for run in active if run.epoch < protocol.epochs and not run.trained.diverged]
        for run in ended:
            if run not in active:
                run.trained.prompt = run.prompt.detach()
                yield run.number, run.trained
        keep(partial(_states, active))


def _equal(flm: _Run, ilm: _Run) -> bool:
    """Say whether two runs on the same images have come to the same place by the same way."""
    ways = [(run.trained.images, run.trained.mappings) for run in (flm, ilm)]
    return ways[0] == ways[1] and torch.equal(flm.prompt, ilm.prompt)


def _states(runs: list[_Run]) -> dict[int, State]:
    return {run.number: run.state() for run in runs}


def _step(prompted: PromptedNetwork, images: Tensor, labels: Tensor, runs: list[_Run]) -> list[int]:
    """Take one step of each run, with one batch of its own. Returns the sizes of the batches."""
    batches = {run: run.chosen[run.batches.pop(0)] for run in runs}
    computed = [run for run in runs if not run.twin]
    counts = [len(batches[run]) for run in computed]
    together = torch.cat([batches[run] for run in computed])
    read = prompted.reader(images, together, labels[together], runs_of_images(counts))
    weights = _weights(tuple(counts), prompted.device, prompted.mean.dtype)
    prompts = torch.stack([run.prompt.detach() for run in computed])
    mappings = to_device(torch.stack([run.trained.mapping for run in computed]), prompted.device)

    def compute(some: slice, present: slice) -> tuple[Tensor, Tensor]:
        pictures, their_labels, of_run = read(some)
        inputs = pictures, their_labels, weights[some], of_run - present.start
        return prompted.gradients(Chunk(*inputs, mappings[present], prompts[present]))

    losses, gradients = prompts.new_zeros(len(computed)), torch.zeros_like(prompts)
    for (loss, gradient), _, present in prompted.in_chunks(counts, compute, gradient=True):
        losses[present] += loss
        gradients[present] += gradient
    found = dict(zip(computed, zip(losses, gradients, strict=True), strict=True))
    for run in runs:
        loss, run.prompt.grad = found[run.twin or run]
        run.optimiser.step()
        run.schedule.step()
        run.losses.append(loss)
        run.trained.images += len(batches[run])
    return [len(batch) for batch in batches.values()]


def _end_epoch(runs: list[_Run]) -> None:
    """Read the losses of an epoch, of all runs that end one at once, as a GPU is waited for."""
    if not runs:
        return
    losses = torch.stack([loss for run in runs for loss in run.losses]).cpu()
    for run, own in zip(runs, losses.split([len(run.losses) for run in runs]), strict=True):
        steps = len(run.trained.losses)
        run.trained.losses += own.tolist()
        run.losses = []
        run.epoch += 1
        run.trained.diverged = not_finite(run.trained.losses, steps, run.epoch)


def _share(runs: list[_Run], counts: list[int], start: float) -> None:
    """Charge the time since `start` to runs by their numbers of images."""
    seconds = (time.perf_counter() - start) / max(1, sum(counts))
    for run, count in zip(runs, counts, strict=True):
        run.trained.seconds += seconds * count
