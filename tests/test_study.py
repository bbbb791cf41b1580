import copy
import json

import pytest
import yaml
from conftest import ROOT

from hiddencost.study import Study, StudyError, load_study

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def edited(path, value):
    """The quickstart's config with the value at a path (keys and indices) replaced; None deletes it."""
    config = copy.deepcopy(CONFIG)
    *parents, last = path
    part = config
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return config


def complaint(config):
    with pytest.raises(StudyError) as caught:
        load_study(config, "studies/mine.yaml")
    return str(caught.value)


def test_the_quickstart_is_a_valid_study():
    study = load_study(CONFIG, "config.yaml")
    assert study.study == "quickstart"
    assert study.prompting == ["rlm", "flm", "ilm"]
    assert study.backbone("mobilenetv2-magnitude20").compression.sparsity == 0.2


BAD = {
    "unknown key": (
        ["protocol", "epoch"],
        3,
        "studies/mine.yaml: protocol.epoch: the key 'epoch' is unknown; did you mean 'epochs'? allowed: epochs, ",
    ),
    "unknown key of a list's entry": (
        ["backbones", 1, "compression", "sparsty"],
        0.2,
        "studies/mine.yaml: backbones[1].compression.sparsty: the key 'sparsty' is unknown; did you mean 'sparsity'?",
    ),
    "missing key": (["protocol", "canvas"], None, "studies/mine.yaml: protocol.canvas: the key is missing"),
    "method": (
        ["methods"],
        ["ilm", "fml"],
        "studies/mine.yaml: methods[1]: 'fml' is unknown; did you mean 'flm'? allowed: rlm, flm, ilm, lp",
    ),
    "dataset": (
        ["datasets", 0, "name"],
        "cifar10-parts",
        "studies/mine.yaml: datasets[0].name: 'cifar10-parts' is unknown; did you mean 'cifar10-part'? allowed:",
    ),
    "checkpoint": (
        ["backbones", 0, "checkpoint"],
        "mobilenet",
        "studies/mine.yaml: backbones[0].checkpoint: 'mobilenet' is unknown; did you mean 'mobilenetv2'? allowed:",
    ),
    "algorithm": (
        ["backbones", 1, "compression", "algorithm"],
        "magnitud",
        "backbones[1].compression.algorithm: 'magnitud' is unknown; did you mean 'magnitude'?",
    ),
    "empty grid": (["seeds"], [], "studies/mine.yaml: seeds: [] is not allowed: list should have at least 1 item"),
    "no backbone": (
        ["backbones"],
        [],
        "studies/mine.yaml: backbones: [] is not allowed: list should have at least 1",
    ),
    "sparsity": (
        ["backbones", 1, "compression", "sparsity"],
        1.2,
        "backbones[1].compression.sparsity: 1.2 is not allowed: input should be less than 1",
    ),
    "no sparsity": (
        ["backbones", 1, "compression", "sparsity"],
        0,
        "backbones[1].compression.sparsity: 0 is not allowed: input should be greater than 0",
    ),
    "shots below one": (
        ["shots"],
        [1, 0],
        "shots[1]: 0 is not a number of images per class; expected an integer from 1, or 'full'",
    ),
    "shots that are no number": (["shots"], ["all"], "shots[0]: 'all' is not a number of images per class; expected"),
    "canvas": (
        ["protocol", "canvas"],
        96,
        "studies/mine.yaml: datasets[0].image_size: 104 leaves no border on the canvas; expected less than "
        "protocol.canvas, 96",
    ),
    "duplicate backbone": (
        ["backbones", 1, "name"],
        "mobilenetv2-dense",
        "studies/mine.yaml: backbones: mobilenetv2-dense stands there more than once; each must be different",
    ),
    "the same network twice": (
        ["backbones", 1],
        {"name": "again", "checkpoint": "mobilenetv2"},
        "studies/mine.yaml: backbones: mobilenetv2-dense and again are the same network; expected different ones",
    ),
    "milestones that fall together": (
        ["protocol", "milestones"],
        [0.5, 0.72],
        "protocol: milestones [0.5, 0.72] of 2 epochs fall on the epochs [1, 1]; expected each on another one",
    ),
    "a number in quotes": (
        ["protocol", "epochs"],
        "2",
        "protocol.epochs: '2' is not allowed: input should be a valid",
    ),
    "a backbone that is a name": (
        ["backbones", 0],
        "dense",
        "backbones[0]: 'dense' is not allowed: expected a mapping",
    ),
    "duplicate seed": (["seeds"], [1, 1], "seeds: 1 stands there more than once"),
    "compressed control": (
        ["backbones", 1, "control"],
        "random_init",
        "backbones[1]: a backbone has either a compression or a control, not both",
    ),
    "path as a name": (["study"], "../elsewhere", "studies/mine.yaml: study: '../elsewhere' is not allowed: "),
    "colour": (["figures", "colours"], {"ilm": "blue"}, "figures.colours.ilm: 'blue' is not allowed: "),
    "colour of an unknown method": (
        ["figures", "colours"],
        {"iml": "#000000"},
        "figures.colours.iml: 'iml' is unknown; did you mean 'ilm'?",
    ),
    "not a mapping": (["protocol"], [1], "studies/mine.yaml: protocol: [1] is not allowed: "),
    "infinity": (["protocol", "learning_rate"], float("inf"), "protocol.learning_rate: inf is not allowed: "),
}


@pytest.mark.parametrize(("path", "value", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_that_names_file_key_value_and_what_is_allowed(path, value, expected):
    message = complaint(edited(path, value))
    assert expected in message
    assert message.startswith("studies/mine.yaml: ")
    assert len(message.splitlines()) == 1


def test_shots_are_sorted():
    assert load_study(edited(["shots"], ["full", 20, 1]), "config.yaml").shots == [1, 20, "full"]


def test_each_fault_has_its_line():
    config = edited(["shots"], [0]) | {"methods": ["vp"]}
    assert len(complaint(config).splitlines()) == 2


def test_the_schema_for_editors_is_the_one_that_is_checked():
    """workflow/schemas/study.schema.json is written by `python -m hiddencost.study`."""
    committed = json.loads((ROOT / "workflow/schemas/study.schema.json").read_text())
    assert committed == Study.model_json_schema()
