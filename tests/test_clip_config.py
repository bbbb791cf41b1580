"""What a study says of CLIP, and what is told where it is wrong."""

import copy

import pytest
from tiny_clip import CONFIG

from hiddencost import catalog
from hiddencost.catalog.entries import Counts
from hiddencost.jobs import cost
from hiddencost.messages import StudyError
from hiddencost.study.load import load_study

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
            "probe: the key is missing: methods has zs, whose recipe it is",
        ),
        (
            mixed(backbones=[CNN], methods=["zs"]),
            "cnn is a convolutional network, and methods has zs; expected one of rlm, flm, ilm, lp, ft",
        ),
        (without("protocol", mixed()), "protocol: the key is missing: it is the recipe of cnn"),
        (
            mixed(datasets=[{"name": "dtd"}]),
            "datasets[0].image_size: the key is missing: cnn is prompted by a border",
        ),
        (
            config(backbones=[{"name": "clip", "checkpoint": "clip-vit-l-14"}]),
            "'clip-vit-l-14' is unknown; did you mean 'clip-vit-l-14-336'?",
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
