"""What depends on what: which settings of which jobs an edit of a study changes, and which files jobs read.

As Snakemake does, a job is held to run again where the set of its params' texts is another.
"""

import os
import re
from copy import deepcopy
from dataclasses import replace
from inspect import signature
from itertools import product
from pathlib import Path

import made_up
import numpy as np
import pytest
import yaml
from conftest import ROOT
from stubbed_project import CONFIG as SMALL
from stubbed_project import UPSTREAM

from hiddencost import catalog, digest
from hiddencost.compression import photos
from hiddencost.datasets import corruptions
from hiddencost.files import write_json
from hiddencost.jobs import (
    analyses,
    away,
    checkpoints,
    cost,
    datasets,
    downloads,
    ending,
    grid,
    layout,
    places,
    requests,
    resources,
    results,
    training,
    upstream,
    values,
)
from hiddencost.jobs.call import Call, code, read_call
from hiddencost.messages import StudyError
from hiddencost.runs import measures, metrics, not_run, packfile
from hiddencost.sources import LOCK, Source, download_digest
from hiddencost.study.load import load_study
from hiddencost.upstream import gate

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text()) | SMALL | {"study": "quickstart"}
DATASET = "cifar10-part"
# the functions that rules take their params from, with the params' names
SETTINGS = {
    "fetch_checkpoint": (checkpoints.fetch_checkpoint, checkpoints.DOWNLOAD),
    "import_checkpoint": (checkpoints.import_checkpoint, checkpoints.IMPORTED),
    "compress": (checkpoints.compress, checkpoints.COMPRESSED),
    "verify_backbone": (checkpoints.verify_backbone, checkpoints.VERIFIED),
    "fetch_dataset": (datasets.fetch_dataset, checkpoints.DOWNLOAD),
    "prepare_dataset": (datasets.prepare_dataset, datasets.PREPARED_KEYS),
    "train": (training.train, training.params("train")),
    "probe": (training.probe, training.params("probe")),
    "collect": (
        results.collect,
        ("study", "grid", "methods", "backbones", "left_out", "expectations", "splits", "test_labels", "so_far"),
    ),
    "learned": (results.learned, ("ledger", "prepared", "groups", "backbones")),
    "figure": (results.figure, (*results.CONTENT, *results.STYLE)),
    "report": (results.report, ("study", "prepared", "labels", "captions", "results", "page")),
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a study, the small one above with an edit, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(edit=lambda config: None, **flags):
        config = deepcopy(CONFIG)
        edit(config)
        return read_call(config | flags, "config.yaml", "snakemake")

    return call


def test_a_compression_that_looks_at_images_stands_on_them(call, monkeypatch):
    """Those of the dataset that it names, of the study or not, at the size of the features."""

    def calibrated(**settings):
        return call(lambda config: config["backbones"][1].update(compression=CALIBRATED | settings))

    of = calibrated()
    assert checkpoints.calibration_images(of, "pruned") == places.prepared(of, DATASET, of.study.protocol.canvas)
    assert checkpoints.calibration_images(of, "dense") == []
    assert checkpoints.compress(of, "pruned")["compression"] == CALIBRATED
    other = calibrated(calibration="cifar10", samples=256, seed=3)
    assert checkpoints.calibration_images(other, "pruned")[0].startswith("resources/datasets/cifar10/")
    assert {"cifar10", DATASET} == set(other.datasets)
    assert "cifar10" not in other.targets
    folder = places.prepared_folder(other, "cifar10", other.study.protocol.canvas)
    assert folder in datasets.all_prepared(other)
    before = [training.origin(other, name, DATASET) for name in ("dense", "pruned")]
    monkeypatch.setitem(other.datasets, "cifar10", other.datasets["cifar10"].model_copy(update={"native_size": 33}))
    training.origin.cache_clear()
    assert training.origin(other, "dense", DATASET) == before[0]
    assert training.origin(other, "pruned", DATASET) != before[1]
    assert resources.compress_memory(of, "pruned", 1) > resources.compress_memory(of, "dense", 1) + 1500
    assert resources.compress_runtime(of, "pruned", 1) > resources.compress_runtime(of, "dense", 1)
    gone = calibrated(calibration="cifar10", seed=4)
    monkeypatch.setitem(gone.datasets, "cifar10", gone.datasets["cifar10"].model_copy(update={"unavailable": "gone"}))
    assert grid.left_out(gone) == {"backbone": {"pruned": "gone"}, "dataset": {}}
    with pytest.raises(
        StudyError, match=r"backbones\[1\].compression.samples: 10000000; expected at most the \d+ tr"
    ):
        calibrated(samples=10_000_000)


def test_a_published_compression_of_no_kind_is_a_line(call, monkeypatch):
    entry = catalog.checkpoint("mobilenetv2").model_copy(update={"compression": "acdx"})
    monkeypatch.setattr(catalog, "checkpoint", lambda name: entry)
    with pytest.raises(StudyError, match=r"^config.yaml: checkpoint mobilenetv2: compression 'acdx' is unknown; did"):
        call()


def params_of(call):
    """The params of each job, by rule and wildcards."""
    known = {
        **{"checkpoint": list(call.published), "dataset": list(call.datasets), "figure": list(results.figures(call))},
        **{"backbone": grid.axes(call.study)["backbone"], "seed": call.study.seeds},
    }
    params = {}
    for rule, (function, names) in SETTINGS.items():
        wildcards = list(signature(function).parameters)[1:]
        for each in product(*(known[name] for name in wildcards)):
            params[rule, each] = values.texts(function(call, *each), names)
    return params


def changes(before, after):
    """The jobs that are new, by rule; and the params whose change has Snakemake run a job again, by rule."""
    old, new = params_of(before), params_of(after)
    again = {}
    for job in old.keys() & new.keys():
        if set(old[job].values()) != set(new[job].values()):
            again.setdefault(job[0], set()).update(name for name in new[job] if old[job][name] != new[job][name])
    return {rule for rule, _ in new.keys() - old.keys()}, again


def swap_learning_rate_and_gamma(config):
    protocol = config["protocol"]
    protocol["learning_rate"], protocol["gamma"] = protocol["gamma"], protocol["learning_rate"]


OTHER = {"name": "random", "checkpoint": "mobilenetv2", "control": "random_init"}
CALIBRATED = {"algorithm": "wanda", "sparsity": 0.2, "calibration": DATASET}
EDITS = {
    "a colour": (
        lambda c: c["figures"].update(colours={"flm": "#000000"}),
        set(),
        {"figure": {"style.colours"}, "report": {"study"}},
    ),
    "what a backbone is called": (
        lambda c: c["figures"].update(labels={"pruned": "less"}),
        set(),
        {"figure": {"style.labels", "figure.backbones"}, "report": {"study", "labels"}},
    ),
    "a seed added": (
        lambda c: c["seeds"].append(1),
        {"train", "probe"},
        {"collect": {"grid"}, "report": {"study"}},
    ),
    "a shots value added": (
        lambda c: c["shots"].append(3),
        set(),
        {"train": {"runs"}, "probe": {"runs"}, "collect": {"grid"}, "report": {"study"}},
    ),
    "a method added": (
        lambda c: c["methods"].append("ilm"),
        {"figure"},
        {
            **{"train": {"runs", "methods"}, "collect": {"grid", "methods"}},
            **{"figure": {"style.methods"}, "report": {"study", "captions"}},
        },
    ),
    "learning rate and gamma swapped": (
        swap_learning_rate_and_gamma,
        set(),
        {"train": {"recipe.learning_rate", "recipe.gamma"}, "report": {"study"}},
    ),
    "the recipe of the probe": (
        lambda c: c["probe"].update(epochs=101),
        set(),
        {"probe": {"recipe.epochs"}, "report": {"study"}},
    ),
    "a sparsity": (
        lambda c: c["backbones"][1]["compression"].update(sparsity=0.3),
        set(),
        {
            **{"compress": {"compression"}, "train": {"origin"}, "probe": {"origin"}, "collect": {"backbones"}},
            **{"figure": {"figure.backbones"}, "learned": {"groups"}, "report": {"study", "labels"}},
        },
    ),
    "a backbone added": (
        lambda c: c["backbones"].append(OTHER),
        {"compress", "train", "probe"},
        {
            **{"collect": {"grid", "methods", "backbones"}, "learned": {"backbones", "groups"}},
            **{"figure": {"figure.backbones"}, "report": {"study", "labels"}},
        },
    ),
    "what the gate asks for": (
        lambda c: c["verification"].update(photos_top1=13),
        set(),
        {"verify_backbone": {"photos_top1"}, "train": {"origin"}, "probe": {"origin"}, "report": {"study"}},
    ),
    "other photos": (
        lambda c: c["verification"].update(photos="imagenet1000"),
        set(),
        {"verify_backbone": {"photos"}, "train": {"origin"}, "probe": {"origin"}, "report": {"study"}},
    ),
    "jobs that share a GPU": (lambda c: c.update(jobs_per_gpu=2), set(), {"report": {"study"}}),
}


def test_the_gate_holds_what_a_published_network_was_compressed_to_against_the_dense_one_of_the_study(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    call = Call(load_study(yaml.safe_load((ROOT / "studies/paper.yaml").read_text()), "paper.yaml"))
    dense = {one.name: checkpoints.dense_network(call, one.name) for one in call.study.backbones}
    assert {name: files[0].split("/")[3] for name, files in dense.items() if files} == {
        **{f"resnet{depth}-gmp": f"resnet{depth}-dense" for depth in (18, 34)},
        **{f"resnet50-acdc{level}": "resnet50-dense" for level in (80, 90, 98)},
        **{f"resnet50-rigl{level}": "resnet50-dense" for level in (80, 90, 95)},
        **{f"resnet50-lth{state}": "resnet50-dense" for state in range(1, 11)},
        **{"clip-magnitude50": "clip-dense", "clip-int8": "clip-dense"},
        **{f"clip-upop{times}x": "clip-coco-dense" for times in (2, 4)},
    }


@pytest.mark.parametrize(("edit", "new", "again"), EDITS.values(), ids=EDITS)
def test_an_edit_of_a_study_changes_the_params_of_what_it_makes_stale_and_no_others(call, edit, new, again):
    assert changes(call(), call(edit)) == (new, again)


def test_of_an_entry_titles_and_sources_change_nothing_and_a_checksum_all_that_comes_of_it(call, monkeypatch):
    before = call()
    entry = catalog.checkpoint("mobilenetv2")
    ((key, file),) = entry.files.items()
    elsewhere = file.model_copy(update={"sources": [Source(url="https://elsewhere")]})

    def after(**changed):
        edited = entry.model_copy(update={"title": "another", "licence": "another", **changed})
        monkeypatch.setattr(catalog, "checkpoint", lambda name: edited)
        return changes(before, call())

    assert after(files={key: elsewhere}) == (set(), {})
    _, again = after(files={key: elsewhere.model_copy(update={"sha256": "f" * 64})})
    stale = {"fetch_checkpoint": {"files"}, "import_checkpoint": {"files"}}
    assert again == stale | {"train": {"origin"}, "probe": {"origin"}}


def test_params_have_their_names_with_them_and_are_read_back():
    settings = {"a": 0.1, "b": {"c": [1, None], "d": "x=y"}, "e": None}
    names = ("a", "b.c", "b.d", "b.none", "e")
    texts = values.texts(settings, names)
    assert texts == {"a": "a=0.1", "b.c": "b.c=[1,null]", "b.d": 'b.d="x=y"', "b.none": "", "e": "e=null"}
    assert values.read(texts) == settings
    with pytest.raises(ValueError, match=r"settings e are none of the params a, b\.c, b\.d"):
        values.texts(settings, names[:3])


def test_what_is_taken_out_of_a_study_leaves_its_tables_as_they_are(call):
    before = call(lambda c: c["shots"].append(3))
    pack = {"backbone": "dense", "dataset": DATASET, "seed": 0}
    request = training.wanted(before, "train", **pack)
    packfile.write([{"status": "ok"}], request, Path(grid.pack_table(before, "train", pack)))
    after = call()
    assert training.request(after, "train", **pack) == request
    assert training.request(call(swap_learning_rate_and_gamma), "train", **pack) != request
    assert list(training.packs_so_far(after)) == [grid.pack_table(after, "train", pack)]
    assert training.packs_so_far(call(swap_learning_rate_and_gamma)) == {}


def test_whether_a_pack_is_run_counts_among_its_inputs_and_trains_nothing_anew(call, tmp_path, monkeypatch):
    pack = {"backbone": "dense", "dataset": DATASET, "seed": 0}
    source, before = Path(not_run.__file__).read_text(), training.wanted(call(), "train", **pack)
    assert "classes > sources" in source
    for file, text in (
        ("as_it_is.py", source),
        ("edited.py", source.replace("classes > sources", "classes > 2 * sources")),
    ):
        (tmp_path / file).write_text(text)
        monkeypatch.setattr(not_run, "__file__", str(tmp_path / file))
        now = training.wanted(call(), "train", **pack)
        assert (now.origin == before.origin) == (text == source)
        assert now.model_copy(update={"origin": before.origin}) == before


def test_an_own_file_is_known_by_what_it_holds(call):
    path = Path("w.pth")
    path.write_bytes(b"weights")
    own = call(lambda config: config.update(paths={"mobilenetv2": "w.pth"}))
    before = params_of(own)
    os.utime(path)  # as a copy, or a checkout, does
    assert params_of(call(lambda config: config.update(paths={"mobilenetv2": "w.pth"}))) == before
    Path("older.pth").write_bytes(b"lighter")
    os.utime("older.pth", (1_500_000_000, 1_500_000_000))
    os.replace("older.pth", path)
    after = params_of(call(lambda config: config.update(paths={"mobilenetv2": "w.pth"})))
    changed = {rule for rule, _ in before if any(before[key] != after[key] for key in before if key[0] == rule)}
    assert changed == {"fetch_checkpoint", "import_checkpoint", "train", "probe"}


def test_a_call_is_told_what_it_can_be(call):
    assert call(check="full").check
    assert not call(check="changed").check
    with pytest.raises(StudyError, match=r"^--config check=all: expected check=full or check=changed$"):
        call(check="all")


def save_images(file):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(file, x_train=images, y_train=[0, 1], x_test=images, y_test=[0, 1])


def own_images(config):
    config["datasets"] = [{"name": "mine", "npz": "mine.npz", "image_size": 32}]


def test_a_job_takes_what_its_plan_has_found_of_images_and_looks_at_none(call, monkeypatch):
    save_images("mine.npz")
    planned = call(own_images).targets
    monkeypatch.setattr("hiddencost.jobs.call.user_entry", lambda *given: pytest.fail(f"{given} was looked at"))
    config = deepcopy(CONFIG)
    own_images(config)
    assert read_call(config, "config.yaml", "snakemake", is_job=True).targets == planned
    again = "hiddencost.jobs.own_files.contents.digest"
    monkeypatch.setattr(again, lambda *given, **how: pytest.fail("was read again"))
    monkeypatch.setattr("hiddencost.jobs.call._check_class_names", lambda call: pytest.fail("was checked again"))
    assert read_call(
        config | {"paths": {"mobilenetv2": __file__}}, "config.yaml", "snakemake", is_job=True
    ).study.paths


def test_images_that_are_gone_are_those_that_were_last_seen(call, caplog):
    """A disk that is not mounted must not forbid another colour."""
    with pytest.raises(StudyError, match=f"^config.yaml: dataset mine: there is no file {Path.cwd()}/mine.npz$"):
        call(own_images)
    save_images("mine.npz")
    before = params_of(call(own_images))
    assert not caplog.text
    Path("mine.npz").rename("unmounted.npz")
    assert params_of(call(own_images)) == before
    assert "dataset mine: there is no mine.npz now: what was made of it is used" in caplog.text
    # nothing is prepared of it: that would put an empty dataset in the place of the one that was
    with pytest.raises(
        StudyError, match=r"^config.yaml: dataset mine: there is no mine.npz, and not all was prepared"
    ):
        datasets.prepared_here(call(own_images))
    for size in datasets.sizes_of(call(own_images), "mine"):
        for file in places.prepared(call(own_images), "mine", size):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).touch()
    assert datasets.prepared_here(call(own_images)) == []
    # a node on which the disk is not mounted is not asked, and an empty mount point is no images
    config = deepcopy(CONFIG)
    own_images(config)
    assert datasets.prepared_here(read_call(config, "config.yaml", "snakemake", is_job=True)) == ["mine"]
    Path("mine.npz").mkdir()
    assert params_of(call(own_images)) == before
    assert datasets.prepared_here(call(own_images)) == []
    Path("mine.npz").rmdir()
    Path("unmounted.npz").rename("mine.npz")
    assert params_of(call(own_images)) == before
    assert datasets.prepared_here(call(own_images)) == ["mine"]


def make(product, script, settings, names):
    """Leave a product as its job leaves it, with the request that it was made for."""
    Path(product).parent.mkdir(parents=True, exist_ok=True)
    Path(product).write_text("{}")
    asked = [*values.texts(settings, names).values(), values.text("code", code(ROOT, script))]
    requests.keep([product], asked, [])


def test_a_file_of_paths_that_is_gone_leaves_what_was_fetched_of_it(call, caplog):
    own = lambda config: config.update(paths={"mobilenetv2": "w.pth"})  # noqa: E731
    gone = f"there is no file {Path.cwd()}/w.pth"
    with pytest.raises(StudyError, match=f"^config.yaml: paths.mobilenetv2: {gone}$"):
        call(own)
    Path("w.pth").write_bytes(b"weights")
    before, seen = params_of(call(own)), call(own)
    away.refuse_unmade(seen)
    Path("w.pth").rename("unmounted.pth")
    report = places.fetched(seen, "checkpoints", "mobilenetv2")
    line = (
        f"^config.yaml: paths.mobilenetv2: there is no {Path.cwd()}/w.pth; expected it, as {report} has to be made$"
    )
    with pytest.raises(StudyError, match=line):
        away.refuse_unmade(call(own))
    make(report, "fetch", checkpoints.fetch_checkpoint(seen, "mobilenetv2"), checkpoints.DOWNLOAD)
    assert params_of(call(own)) == before
    assert f"paths.mobilenetv2: there is no {Path.cwd()}/w.pth now: what was made of it is used" in caplog.text
    away.refuse_unmade(call(own))
    job = read_call(CONFIG | {"paths": {"mobilenetv2": "w.pth"}}, "config.yaml", "snakemake", is_job=True)
    assert job.own_contents == seen.own_contents
    # of what another file held, nothing is taken for it
    Path("w.pth").write_bytes(b"another")
    call(own)
    Path("w.pth").unlink()
    with pytest.raises(StudyError, match=line):
        away.refuse_unmade(call(own))
    away.refuse_unmade(call(own, partial="true"))
    Path("unmounted.pth").rename("w.pth")
    assert params_of(call(own)) == before


def test_a_file_of_paths_behind_a_link_is_gone_with_its_disk_and_told_where_it_cannot_be_read(call, caplog):
    own = lambda config: config.update(paths={"mobilenetv2": "w.pth"})  # noqa: E731
    Path("disk").mkdir()
    Path("disk/w.pth").write_bytes(b"weights")
    Path("w.pth").symlink_to("disk/w.pth")
    before = call(own).own_contents
    Path("disk").rename("unmounted")
    assert call(own).own_contents == before
    assert "there is no" in caplog.text
    Path("disk").symlink_to("disk")  # it is there, and the system cannot read it
    with pytest.raises(
        StudyError, match=r"^config.yaml: paths.mobilenetv2: .*w.pth: Too many levels of symbolic links"
    ):
        call(own)


@pytest.fixture
def trained_on_a_folder(call, monkeypatch):
    """An edit of a study that trains a network, and draws a lottery ticket, on images of a folder; all is made."""
    monkeypatch.setattr(grid.inputs, "why_not", lambda architecture, side: None)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            Path(f"images/{part}/{name}").mkdir(parents=True)

    def edit(config):
        own_network(config)
        own = {key: value for key, value in deepcopy(UPSTREAM).items() if key != "dataset"}
        config["upstream"] = [own | {"folder": "images"}]

    seen = call(edit)
    for backbone in ("own", "ticket"):
        for made in away._made(seen, "own", backbone):
            make(*made)
    return edit


def test_a_folder_of_upstream_images_that_is_gone_leaves_what_was_trained_on_it(call, trained_on_a_folder, caplog):
    def settings(of):
        return [upstream.products(of, name) for name in ("own", "ticket")]

    before = settings(call(trained_on_a_folder))
    assert [len(each) for each in before] == [
        3,
        10,
    ]  # files of the dense one, of two rounds, and the state to rewind to
    Path("images").rename("unmounted")
    for _ in range(2):
        now = call(trained_on_a_folder)
        assert settings(now) == before
        away.refuse_unmade(now)
        Path("images").mkdir(exist_ok=True)  # an empty mount point is no images
    assert caplog.text.count("upstream own: there is no images now: what was made of it is used") == 2  # calls
    Path("images").rmdir()
    Path("unmounted").rename("images")
    assert settings(call(trained_on_a_folder)) == before


def test_published_weights_whose_head_is_over_other_classes_than_the_folder_has_are_told(
    call, trained_on_a_folder, caplog
):
    def edit(config):
        trained_on_a_folder(config)
        config["upstream"][0].pop("architecture")
        config["upstream"][0]["checkpoint"] = "mobilenetv2"

    call(trained_on_a_folder)
    assert "classes" not in caplog.text
    call(edit)
    told = "images/train has 2 classes; the head of mobilenetv2 is over ImageNet's 1,000, and a new one is trained"
    assert f"config.yaml: upstream own: {told}" in caplog.text


READ = {
    "another recipe": lambda config: config["upstream"][0]["recipe"].update(learning_rate=0.2),
    "another seed": lambda config: config["backbones"][0].update(upstream_seed=1),
    "another sparsity": lambda config: config["backbones"][1]["sparsify"].update(sparsity=0.9),
    "another bar of the gate": lambda config: config["verification"].update(upstream_top1=30),
    "what the gate has to look at": lambda config: config["backbones"][0].update(
        compression={"algorithm": "magnitude", "sparsity": 0.2}
    ),
    "the state to rewind to, deleted": lambda config: Path(
        "results/quickstart/upstream/own/rewind/epoch1/seed0.state"
    ).unlink(),
    "weights of a training, deleted": lambda config: Path(
        "results/quickstart/upstream/own/dense/0/seed0/weights.safetensors"
    ).unlink(),
    "masks of a training, deleted": lambda config: Path(
        "results/quickstart/upstream/own/dense/0/seed0/masks.safetensors"
    ).unlink(),
}


@pytest.mark.parametrize("edit", READ.values(), ids=READ)
def test_what_has_to_read_a_folder_of_upstream_images_that_is_gone_is_a_line(call, trained_on_a_folder, edit):
    Path("images").rename("unmounted")
    now = call(lambda config: (trained_on_a_folder(config), edit(config)))
    line = f"^config.yaml: upstream own: there is no {Path.cwd()}/images; expected it, as results/.* has to be made$"
    with pytest.raises(StudyError, match=line):
        away.refuse_unmade(now)


@pytest.mark.parametrize("rules", ["checkpoints", "upstream"])
def test_rules_of_networks_have_the_params_that_their_products_are_held_against(rules):
    stated = re.findall(r"params_of\((.*?)\)", Path(ROOT, f"workflow/rules/{rules}.smk").read_text())
    assert stated
    assert not [each for each in stated if '"' in each]  # names of their own, of which `away` does not know


@pytest.mark.parametrize("file", layout.NETWORK_FILES)
def test_an_import_that_a_training_on_a_folder_starts_from_is_held_whole(call, trained_on_a_folder, file):
    def edit(config):
        trained_on_a_folder(config)
        del config["upstream"][0]["architecture"]
        config["upstream"][0]["checkpoint"] = "mobilenetv2"

    for backbone in ("own", "ticket"):
        for made in away._made(call(edit), "own", backbone):
            make(*made)
    Path("images").rename("unmounted")
    away.refuse_unmade(call(edit))
    Path(layout.IMPORTED.format(home=layout.SHARED, checkpoint="mobilenetv2"), file).unlink()
    with pytest.raises(StudyError, match=f"expected it, as resources/backbones/mobilenetv2/{file} has to be made$"):
        away.refuse_unmade(call(edit))


def test_colours_and_seeds_ask_for_no_folder_of_upstream_images(call, trained_on_a_folder):
    def edit(config):
        trained_on_a_folder(config)
        config["seeds"] = [0, 1]
        config["figures"] = {"palette": "PuOr_r"}

    Path("images").rename("unmounted")
    away.refuse_unmade(call(edit))


def fail(kind, name, entry, offline=False):
    """Leave the report of a download that has failed."""
    report = {"failed": "no source gave it", "attempt": 2, "asked": download_digest(name, entry.files, offline)}
    write_json(layout.FETCHED[kind].format(home=layout.SHARED, name=name), report)


def test_a_download_that_has_failed_is_left_out_until_it_is_retried_or_another(call):
    entry = call().published["mobilenetv2"]
    assert grid.left_out(call()) == {"backbone": {}, "dataset": {}}
    fail("checkpoints", "mobilenetv2", entry)
    reasons = grid.left_out(call())["backbone"]
    why = "no source gave it (to try again: snakemake --config retry=true; or give files of your own: paths)"
    assert reasons == {"dense": why, "pruned": why}
    assert grid.packs(call(), "train") == []
    assert checkpoints.fetch_checkpoint(call(), "mobilenetv2")["attempt"] == 2
    again = call(retry="true")
    assert grid.left_out(again)["backbone"] == {}
    assert checkpoints.fetch_checkpoint(again, "mobilenetv2")["attempt"] == 3
    # without the network it is another download
    assert downloads.is_retried(
        call(offline="true"), downloads.report_of(Path("resources/checkpoints/mobilenetv2")), "mobilenetv2", entry
    )
    # as it is where the lock file holds another first use, or none any more
    write_json(LOCK, {"mobilenetv2/mobilenet_v2-b0353104.pth": "0" * 64})
    assert grid.left_out(call())["backbone"] == {}


@pytest.mark.parametrize("file", [LOCK, layout.FETCHED["checkpoints"].format(home=layout.SHARED, name="mobilenetv2")])
@pytest.mark.parametrize("content", [b"", b'{"failed": ', b"[1]", b"\xff\xfe"])
def test_a_damaged_record_of_downloads_is_a_line_of_the_plan(call, file, content):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes(content)
    with pytest.raises(StudyError, match=f"^{file} is damaged: .*$"):
        grid.left_out(call())


def test_offline_what_is_not_here_is_left_out(call):
    offline = call(offline=True)
    file = "resources/checkpoints/mobilenetv2/mobilenet_v2-b0353104.pth"
    assert grid.left_out(offline)["backbone"]["dense"] == f"offline, and {file} is not there"
    Path(file).parent.mkdir(parents=True)
    Path(file).touch()
    assert grid.left_out(call(offline=True))["backbone"] == {}


def test_scalars_for_tensorboard_need_it(call, monkeypatch):
    assert call(tensorboard="true").tensorboard
    monkeypatch.setattr("hiddencost.jobs.call.find_spec", lambda name: None)
    assert not call().tensorboard
    with pytest.raises(StudyError, match=r"^--config tensorboard=true: it is not installed; expected"):
        call(tensorboard="true")


def test_a_flag_of_the_call_is_true_or_false(call):
    with pytest.raises(StudyError, match="--config retry=maybe: expected retry=true or retry=false"):
        call(retry="maybe")
    partial = call(partial="true")
    assert (partial.output, partial.results) == ("results/quickstart/partial", "results/quickstart")
    assert results.packs_to_collect(partial) == results.learned_inputs(partial) == []


def own_network(config):
    config["methods"] = ["flm"]
    config["verification"] = config["verification"] | {"upstream_top1": 20}
    lottery = {"algorithm": "lth", "share": 0.5, "sparsity": 0.75}
    config |= {"upstream": [UPSTREAM]}
    config["backbones"] = [{"name": "own", "checkpoint": "own"}, {"name": "ticket", "checkpoint": "own"}]
    config["backbones"][1]["sparsify"] = lottery


def test_rounds_of_lottery_tickets_start_from_the_round_before_and_the_rewound_state(call, monkeypatch):
    own = call(own_network)
    (name,) = set(upstream.sparsifiers(own)) - {"dense"}
    folder = "results/quickstart/upstream/own"

    def inputs(sparsifier, sparsity):
        wildcards = own, "own", sparsifier, sparsity, "0"
        return [Path(path).parent for path in upstream.ticket(*wildcards)][:1], upstream.rewind_point(*wildcards)

    assert inputs("dense", "0") == ([], [])
    rewound = [f"{folder}/rewind/epoch1/seed0.state"]
    assert inputs(name, "0.5") == ([Path(folder, "dense/0/seed0")], rewound)
    assert inputs(name, "0.75") == ([Path(folder, name, "0.5/seed0")], rewound)
    assert checkpoints.source_network(own, "ticket")[0] == f"{folder}/{name}/0.75/seed0/weights.safetensors"
    monkeypatch.setattr(upstream, "gflop", lambda call, checkpoint: 1.0)
    assert list(upstream.trainings(own)) == [
        f"{folder}/dense/0/seed0",
        *(f"{folder}/{name}/{s}/seed0" for s in (0.5, 0.75)),
    ]
    settings = upstream.sparsify(own, "own", name, "0.5", "0")
    texts = values.texts(settings, upstream.TRAINING)
    assert texts["recipe.learning_rate"] == "recipe.learning_rate=0.1"
    assert values.read(texts) == settings


def test_the_report_calls_figures_and_backbones_by_what_they_show():
    """And none by the name of a file."""
    call = Call(made_up.paper())
    of = results.report(call)
    titles = {name: title for name, title, _ in of["captions"]}
    page = replace(results.figures(call)["cost-resnet18-gmp"], methods=["rlm", "flm", "lp"])  # one of several
    assert results._heading(call, page) == f"{titles['cost-resnet18-gmp']}, RLM-VP to linear probe"
    assert titles["accuracy-resnet50-acdc"] == "Accuracy against shots: ResNet-50 V2, AC/DC"
    assert titles["cost-resnet18-gmp"] == "Hidden cost against shots: ResNet-18 V1, GMP, quantised"
    assert titles["heatmap-resnet50-lth-page1"] == "Hidden cost, every level: ResNet-50 V2, LT, CIFAR-10 to DTD"
    assert titles["glance"] == "Hidden cost at a glance"
    assert len(set(titles.values())) == len(titles)
    told = ("resnet50-dense", "resnet50-lth1", "resnet50-acdc80", "cifar10")
    assert [of["labels"][name] for name in told] == ["ResNet-50 V2", "LT, state 1", "AC/DC 80 %", "CIFAR-10"]


def test_captions_say_what_black_is_on_a_dark_page(call):
    told = {}
    for style in ("light", "dark"):
        report = results.report(call(lambda config, style=style: config.update(figures={"style": style})))
        told[style] = {name: caption for name, _, caption in report["captions"]}
        assert not [caption for caption in told[style].values() if "{" in caption]
    changed = {name for name, caption in told["light"].items() if caption != told["dark"][name]}
    assert {name.partition("-")[0] for name in changed} == {"accuracy", "reliability"}
    assert all("lack (here white): the dense" in told["dark"][name] for name in changed)


def test_jobs_read_the_dataset_at_the_size_of_their_own_kind(call):
    of = call()
    sizes = {
        function: Path(function(of, "dense", DATASET)[0]).parent.name
        for function in (training.images_to_prompt, training.images_to_probe)
    }
    assert sizes == {training.images_to_prompt: "104", training.images_to_probe: "112"}
    assert training.texts(of, "dense", DATASET) == []
    assert datasets.images_to_split(of, DATASET) == places.prepared(of, DATASET, "104")
    assert results.figure_tables(of, "accuracy") == {"summary": "results/quickstart/tables/summary.csv"}


def test_arrays_of_files_of_ones_own_lie_in_the_study_and_are_the_same_wherever_these_are(call):
    """Files that move prepare nothing and train nothing, upstream too; two studies have no array in common."""
    for folder in ("a", "b"):
        Path(folder).mkdir()
        save_images(f"{folder}/mine.npz")
        for part in ("train", "test"):
            Path(folder, part).write_text(part)

    def asked(folder, study="quickstart"):
        def edit(config):
            own_network(config)
            config["datasets"].append({"name": "mine", "npz": f"{folder}/mine.npz", "image_size": 24})
            config |= {"study": study, "paths": {DATASET: {part: f"{folder}/{part}" for part in ("train", "test")}}}
            config["methods"] = ["flm", "lp"]

        return call(edit)

    def settings(of):
        params = {job: texts for job, texts in params_of(of).items() if job[0] != "report"}  # which shows the paths
        return params, [upstream.products(of, name) for name in ("own", "ticket")]

    before, moved, other = asked("a"), asked("b"), asked("b", "other")
    assert settings(moved) == settings(before)
    for name in (DATASET, "mine"):
        assert datasets.own_path(before, name) == ("" if name == DATASET else 'options.path="a/mine.npz"')
        files = places.prepared(before, name, 24)
        assert files == places.prepared(moved, name, 24) == layout.prepared(name, 24, "results/quickstart/own")
        assert not {*files} & {*places.prepared(other, name, 24)}
    assert places.prepared(call(), DATASET, 24) == layout.prepared(DATASET, 24)
    Path("b/train").write_text("other images")
    assert settings(asked("b"))[0] != settings(before)[0]


def test_time_and_memory_grow_with_the_attempt(call):
    of = call()
    asked = [
        (
            resources.train_runtime(of, "dense", DATASET, attempt),
            resources.train_memory(of, "dense", DATASET, "gpu", attempt),
        )
        for attempt in (1, 2)
    ]
    assert asked[1] == (2 * asked[0][0], 2 * asked[0][1])


def test_the_gate_asks_for_the_time_and_memory_of_its_looks_and_of_the_dense_network(call):
    assert 1 + len(photos.VIEWS) + len(photos.NORMALISATIONS) == cost.LOOKS
    assert (cost.LOOKED, cost.TEST_IMAGES) == (photos.LOOKED, gate.IMAGES)
    of = read_call(yaml.safe_load((ROOT / "studies/clip.yaml").read_text()), "clip.yaml", "snakemake")
    a_look = 20 * 2 * 84.871 * (336 / 224) ** 2 / 25 / 60  # minutes
    for name, looks in (("clip-coco-dense", 11), ("clip-upop2x", 12)):
        assert 0 <= resources.verify_runtime(of, name, 1) - (10 + looks * a_look) < 1
    assert resources.verify_runtime(of, "clip-upop2x", 2) == 2 * resources.verify_runtime(of, "clip-upop2x", 1)
    dense, halved = (resources.verify_memory(of, name, 1) for name in ("clip-coco-dense", "clip-upop2x"))
    alone = resources.network_memory(of, "clip-upop2x", 1)
    assert (dense, halved) == (resources.network_memory(of, "clip-coco-dense", 1), alone + 3 * 1712)
    verification, own = CONFIG["verification"] | {"upstream_top1": 20}, [{"name": "own", "checkpoint": "own"}]
    of = call(lambda c: c.update(upstream=[UPSTREAM], backbones=own, verification=verification))
    resources.count_arithmetic(of)  # 0.041 GMACs an image of 32 pixels
    assert resources.verify_trained_runtime(of, "own", 1) == 11


def test_analyses_ask_for_the_time_of_corruptions_and_of_both_networks(call):
    """Those of a dataset of 224 pixels are corrupted for each of two sizes; the pruned network is timed in turn with
    the dense one."""
    shift = {"corruptions": list(corruptions.CORRUPTIONS), "severities": [1, 2]}
    of = call(lambda c: c.update(analysis=["shift", "latency"], shift=shift))
    entry = of.datasets[DATASET].model_copy(update={"native_size": 224})
    of.datasets[DATASET] = entry
    images, sizes = 6 * 2 * entry.counts.test, len(analyses.shifted_images(of, "pruned", DATASET))
    corrupting = images * sizes * 0.017 / 60  # minutes
    assert sizes == 2
    assert resources.shift_runtime(of, "pruned", DATASET, 1) >= 10 + corrupting
    of.checkpoints["mobilenetv2"] = of.checkpoints["mobilenetv2"].model_copy(update={"gmacs": 100})
    alone, beside = (resources.latency_runtime(of, name, 1) - 10 for name in ("dense", "pruned"))
    assert beside == pytest.approx(2 * alone, abs=1)
    assert alone > 3


def test_a_call_ends_with_what_it_made_or_with_the_studys_conclusion(call):
    of = call()
    made = [grid.pack_table(of, "train", pack) for pack in grid.packs(of, "train")]
    end = "Whether study quickstart is complete, `snakemake` tells."
    assert ending.success(of, False, made[:1]) == f"Made: {made[0]}.\n{end}"
    assert " and 5 more.\n" in ending.success(of, False, made * 5)
    Path(of.output).mkdir(parents=True)
    Path(of.output, "conclusion.txt").write_text("12 of 12 runs")
    assert ending.success(of, True, made) == "12 of 12 runs"
    before = ending.time_of(ending.conclude_log(of))
    assert ending.failure(of, before).startswith("Study quickstart is not complete. Logs: ")
    ending.conclude_log(of).parent.mkdir()
    ending.conclude_log(of).write_text("11 of 12 runs")
    assert ending.failure(of, before) == "11 of 12 runs"
    assert ending.failure(of, ending.time_of(ending.conclude_log(of))).startswith("Study quickstart is not")


CLIP = {
    **{"epochs": 2, "learning_rate": 40.0, "momentum": 0.9, "border": 4, "mapping_interval": 1, "precision": "fp32"},
    **{"batch_size": 8, "shuffle": True, "test_batch_size": 16, "templates": ["a {}"]},
}


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("prompting/border.py", {"dense", "int8"}),
        ("prompting/additive.py", {"clip"}),
        ("prompting/resize.py", set()),
        ("study/resize.py", set()),
        ("prompting/masks.py", set()),
        ("study/masks.py", set()),
        ("study/stated.py", set()),
        ("prompting/prompt.py", {"dense", "clip", "int8"}),
        ("prompting/engine.py", {"dense", "clip", "int8"}),
        # the registries: another line trains nothing
        ("prompting/prompts.py", set()),
        ("study/protocols.py", set()),
        ("networks/families.py", set()),
        ("networks/own.py", set()),
        # modules of architectures
        ("networks/int8.py", {"int8"}),
        ("networks/quantisers.py", {"int8"}),
        ("networks/ofq.py", set()),
        ("networks/architectures.py", {"dense", "clip", "int8"}),
    ],
)
def test_a_run_stands_on_its_own_shape_of_prompt_and_architecture(call, monkeypatch, edited, stale):
    def edit(config):
        clip = {"name": "clip", "checkpoint": "openclip-vit-b-32.openai"}
        int8 = {"name": "int8", "checkpoint": "resnet18-int8"}
        config.update(backbones=[config["backbones"][0], clip, int8], clip=CLIP, methods=["flm"])

    def wanted():
        digest.code_digest.cache_clear()
        code.cache_clear()
        study = call(edit)
        return {name: training.wanted(study, "train", name, DATASET, 0) for name in ("dense", "clip", "int8")}

    real, file = digest.read_code, digest.PACKAGE / edited
    assert file.exists()
    before = wanted()
    other = lambda path: real(path)._replace(text="other") if path == file else real(path)  # noqa: E731
    monkeypatch.setattr(digest, "read_code", other)
    after = wanted()
    monkeypatch.undo()
    digest.code_digest.cache_clear()
    code.cache_clear()
    assert {name for name in before if not before[name].stands_on_the_same(after[name])} == stale


@pytest.mark.parametrize(("architecture", "has_module"), [("int8_resnet18", True), ("resnet20_cifar", False)])
def test_a_training_stands_on_the_module_of_its_architecture(call, architecture, has_module):
    def edit(config):
        own = {"name": "own", "checkpoint": "own", "upstream_seed": 0}
        config.update(upstream=[UPSTREAM | {"architecture": architecture}], backbones=[own])
        config["verification"]["upstream_top1"] = 40

    settings = upstream.sparsify(call(edit), "own", "dense", "0", "0")
    assert ("network_code" in settings) == has_module
    assert values.texts(settings, upstream.TRAINING)["network_code"].startswith("network_code=") == has_module


def forget_code():
    for remembered in (digest.code_digest, digest.definition_digest, code):
        remembered.cache_clear()


def asked_of_runs(call):
    """The params of the jobs that ask finished runs, by analysis; gaussian_noise alone corrupts."""
    forget_code()
    shift = {"corruptions": ["gaussian_noise"], "severities": [1]}
    of = call(lambda config: config.update(analysis=["shift", "why", "split"], shift=shift))
    return {
        "shift": analyses.shift(of, "pruned", DATASET),
        **{name: analyses.compare(of, name) for name in analyses.comparing(of)},
    }


def stale(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("edited", "old", "new", "again"),
    [
        ("methods/registry.py", '"#E69F00"', '"#000001"', set()),  # a method's colour, and what it is called
        ("methods/registry.py", '"RLM-VP"', '"RLM"', set()),
        ("methods/method.py", "return self.job ==", "return self.job is not None ==", set()),
        ("study/protocols.py", "RunMaskProtocol)\n", "RunMaskProtocol, RunProtocol)\n", set()),  # a shape of prompt
        ("runs/metrics.py", '"Brier score"', '"Brier"', set()),
        (
            "runs/metrics.py",
            "predictions.probabilities - truth",
            "predictions.probabilities + truth",
            set(),
        ),  # no cost
        ("runs/metrics.py", "rows if n)", "rows)", {"shift", "why"}),  # the calibration error
        ("runs/measures.py", '"CKA of features with dense"', '"CKA"', set()),
        ("runs/measures.py", "len(own.features) < 4", "len(own.features) < 5", {"why"}),
        ("runs/measures.py", "self.of_one(own), self", "self.of_one(dense), self", {"why"}),
        ("runs/measured.py", "1000  #", "900  #", {"why"}),
        ("runs/swaps.py", ".argmax(1)", ".argmin(1)", {"split"}),
        ("runs/pairs.py", "/ len(images)", "/ 2", {"why", "split"}),
        ("runs/shift.py", ".isfinite()", ".isnan()", {"shift"}),
        (
            "datasets/corruptions.py",
            "image * photons) /",
            "image + photons) /",
            set(),
        ),  # of one that is not asked for
        ("datasets/corruptions.py", "image + random.normal", "image - random.normal", {"shift"}),
        ("datasets/corruptions.py", "+ 1e-6", "+ 1e-5", {"shift"}),
        ("prompting/matrix.py", "import torch\n", "import torch\n\nMORE = 1\n", {"shift", "why", "split"}),
    ],
)
def test_finished_runs_are_asked_anew_where_what_asks_them_is_edited(call, monkeypatch, edited, old, new, again):
    before, file = asked_of_runs(call), digest.PACKAGE / edited
    text = file.read_text()
    assert old in text
    with monkeypatch.context() as patch:  # as an edit of the file is read
        patch.setattr(Path, "read_bytes", lambda _: text.replace(old, new, 1).encode())
        patch.setattr(digest, "_parse_once", digest._parse)
        after = {name: getattr(digest, name).__wrapped__(file) for name in ("read_code", "_definitions")}
    with monkeypatch.context() as patch:
        for name, read in after.items():
            real = getattr(digest, name)
            other = lambda path, real=real, read=read: read if path == file else real(path)  # noqa: E731
            patch.setattr(digest, name, other)
        found = stale(before, asked_of_runs(call))
    forget_code()
    assert found == again


def test_finished_runs_are_asked_anew_by_an_entry_that_is_in_use(call, monkeypatch):
    def after(entries, name, entry):
        with monkeypatch.context() as patch:
            patch.setitem(entries, name, entry)
            return stale(before, asked_of_runs(call))

    before = asked_of_runs(call)
    brier, noise = metrics.METRICS["brier"], corruptions.CORRUPTIONS["gaussian_noise"]
    assert after(metrics.METRICS, "another", brier) == set()
    assert after(measures.MEASURES, "another", measures.MEASURES["margin"]) == {"why"}
    assert after(corruptions.CORRUPTIONS, "another", noise) == set()
    assert after(corruptions.CORRUPTIONS, "gaussian_noise", replace(noise, small=noise.large)) == {"shift"}
