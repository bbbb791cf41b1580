"""When a computation is captured and replayed; captures themselves are tested on a GPU (test_cuda.py)."""

import pytest
import torch

from hiddencost import graphs
from hiddencost.graphs import CaptureFailed, Replayed


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
    replayed, one = Replayed(add), torch.ones(3)
    for seen, captured in ((1, 0), (2, 0), (3, 1), (4, 1)):
        assert replayed(seen * one, one)[0].tolist() == [seen + 1] * 3
        assert len(captures) == captured
    assert replayed(one[:2], one[:2])[0].tolist() == [2, 2]
    assert replayed(5 * one, one)[0].tolist() == [6] * 3
    assert captures == [(0, 7)]


def test_inputs_are_kept_apart_from_the_callers(captures):
    replayed, one = Replayed(add), torch.ones(3)
    for _ in range(3):
        replayed(one, one)
    (found,) = replayed(one, one)
    one.zero_()
    assert found.tolist() == [2] * 3
    assert replayed(torch.full((3,), 4.0), one)[0].tolist() == [4] * 3


def test_the_oldest_capture_gives_way(captures):
    replayed = Replayed(add)
    for size in [*range(1, Replayed.MOST + 2), 1]:
        for _ in range(3):
            replayed(torch.ones(size), torch.ones(size))
    assert len(replayed.captured) == Replayed.MOST
    assert len(captures) == Replayed.MOST + 2  # the first shape once more, in place of the second
    assert (torch.Size([2]), torch.Size([2])) not in replayed.captured


def test_a_failed_capture_is_told_once_and_everything_is_computed_as_it_is(captures, monkeypatch, caplog):
    replayed, one = Replayed(add), torch.ones(3)
    for _ in range(3):
        replayed(one, one)

    def fail(compute, pool):
        captures.append(pool)
        raise CaptureFailed("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "capture", fail)
    for seen in range(1, 6):
        assert replayed(seen * one[:2], one[:2])[0].tolist() == [seen + 1] * 2
    assert replayed(one, one)[0].tolist() == [2] * 3
    assert len(captures) == 2
    assert replayed.captured == {}
    assert replayed.failed == "operation not permitted when stream is capturing"
    assert caplog.messages == [f"no CUDA graphs, as the capture failed: {replayed.failed}"]


def test_a_capture_that_runs_out_of_memory_leaves_the_caller_to_make_room(captures, monkeypatch):
    replayed, one = Replayed(add), torch.ones(3)

    def fail(compute, pool):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(graphs, "capture", fail)
    replayed(one, one), replayed(one, one)
    with pytest.raises(torch.OutOfMemoryError):
        replayed(one, one)
    assert replayed.failed is None
