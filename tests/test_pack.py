import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import prepare
from hiddencost.files import read_json, write_json
from hiddencost.methods.registry import METHODS, Method
from hiddencost.runs import ledger, not_run, packfile, prompting
from hiddencost.runs.ledger import Result
from hiddencost.runs.metrics import METRICS, Metric
from hiddencost.runs.pack import TrainedRun, complete
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.runs.probe import probe_pack, train_probe
from hiddencost.study.recipes import Recipe

RECIPE = {
    **{"epochs": 60, "learning_rate": 0.05, "milestones": [0.5], "gamma": 0.1},
    **{"batch_size": 8, "shuffle": True, "test_batch_size": 16},
}


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """The files of a small pack, in a folder of its own: a backbone's manifest, a dataset of 3 classes, a split."""
    monkeypatch.chdir(tmp_path)
    manifest = {"checkpoint": "net", "compression": "none", "control": None, "weights_sha256": "ab"}
    manifest |= {"architecture": "net", "upstream_top1": 70.0}
    manifest["preprocessing"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    write_json("backbone/manifest.json", manifest)
    write_json(
        "verification.json", {"passed": True, "reasons": [], "sparsity_declared": 0.0, "sparsity_measured": 0.0}
    )
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), np.uint8), np.arange(60) % 3
    np.savez("toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    prepare("toy", user_entry("toy", npz="toy.npz"), None, 32, "dataset")
    write_json("split.json", {"permutations": [[i for i in range(60) if i % 3 == label] for label in range(3)]})
    paths = ("backbone", "verification.json", "dataset", "split.json")
    return PackInputs(*(tmp_path / name for name in paths))


def request(*runs, **changes):
    base = {"study": "s", "backbone": "net-dense", "dataset": "toy", "seed": 0, "recipe": RECIPE, "code": "c1"}
    base |= {"ledger": "ledger", "canvas": 48, "size": "32"}
    return PackRequest(**base | {"runs": runs} | changes)


class Trainer:
    """Stands for training: counts what is asked of it."""

    def __init__(self):
        self.asked, self.predicted = [], []

    def train(self, dataset, runs):
        for run, (method, chosen, _) in reversed(runs.items()):  # they may finish in any order
            self.asked.append((method, len(chosen)))
            if len(self.asked) == getattr(self, "die_at", 0):
                raise KeyboardInterrupt
            learned = {"prompt": torch.full((1,), float(len(chosen)))}
            yield TrainedRun(run, learned, {"train_seconds": 1.0}, logits_of(dataset, learned))

    def predict(self, dataset, runs, learned):
        for run, kept in learned:
            self.predicted.append(runs[run])
            yield run, logits_of(dataset, kept)


def logits_of(dataset, learned):
    """Right of as many of the 60 test images as the run was trained on."""
    right = torch.nn.functional.one_hot(torch.tensor(dataset.test_labels), 3).float()
    right[int(learned["prompt"]) :] = -right[int(learned["prompt"]) :]
    return right


def rows(output="out.parquet"):
    return pd.read_parquet(output)


def test_a_finished_run_is_never_trained_again(pack):
    trainer = Trainer()
    complete(pack, request(("flm", 1), ("flm", 5)), "out.parquet", trainer)
    complete(pack, request(("flm", 1), ("flm", 5), ("ilm", 1)), "out.parquet", trainer)
    assert trainer.asked == [("flm", 15), ("flm", 3), ("ilm", 3)]
    assert rows()["n_train"].tolist() == [3, 15, 3]
    assert rows()["accuracy"].tolist() == [3 / 60, 15 / 60, 3 / 60]
    assert rows()["shots"].tolist() == ["1", "5", "1"]
    assert packfile.stored_request(pack.split.parent / "out.parquet").runs[-1] == ("ilm", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": RECIPE | {"learning_rate": 0.1}},
        {"recipe": RECIPE | {"learning_rate": 60.0, "epochs": 1}},
        {"seed": 1},
        {"code": "c2"},
    ],
)
def test_a_stale_run_is_never_reused(pack, change):
    trainer = Trainer()
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    complete(pack, request(("flm", 1), **change), "out.parquet", trainer)
    assert len(trainer.asked) == 2


def test_a_method_that_maps_in_another_way_is_trained_anew_and_the_others_are_not(pack):
    trainer = Trainer()
    first = request(("flm", 1), ("ilm", 1), methods={"flm": "a", "ilm": "b"})
    complete(pack, first, "out.parquet", trainer)
    changed = request(("flm", 1), ("ilm", 1), methods={"flm": "a", "ilm": "c"})
    assert packfile.settled(changed, first) == changed
    assert not changed.stands_on_the_same(first)
    why = "were trained by older code, or other settings, of ilm: the runs of these methods are trained anew"
    assert packfile.why_stale(first, changed) == why
    del trainer.asked[:]
    complete(pack, changed, "out.parquet", trainer)
    assert trainer.asked == [("ilm", 3)]
    fewer = request(("flm", 1), methods={"flm": "a"})
    assert packfile.settled(fewer, first) == first
    assert fewer.stands_on_the_same(first)


def test_of_batch_sizes_by_shots_a_run_stands_on_its_own_alone(pack):
    trainer = Trainer()
    runs = ("flm", 1), ("flm", 5)
    complete(pack, request(*runs), "out.parquet", trainer)
    by_shots = request(*runs, recipe=RECIPE | {"batch_size": {"1": 4, "default": 8}})
    del trainer.asked[:]
    complete(pack, by_shots, "out.parquet", trainer)
    assert trainer.asked == [("flm", 3)]
    # full has the images of 20 shots, but batches of its own
    recipe = RECIPE | {"batch_size": {"full": 30, "default": 8}}
    del trainer.asked[:]
    complete(pack, request(("flm", 20), ("flm", "full"), recipe=recipe), "out.parquet", trainer)
    assert trainer.asked == [("flm", 60), ("flm", 60)]
    assert rows()["run"].nunique() == 2


def test_the_batch_size_of_the_test_scores_anew_and_trains_nothing(pack, monkeypatch):
    monkeypatch.setitem(globals(), "logits_of", lambda *args, exact=logits_of: 3 * exact(*args))
    trainer = Trainer()
    complete(pack, request(("flm", 9)), "out.parquet", trainer)
    before = rows()
    complete(pack, request(("flm", 9), recipe=RECIPE | {"test_batch_size": 60}), "out.parquet", trainer)
    assert len(trainer.asked) == 1
    assert rows()["ece_published"][0] != before["ece_published"][0]
    assert rows()["ece_published_batch_size"].tolist() == [60]
    changed = ["ece_published", "ece_published_batch_size"]
    pd.testing.assert_frame_equal(rows().drop(columns=changed), before.drop(columns=changed))


def test_each_metric_that_depends_on_the_batch_size_of_the_test_says_of_which_it_is(pack, monkeypatch):
    monkeypatch.setitem(METRICS, "batches", Metric("Batches", lambda one: one.batch_size, by_batch=True))
    trainer = Trainer()
    for size in (16, 60):
        complete(pack, request(("flm", 9), recipe=RECIPE | {"test_batch_size": size}), "out.parquet", trainer)
        assert rows()[["batches", "batches_batch_size", "ece_published_batch_size"]].values.tolist() == [[size] * 3]


def test_a_new_metric_scores_what_is_stored_and_trains_nothing(pack, monkeypatch, caplog):
    caplog.set_level("INFO")
    trainer = Trainer()
    runs = ("flm", 1), ("flm", 5)
    complete(pack, request(*runs, metrics="m1"), "out.parquet", trainer)
    before = rows()
    monkeypatch.setitem(METRICS, "wrong", Metric("Wrong", lambda one: 1 - one.correct.double().mean().item()))
    monkeypatch.delitem(METRICS, "brier")
    complete(pack, request(*runs, metrics="m2"), "out.parquet", trainer)
    assert trainer.asked == [("flm", 15), ("flm", 3)]
    assert [(method, len(chosen)) for method, chosen, _ in trainer.predicted] == [("flm", 3), ("flm", 15)]
    assert rows()["wrong"].tolist() == pytest.approx([57 / 60, 45 / 60])
    assert "brier" not in rows()
    pd.testing.assert_frame_equal(rows().drop(columns="wrong"), before.drop(columns="brier"))
    assert "2 runs were scored otherwise: they are scored anew, and not trained" in caplog.text
    complete(pack, request(*runs, metrics="m2"), "out.parquet", trainer)
    assert len(trainer.predicted) == 2, "what is scored already was scored again"
    complete(pack, request(*runs, ("flm", 2), metrics="m3"), "out.parquet", trainer)
    assert [(method, len(chosen)) for method, chosen, _ in trainer.predicted[2:]] == [("flm", 3), ("flm", 15)]
    assert trainer.asked[2:] == [("flm", 6)]


def test_what_older_code_trained_is_told_and_kept(pack, caplog):
    trainer, runs = Trainer(), [("flm", 1), ("flm", 2)]
    complete(pack, request(*runs), "out.parquet", trainer)
    complete(pack, request(*runs, ("flm", 3), code="c2"), "out.parquet", trainer)
    assert "2 runs were trained by another version of the code: they are trained anew" in caplog.text
    assert len(trainer.asked) == 5
    complete(pack, request(*runs), "out.parquet", trainer)
    assert len(trainer.asked) == 5, "what the code of before has trained is gone"


def test_a_ledger_that_older_code_began_is_told_and_not_read(pack, caplog):
    for name in ("3a/3a77.safetensors", "unfinished/net/toy/seed0.states"):
        (pack.split.parent / "ledger" / name).parent.mkdir(parents=True)
        (pack.split.parent / "ledger" / name).write_bytes(b"of an older layout")
    trainer = Trainer()
    packfile.write([{"status": "ok"}], request(("flm", 1), code="c0"), Path("out.parquet"))
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    assert trainer.asked == [("flm", 3)]
    assert (
        "ledger was begun by an older version of the code: what it holds in ledger/?? does not count" in caplog.text
    )
    caplog.clear()
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    assert not caplog.text, "nothing is to train"
    complete(pack, request(("flm", 1), seed=1), "another.parquet", trainer)
    assert not caplog.text, "a pack that is new was of no older code"


def test_why_a_table_is_stale_is_said_in_words():
    wanted = request(("flm", 1), metrics="m1", origin="o1")
    assert packfile.why_stale(None, wanted) is None
    assert packfile.why_stale(wanted, wanted) is None
    assert packfile.why_stale(wanted.asking((("ilm", 1),)), wanted) is None
    for changes, words in (
        ({"code": "c0"}, "were trained by an older version of the code: they are trained anew"),
        ({"code": "c0", "metrics": ""}, "were trained by an older version of the code: they are trained anew"),
        ({"origin": "o0"}, "those of them whose inputs changed are trained anew"),
        ({"metrics": "m0"}, "were scored by an older version of the metrics: they are scored anew, and not trained"),
    ):
        assert words in packfile.why_stale(wanted.model_copy(update=changes), wanted)
    assert packfile.why_stale(wanted.model_copy(update={"code": "c0", "seed": 3}), wanted) is None


def test_the_request_of_a_table_of_older_code_is_read_and_differs(tmp_path):
    wanted = request(("flm", 1), ("flm", "full"), metrics="m1", origin="o1")
    assert PackRequest.from_json(wanted.to_json()) == wanted
    older = {key: value for key, value in json.loads(wanted.to_json()).items() if key not in ("metrics", "origin")}
    write_table(tmp_path / "older.parquet", json.dumps(older | {"code": "c0", "upstream": "ab"}))
    assert "older version of the code" in packfile.why_stale(
        packfile.stored_request(tmp_path / "older.parquet"), wanted
    )
    write_table(tmp_path / "odd.parquet", json.dumps({"asked": 1}))
    assert packfile.stored_request(tmp_path / "odd.parquet") is None
    assert packfile.stored_request(tmp_path / "none.parquet") is None


def write_table(path, request):
    pq.write_table(pa.table({"method": ["flm"]}).replace_schema_metadata({"request": request}), path)


@pytest.mark.parametrize("more", [(), (("flm", 5), ("ilm", 1))])
def test_a_table_that_holds_more_than_is_wanted_is_kept(more):
    wanted = request(("flm", 1), ("ilm", 1))
    assert packfile.settled(wanted, wanted.asking((*wanted.runs, *more))).runs == (*wanted.runs, *more)
    assert packfile.settled(wanted, wanted.asking((("flm", 1),))) == wanted
    other = wanted.model_copy(update={"code": "c0"}).asking((*wanted.runs, *more))
    assert packfile.settled(wanted, other) == wanted
    assert packfile.settled(wanted, None) == wanted


def test_other_weights_and_other_images_make_another_run(pack):
    trainer = Trainer()
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    manifest = read_json(pack.backbone / "manifest.json")
    write_json(pack.backbone / "manifest.json", manifest | {"weights_sha256": "cd"})
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    split = read_json(pack.split)
    split["permutations"][0].reverse()
    write_json(pack.split, split)
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    assert len(trainer.asked) == 3


def test_what_says_nothing_of_the_outputs_does_not_make_another_run(pack):
    trainer = Trainer()
    complete(pack, request(("flm", 1)), "out.parquet", trainer)
    manifest = read_json(pack.backbone / "manifest.json")
    write_json(pack.backbone / "manifest.json", manifest | {"upstream_top1": 71.0, "sparsity_declared": 0.3})
    complete(pack, request(("flm", 1), origin="other"), "out.parquet", trainer)
    assert len(trainer.asked) == 1
    complete(pack, request(("flm", 1)), "out.parquet", trainer, precision="bf16")
    assert len(trainer.asked) == 2


def test_budgets_that_choose_the_same_images_are_one_run(pack):
    trainer = Trainer()
    complete(pack, request(("flm", 20), ("flm", "full"), ("flm", 500)), "out.parquet", trainer)
    assert trainer.asked == [("flm", 60)]
    assert rows()["shots"].tolist() == ["20", "full", "500"]
    assert rows()["n_train"].tolist() == [60, 60, 60]
    assert rows()["run"].nunique() == 1


def test_a_job_that_dies_keeps_its_finished_runs(pack):
    trainer = Trainer()
    trainer.die_at = 3
    runs = [("flm", 1), ("flm", 2), ("flm", 3), ("flm", 4)]
    with pytest.raises(KeyboardInterrupt):
        complete(pack, request(*runs), "out.parquet", trainer)
    complete(pack, request(*runs), "out.parquet", trainer)
    assert [images for _, images in trainer.asked] == [12, 9, 6, 6, 3]


def test_a_damaged_entry_of_the_ledger_is_trained_again(pack, caplog):
    trainer = Trainer()
    complete(pack, request(("flm", 1), ("flm", 2)), "out.parquet", trainer)
    (path,) = (ledger.entry("ledger", run) for run in rows()["run"][:1])
    whole = path.read_bytes()
    cut = [whole[:length] for length in (0, 20, len(whole) - 1)]
    changed = [whole.replace(old, new) for old, new in ((b"0.05", b"0.95"), (b"result", b"rosult"), (b"ok", b"o}"))]
    flipped = [whole[:-1] + bytes([whole[-1] ^ 1]), whole[:100] + bytes([whole[100] ^ 128]) + whole[101:]]
    for content in (*cut, *changed, *flipped):
        assert content != whole
        path.write_bytes(content)
        trainer.asked.clear()
        complete(pack, request(("flm", 1), ("flm", 2)), "out.parquet", trainer)
        assert trainer.asked == [("flm", 3)]
        assert rows()["accuracy"].tolist() == [3 / 60, 6 / 60]
    assert caplog.text.count(f"{path} is damaged") == 8


def test_a_run_that_diverged_is_recorded_with_its_place_and_the_pack_goes_on(pack):
    class Diverging(Trainer):
        def train(self, dataset, runs):
            for one in super().train(dataset, runs):
                diverged = "the loss is nan at step 2, epoch 1" if self.asked[-1] == ("flm", 3) else None
                yield one._replace(logits=None if diverged else one.logits, diverged=diverged)

    trainer = Diverging()
    complete(pack, request(("flm", 1), ("flm", 2), seed=7), "out.parquet", trainer)
    assert rows()["status"].tolist() == ["diverged", "ok"]
    assert rows()[["seed", "reason"]].iloc[0].tolist() == [7, "the loss is nan at step 2, epoch 1"]
    assert rows()["accuracy"].isna().tolist() == [True, False]
    complete(pack, request(("flm", 1), ("flm", 2), seed=7), "out.parquet", trainer)
    assert len(trainer.asked) == 2, "a run that has diverged was trained again"


class Slow(Trainer):
    """Has begun, and ends when it is told to."""

    def __init__(self):
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def train(self, dataset, runs):
        self.has_begun.set()
        assert self.may_end.wait(60)
        yield from super().train(dataset, runs)


def test_a_second_job_of_a_pack_waits_for_the_first_and_trains_nothing(pack, caplog):
    """Locks of files are of who opened them: another process, or another thread."""
    caplog.set_level("INFO")
    asked, slow, trainer = request(("flm", 1)), Slow(), Trainer()
    first = threading.Thread(target=complete, args=(pack, asked, "out.parquet", slow))
    second = threading.Thread(target=complete, args=(pack, asked, "out.parquet", trainer))
    first.start()
    assert slow.has_begun.wait(60)
    second.start()
    deadline = time.monotonic() + 60
    while "another process works on out.parquet: waiting until it ends" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    slow.may_end.set()
    first.join()
    second.join()
    assert (slow.asked, trainer.asked) == ([("flm", 3)], [])
    assert rows()["accuracy"].tolist() == [3 / 60]


def test_rows_of_what_failed_say_so(pack):
    asked = request(("flm", 1), ("lp", "full"))
    assert not not_run.write_not_run(pack, asked, "out.parquet")
    write_json(pack.dataset / "dataset.json", read_json(pack.dataset / "dataset.json") | {"failed": "host gone"})
    assert not_run.write_not_run(pack, asked, "out.parquet")
    assert rows()["status"].tolist() == ["not run"] * 2
    assert rows()["reason"].tolist() == ["the dataset is not there: host gone"] * 2
    assert rows()["shots"].tolist() == ["1", "full"]
    verification = read_json(pack.verification)
    write_json(pack.verification, verification | {"passed": False, "reasons": ["5 of 20 photos"]})
    assert not_run.write_not_run(pack, asked, "out.parquet")
    assert set(rows()["reason"]) == {"the backbone failed its verification: 5 of 20 photos"}
    assert packfile.stored_request(pack.split.parent / "out.parquet") == asked


def test_with_too_few_source_classes_methods_of_weights_are_run_and_others_say_why_not(pack, monkeypatch):
    monkeypatch.setattr(not_run, "family_of", lambda _: SimpleNamespace(source_classes=lambda manifest: 2))
    trainer = Trainer()
    trainer.protocol = SimpleNamespace(precision="fp32")
    monkeypatch.setattr(prompting, "PromptingJob", lambda *_: trainer)
    asked = request(("ilm", 1), ("blm", 1), ("rlm", 5), ("fm", 5))
    for _ in range(2):
        assert not not_run.write_not_run(pack, asked, "out.parquet")
        prompting.train_pack(pack, asked, "plans", "out.parquet", torch.device("cpu"), 2**30)
    assert trainer.asked == [("fm", 15), ("blm", 3)]
    found = rows()
    assert found["method"].tolist() == ["ilm", "blm", "rlm", "fm"]
    assert found["status"].tolist() == ["not run", "ok", "not run", "ok"]
    reason = "the dataset has 3 classes, the network 2: too few to map one to each"
    assert found["reason"].tolist()[::2] == [reason] * 2
    assert found["accuracy"].tolist()[1::2] == [3 / 60, 15 / 60]
    assert packfile.stored_request(pack.split.parent / "out.parquet") == asked
    assert not_run.write_not_run(pack, request(("ilm", 1), ("flm-opt", 1)), "none.parquet")
    assert set(rows("none.parquet")["reason"]) == {reason}


def test_the_ledger_keeps_what_was_learned(tmp_path):
    run = ledger.entry_name("code", method="flm", seed=0)
    assert ledger.find(tmp_path, run) is None
    result = Result(status="ok", scores={"bins": [1, None]})
    ledger.record(tmp_path, run, {"prompt": torch.ones(2)}, result)
    assert ledger.find(tmp_path, run) == result
    assert load_file(ledger.entry(tmp_path, run))["prompt"].tolist() == [1, 1]


def test_a_linear_probe_learns_what_is_linear_and_repeats_itself(pack):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 8, generator=generator) + 3 * torch.eye(3, 8)[labels]
    save_file({"train": features, "test": features.clone()}, "features.safetensors")
    probe_pack(pack, "features.safetensors", request(("lp", 1), ("lp", "full")), "out.parquet")
    table = rows()
    assert table["accuracy"][1] > 0.95
    assert table["accuracy"][1] > table["accuracy"][0]
    assert table["precision"].tolist() == ["fp32", "fp32"]
    assert (table["bin_count"].map(sum) == 60).all()
    save_file({"train": 0 * features, "test": 0 * features}, "features.safetensors")
    probe_pack(pack, "features.safetensors", request(("lp", "full")), "out.parquet")
    assert rows()["accuracy"][0] < 0.5, "the result of other features was reused"
    save_file({"train": features, "test": features * float("nan")}, "features.safetensors")
    probe_pack(pack, "features.safetensors", request(("lp", "full")), "out.parquet")
    assert rows()["status"].tolist() == ["diverged"]
    state = torch.random.get_rng_state()
    heads = [train_probe(features, labels, 3, seed, Recipe(**RECIPE)).weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(state, torch.random.get_rng_state())


def no_sense(features, labels, classes, seed, recipe, text_head):
    """What a probe of another method makes: a head that says class 1 of everything."""
    return {"weight": torch.zeros(classes, features.shape[1]), "bias": torch.eye(classes)[1]}


def test_a_probe_is_made_by_the_function_of_its_method(pack, monkeypatch):
    constant = Method("constant", label="1", colour="#000000", job="probe", function=f"{__name__}:no_sense")
    assert constant.digest() != METHODS["lp"].digest()
    monkeypatch.setitem(METHODS, "constant", constant)
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    save_file({"train": features, "test": features.clone()}, "features.safetensors")
    probe_pack(pack, "features.safetensors", request(("constant", "full")), "out.parquet")
    kept = load_file(ledger.entry("ledger", rows()["run"][0]))
    assert kept["bias"].tolist() == [0, 1, 0]
    assert rows()["accuracy"].tolist() == [20 / 60]


def test_scores_of_unchanged_metrics_stay_where_another_device_rounds_otherwise(pack, monkeypatch, caplog):
    class Elsewhere(Trainer):
        factor = 0.5

        def predict(self, dataset, runs, learned):
            for run, logits in super().predict(dataset, runs, learned):
                yield run, logits * self.factor

    trainer = Elsewhere()
    complete(pack, request(("flm", 1), metrics="m1"), "out.parquet", trainer)
    before = rows()
    monkeypatch.setitem(METRICS, "largest", Metric("Largest", lambda one: one.logits.max().item()))
    monkeypatch.setitem(METRICS, "nll", Metric("NLL", lambda one: one.confidence.mean().item()))
    complete(pack, request(("flm", 1), metrics="m2"), "out.parquet", trainer)
    pd.testing.assert_frame_equal(rows()[before.columns].drop(columns="nll"), before.drop(columns="nll"))
    assert rows()["largest"].tolist() == [0.5]
    assert rows()["nll"].tolist() != before["nll"].tolist()
    trainer.factor = float("nan")
    after = rows()
    complete(pack, request(("flm", 1), metrics="m3"), "out.parquet", trainer)
    pd.testing.assert_frame_equal(rows(), after)
    assert "does not give it finite logits: its scores stay" in caplog.text
    # once, where the batch size of the test is another, too
    for _ in range(2):
        complete(
            pack, request(("flm", 1), metrics="m3", recipe=RECIPE | {"test_batch_size": 60}), "out.parquet", trainer
        )
    assert len(trainer.predicted) == 3
    assert rows()["ece_published_batch_size"].tolist() == [16], "what its score is of"
    trainer.factor = 3.0
    complete(pack, request(("flm", 1), metrics="m4", recipe=RECIPE | {"test_batch_size": 60}), "out.parquet", trainer)
    assert rows()["ece_published_batch_size"].tolist() == [60]
    assert rows()["ece_published"].tolist() != after["ece_published"].tolist()
    assert rows()["accuracy"].tolist() == after["accuracy"].tolist()


def test_no_two_packs_share_the_file_of_their_runs_under_way():
    names = [("a_b", "c", 0), ("a", "b_c", 0), ("a", "b_c", 1), ("a", "b", 0)]
    files = {packfile.unfinished(request(backbone=one, dataset=other, seed=seed)) for one, other, seed in names}
    assert len(files) == len(names)
