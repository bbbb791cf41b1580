"""What a study says of CLIP, and what is told where it is wrong."""

import copy

import numpy as np
import pytest
from PIL import Image
from tiny_clip import CONFIG

from hiddencost import catalog
from hiddencost.catalog.entries import Counts
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.prepared import PreparedReport, load
from hiddencost.jobs import cost
from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError
from hiddencost.networks.families import FAMILIES
from hiddencost.study.load import load_study

pytestmark = pytest.mark.usefixtures("records")
CLIP = "openclip-vit-b-32.openai"
CNN = {"name": "cnn", "checkpoint": "mobilenetv2"}
PROTOCOL = {
    **{"canvas": 224, "epochs": 2, "learning_rate": 0.01, "milestones": [0.5], "gamma": 0.1, "batch_size": 20},
    **{"shuffle": True, "mapping_interval": 1, "precision": "auto", "test_batch_size": 128},
}


def config(**changes):
    told = copy.deepcopy(CONFIG) | {"backbones": [{"name": "clip", "checkpoint": CLIP}]}
    return told | changes


def mixed(**changes):
    backbones = [{"name": "clip", "checkpoint": CLIP}, CNN]
    datasets = [{"name": "cifar10", "image_size": 32}, {"name": "dtd", "image_size": 128}]
    return config(backbones=backbones, datasets=datasets, protocol=PROTOCOL) | changes


def test_a_study_of_clip_alone_needs_no_protocol_and_no_image_size():
    study = load_study(config(), "file")
    (one,) = study.backbones
    assert study.canvas(one) == 224
    recipe = study.recipe("protocol", "cifar10-part", "clip")
    assert (recipe["canvas"], recipe["border"], recipe["interpolation"]) == (224, 8, "bicubic")
    assert "templates" not in recipe


def test_methods_sizes_and_recipes_are_those_of_each_backbone():
    study = load_study(mixed(methods=["ilm", "lp", "ft", "zs"], finetune=fine_tuning()), "file")
    clip, cnn = study.backbones
    assert study.methods_of(clip) == ["ilm", "lp", "zs"]
    assert study.methods_of(cnn) == ["ilm", "lp", "ft"]
    assert study.sizes("cifar10", clip) == {"train": "32", "probe": "32"}  # enlarged where it is used
    assert study.sizes("dtd", clip) == dict.fromkeys(("train", "probe"), "224-shortest-bicubic")
    assert study.sizes("dtd", cnn) == {"train": "128", "probe": "224", "finetune": "256"}
    assert "border" not in study.recipe("protocol", "dtd", "cnn")


def fine_tuning():
    return {
        **{"epochs": 2, "batch_size": 8, "shuffle": True, "test_batch_size": 8, "learning_rate": 0.01},
        **{"weight_decay": 0.0, "precision": "auto"},
    }


def without(key, of):
    return {name: value for name, value in of.items() if name != key}


def clip_of(**changes):
    return config(clip=CONFIG["clip"] | changes)


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (without("clip", config()), "clip: the key is missing: it is the recipe of clip, a CLIP"),
        (clip_of(border=113), "clip.border: 113 on either side is more than the 224 pixels of clip"),
        (
            clip_of(templates=["a photo"]),
            "clip.templates: 'a photo' is not allowed: expected one {}, for the name of a class",
        ),
        (clip_of(templates=["{} {}"]), "clip.templates: '{} {}' is not allowed: expected one {}"),
        (clip_of(templates=["a {name}"]), "clip.templates: 'a {name}' is not allowed: expected one {}"),
        (clip_of(templates=[]), "clip.templates: [] is not allowed: expected a list of texts"),
        (clip_of(templates="all"), "clip.templates: 'all' is not allowed: expected a list of texts"),
        (clip_of(momentum=1.0), "clip.momentum: 1.0 is not allowed"),
        (
            config(methods=["ft"], finetune=fine_tuning()),
            "clip is a CLIP, and methods has ft; expected one of rlm",
        ),
        (
            without("probe", config(methods=["zs"])),
            "probe: the key is missing: methods has zs, which takes its test_batch_size",
        ),
        (
            mixed(backbones=[CNN], methods=["zs"]),
            "cnn is a convolutional network, and methods has zs; expected one of rlm, flm, ilm, flm-opt, ilm-opt, "
            "sem, blm, blm+, fm, lp, ft",
        ),
        (without("protocol", mixed()), "protocol: the key is missing: it is the recipe of cnn"),
        (
            mixed(datasets=[{"name": "dtd"}]),
            "datasets[0].image_size: the key is missing: cnn is prompted by a border",
        ),
        (
            config(backbones=[{"name": "clip", "checkpoint": "clip-vit-l-14"}]),
            "'clip-vit-l-14' is unknown; did you mean 'clip-vit-l-14-336', 'clip-vit-l-14-336-",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(study, reason):
    with pytest.raises(StudyError) as refused:
        load_study(study, "file")
    assert reason in str(refused.value)


def test_what_clip_costs_counts_its_own_canvas_and_recipe():
    study = load_study(mixed(methods=["ilm", "zs"], shots=[1]), "file")
    clip, _ = study.backbones
    entry = catalog.checkpoint("clip-vit-l-14-336").model_copy(update={"gmacs": 10.0})
    dataset = catalog.datasets()["cifar10"].model_copy(update={"counts": Counts(train=100, test=30)})
    found = cost.pack_gflop(study, clip, study.methods, entry, dataset)
    # ten images in two epochs, forward and backward; two mapping passes, and the test; zero-shot reads features
    assert found == {"training": 2 * 10 * 2 * 20.0, "mapping and test": (2 * 10 + 30) * 20.0}


# The names of classes, which are a CLIP's texts


def own_images(tmp_path, *classes):
    for name in classes:
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (number, len(name), 0)).save(tmp_path / f"mine/{name}/{number}.png")
    images = np.zeros((4, 8, 8, 3), np.uint8)
    labels = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return {"folder": str(tmp_path / "mine"), "test_share": 0.5} if classes else {"npz": str(tmp_path / "mine.npz")}


NAMES = {
    "an npz": ((), None, "datasets[0]: mine: its classes have no names, and a CLIP reads the names; expected a name"),
    "an npz with names": ((), ["cat", "dog"], None),
    "numbers": (("0", "1"), None, "datasets[0]: mine: its classes are called '0' and the like, and a CLIP reads the"),
    "of WordNet": (("n02123045", "n02085620"), None, "its classes are called 'n02085620' and the like, and a CLIP"),
    "numbered": (("class_1", "class_2"), None, "its classes are called 'class_1' and the like"),
    "c and a number": (("c1", "c_2"), None, "its classes are called 'c1' and the like"),
    "n and a few digits": (("n1", "n2"), None, None),
    "signs": (("--", "++"), None, "its classes are called '++' and the like"),
    "names": (("cat", "big-dog"), None, None),
    "letters": (tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), None, None),
    "languages": (("c", "c++", "C#", "N"), None, None),
    "numbers with names": (("0", "01"), {0: "cat", "01": "dog"}, None),
    "numbers that are names": (("737", "747"), {737: "737", 747: "747"}, None),
    "two alike": (("big_dog", "Big-Dog"), None, "its classes 'Big-Dog' and 'big_dog' are 'big dog' to a CLIP, which"),
    "two alike in a list": ((), ["a_b", "A-b"], "its classes 'a_b' and 'A-b' are 'a b' to a CLIP, which reads the"),
    "one folder more": (
        ("cat", "dog"),
        {"cat": "x", "dog": "y", "cow": "z"},
        "classes: cow: in one alone, of classes",
    ),
    "one folder less": (("cat", "dog"), {"cat": "x"}, "classes: dog: in one alone, of classes and the folders of"),
    "a list for folders": (
        ("cat", "dog"),
        ["x", "y"],
        "expected a name for each folder (folder: name), or with npz a",
    ),
    "folders for an npz": ((), {"cat": "x"}, "expected a name for each folder (folder: name), or with npz a list"),
    "one name twice": ((), ["x", "x"], "datasets[0].classes: x stands there more than once; each must be different"),
    "one folder twice": (
        ("0", "1"),
        {0: "cat", "0": "cow", 1: "dog"},
        "datasets[0].classes: 0 stands there more than once; each must be different",
    ),
    "numbers for names": (
        (),
        [0, 1],
        "datasets[0].classes: [0, 1] is not allowed: expected names, as printable texts",
    ),
}


@pytest.mark.parametrize(("folders", "classes", "message"), NAMES.values(), ids=NAMES)
def test_classes_that_a_clip_cannot_tell_by_their_names_are_told_before_any_job(folders, classes, message, tmp_path):
    dataset = {"name": "mine", "image_size": 32} | own_images(tmp_path, *folders)
    told = config(datasets=[dataset | ({"classes": classes} if classes else {})])
    if message is None:
        (name,) = read_call(told, "file", "").targets.values()
        assert name.classes == ([*classes.values()] if isinstance(classes, dict) else classes or sorted(folders))
        return
    with pytest.raises(StudyError) as raised:
        read_call(told, "file", "")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    if "CLIP" in message:  # others do not read them
        read_call(config(datasets=told["datasets"], methods=["lp"]), "file", "")
        read_call(mixed(backbones=[CNN], datasets=told["datasets"], methods=["ilm"]), "file", "")


def test_the_classes_of_the_catalog_s_datasets_are_told_apart_by_a_clip():
    for entry in catalog.datasets().values():
        FAMILIES["clip"].check_class_names(entry.classes, given=True)


def test_classes_of_one_s_own_have_the_names_that_were_given(tmp_path):
    entry = user_entry("mine", **own_images(tmp_path, "0", "1"), classes={"0": "cat", "1": "dog"})
    prepare("mine", entry, None, 8, tmp_path / "out")
    assert load(tmp_path / "out").classes == ["cat", "dog"]
    for classes, message in (
        (["cat", "dog"], None),
        (["cat", "dog", "cow"], "2 different labels from 0 to 1, expected all from 0 to 2"),
    ):
        prepare(
            "mine", user_entry("mine", npz=str(tmp_path / "mine.npz"), classes=classes), None, 8, tmp_path / "out"
        )
        failed = PreparedReport.read(tmp_path / "out").failed
        assert message in failed if message else load(tmp_path / "out").classes == classes
