"""A frozen network behind prompted canvases: forward passes, gradients, and how they are cut into chunks.

All runs of a pack go through one network together, each image with its own run's prompt. What makes this fast changes
results by rounding alone, held by tests against the algorithm written plainly (tests/reference.py) and on a GPU by
bench/gpu: batch norm folded into convolutions (`networks.inference`), channels-last memory, the border computed once
(`sharing`), bf16 in training (`precision`), kernels in one (`fusion`), steps replayed (`graphs`), mappings certified
(`certify`). A Plan says which of these; `plan` chooses it. Measured by `make bench` on two cores with bf16 arithmetic
against the published loop, a training step is 6.9x to 13.8x as fast with images of 32 pixels on 224 (ResNet-50,
MobileNetV2) and 3.6x to 9.2x with 128 (bench/results/throughput.md).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddencost.machine import clear_memory, out_of_memory
from hiddencost.networks.inference import FORWARD_BATCH
from hiddencost.networks.layers import head_of
from hiddencost.prompting import certify
from hiddencost.prompting.certify import Tally
from hiddencost.prompting.chunk import Chunk, of_runs, runs_of_images, stacked, to_device
from hiddencost.prompting.fusion import fuse_pointwise
from hiddencost.prompting.graphs import Replayed
from hiddencost.prompting.matrix import map_logits_of_runs
from hiddencost.prompting.precision import in_bf16, resolve_precision, tf32
from hiddencost.prompting.prompt import Parameters, Prompt
from hiddencost.prompting.prompts import shape_of
from hiddencost.prompting.sharing import Executor, SharedNetwork, as_graph, executor
from hiddencost.study.recipes import PromptingProtocol

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How a network is run, which changes results by rounding alone.

    Attributes:
        cover: where the image reaches more than this share of a map, the network goes on with whole maps (see
            SharedNetwork); None: whole canvases from the start.
        chunk: how many images at a time go through it for a gradient.
        graphs: whether steps and mapping passes are captured as CUDA graphs.
        fused: whether bias, residual sum and ReLU are one kernel.
        in_float32: the layers that compute in float32 where the others do in bf16.
        forward_ms: what an image of a mapping pass takes in each precision of `PromptedNetwork.logits`; empty: it is
            computed in "fp32".
    """

    cover: float | None = None
    chunk: int = 32
    graphs: bool = False
    fused: bool = False
    in_float32: tuple[str, ...] = ()
    forward_ms: Mapping[str, float] = field(default_factory=dict)


class FrozenNetwork(NamedTuple):
    """A frozen network and the recipe by which it is prompted.

    Attributes:
        network: as `Family.for_inference` gives it: it maps [N, 3, S, S] to logits, [N, source classes].
        mean, std: [3, 1, 1] of its input in [0, 1], on the device and of the dtype (float32) in which prompts are
            trained.
        protocol: it names the shape of the prompt (see `prompts`).
    """

    network: nn.Module
    mean: Tensor
    std: Tensor
    protocol: PromptingProtocol

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def prompt(self) -> Prompt:
        return shape_of(self.protocol.prompt).of(dict(self.protocol))

    @property
    def precision(self) -> str:
        """What training computes in on the device, "fp32" or "bf16"."""
        return resolve_precision(self.protocol.precision, self.device)

    @property
    def source_classes(self) -> int:
        return head_of(self.network).out_features


class PromptedNetwork:
    """A frozen network behind prompted canvases.

    Its first arguments are those of FrozenNetwork, the last is how it is run: without a cover, where nothing of the
    prompt is shared.

    Images, uint8 [M, 3, s, s], are on the device, or on the host where they are too many; indices are on the host.
    """

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, protocol: PromptingProtocol, plan: Plan):
        frozen = FrozenNetwork(network, mean, std, protocol)
        self.network, self.mean, self.std, self.plan = network, mean, std, plan
        self.device, self.source_classes, self.precision = frozen.device, frozen.source_classes, frozen.precision
        self.prompt = frozen.prompt
        self.mask = self.prompt.mask().to(self.device)
        computed = fuse_pointwise(as_graph(network)) if plan.fused else network
        self._full = executor(computed, plan.cover)
        self._bf16: Executor | None = None
        if self.precision == "bf16":
            self._bf16 = executor(in_bf16(computed, plan.in_float32), plan.cover)
        self.certified = Tally()  # of mappings
        # of steps (True: with a gradient) and of mapping passes
        self._graphs = {gradient: Replayed() for gradient in (True, False)} if plan.graphs else {}
        # images at a time with a gradient (True) and without; less where memory has run out
        self._sizes = {True: plan.chunk, False: FORWARD_BATCH[self.device.type]}

    def sharing_ends(self) -> str:
        """Say at which node the network went on with whole canvases in its last forward pass, and why."""
        if not isinstance(self._full, SharedNetwork):
            return "nowhere"
        return next((f"{node} ({reason})" for node, reason in self._full.ended.items()), "the end")

    def why_no_graphs(self) -> str | None:
        """Say why a step could not be captured, if so."""
        return self._graphs[True].failed if self._graphs else None

    def new_prompt(self, generator: torch.Generator | None = None) -> Parameters:
        """Return the prompt as training begins: of W, around an image a mid-grey border; added to it nothing. The
        generator is of what else is drawn."""
        return {name: tensor.to(self.mean) for name, tensor in self.prompt.new(generator).items()}

    @torch.no_grad()
    def constrain(self, parameters: Parameters) -> None:
        """Keep a run's parameters, after each step and in place, to the limits of its prompt."""
        for name, (least, largest) in self.prompt.limits.items():
            parameters[name].clamp_(least, largest)

    def logits(self, images: Tensor, prompts: Parameters, runs: Tensor, precision: str) -> Tensor:
        """Return the source logits, [N, source classes], of images under their runs' prompts.

        Args:
            images: uint8 [N, 3, s, s].
            prompts: of the runs, [R, ...] each.
            runs: int64 [N], the run of each image.
            precision: "fp32", that of mean's dtype; "tf32", the same with the products of a GPU's TF32; "bf16", with
                the classifier in float32, where the protocol trains in it.
        """
        canvas = self.prompt.compose(images, prompts, runs, self.mask, self.mean, self.std)
        if precision == "fp32":
            return self._full(canvas)
        if precision == "tf32":
            with tf32():
                return self._full(canvas)
        assert self._bf16 is not None, "the protocol trains in bf16"
        return self._bf16(canvas.to(torch.bfloat16))

    def predict(self, images: Tensor, chosen: Sequence[Tensor], prompts: Parameters) -> Tensor:
        """Return the source class predicted for the chosen images of each run, int64 on the host, run after run.

        The classes are those of full precision, as published, since bf16 would change mappings; or certified to be so
        (see `certify`).

        Args:
            images: uint8 [M, 3, s, s].
            chosen: of each run, the indices of its images, int64 on the host.
            prompts: of the runs, [R, ...] each.
        """
        together, of_run = torch.cat(list(chosen)), runs_of_images([len(indices) for indices in chosen])
        if self.plan.forward_ms and len(together) >= certify.FROM:

            def read(numbers: Tensor, rows_of: Callable[..., Tensor], columns: Sequence[Tensor] = ()) -> Tensor:
                def compute(pictures: Tensor, prompts: Parameters, runs: Tensor, *columns: Tensor) -> Tensor:
                    return rows_of(partial(self.logits, pictures, prompts, runs), *columns)

                return self._read(images, together[numbers], of_run[numbers], prompts, compute, columns)

            return certify.first_classes(read, len(together), self.plan.forward_ms, self.certified)
        return self._read(images, together, of_run, prompts, self._first_classes)

    def highest(
        self, images: Tensor, chosen: Sequence[Tensor], prompts: Parameters, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return the source classes of the highest probabilities, so many of each image, and these, on the host, in
        full precision; for the arguments see `predict`."""

        def rows_of(images: Tensor, prompts: Parameters, runs: Tensor) -> Tensor:
            top = self._exact_logits(images, prompts, runs).softmax(1).topk(count, 1)
            return torch.cat([top.indices.to(top.values.dtype), top.values], 1)  # exact, up to 2^24 classes

        together, of_run = torch.cat(list(chosen)), runs_of_images([len(indices) for indices in chosen])
        classes, probabilities = self._read(images, together, of_run, prompts, rows_of).split(count, 1)
        return classes.long(), probabilities

    def _first_classes(self, images: Tensor, prompts: Parameters, runs: Tensor) -> Tensor:
        return self._exact_logits(images, prompts, runs).argmax(1)

    def _exact_logits(self, images: Tensor, prompts: Parameters, runs: Tensor) -> Tensor:
        """Return the logits in full precision, which, with CUDA graphs, the next call overwrites."""

        def compute(images: Tensor, runs: Tensor, *tensors: Tensor) -> Tensor:
            return self.logits(images, dict(zip(prompts, tensors, strict=True)), runs, "fp32")

        if self._graphs:
            return self._graphs[False](compute, images, runs, *prompts.values())
        return compute(images, runs, *prompts.values())

    @torch.inference_mode()
    def _read(
        self,
        images: Tensor,
        chosen: Tensor,
        runs: Tensor,
        prompts: Parameters,
        compute_rows: Callable[..., Tensor],
        columns: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return a row for each chosen image, on the host: of compute_rows(images, prompts, runs, *columns), chunk by
        chunk. columns: further int64 [N], on the host."""
        read = self.reader(images, chosen, runs, *columns)

        def compute(part: slice, present: slice) -> Tensor:
            pictures, runs_of_part, *further = read(part)
            return compute_rows(pictures, of_runs(prompts, present), runs_of_part - present.start, *further)

        counts = runs.bincount(minlength=len(next(iter(prompts.values())))).tolist()
        return torch.cat([rows for rows, _, _ in self.in_chunks(counts, compute, gradient=False)]).cpu()

    @torch.inference_mode()
    def test_logits(self, images: Tensor | np.ndarray, prompt: Parameters) -> Tensor:
        """Return the source logits, [N, source classes], of any number of images under one prompt, in "fp32".

        The images go to the device chunk by chunk, from the host or a file that is mapped into memory.
        """

        def compute(part: slice, _: slice) -> Tensor:
            pictures = images[part]
            pictures = torch.tensor(pictures) if isinstance(pictures, np.ndarray) else pictures
            pictures = to_device(pictures, self.device)
            runs = torch.zeros(len(pictures), dtype=torch.int64, device=self.device)
            return self.logits(pictures, stacked([prompt]), runs, "fp32")

        return torch.cat([logits for logits, _, _ in self.in_chunks([len(images)], compute, gradient=False)])

    def reader(self, images: Tensor, chosen: Tensor, *columns: Tensor) -> Callable[[slice], list[Tensor]]:
        """Return a function that returns a part of chosen images and of columns, all on the device.

        Args:
            images: uint8 [M, 3, s, s]. Those on the host go to the device part by part.
            chosen: their indices, int64 [N], on the host.
            columns: what goes with each chosen image, int64 [N], on the host; all go to the device at once.
        """
        on_device = to_device(torch.stack([chosen, *columns]), self.device)

        def read(part: slice) -> list[Tensor]:
            indices, *further = on_device[:, part]
            if images.device == self.device:
                return [images[indices], *further]
            return [to_device(images[chosen[part]], self.device), *further]

        return read

    def in_chunks(
        self, counts: Sequence[int], compute: Callable[[slice, slice], T], gradient: bool
    ) -> Iterator[tuple[T, slice, slice]]:
        """Cut the images of runs into chunks, and compute each.

        Where memory runs out, CUDA graphs are given up first; then a chunk that does not fit is halved, and so are
        those after it.

        Args:
            counts: of the images of each run, which stand one run after another.
            compute: of (images, runs present), both as slices.
            gradient: whether it computes one, which takes memory.

        Yields:
            What compute returns, and its two arguments.

        Raises:
            torch.OutOfMemoryError: one image does not fit.
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
        return any(not replayed.failed for replayed in self._graphs.values())

    def _make_room(self, images: int, gradient: bool) -> None:
        if self._has_graphs():
            log.warning("memory has run out: going on without CUDA graphs")
            self._graphs = {}
        else:
            log.warning("%d images at a time do not fit into memory: going on with %d", images, images // 2)
            self._sizes[gradient] = images // 2
        clear_memory()

    def gradients(self, chunk: Chunk) -> tuple[Tensor, Parameters]:
        """Return the loss of each run, [R], the weighted sum of its images', and its gradients, [R, ...] each, of the
        chunk's parameters and, as `mapping`, of mappings that are trained.

        With CUDA graphs the next call overwrites both.
        """
        if self._graphs:
            return self._graphs[True](lambda *tensors: self._gradients(chunk.of(*tensors)), *chunk.tensors())
        return self._gradients(chunk)

    def _gradients(self, chunk: Chunk) -> tuple[Tensor, Parameters]:
        has_bias = chunk.mappings.ndim == 3 and chunk.mappings.shape[-1] > self.source_classes
        learned = {"mapping": chunk.mappings} if has_bias else {}
        trained = {name: one.detach().requires_grad_() for name, one in (chunk.parameters | learned).items()}
        logits = self.logits(chunk.images, trained, chunk.runs, self.precision).to(self.mean.dtype)
        mapped = map_logits_of_runs(logits, trained.get("mapping", chunk.mappings), chunk.runs)
        weighted = functional.cross_entropy(mapped, chunk.labels, reduction="none") * chunk.weights
        losses = weighted.new_zeros(len(chunk.mappings)).index_add(0, chunk.runs, weighted)
        gradients = torch.autograd.grad(losses.sum(), list(trained.values()))
        return losses.detach(), dict(zip(trained, gradients, strict=True))
