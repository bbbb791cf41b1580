"""The label mapping by the names of classes: as published, in packs, and in what a study says of it."""

import hashlib
from pathlib import Path

import in_process
import numpy as np
import open_clip
import pandas as pd
import pytest
import reference
import tiny_clip
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import hiddencost
from hiddencost.catalog.entries import CheckpointLayout
from hiddencost.files import sha256_file, write_json
from hiddencost.jobs import grid, places, training
from hiddencost.jobs.call import Call, read_call
from hiddencost.messages import StudyError
from hiddencost.methods.registry import METHODS
from hiddencost.methods.semantic import by_names
from hiddencost.networks import inference
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.clip import names
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.runs import not_run, packfile, prompting
from hiddencost.runs.packfile import PackInputs
from hiddencost.study.load import load_study
from hiddencost.study.recipes import RunProtocol

CPU = torch.device("cpu")
CLASSES = ["airplane", "polka-dotted", "AnnualCrop", "sea_horse"]
WORDS = ["airplane", "polka dotted", "annual crop", "sea horse"]
PROTOCOL = RunProtocol(
    **{"canvas": 48, "image_size": 32, "epochs": 3, "learning_rate": 0.5, "milestones": [0.5], "gamma": 0.1},
    **{"batch_size": 5, "shuffle": True, "test_batch_size": 128, "mapping_interval": 1, "precision": "fp32"},
)
CONSTANTS = [0.48, 0.46, 0.4], [0.23, 0.22, 0.22]
READER = "clip-vit-l-14-336"  # of the catalog
STUDY = in_process.STUDY | {"methods": ["flm", "sem", "lp"], "seeds": [0], "text_encoder": READER}


# ---- the mapping


def drawn(similarities):
    classes, sources = similarities.shape
    return by_names(similarities, torch.arange(classes), sources, classes, None).tolist()


def test_a_target_class_has_the_most_similar_source_class_that_earlier_ones_left():
    assert drawn(torch.tensor([[0.1, 0.9, 0.8], [0.2, 0.95, 0.3]])) == [1, 2]
    assert drawn(torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.9, 0.9, 0.2]])) == [0, 1, 2]


def test_a_mapping_is_that_of_the_plain_loop():
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        similarities = torch.randint(0, 6, (7, 12), generator=random) / 6  # many ties
        found = drawn(similarities)
        assert found == reference.semantic(similarities.tolist())
        assert len(set(found)) == 7


# ---- names, and how alike they are


def test_names_are_those_of_the_published_code():
    """Of IBM/AutoVP, auto_vp/imagenet1000_classname.py, a line each."""
    published = "a40d9be82eb4738becd1dd69991b89f87f309975e860a6f3f45395d8c06a7e0d"
    assert hashlib.sha256("\n".join(names.imagenet_names()).encode()).hexdigest() == published


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return tiny_clip.configure(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def clip(architecture):
    return tiny_clip.network(architecture)


@pytest.fixture(scope="module")
def plain(architecture):
    """The cosines of names, as words, and ImageNet's, in float64, [4, 1000]."""
    network, tokenize = tiny_clip.network(architecture).double(), open_clip.get_tokenizer("tiny")
    found = [network.encode_text(tokenize(texts)).numpy() for texts in (WORDS, names.imagenet_names())]
    return [[a @ b / np.sqrt((a @ a) * (b @ b)) for b in found[1]] for a in found[0]]


@pytest.fixture
def imported(tmp_path, architecture, clip):
    """Return the folder of the tiny CLIP, imported."""
    file = tmp_path / "clip.safetensors"
    tiny_clip.save_open_clip(clip, file)
    files = {"weights": {"path": str(file), "sha256": sha256_file(file)}}
    write_json(tmp_path / "fetched.json", {"failed": None, "files": files})
    layout = CheckpointLayout(
        **{"architecture": architecture, "format": "open_clip", "preprocessing": tiny_clip.PREPROCESSING},
        **{"stem": None, "upstream_top1": None, "sparsity_over": "towers"},
    )
    import_checkpoint("clip", layout, tmp_path / "fetched.json", tmp_path / "imported")
    return tmp_path / "imported"


def test_names_are_as_alike_as_plain_cosines_in_float64_say(imported, tmp_path, plain):
    names.write_names(imported, CLASSES, tmp_path / "names.safetensors", None)
    found = load_file(tmp_path / "names.safetensors")["similarities"]
    torch.testing.assert_close(found.double(), torch.tensor(plain), rtol=0, atol=1e-5)
    assert drawn(found) == reference.semantic(plain)
    assert found.std() > 0.05, "all names are alike: the test shows little"


def test_what_is_not_there_reads_nothing_and_says_why(imported, tmp_path):
    file = tmp_path / "names.safetensors"
    assert not not_run._failed(written(file, imported, []))  # of a dataset that has failed
    assert not_run._failed(written(file, None, CLASSES, "offline")) == "offline"
    write_json(tmp_path / "fetched.json", {"failed": "host gone", "files": {}})
    layout = CheckpointLayout(
        **{"architecture": "clip/tiny", "format": "open_clip", "preprocessing": tiny_clip.PREPROCESSING},
        **{"stem": None, "upstream_top1": None, "sparsity_over": "towers"},
    )
    import_checkpoint("clip", layout, tmp_path / "fetched.json", tmp_path / "gone")
    assert "host gone" in not_run._failed(written(file, tmp_path / "gone", CLASSES))


def written(file, folder, classes, left_out=None):
    names.write_names(folder, classes, file, left_out)
    assert not load_file(file)
    return file


# ---- runs


@pytest.fixture(scope="module")
def prompted():
    """A small network of 1000 classes in float64, as it is, and behind canvases."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000)
        network = nn.Sequential(*layers).double().eval().requires_grad_(False)
    constants = [torch.tensor(one, dtype=torch.float64).reshape(3, 1, 1) for one in CONSTANTS]
    return network, PromptedNetwork(inference.for_inference(network, CPU), *constants, PROTOCOL, Plan(chunk=7))


def test_training_follows_the_plain_algorithm_alone_and_in_a_pack(prompted, plain, threads):
    network, engine = prompted
    data = (
        torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images")),
        torch.arange(12) % 4,
    )
    similarities, runs = torch.tensor(plain), [(name, range(12)) for name in ("rlm", "sem", "ilm", "fm")]
    alone, pack = (
        dict(train_prompts(engine, *data, 4, some, 3, PROTOCOL, similarities=similarities))
        for some in ([("sem", range(12))], runs)
    )
    constants = *CONSTANTS, torch.float64
    expected = reference.train(network, *data, 4, "sem", 3, PROTOCOL, *constants, similarities=similarities)
    prompt, mappings, losses = expected
    for found in (alone[0], pack[1]):
        assert found.mappings == mappings
        assert found.mapping.tolist() == reference.semantic(plain)
        torch.testing.assert_close(torch.tensor(found.losses), torch.tensor(losses), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.prompt, prompt, rtol=0, atol=1e-6)


def trainings(monkeypatch):
    """Return a list to which the methods of each run are added that is trained from now on."""
    trained, real = [], prompting.train_prompts

    def train(*arguments, **more):
        trained.extend(method for method, _ in arguments[4])
        return real(*arguments, **more)

    monkeypatch.setattr(prompting, "train_prompts", train)
    return trained


def test_a_whole_study_and_what_its_runs_stand_on(tmp_path, monkeypatch, threads):
    """From packs to tables, figures and hiddencost.load; other names train what maps by them, and nothing else."""
    finished = in_process.run(STUDY, tmp_path, monkeypatch, ["accuracy", "glance"])
    before = finished.runs
    assert set(finished.runs["status"]) == {"ok"}
    assert finished.runs["method"].value_counts().to_dict() == dict.fromkeys(STUDY["methods"], 4)
    file = Path("results/tiny/names/toy.safetensors")
    expected = reference.semantic(load_file(file)["similarities"].tolist())
    mappings = pd.read_parquet(finished.tables["mappings"]).query("method == 'sem'")
    assert len(mappings) == 4 * 3
    assert all(run["source"].tolist() == expected for _, run in mappings.groupby(["backbone", "shots"]))
    model = hiddencost.load("results/tiny", backbone="pruned", method="sem", shots="full")
    assert model.mapping.tolist() == expected
    images, labels = (torch.from_numpy(np.load("toy.npz")[f"{name}_test"]) for name in "xy")
    assert (model(images).argmax(1) == labels).double().mean().item() == pytest.approx(model.run["accuracy"])

    trained = trainings(monkeypatch)
    pd.testing.assert_frame_equal(in_process.run(STUDY, tmp_path, monkeypatch).runs, before)
    assert trained == []
    save_file({"similarities": 1 - load_file(file)["similarities"]}, file)
    after = in_process.run(STUDY, tmp_path, monkeypatch).runs
    assert trained == ["sem"] * 4
    assert set(after["method"][after["run"] != before["run"]]) == {"sem"}
    in_process.run(STUDY | {"text_encoder": f"{READER}-coco"}, tmp_path, monkeypatch)
    assert trained == ["sem"] * 8


def test_where_nothing_reads_the_names_the_other_methods_are_run(tmp_path, monkeypatch, threads):
    file = tmp_path / "results/tiny/names/toy.safetensors"
    file.parent.mkdir(parents=True)
    save_file({}, file, metadata={"failed": "host gone"})
    finished = in_process.run(STUDY, tmp_path, monkeypatch)
    status = finished.runs.set_index("method")[["status", "reason"]]
    assert set(status.drop(index="sem")["status"]) == {"ok"}
    assert set(status.loc["sem", "status"]) == {"not run"}
    assert set(status.loc["sem", "reason"]) == {"nothing has read the names of classes: host gone"}
    # of a pack of such runs alone there is nothing to do
    call = Call(load_study(STUDY | {"methods": ["sem"]}, "the study"))
    request = training.wanted(call, "train", "dense", "toy", 0)
    folder = Path("results/tiny")
    inputs = PackInputs(
        backbone=folder / "backbones/dense",
        verification=folder / "backbones/dense/verification.json",
        dataset=Path(places.prepared_folder(call, "toy", request.size)),
        split=folder / "splits/toy/seed0.json",
    )
    assert not_run.write_not_run(inputs, request, Path("alone.parquet"), file)
    assert set(pd.read_parquet("alone.parquet")["status"]) == {"not run"}
    assert METHODS["sem"].is_one_to_one


# ---- what a study says of it


def own_images(classes, **more):
    return STUDY | {"datasets": [{"name": "toy", "npz": "toy.npz", "image_size": 12, "classes": classes}]} | more


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, labels = np.zeros((6, 3, 12, 12), np.uint8), np.arange(6) % 3
    np.savez("toy.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


@pytest.mark.usefixtures("toy", "records")
@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (
            own_images(None),
            "datasets[0]: toy: its classes have no names, and a CLIP reads the names; expected a name",
        ),
        (
            own_images(["sea horse", "sea_horse", "eel"]),
            "toy: its classes 'sea horse' and 'sea_horse' are 'sea horse'",
        ),
        (
            own_images(["a", "b", "d"], text_encoder="mobilenetv2"),
            "text_encoder: mobilenetv2 is a convolutional network, which reads no texts; expected a CLIP",
        ),
        (
            own_images(["a", "b", "d"], text_encoder="clip-vit-l"),
            "text_encoder: 'clip-vit-l' is unknown; did you mean",
        ),
        (
            own_images(["a", "b", "d"], methods=["sem"], backbones=[{"name": "net", "checkpoint": READER}]),
            "backbones[0]: net is a CLIP, and methods has sem; expected one of rlm, flm, ilm",
        ),
    ],
)
def test_what_has_no_names_is_told_in_a_line(study, reason):
    with pytest.raises(StudyError) as told:
        read_call(study, "the study", "snakemake")
    assert reason in str(told.value)


@pytest.mark.usefixtures("toy", "records")
def test_without_the_method_nobody_asks_for_names():
    call = read_call(own_images(None, methods=["flm"]), "the study", "snakemake")
    assert READER not in call.published
    assert training.names(call, "dense", "toy") == []
    assert grid.why_no_names(call) is None


@pytest.mark.usefixtures("toy", "records")
def test_what_reads_names_is_of_the_runs_that_map_by_them_alone():
    def packs(**more):
        call = read_call(own_images(["a", "b", "d"], **more), "the study", "snakemake")
        return call, *(training.wanted(call, job, "dense", "toy", 0) for job in ("train", "probe"))

    call, train, probe = packs()
    assert READER in call.published
    assert training.names(call, "dense", "toy") == ["results/tiny/names/toy.safetensors"]
    _, of_other, probe_of_other = packs(text_encoder=f"{READER}-coco")
    assert probe == probe_of_other
    assert of_other.methods["sem"] != train.methods["sem"]
    flm = (("flm", 1),)
    assert train.asking(flm) == of_other.asking(flm) == packs(methods=["flm", "lp"])[1].asking(flm)
    assert not train.stands_on_the_same(of_other)


@pytest.mark.usefixtures("toy", "records")
@pytest.mark.parametrize("changed", ["encoder", "code", "left_out"])
def test_tables_so_far_are_of_the_names_as_they_are_read_now(monkeypatch, changed):
    """Another file of the text encoder, or code that reads names, is none that a table so far may stand on; other
    methods do not read them."""

    def pack(methods, is_changed=False):
        call = read_call(own_images(["a", "b", "d"], methods=methods), "the study", "snakemake")
        if changed == "encoder" and is_changed:
            file = call.published[READER].files["weights"].model_copy(update={"sha256": "ab" * 32})
            call.published[READER] = call.published[READER].model_copy(update={"files": {"weights": file}})
        return training.wanted(call, "train", "dense", "toy", 0)

    before, without, real = pack(["flm", "sem"]), pack(["flm"]), training.code
    if changed == "code":
        monkeypatch.setattr(
            training, "code", lambda root, script: real(root, script) + "x" * (script == "embed_names")
        )
    if changed == "left_out":
        monkeypatch.setattr(training, "embed_names", lambda call: {"left_out": "host gone"})
    now = pack(["flm", "sem"], is_changed=True)
    assert not before.stands_on_the_same(now)
    assert "names of classes that older code or other settings made" in packfile.why_stale(before, now)
    assert without == pack(["flm"])
    assert before.asking((("flm", 1),)) == now.asking((("flm", 1),))


def test_a_network_that_the_study_trains_has_no_names_of_imagenet():
    recipe = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "weight_decay": 0.0, "crop": "padded"}
    upstream = {"name": "own", "architecture": "resnet18_cifar", "dataset": "cifar10-part", "image_size": 32}
    backbones = [*STUDY["backbones"], {"name": "trained", "checkpoint": "own"}]
    gate = STUDY["verification"] | {"upstream_top1": 0}
    changed = {
        "backbones": backbones,
        "upstream": [upstream | {"recipe": recipe | {"precision": "fp32"}}],
        "verification": gate,
    }
    study = load_study(STUDY | changed, "the study")
    assert study.methods_of(study.backbone("trained")) == ["flm", "lp"]
    assert study.methods_of(study.backbone("dense")) == ["flm", "sem", "lp"]
    assert study.published_checkpoints([study.backbone("trained")]) == set()
