import re
from dataclasses import replace
from pathlib import Path

import pytest
import reference
import torch

from hiddencost.methods import mapping_rule
from hiddencost.methods.mapping import count_predictions, greedy_mapping, random_mapping
from hiddencost.methods.registry import METHODS, Method
from hiddencost.prompting.train import train_prompts


def test_the_largest_count_is_matched_first_and_nothing_twice():
    counts = torch.tensor([[5, 9, 0], [8, 7, 1], [0, 0, 0]])
    assert greedy_mapping(counts).tolist() == [1, 0, 2]


def test_ties_go_to_the_lowest_source_class_then_the_lowest_target():
    # all three targets vote for source 285: target 0 has it, the others get the first free sources in order
    counts = torch.zeros(1000, 3, dtype=torch.int64)
    counts[285] = 4
    assert greedy_mapping(counts).tolist() == [285, 0, 1]
    assert greedy_mapping(torch.zeros(6, 4, dtype=torch.int64)).tolist() == [0, 1, 2, 3]


def test_greedy_mapping_equals_the_plain_loop():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        counts = torch.randint(0, 4, (15, 6), generator=generator)  # many ties
        assert greedy_mapping(counts).tolist() == reference.greedy(counts.tolist())


def test_a_class_without_an_image_keeps_its_column():
    counts = count_predictions(torch.tensor([7, 7, 2]), torch.tensor([0, 0, 3]), source_classes=9, classes=4)
    assert counts.shape == (9, 4)
    assert counts[7, 0] == 2
    assert counts[2, 3] == 1
    assert counts.sum() == 3


def test_random_mapping_is_one_to_one_and_follows_its_generator():
    first, again = (random_mapping(1000, 10, torch.Generator().manual_seed(4)).tolist() for _ in range(2))
    assert first == again
    assert len(set(first)) == 10
    assert first != random_mapping(1000, 10, torch.Generator().manual_seed(5)).tolist()


@pytest.mark.parametrize("name", ["rlm", "flm", "ilm", "sem", "blm+", "fm"])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_the_passes_for_mappings_are_the_first_and_those_that_redraw(name, interval):
    method = METHODS[name]
    for epochs in range(8):
        redrawn = sum(method.redraws_at(epoch, interval) for epoch in range(epochs))
        assert method.mapping_passes(epochs, interval) == method.first_pass + redrawn


def test_a_name_of_no_prompting_method_is_refused_in_a_line():
    for name, hint in (("fml", "did you mean 'fm'? "), ("lp", "")):
        runs = train_prompts(None, None, torch.arange(2), 2, [("flm", [0]), (name, [1])], 0, None)
        told = f"method '{name}' is unknown; {hint}allowed: rlm, flm, ilm, flm-opt, ilm-opt, sem, blm, blm+, fm"
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            next(runs)


def test_a_mapping_is_drawn_once_or_anew_after_each_interval():
    passes = {name: METHODS[name].mapping_passes(epochs=5, interval=2) for name in ("rlm", "flm", "ilm", "lp")}
    assert passes == {"rlm": 0, "flm": 1, "ilm": 3, "lp": 0}
    assert [epoch for epoch in range(5) if METHODS["ilm"].redraws_at(epoch, 2)] == [2, 4]


def test_a_run_stands_on_how_its_method_maps_and_not_on_what_it_is_called():
    flm = METHODS["flm"]
    assert replace(flm, name="a", label="A", colour="#000000").digest() == flm.digest()
    settings = {"weighted": True}, {"top_share": 0.1}, {"learning_rate": 0.1}, {"reads_names": True}
    for change in ({"mapping": METHODS["rlm"].mapping}, {"first_pass": False}, {"redraws": True}, *settings):
        assert replace(flm, **change).digest() != flm.digest()
    # another function of the same module stands on the same code, and one elsewhere on its own
    assert replace(flm, mapping="test_extending:best_matching").digest() != flm.digest()


def test_a_run_stands_on_when_mappings_are_drawn(tmp_path, monkeypatch):
    source, before = Path(mapping_rule.__file__).read_text(), METHODS["ilm"].digest()
    for file, text, same in (
        ("as_it_is.py", source, True),
        ("edited.py", source.replace("epoch > 0", "epoch > 1"), False),
    ):
        (tmp_path / file).write_text(text)
        monkeypatch.setattr(mapping_rule, "__file__", str(tmp_path / file))
        assert (METHODS["ilm"].digest() == before) == same


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "method x, of the job train: expected its mapping, and no function"),
        ({"mapping": "a:b", "function": "c:d"}, "method x, of the job train: expected its mapping, and no function"),
        ({"job": "probe"}, "method x, of the job probe: expected its function, and no mapping"),
        (
            {"job": "finetune", "mapping": "a:b"},
            "method x, of the job finetune: expected its function, and no mapping",
        ),
        ({"job": "probes", "function": "a:b"}, "method x: job 'probes' is unknown; did you mean 'probe'?"),
    ],
)
def test_a_method_names_what_makes_its_runs(wrong, told):
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        Method("x", label="X", colour="#000000", **wrong)
