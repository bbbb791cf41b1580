import logging
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hiddencost.compression.make import compress
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import prepare
from hiddencost.files import write_json
from hiddencost.logs import write_scalars
from hiddencost.runs import prompting
from hiddencost.runs.ledger import entry
from hiddencost.runs.packfile import PackInputs, PackRequest, events

CPU = torch.device("cpu")
RECIPE = {
    **{"epochs": 4, "learning_rate": 0.01, "milestones": [0.5], "gamma": 0.1, "batch_size": 8, "shuffle": True},
    **{"test_batch_size": 16, "canvas": 48, "image_size": 32, "mapping_interval": 1, "precision": "fp32"},
}
RUNS = [["rlm", 1], ["flm", 4], ["ilm", 4]]
UNFINISHED = "{}/ledger/unfinished/net/toy/seed0.states"
TIMING = ["train_seconds", "images_per_second"]


@pytest.fixture
def pack(mobilenetv2, tmp_path, monkeypatch, threads):
    """The files of a small pack on the real network: noise of three classes."""
    monkeypatch.chdir(tmp_path)
    measured = {"sparsity_declared": 0.0, "sparsity_measured": 0.0}
    write_json("verification.json", measured | {"passed": True, "reasons": []})
    images, labels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8), np.arange(12) % 3
    np.savez("toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    prepare("toy", user_entry("toy", npz="toy.npz"), None, 32, "dataset")
    write_json("split.json", {"permutations": [[i for i in range(12) if i % 3 == label] for label in range(3)]})
    compress(mobilenetv2, tmp_path / "backbone", None, None)
    return PackInputs(*(tmp_path / name for name in ("backbone", "verification.json", "dataset", "split.json")))


def request_of(name):
    return PackRequest(
        **{"study": "s", "backbone": "net", "dataset": "toy", "seed": 0, "recipe": RECIPE, "runs": RUNS},
        **{"canvas": 48, "size": "32", "ledger": f"{name}/ledger", "code": "c"},
    )


def train(pack, name):
    prompting.train_pack(pack, request_of(name), "plans", f"{name}/seed0.parquet", CPU, 2**32)
    return pd.read_parquet(f"{name}/seed0.parquet").drop(columns=TIMING)


@pytest.fixture
def tensorboard(monkeypatch):
    """What writes events of a pack, until they are read, and what reads them, by run and tag."""
    # TensorBoard's own switch: without it, it takes the folder tests/tensorflow for TensorFlow
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
    logger, handlers = logging.getLogger("hiddencost"), []

    def end():
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True

    def begin():
        end()
        write_scalars()
        handlers.append(logger.handlers[-1])

    def read(name):
        end()
        told = {}
        for run in events(request_of(name)).iterdir():
            accumulator = EventAccumulator(str(run)).Reload()
            for tag in accumulator.Tags()["scalars"]:
                told[run.name, tag] = {event.step: event.value for event in accumulator.Scalars(tag)}
                assert len(told[run.name, tag]) == len(accumulator.Scalars(tag))  # each step once
        return told

    yield begin, read
    end()


class Killed(BaseException):
    pass


def test_a_pack_that_was_killed_goes_on_where_it_was_and_ends_the_same(
    pack, tmp_path, monkeypatch, caplog, tensorboard
):
    caplog.set_level("INFO")
    whole = train(pack, "whole")
    assert not (tmp_path / UNFINISHED.format("whole")).exists()
    assert not events(request_of("whole")).exists()
    monkeypatch.setattr(prompting, "KEEP_SECONDS", 0)
    trained_on, real = [], prompting.train_prompts

    def killed_after(images):
        def train_prompts(*arguments, **more):
            *before, progress, states, keep = arguments

            def dying(count):
                progress(count)
                trained_on.append(count)
                if sum(trained_on) >= images:
                    raise Killed

            return real(*before, dying, states, keep, **more)

        return train_prompts

    monkeypatch.setattr(prompting, "train_prompts", killed_after(60))
    begin, read = tensorboard
    begin()
    with pytest.raises(Killed):
        train(pack, "killed")
    assert list(read("killed")["flm-12-images", "train/loss"]) == [1, 2]
    assert (tmp_path / UNFINISHED.format("killed")).exists()
    assert not (tmp_path / "killed/seed0.parquet").exists()
    assert "go on where" not in caplog.text
    before, trained_on[:] = sum(trained_on), []
    monkeypatch.setattr(prompting, "train_prompts", killed_after(1000))
    begin()  # which changes nothing: neither numbers nor the runs' identities
    pd.testing.assert_frame_equal(train(pack, "killed"), whole)
    assert "runs go on where an earlier job was interrupted" in caplog.text
    found, *steps = trained_on  # what the stored runs had been trained on, and the rest
    total = 4 * (3 + 12 + 12)
    assert before - 20 <= found < before  # less what the step that was killed had done
    assert found + sum(steps) <= total
    assert not (tmp_path / UNFINISHED.format("killed")).exists()
    check_scalars(read("killed"), whole)


def check_scalars(told, table):
    """Check what the runs of a pack told: its second epoch was told by two jobs, of which the later counts."""
    runs = {f"{row['method']}-{row['n_train']}-images": row for row in table.to_dict("records")}
    both = {(run, tag) for run in runs for tag in ("train/loss", "test/accuracy")}
    assert told.keys() == both | {("ilm-12-images", "train/remapped")}
    for run, row in runs.items():
        assert list(told[run, "train/loss"]) == [1, 2, 3, 4]
        assert told[run, "test/accuracy"] == {4: pytest.approx(row["accuracy"])}
    assert told["flm-12-images", "train/loss"][1] == told["ilm-12-images", "train/loss"][1]  # one mapping so far
    mappings = load_file(entry("killed/ledger", runs["ilm-12-images"]["run"]))["mappings"]
    moved = (mappings[1:] != mappings[:-1]).double().mean(1).tolist()
    assert told["ilm-12-images", "train/remapped"] == pytest.approx(dict(zip((2, 3, 4), moved, strict=True)))


def test_the_same_pack_twice_gives_the_same_to_the_last_digit(pack):
    pd.testing.assert_frame_equal(train(pack, "once"), train(pack, "again"))
