"""Training of visual prompts on a frozen network: all runs of a pack together, and their evaluation."""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hiddencost import certify
from hiddencost.backbone import FORWARD_BATCH, classifier, classifier_name
from hiddencost.certify import Tally
from hiddencost.devices import clear_memory, out_of_memory
from hiddencost.fusion import fuse_pointwise
from hiddencost.graphs import Replayed
from hiddencost.mapping import count_predictions, greedy_mapping, random_mapping
from hiddencost.prompt import add, border_mask, compose, frame_mask
from hiddencost.protocol import RunClipProtocol, RunProtocol
from hiddencost.schedule import epoch_batches, not_finite, optimiser, resolve_precision, stream
from hiddencost.sharing import Float32Conv2d, SharedNetwork, Split, cast, paste

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
    whether steps and mapping passes are captured as CUDA graphs. fused: whether bias, residual sum and ReLU are one
    kernel. in_float32: the layers that compute in float32 where the others do in bf16. forward_ms: what an image of a
    mapping pass takes in each precision of `PromptedNetwork.logits`; none where it is to be "fp32" without more ado.
    """

    cover: float | None = None
    chunk: int = 32
    graphs: bool = False
    fused: bool = False
    in_float32: tuple[str, ...] = ()
    forward_ms: Mapping[str, float] = field(default_factory=dict)


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

    def __init__(self, head: nn.Linear):
        nn.Module.__init__(self)  # nn.Linear's own would draw random weights
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight, self.bias = head.weight, head.bias

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.float())


def in_bf16(network: nn.Module, in_float32: Sequence[str] = ()) -> nn.Module:
    """Return a copy of a network that computes in bfloat16 up to its classifier, which stays in float32.

    in_float32: names of convolutions that do so, too.
    """
    head = _FullHead(classifier(network))
    copied = copy.deepcopy(network).bfloat16()
    copied.set_submodule(classifier_name(copied), head)
    for name in in_float32:
        convolution = copy.deepcopy(network.get_submodule(name))
        convolution.__class__ = Float32Conv2d
        copied.set_submodule(name, convolution)
    return copied


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

    Images, uint8 [M, 3, s, s], are on the device, or on the host where they are too many; indices are on the host.
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
        self.network = network
        computed = fuse_pointwise(network) if plan.fused else network
        self._full = _executor(computed, plan.cover)
        self._bf16 = None
        if self.precision == "bf16":
            self._bf16 = _executor(in_bf16(computed, plan.in_float32), plan.cover)
        self.certified = Tally()  # of mappings
        # of steps (True: with a gradient) and of mapping passes
        self._graphs = {gradient: Replayed() for gradient in (True, False)} if plan.graphs else {}
        # images at a time with a gradient (True) and without; less where memory has run out
        self._sizes = {True: plan.chunk, False: FORWARD_BATCH[self.device.type]}

    def sharing_ends(self) -> str:
        """Say at which node the network went on with whole canvases in its last forward pass, and why."""
        if self.plan.cover is None:
            return "nowhere"
        return next((f"{node} ({reason})" for node, reason in self._full.ended.items()), "the end")

    def why_no_graphs(self) -> str | None:
        """Say why a step could not be captured, if so."""
        return self._graphs[True].failed if self._graphs else None

    def new_prompt(self) -> Tensor:
        """Return W = 0, [3, S, S]: around an image a mid-grey border, as σ(0) = 0.5; added to it nothing."""
        canvas = self.mask.shape[-1]
        return torch.zeros(3, canvas, canvas, device=self.device, dtype=self.mean.dtype)

    def logits(self, images: Tensor, prompts: Tensor, runs: Tensor, precision: str) -> Tensor:
        """Return the source logits, [N, source classes], of uint8 images [N, 3, s, s] under their runs' prompts.

        precision: "fp32", that of mean's dtype; "tf32", the same with the products of a GPU's TF32; "bf16", with the
        classifier in float32, where the protocol trains in it.
        """
        canvas = self._compose(images, prompts, runs, self.mask, self.mean, self.std)
        if precision == "fp32":
            return self._full(canvas)
        if precision == "tf32":
            with tf32():
                return self._full(canvas)
        return self._bf16(cast(canvas, torch.bfloat16))

    def predict(self, images: Tensor, chosen: Sequence[Tensor], prompts: Tensor) -> Tensor:
        """Return the source class predicted for the chosen images of each run, int64 on the host, run after run.

        chosen: indices of images, for each run; prompts: [R, 3, S, S]. The classes are those of full precision, as
        published, since bf16 would change mappings; or certified to be so (see `certify`).
        """
        together, of_run = torch.cat(list(chosen)), _of_runs([len(one) for one in chosen])
        if self.plan.forward_ms and len(together) >= certify.FROM:

            def read(some: Tensor, of: Callable[..., Tensor], told: Sequence[Tensor] = ()) -> Tensor:
                def compute(pictures: Tensor, prompts: Tensor, runs: Tensor, *told: Tensor) -> Tensor:
                    return of(partial(self.logits, pictures, prompts, runs), *told)

                return self._read(images, together[some], of_run[some], prompts, compute, told)

            return certify.first_classes(read, len(together), self.plan.forward_ms, self.certified)
        return self._read(images, together, of_run, prompts, self._first_classes)

    def _first_classes(self, images: Tensor, prompts: Tensor, runs: Tensor) -> Tensor:
        def compute(*inputs: Tensor) -> Tensor:
            return self.logits(*inputs, "fp32").argmax(1)

        if self._graphs:  # whose next replay overwrites what it has returned
            return self._graphs[False](compute, images, prompts, runs).clone()
        return compute(images, prompts, runs)

    @torch.inference_mode()
    def _read(
        self,
        images: Tensor,
        chosen: Tensor,
        runs: Tensor,
        prompts: Tensor,
        compute_rows: Callable[..., Tensor],
        told: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return a row for each chosen image, on the host: of compute_rows(images, prompts, runs, *told), chunk by
        chunk. told: further int64 [N], on the host."""
        part = self.reader(images, chosen, runs, *told)

        def compute(some: slice, present: slice) -> Tensor:
            pictures, their_runs, *rest = part(some)
            return compute_rows(pictures, prompts[present], their_runs - present.start, *rest)

        counts = runs.bincount(minlength=len(prompts)).tolist()
        return torch.cat([rows for rows, _, _ in self.in_chunks(counts, compute, gradient=False)]).cpu()

    @torch.inference_mode()
    def test_logits(self, images: Tensor | np.ndarray, prompt: Tensor) -> Tensor:
        """Return the source logits, [N, source classes], of any number of images under one prompt, in "fp32".

        The images go to the device chunk by chunk, from the host or a file that is mapped into memory.
        """

        def compute(some: slice, _: slice) -> Tensor:
            part = images[some]
            pictures = to_device(torch.tensor(part) if isinstance(part, np.ndarray) else part, self.device)
            runs = torch.zeros(len(pictures), dtype=torch.int64, device=self.device)
            return self.logits(pictures, prompt[None], runs, "fp32")

        return torch.cat([logits for logits, _, _ in self.in_chunks([len(images)], compute, gradient=False)])

    def reader(self, images: Tensor, chosen: Tensor, *told: Tensor) -> Callable[[slice], list[Tensor]]:
        """Return the way to a part of chosen images and of what is told of each (int64 [N]), all on the device.

        chosen, told: on the host. They go to the device at once; so do, part by part, images that are on the host.
        """
        there = to_device(torch.stack([chosen, *told]), self.device)

        def read(some: slice) -> list[Tensor]:
            indices, *rest = there[:, some]
            if images.device == self.device:
                return [images[indices], *rest]
            return [to_device(images[chosen[some]], self.device), *rest]

        return read

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
            except RuntimeError as error:
                if not out_of_memory(error) or (len(part) == 1 and not self._has_graphs()):
                    raise
            if result is not None:
                yield result, *arguments
                start += len(part)
            else:  # here the exception no longer holds the tensors of the failed attempt
                self._make_room(len(part), gradient)

    def _has_graphs(self) -> bool:
        return any(not one.failed for one in self._graphs.values())

    def _make_room(self, images: int, gradient: bool) -> None:
        if self._has_graphs():
            log.warning("memory has run out: going on without CUDA graphs")
            self._graphs = {}
        else:
            log.warning("%d images at a time do not fit into memory: going on with %d", images, images // 2)
            self._sizes[gradient] = images // 2
        clear_memory()

    def gradients(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Return the loss of each run, [R], the weighted sum of its images', and its gradient, [R, 3, S, S].

        With CUDA graphs both are overwritten by the next call.
        """
        if self._graphs:
            return self._graphs[True](lambda *tensors: self._gradients(Chunk(*tensors)), *chunk.tensors())
        return self._gradients(chunk)

    def _gradients(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        prompts = chunk.prompts.detach().requires_grad_()
        logits = self.logits(chunk.images, prompts, chunk.runs, self.precision).to(self.mean.dtype)
        mapped = logits.gather(1, chunk.mappings[chunk.runs])
        weighted = functional.cross_entropy(mapped, chunk.labels, reduction="none") * chunk.weights
        losses = weighted.new_zeros(len(prompts)).index_add(0, chunk.runs, weighted)
        (gradient,) = torch.autograd.grad(losses.sum(), prompts)
        return losses.detach(), gradient


def _executor(network: nn.Module, cover: float | None) -> Callable[[Split | Tensor], Tensor]:
    def whole(canvas: Split | Tensor) -> Tensor:
        return network(paste(canvas) if isinstance(canvas, Split) else canvas)

    return whole if cover is None else SharedNetwork(network, cover)


def _of_runs(counts: Sequence[int]) -> Tensor:
    """Return the run of each image, int64 on the host, of counts[r] images of run r one after another."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@lru_cache(maxsize=64)
def _weights(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 1 / counts[r] for each image of run r, on the device."""
    return to_device((1 / torch.tensor(counts, dtype=torch.float64))[_of_runs(counts)].to(dtype), device)


@contextmanager
def tf32() -> Iterator[None]:
    """Let a GPU's products of float32 be those of TF32, which has a mantissa of 10 bits."""
    flags = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    kept = [flag.fp32_precision for flag in flags]
    try:
        for flag in flags:
            flag.fp32_precision = "tf32"
        yield
    finally:
        for flag, before in zip(flags, kept, strict=True):
            flag.fp32_precision = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the host to a device; a GPU's work is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
    read = prompted.reader(images, together, labels[together], _of_runs(counts))
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
