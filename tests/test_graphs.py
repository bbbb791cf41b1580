"""When a computation is captured and replayed; captures themselves are tested on a GPU (test_cuda.py)."""

import pytest
import torch

from hiddencost.prompting import graphs
from hiddencost.prompting.graphs import CaptureFailed, Replayed


class Graph:
    """Replays by computing again, into what the first computation returned."""

    def __init__(self, compute):
        self.compute, self.outputs = compute, compute()

    def replay(self):
        for old, new in zip(self.outputs, self.compute(), strict=True):
            old.copy_(new)


@pytest.fixture
def captures(monkeypatch):
    """The pools of the captures so far."""
    pools = []

    def capture(compute, pool):
        pools.append(pool)
        graph = Graph(compute)
        return graph, graph.outputs

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    return pools


def add(x, y):
    return (x + y,)


def test_shapes_are_captured_at_their_third_sight_and_replayed_on_new_inputs(captures):
    replayed, one = Replayed(), torch.ones(3)
    for seen, captured in ((1, 0), (2, 0), (3, 1), (4, 1)):
        assert replayed(add, seen * one, one)[0].tolist() == [seen + 1] * 3
        assert len(captures) == captured
    assert replayed(add, one[:2], one[:2])[0].tolist() == [2, 2]
    assert replayed(add, 5 * one, one)[0].tolist() == [6] * 3
    assert captures == [(0, 7)]


def test_inputs_are_kept_apart_from_the_callers(captures):
    replayed, one = Replayed(), torch.ones(3)
    for _ in range(3):
        replayed(add, one, one)
    (found,) = replayed(add, one, one)
    one.zero_()
    assert found.tolist() == [2] * 3
    assert replayed(add, torch.full((3,), 4.0), one)[0].tolist() == [4] * 3


def test_the_capture_that_was_not_used_for_the_longest_time_gives_way(captures):
    replayed = Replayed()
    for size in [*range(1, Replayed.MOST + 1), 1, Replayed.MOST + 1]:
        for _ in range(3):
            replayed(add, torch.ones(size), torch.ones(size))
    assert len(captures) == Replayed.MOST + 1
    kept = {shapes[0][0] for shapes in replayed.captured}
    assert kept == {1, *range(3, Replayed.MOST + 2)}


def test_a_failed_capture_is_told_once_and_everything_is_computed_as_it_is(captures, monkeypatch, caplog):
    replayed, one = Replayed(), torch.ones(3)
    for _ in range(3):
        replayed(add, one, one)

    def fail(compute, pool):
        captures.append(pool)
        raise CaptureFailed("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "capture", fail)
    for seen in range(1, 6):
        assert replayed(add, seen * one[:2], one[:2])[0].tolist() == [seen + 1] * 2
    assert replayed(add, one, one)[0].tolist() == [2] * 3
    assert len(captures) == 2
    assert replayed.captured == {}
    assert replayed.failed == "operation not permitted when stream is capturing"
    assert caplog.messages == [f"no CUDA graphs, as the capture failed: {replayed.failed}"]


def test_a_capture_that_runs_out_of_memory_leaves_the_caller_to_make_room(captures, monkeypatch):
    replayed, one = Replayed(), torch.ones(3)

    def fail(compute, pool):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(graphs, "capture", fail)
    replayed(add, one, one), replayed(add, one, one)
    with pytest.raises(torch.OutOfMemoryError):
        replayed(add, one, one)
    assert replayed.failed is None
