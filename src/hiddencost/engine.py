"""Training of visual prompts on a frozen network: all runs of a pack together, and their evaluation."""

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hiddencost.backbone import FORWARD_BATCH, classifier, classifier_name
from hiddencost.mapping import count_predictions, greedy_mapping, random_mapping
from hiddencost.prompt import add, border_mask, compose, frame_mask
from hiddencost.protocol import RunClipProtocol, RunProtocol
from hiddencost.schedule import epoch_batches, not_finite, optimiser, resolve_precision, stream
from hiddencost.sharing import SharedNetwork, Split, paste

log = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[int], object]  # told how many images were trained on since the last call
State = dict[str, Any]  # of a run half-way: tensors, numbers, lists and dicts of them
Keep = Callable[[Callable[[], dict[int, State]]], object]  # given, after each step, the way to the states of all runs


@dataclass(frozen=True)
class Plan:
    """How a network is run, which changes results by rounding alone.

    cover: where the image reaches more than this share of a map, the network goes on densely (see SharedNetwork);
    None: whole canvases from the start. chunk: how many images at a time go through it for a gradient. graphs:
    whether a chunk is captured as a CUDA graph.
    """

    cover: float | None = None
    chunk: int = 32
    graphs: bool = False


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


class _FullHead(nn.Linear):
    """A classifier in float32 behind a network of lower precision: its logits do not tie by rounding."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.float())


def in_bf16(network: nn.Module) -> nn.Module:
    """Return a copy of a network that computes in bfloat16 up to its classifier, which stays in float32."""
    network = copy.deepcopy(network)
    head = classifier(network)
    full = _FullHead(head.in_features, head.out_features, head.bias is not None, device=head.weight.device)
    full.load_state_dict(head.state_dict())
    network = network.bfloat16()
    network.set_submodule(classifier_name(network), full.requires_grad_(False))
    return network


@dataclass
class Chunk:
    """Images of a step that go through the network together, sorted by run.

    images: uint8 [N, 3, s, s]; labels: int64 [N]; weights: [N], what each image's loss counts; runs: int64 [N];
    mappings: int64 [R, K]; prompts: [R, 3, S, S].
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    runs: Tensor
    mappings: Tensor
    prompts: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.images, self.labels, self.weights, self.runs, self.mappings, self.prompts]


class PromptedNetwork:
    """A frozen network behind prompted canvases.

    network: as `backbone.for_inference` gives it; mean, std: [3, 1, 1] of its input in [0, 1], on the device and of
    the dtype (float32) in which prompts are trained. The protocol tells the kind of prompt: around the image, or, on
    CLIP, added to it; that plan then has no cover, as no part of the canvas is the same for all images.
    """

    def __init__(
        self, network: nn.Module, mean: Tensor, std: Tensor, protocol: RunProtocol | RunClipProtocol, plan: Plan
    ):
        self.mean, self.std, self.plan = mean, std, plan
        self.device = mean.device
        self.source_classes = classifier(network).out_features
        if isinstance(protocol, RunClipProtocol):
            self.mask = frame_mask(protocol.border, protocol.canvas).to(mean.device)
            self._compose = partial(add, interpolation=protocol.interpolation)
        else:
            self.mask = border_mask(protocol.image_size, protocol.canvas).to(mean.device)
            self._compose = compose
        self.precision = resolve_precision(protocol.precision, self.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else mean.dtype
        self.network = network
        self._exact = _executor(network, plan.cover)
        self._quick = _executor(in_bf16(network), plan.cover) if self.precision == "bf16" else self._exact
        self._captured: dict[tuple[int, int], CapturedChunk] = {}
        self._seen: Counter[tuple[int, int]] = Counter()
        self._pool = torch.cuda.graph_pool_handle() if plan.graphs else None
        # images at a time with a gradient (True) and without; less where memory has run out
        self._sizes = {True: plan.chunk, False: FORWARD_BATCH[self.device.type]}

    def sharing_ends(self) -> str:
        """Say at which node the network went on with whole canvases in its last forward pass, and why."""
        if self.plan.cover is None:
            return "nowhere"
        return next((f"{node} ({reason})" for node, reason in self._exact.ended.items()), "the end")

    def new_prompt(self) -> Tensor:
        """Return W = 0, [3, S, S]: around an image a mid-grey border, as σ(0) = 0.5; added to it nothing."""
        canvas = self.mask.shape[-1]
        return torch.zeros(3, canvas, canvas, device=self.device, dtype=self.mean.dtype)

    def logits(self, images: Tensor, prompts: Tensor, runs: Tensor, exact: bool) -> Tensor:
        """Return the source logits, [N, source classes], of uint8 images [N, 3, s, s] under their runs' prompts.

        exact: in the dtype of mean; else in the precision of training, with the classifier in float32.
        """
        canvas = self._compose(images, prompts, runs, self.mask, self.mean, self.std)
        if exact:
            return self._exact(canvas)
        if isinstance(canvas, Split):
            canvas = replace(canvas, border=canvas.border.to(self.dtype), patch=canvas.patch.to(self.dtype))
        else:
            canvas = canvas.to(self.dtype)
        return self._quick(canvas)

    @torch.inference_mode()
    def predict(self, images: Tensor, chosen: Sequence[Tensor], prompts: Tensor) -> Tensor:
        """Return the source class predicted for the chosen images of each run, int64, one run after another.

        images: uint8 [M, 3, s, s]; chosen: indices of images, for each run; prompts: [R, 3, S, S]. Always exact, as
        published: among a thousand classes the first is often close to the second, and bf16 would change mappings.
        """
        counts = tuple(map(len, chosen))
        together, (runs, _) = torch.cat(list(chosen)), _runs(counts, self.device)

        def compute(some: slice, present: slice) -> Tensor:
            inputs = images[together[some]], prompts[present], runs[some] - present.start
            return self.logits(*inputs, exact=True).argmax(1)

        return torch.cat([found for found, _, _ in self.in_chunks(counts, compute, gradient=False)])

    @torch.inference_mode()
    def test_logits(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Return the source logits, [N, source classes], of any number of images under one prompt: always exact."""
        runs = torch.zeros(len(images), dtype=torch.int64, device=self.device)

        def compute(some: slice, _: slice) -> Tensor:
            return self.logits(images[some], prompt[None], runs[some], exact=True)

        return torch.cat([logits for logits, _, _ in self.in_chunks([len(images)], compute, gradient=False)])

    def in_chunks(
        self, counts: Sequence[int], compute: Callable[[slice, slice], T], gradient: bool
    ) -> Iterator[tuple[T, slice, slice]]:
        """Cut the images of runs, counts[r] of run r one after another, into chunks, and compute each.

        Yields what compute(images, runs present) gives, and its two arguments. Where memory runs out, CUDA graphs are
        given up first; then a chunk that does not fit is halved, and so are those after it.
        """
        run_of = [run for run, count in enumerate(counts) for _ in range(count)]
        start = 0
        while start < len(run_of):
            part = run_of[start : start + self._sizes[gradient]]
            arguments = slice(start, start + len(part)), slice(part[0], part[-1] + 1)
            result = None
            try:
                result = compute(*arguments)
            except torch.OutOfMemoryError:
                if len(part) == 1 and not self.plan.graphs:
                    raise
            if result is not None:
                yield result, *arguments
                start += len(part)
            else:  # here the exception no longer holds the tensors of the failed attempt
                self._make_room(len(part), gradient)

    def _make_room(self, images: int, gradient: bool) -> None:
        if self.plan.graphs:
            log.warning("memory has run out: going on without CUDA graphs")
            self.plan = replace(self.plan, graphs=False)
            self._captured.clear()
        else:
            log.warning("%d images at a time do not fit into memory: going on with %d", images, images // 2)
            self._sizes[gradient] = images // 2
        torch.cuda.empty_cache()

    def gradients(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Return the loss of each run, [R], the weighted sum of its images', and its gradient, [R, 3, S, S].

        With CUDA graphs both are overwritten by the next call.
        """
        shape = len(chunk.images), len(chunk.prompts)
        self._seen[shape] += 1
        if not self.plan.graphs or self._seen[shape] < CapturedChunk.SIGHTS:
            return self._gradients(chunk)
        if shape not in self._captured:
            if len(self._captured) == CapturedChunk.MOST:
                del self._captured[next(iter(self._captured))]
            self._captured[shape] = CapturedChunk(self._gradients, chunk, self._pool)
        return self._captured[shape](chunk)

    def _gradients(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        prompts = chunk.prompts.detach().requires_grad_()
        logits = self.logits(chunk.images, prompts, chunk.runs, exact=False).to(self.mean.dtype)
        mapped = logits.gather(1, chunk.mappings[chunk.runs])
        weighted = functional.cross_entropy(mapped, chunk.labels, reduction="none") * chunk.weights
        losses = weighted.new_zeros(len(prompts)).index_add(0, chunk.runs, weighted)
        (gradient,) = torch.autograd.grad(losses.sum(), prompts)
        return losses.detach(), gradient


def _executor(network: nn.Module, cover: float | None) -> Callable[[Split | Tensor], Tensor]:
    def whole(canvas: Split | Tensor) -> Tensor:
        return network(paste(canvas) if isinstance(canvas, Split) else canvas)

    return whole if cover is None else SharedNetwork(network, cover)


class CapturedChunk:
    """A chunk's computation as a CUDA graph, which chunks of the same shape replay.

    pool: the memory that the graphs of a network share. One may overwrite what another has returned, so that what is
    returned must be used before any of them is called again.
    """

    MOST = 16  # shapes captured at a time; the oldest gives way
    SIGHTS = 3  # a shape is captured when it is seen for the third time: a capture costs several steps

    def __init__(self, compute: Callable[[Chunk], tuple[Tensor, Tensor]], chunk: Chunk, pool: tuple[int, int]):
        self.inputs = Chunk(*(tensor.clone() for tensor in chunk.tensors()))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is chosen or allocated at first sight must not be captured
            for _ in range(3):
                compute(self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.outputs = compute(self.inputs)

    def __call__(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self.inputs.tensors(), chunk.tensors(), strict=True):
            kept.copy_(new)
        self.graph.replay()
        return self.outputs


@lru_cache(maxsize=64)
def _runs(counts: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for the images of runs, counts[r] of run r one after another, their run and 1 / counts[r]."""
    with torch.inference_mode(False):  # kept for training, whoever asks first
        of_run = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return of_run.to(device), (1 / torch.tensor(counts, dtype=torch.float64))[of_run].to(device)


@dataclass(eq=False)
class _Run:
    """A run on its way."""

    number: int
    method: str
    chosen: Tensor
    prompt: Tensor
    optimiser: Optimizer
    schedule: LRScheduler
    shuffle: torch.Generator
    trained: Trained
    epoch: int = 0
    batches: list[Tensor] = field(default_factory=list)  # left in the epoch: indices of images, on the device
    losses: list[Tensor] = field(default_factory=list)  # of the epoch, on the device
    twin: "_Run | None" = None  # the flm run that this ilm run has been the same as so far

    def state(self) -> State:
        """Return all that the run needs to go on, equal to the bit, as if it had not been interrupted."""
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
        self.epoch, self.batches, self.losses = state["epoch"], state["batches"], state["losses of the epoch"]
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

    images: uint8 [M, 3, s, s]; labels: int64 [M]; both on the network's device. runs: the method of each, and the
    indices of its images. Each step takes every run's next batch through the network. Yields a run's number and
    result when it has finished. A run whose loss is not finite ends with its epoch (`diverged`).

    keep: called after each step; what it is given returns the states, by number, of the runs under way, to be stored
    at once, as the next step changes them. states: such, on the network's device, to go on from: with those of all
    runs the result is the same to the bit, with some (as others have finished) up to the rounding of other chunks.
    """
    states = states or {}
    grey = prompted.new_prompt()
    new = [(method, chosen) for number, (method, chosen) in enumerate(runs) if number not in states]
    mapped = sorted({int(index) for method, chosen in new if method != "rlm" for index in chosen})
    predictions = torch.zeros(len(labels), dtype=torch.int64, device=prompted.device)
    start = time.perf_counter()
    if mapped:  # the border is still the same for all: each image once
        needed = torch.tensor(mapped, device=prompted.device)
        predictions[needed] = prompted.predict(images, [needed], grey[None])

    def frequency_mapping(chosen: Tensor, predictions: Tensor) -> Tensor:
        counts = count_predictions(predictions, labels[chosen], prompted.source_classes, classes)
        return greedy_mapping(counts).to(prompted.device)

    def begin(number: int, method: str, chosen: Tensor) -> _Run:
        prompt = grey.clone().requires_grad_()
        if number in states:
            mapping = states[number]["mapping"]
        elif method == "rlm":
            mapping = random_mapping(prompted.source_classes, classes, stream(seed, "mapping")).to(prompted.device)
        else:
            mapping = frequency_mapping(chosen, predictions[chosen])
        steps = optimiser([prompt], protocol, len(chosen))
        run = _Run(number, method, chosen, prompt, *steps, stream(seed, "batches"), Trained(prompt, mapping))
        if number in states:
            run.resume(states[number])
        return run

    active = [
        begin(number, method, torch.as_tensor(chosen, device=prompted.device))
        for number, (method, chosen) in enumerate(runs)
    ]
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
            batches = list(epoch_batches(len(run.chosen), protocol, run.shuffle))
            in_order = run.chosen[torch.cat(batches).to(prompted.device)]
            run.batches = list(in_order.split([len(batch) for batch in batches]))
        start = time.perf_counter()
        counts = _step(prompted, images, labels, active)
        ended = [run for run in active if not run.batches]
        for run in ended:
            _end_epoch(run)
        _share(active, counts, start)
        progress(sum(counts))
        active = [run for run in active if run.epoch < protocol.epochs and not run.trained.diverged]
        for run in ended:
            if run not in active:
                run.trained.prompt = run.prompt.detach()
                run.trained.mapping = run.trained.mapping.cpu()
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
    batches = {run: run.batches.pop(0) for run in runs}
    computed = [run for run in runs if not run.twin]
    counts = [len(batches[run]) for run in computed]
    together, (of_run, weights) = torch.cat([batches[run] for run in computed]), _runs(tuple(counts), prompted.device)
    weights = weights.to(prompted.mean.dtype)
    prompts = torch.stack([run.prompt.detach() for run in computed])
    mappings = torch.stack([run.trained.mapping for run in computed])

    def compute(some: slice, present: slice) -> tuple[Tensor, Tensor]:
        chosen = together[some]
        inputs = images[chosen], labels[chosen], weights[some], of_run[some] - present.start
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


def _end_epoch(run: _Run) -> None:
    steps = len(run.trained.losses)
    run.trained.losses += torch.stack(run.losses).tolist()
    run.losses = []
    run.epoch += 1
    run.trained.diverged = not_finite(run.trained.losses, steps, run.epoch)


def _share(runs: list[_Run], counts: list[int], start: float) -> None:
    """Charge the time since `start` to runs by their numbers of images."""
    seconds = (time.perf_counter() - start) / max(1, sum(counts))
    for run, count in zip(runs, counts, strict=True):
        run.trained.seconds += seconds * count
