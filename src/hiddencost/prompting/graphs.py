"""CUDA graphs: the operations of a step captured once and replayed, and captures that fail without harm.

A replay launches the same kernels on the same shapes, so it gives what the step gives, up to the order of sums.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from hiddencost.machine import out_of_memory

log = logging.getLogger(__name__)
T = TypeVar("T")
WARM_UP = 3  # calls before a capture: what is chosen or allocated at first sight must not be captured
_FAILED: list[torch.cuda.CUDAGraph] = []  # kept, as the allocator of torch 2.11's pinned memory goes on asking them


class CaptureFailed(RuntimeError):
    """A computation cannot be captured; says why."""


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Return the stream of warm-ups: one, as cuBLAS keeps a workspace for each that it has seen."""
    return torch.cuda.Stream(device)


def capture(compute: Callable[[], T], pool: Any) -> tuple[torch.cuda.CUDAGraph, T]:
    """Return a CUDA graph of a computation, and what it returned, whose memory each replay overwrites.

    Args:
        compute: of tensors that stay in place, without arguments.
        pool: `torch.cuda.graph_pool_handle()`; not to be used again after a failure.

    Raises:
        CaptureFailed: it cannot be captured. The process is as it was: torch 2.11 would leave the stream of the
            capture current, the random generator in capture and the memory pool open.
        torch.OutOfMemoryError: memory has run out; the process is as it was.
    """
    stream = torch.cuda.current_stream()
    generator = torch.cuda.default_generators[stream.device_index]
    state = generator.graphsafe_get_state().clone_state()
    graph = torch.cuda.CUDAGraph()
    try:
        side = _side_stream(stream.device_index)
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                compute()
        stream.wait_stream(side)
        with torch.cuda.graph(graph, pool=pool):
            outputs = compute()
    except RuntimeError as error:
        with suppress(RuntimeError):  # closed already: by torch 2.15, or where 2.11 could end the capture
            torch._C._cuda_endAllocateToPool(stream.device_index, pool)
            torch._C._cuda_releasePool(stream.device_index, pool)
        graph.reset()
        _FAILED.append(graph)
        generator.graphsafe_set_state(state)  # the one that it had stays in capture
        if out_of_memory(error):
            raise
        reason = error.__context__ or error
        raise CaptureFailed((str(reason) or type(reason).__name__).splitlines()[0]) from None
    finally:
        torch.cuda.set_stream(stream)
    return graph, outputs


class Replayed:
    """Captures of a computation on tensors, one for each combination of shapes that comes up often.

    A combination is captured at its third sight, as a capture costs several steps, and then replayed. Outputs are
    overwritten by the next call: the graphs share a pool of memory. Where a capture fails, nothing is captured from
    then on.
    """

    MOST = 16  # combinations captured at a time; the one that was used least recently gives way
    SIGHTS = 3

    def __init__(self):
        self.captured: dict[tuple[torch.Size, ...], Any] = {}
        self.seen: Counter[tuple[torch.Size, ...]] = Counter()
        self.pool = torch.cuda.graph_pool_handle()
        self.failed: str | None = None  # why there are no graphs

    def __call__(self, compute: Callable[..., T], *inputs: Tensor) -> T:
        """Return what `compute`, always the same, gives for inputs.

        Raises:
            torch.OutOfMemoryError: memory has run out.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        self.seen[shapes] += 1
        if self.failed or self.seen[shapes] < self.SIGHTS:
            return compute(*inputs)
        if shapes not in self.captured:
            if len(self.captured) == self.MOST:
                del self.captured[next(iter(self.captured))]
            kept = [tensor.clone() for tensor in inputs]
            try:
                self.captured[shapes] = *capture(lambda: compute(*kept), self.pool), kept
            except CaptureFailed as reason:
                self.failed = str(reason)
            if self.failed:  # here the exception no longer holds the tensors of the failed attempt
                log.warning("no CUDA graphs, as the capture failed: %s", self.failed)
                self.captured.clear()
                return compute(*inputs)
        graph, outputs, kept = self.captured[shapes] = self.captured.pop(shapes)
        for old, new in zip(kept, inputs, strict=True):
            old.copy_(new)
        graph.replay()
        return outputs
