import copy
import json
import os
import re
from typing import Annotated

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError, one_of
from hiddencost.study.load import load_study
from hiddencost.study.recipes import RunProtocol, recipe_of_run
from hiddencost.study.study import Study

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def edited(path, value, study=CONFIG):
    """A study's config, the quickstart's, with the value at a path (keys and indices) replaced; None deletes it."""
    config = copy.deepcopy(study)
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
    assert study.backbone("mobilenetv2-magnitude20").compression.sparsity == 0.2


@pytest.mark.parametrize(
    ("length", "at"), [({"epochs": 5}, [2 * 3, 5 * 3]), ({"steps": 7}, [3, 7])], ids=["epochs", "steps"]
)
def test_a_share_of_a_run_ends_with_an_epoch_or_with_a_step(length, at):
    """20 images in batches of 8 are 3 steps."""
    protocol = CONFIG["protocol"] | {"epochs": None, "batch_size": 8, "milestones": []} | length
    recipe = RunProtocol(**protocol, image_size=32)
    assert [recipe.step_at(share, 20) for share in (0.5, 1)] == at
    assert recipe.steps_on(20) == at[-1]


EXPECTED = {
    **{"backbone": "mobilenetv2-dense", "dataset": "cifar10-part", "method": "lp", "shots": 1},
    **{"accuracy": 50.0, "source": "s"},
}
BAD = {
    "unknown key": (
        ["protocol", "epoch"],
        3,
        "studies/mine.yaml: protocol.epoch: the key 'epoch' is unknown; did you mean 'epochs'? allowed: shuffle, ",
    ),
    "epochs and steps": (
        ["protocol", "steps"],
        100,
        "studies/mine.yaml: protocol: either epochs or steps; expected one of them",
    ),
    "neither epochs nor steps": (
        ["protocol", "epochs"],
        None,
        "studies/mine.yaml: protocol: either epochs or steps; expected one of them",
    ),
    "no batch size for other shots": (
        ["protocol", "batch_size"],
        {1: 8},
        "studies/mine.yaml: protocol.batch_size: {1: 8} is not allowed: 'default', of all other shots, is missing; "
        "expected an integer from 1, or such integers by shots, 'default' for others",
    ),
    "a batch size by a word": (
        ["protocol", "batch_size"],
        {"one": 8, "default": 128},
        "studies/mine.yaml: protocol.batch_size: {'one': 8, 'default': 128} is not allowed: expected an integer",
    ),
    "a batch size of shots that there are not": (
        ["protocol", "batch_size"],
        {2: 8, "default": 128},
        "studies/mine.yaml: protocol.batch_size.2: the study has no such shots; expected one of 1, 20",
    ),
    "a batch size by shots that nothing holds": (
        ["protocol", "batch_size"],
        {1: 8, "default": 1_000_001},
        "studies/mine.yaml: protocol.batch_size.default: 1000001; expected 1,000,000 at most",
    ),
    "a batch size of the test by a recipe that there is not": (
        ["datasets", 0, "test_batch_size"],
        {"prompts": 64},
        "studies/mine.yaml: datasets[0].test_batch_size: the recipe 'prompts' is unknown; allowed: protocol, clip, ",
    ),
    "a batch size of the test without one": (
        ["datasets", 0, "test_batch_size"],
        {"protocol": 0},
        "datasets[0].test_batch_size: {'protocol': 0} is not allowed: expected an integer from 1, or",
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
        "studies/mine.yaml: methods[1]: 'fml' is unknown; did you mean 'fm'? allowed: rlm, flm, ilm, flm-opt",
    ),
    "dataset": (
        ["datasets", 0, "name"],
        "cifar10-parts",
        "studies/mine.yaml: datasets[0].name: 'cifar10-parts' is unknown; did you mean 'cifar10-part'? allowed:",
    ),
    "a method in capitals": (["methods"], ["ILM"], "methods[0]: 'ILM' is unknown; did you mean 'ilm'? allowed: rlm"),
    "a method by its sign in words": (
        ["methods"],
        ["blmplus"],
        "'blmplus' is unknown; did you mean 'blm+'? allowed:",
    ),
    "a method by what figures call it": (
        ["methods"],
        ["linear"],
        "allowed: rlm, flm, ilm, flm-opt, ilm-opt, sem, blm, blm+",
    ),
    "its name at the end": (["methods"], ["linear"], "zs; linear probe is 'lp'"),
    "a method by a part of what figures call it": (["methods"], ["finetune"], "zs; fine-tuning is 'ft'"),
    "a dataset in capitals": (
        ["datasets", 0, "name"],
        "CIFAR10",
        "datasets[0].name: 'CIFAR10' is not allowed: expected small letters, digits, '.', '_' and '-', a letter or a "
        "digit first; did you mean 'cifar10'?",
    ),
    "a dataset with a hyphen": (
        ["datasets", 0, "name"],
        "cifar-10",
        "'cifar-10' is unknown; did you mean 'cifar10'?",
    ),
    "a name of words": (
        ["study"],
        "My Study",
        "study: 'My Study' is not allowed: expected small letters, digits, '.",
    ),
    "a name of words, mended": (["study"], "My Study", "; did you mean 'my-study'?"),
    "a sparsity beside the compression": (
        ["backbones", 0, "sparsity"],
        0.5,
        "backbones[0].sparsity: the key 'sparsity' is not allowed here: it stands under sparsify or compression, "
        "such as compression: {algorithm: magnitude, sparsity: 0.5}; allowed: name, checkpoint, ",
    ),
    "a recipe's key at the top": (
        ["epochs"],
        3,
        "epochs: the key 'epochs' is not allowed here: it stands under protocol, clip, probe or finetune; allowed",
    ),
    "an algorithm alone": (
        ["backbones", 1, "compression"],
        "magnitude",
        "backbones[1].compression: 'magnitude' is not allowed: expected a mapping of keys to values, such as "
        "compression: {algorithm: magnitude, sparsity: 0.5}",
    ),
    "a seed in quotes": (
        ["seeds"],
        ["0"],
        "seeds[0]: '0' is not allowed: input should be a valid integer; did you mean",
    ),
    "a milestone that is an epoch": (
        ["probe", "milestones"],
        [5],
        "probe.milestones[0]: 5 is not allowed: input should be less than 1: it is a share of the epochs; did you "
        "mean 5 / epochs?",
    ),
    "checkpoint": (
        ["backbones", 0, "checkpoint"],
        "mobilenet",
        "studies/mine.yaml: backbones[0].checkpoint: 'mobilenet' is unknown; did you mean 'mobilenetv2' or "
        "'mobilenetv2-int8'? allowed: the names in src/hiddencost/catalog/checkpoints.yaml, or timm-NAME",
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
    "a percentage": (
        ["backbones", 1, "compression", "sparsity"],
        50,
        "compression.sparsity: 50 is not allowed: input should be less than 1; did you mean 0.5?",
    ),
    "a percentage in words": (["backbones", 1, "compression", "sparsity"], "12.5 %", "did you mean 0.125?"),
    "a number of seeds": (["seeds"], 3, "seeds: 3 is not allowed: input should be a valid list, such as [0, 1, 2]"),
    "one number of shots": (["shots"], 10, "shots: 10 is not allowed: input should be a valid list, such as [10]"),
    "shots as a text": (
        ["shots"],
        ["10"],
        "'10' is not a number of images per class; expected an integer from 1, or ",
    ),
    "all shots": (["shots"], [1, "all"], "expected an integer from 1, or 'full'; did you mean 'full'?"),
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
    "colour": (
        ["figures", "colours"],
        {"ilm": "blue"},
        "figures.colours.ilm: 'blue' is not allowed: expected '#' and six hexadecimal digits, such as '#d55e00'",
    ),
    "colour of what the study has not": (
        ["figures", "colours"],
        {"iml": "#000000", "mobilenetv2-dense": "#112233", "blm+": "#445566"},
        "figures.colours: the study has no 'iml'; did you mean 'ilm'?",
    ),
    "figures of a dataset that is not there": (
        ["figures", "datasets"],
        ["cifar11-part"],
        "figures.datasets[0]: the study has no 'cifar11-part'; did you mean 'cifar10-part'?",
    ),
    "figures of a method that the study has not": (
        ["figures", "methods"],
        ["ft"],
        "studies/mine.yaml: figures.methods[0]: the study has no 'ft'; allowed: rlm, flm, ilm, lp",
    ),
    "figures of shots that the study has not": (
        ["figures", "shots"],
        [10],
        "studies/mine.yaml: figures.shots[0]: the study has no 10; did you mean 1? allowed: 1, 20",
    ),
    "figures of a backbone that the study has not": (
        ["figures", "backbones"],
        ["mobilenetv2-dens"],
        "figures.backbones[0]: the study has no 'mobilenetv2-dens'; did you mean 'mobilenetv2-dense'? allowed: ",
    ),
    "a label of nothing": (["figures", "labels"], {"vp": "VP"}, "figures.labels: the study has no 'vp'; "),
    "a label that a legend would leave out": (
        ["figures", "labels"],
        {"ilm": "_ours"},
        "figures.labels.ilm: '_ours' cannot be shown; expected printable text that does not begin with '_'",
    ),
    "a title of control characters": (["figures", "title"], "a\x00b", "figures.title: 'a\\x00b' cannot be shown; "),
    "a title of a page": (["figures", "title"], "a" * 201, "is not allowed: string should have at most 200"),
    "a figure of no size": (["figures", "width"], 5e-324, "figures.width: 5e-324 is not allowed: input should be gr"),
    "a figure of a mile": (["figures", "panel_height"], 6e4, "figures.panel_height: 60000.0 is not allowed: input"),
    "epochs without end": (["protocol", "epochs"], 2**62, f"protocol.epochs: {2**62}; expected 100,000 at most"),
    "a canvas without end": (["datasets", 0, "image_size"], 4097, "datasets[0].image_size: 4097; expected 4,096 at"),
    "a palette that misleads": (["figures", "palette"], "jet", "figures.palette: 'jet' is unknown; allowed: RdBu_r"),
    "a metric without a difference": (
        ["figures", "metric"],
        "nll",
        "figures.metric: 'nll' is unknown; allowed: accur",
    ),
    "a style": (["figures", "style"], "neon", "figures.style: 'neon' is unknown; allowed: light, dark"),
    "a format": (["figures", "formats"], ["png"], "figures.formats[0]: 'png' is unknown; allowed: pdf, svg"),
    "not a mapping": (["protocol"], [1], "studies/mine.yaml: protocol: [1] is not allowed: "),
    "an algorithm without what it needs": (
        ["backbones", 1, "compression"],
        {"algorithm": "nm", "n": 2},
        "studies/mine.yaml: backbones[1].compression: nm needs m",
    ),
    "an algorithm with what it does not know": (
        ["backbones", 1, "compression"],
        {"algorithm": "quantise", "bits": 4, "sparsity": 0.5},
        "backbones[1].compression: quantise takes bits, not sparsity",
    ),
    "n of m the wrong way round": (
        ["backbones", 1, "compression"],
        {"algorithm": "nm", "n": 4, "m": 2},
        "backbones[1].compression: n is 4; expected less than m, 2",
    ),
    "pruning by images without images": (
        ["backbones", 1, "compression"],
        {"algorithm": "wanda", "sparsity": 0.5},
        "backbones[1].compression: wanda needs calibration",
    ),
    "pruning by images of no level": (
        ["backbones", 1, "compression"],
        {"algorithm": "wanda", "calibration": "cifar10"},
        "backbones[1].compression: wanda needs either sparsity, or n and m",
    ),
    "pruning by images of two levels": (
        ["backbones", 1, "compression"],
        {"algorithm": "sparsegpt", "calibration": "cifar10", "sparsity": 0.5, "n": 2, "m": 4},
        "backbones[1].compression: sparsegpt needs either sparsity, or n and m",
    ),
    "pruning by images, n of m the wrong way round": (
        ["backbones", 1, "compression"],
        {"algorithm": "sparsegpt", "calibration": "cifar10", "n": 4, "m": 2},
        "backbones[1].compression: n is 4; expected less than m, 2",
    ),
    "pruning by images of a dataset that is not": (
        ["backbones", 1, "compression"],
        {"algorithm": "wanda", "calibration": "cifar11", "sparsity": 0.5},
        "backbones[1].compression.calibration: 'cifar11' is unknown; did you mean 'cifar10'",
    ),
    "pruning of what reads texts by images": (
        ["backbones", 1],
        {
            **{"name": "clip", "checkpoint": "openclip-vit-b-32.openai"},
            "compression": {"algorithm": "wanda", "calibration": "cifar10", "sparsity": 0.5},
        },
        "backbones[1].compression: wanda looks at images, and half of a CLIP reads texts; expected another algorithm",
    ),
    "a method without its recipe": (
        ["methods"],
        ["ilm", "ft"],
        "finetune: the key is missing: methods has ft, whose",
    ),
    "an unknown dense backbone": (
        ["backbones", 1, "dense"],
        "mobilenetv2-dens",
        "backbones[1].dense: the study has no 'mobilenetv2-dens'; did you mean 'mobilenetv2-dense'?",
    ),
    "two origins of a dataset": (
        ["datasets", 0],
        {"name": "mine", "folder": "a", "npz": "b", "image_size": 32},
        "datasets[0]: a dataset of your own has either a folder or an npz, not both",
    ),
    "a dataset of one's own under a published name": (
        ["datasets", 0, "folder"],
        "images",
        "datasets[0].name: 'cifar10-part' is of the catalog; expected another",
    ),
    "photos that nobody has": (
        ["verification", "photos"],
        "imagenet10000",
        "verification.photos: 'imagenet10000' is unknown; did you mean 'imagenet1000'",
    ),
    "more photos than there are": (
        ["verification", "photos_top1"],
        21,
        "verification: photos_top1: 21; expected at most the 20 photos of imagenet20",
    ),
    "a path for what the study does not use": (
        ["paths"],
        {"resnet18-gmp": "a.pth"},
        "paths: the study has no 'resnet18-gmp'; allowed: cifar10-part, imagenet20, mobilenetv2",
    ),
    "an expectation of nothing": (
        ["expectations"],
        [EXPECTED | {"backbone": "x"}],
        "expectations[0].backbone: the study has no 'x'; allowed: mobilenetv2-dense",
    ),
    "an expectation of a method that the study lacks": (
        ["expectations"],
        [EXPECTED | {"method": "ft"}],
        "expectations[0].method: the study has no 'ft'; allowed: rlm, flm, ilm, lp",
    ),
    "an expectation of shots that the study lacks": (
        ["expectations"],
        [EXPECTED, EXPECTED | {"shots": 3}],
        "expectations[1].shots: the study has no 3; did you mean 1? allowed: 1, 20",
    ),
    "an expectation that is a share of 1": (
        ["expectations"],
        [EXPECTED | {"accuracy": 0.35}, EXPECTED],
        "expectations[0].accuracy: 0.35; expected per cent, and no share of 1 (35, where it is one)",
    ),
    "infinity": (["protocol", "learning_rate"], float("inf"), "protocol.learning_rate: inf is not allowed: "),
}


SMALL = yaml.safe_load((ROOT / "studies/small.yaml").read_text())
RECIPE = ["upstream", 0, "recipe"]
GMP, LTH = (["backbones", number, "sparsify"] for number in (1, 10))
BAD_UPSTREAM = {
    "an unknown sparsifier": (
        [*GMP, "algorithm"],
        "gpm",
        "backbones[1].sparsify.algorithm: 'gpm' is unknown; did you",
    ),
    "what a sparsifier does not take": (
        [*GMP, "share"],
        0.2,
        "backbones[1].sparsify: gmp takes sparsity, begin, end, interval, not share",
    ),
    "a sparsity finer than its folder": (
        [*GMP, "sparsity"],
        0.80000001,
        "backbones[1].sparsify: sparsity is 0.80000001; expected six digits behind the point at most",
    ),
    "all weights": (
        [*GMP, "sparsity"],
        0.99999,
        "backbones[1].sparsify.sparsity: 0.99999 is not allowed: input should",
    ),
    "milestones on the first epoch": (
        RECIPE,
        {**SMALL["upstream"][0]["recipe"], "schedule": "multistep", "milestones": [0.01]},
        "upstream[0].recipe: milestones [0.01] of 15 epochs fall on the epochs [0]; expected",
    ),
    "a batch larger than the data": (
        [*RECIPE, "batch_size"],
        50_002,
        "upstream[0].recipe.batch_size: 50002; expected at most the 50000 training images of cifar10-npm",
    ),
    "an interval longer than the training": (
        [*GMP, "interval"],
        4000,
        "backbones[1].sparsify: gmp: interval is 4000 steps; expected at most 3218, the steps from begin",
    ),
    "an interval of RigL without a change": (
        ["backbones", 7, "sparsify", "interval"],
        5000,
        "backbones[7].sparsify: rigl: interval is 5000 steps; expected less than 4388, where the last change",
    ),
    "phases shorter than a step": (
        ["backbones", 4, "sparsify", "phase"],
        0.0001,
        "backbones[4].sparsify: acdc: 5850 steps are too few for 3751 compressed phases",
    ),
    "phases without number": (  # they are listed, each
        ["backbones", 4, "sparsify", "phase"],
        1e-9,
        "backbones[4].sparsify.phase: 1e-09 is not allowed: input should be greater than or equal to 0.0001",
    ),
    "rounds without number": (  # each is a training
        [*LTH, "share"],
        1e-9,
        "backbones[10].sparsify.share: 1e-09 is not allowed: input should be greater than or equal to 0.01",
    ),
    "an end before the begin": (
        [*GMP, "begin"],
        0.8,
        "backbones[1].sparsify: begin is 0.8; expected less than end, 0.75",
    ),
    "phases longer than the training": (
        ["backbones", 4, "sparsify", "phase"],
        0.4,
        "backbones[4].sparsify: warm_up, two phases and fine_tuning are more than the whole training",
    ),
    "rewinding behind the end": (
        [*LTH, "rewind_epoch"],
        20,
        "backbones[10].sparsify.rewind_epoch: 20; expected less than the epochs of its upstream training, 15",
    ),
    "an algorithm without a training": (
        ["backbones", 1, "checkpoint"],
        "mobilenetv2",
        "backbones[1].sparsify: goes with a checkpoint under upstream, which trains it",
    ),
    "a checkpoint that there is not": (
        ["backbones", 1, "checkpoint"],
        "resnet20-cifar",
        "backbones[1].checkpoint: 'resnet20-cifar' is unknown; did you mean 'resnet20-cifar10'? allowed: resnet20-",
    ),
    "a name of the catalog": (
        ["upstream", 0, "name"],
        "resnet18-v1",
        "upstream[0].name: 'resnet18-v1' is of the catalog; expected another",
    ),
    "two origins of the weights": (
        ["upstream", 0, "checkpoint"],
        "resnet18-v1",
        "upstream[0]: expected either architecture or checkpoint",
    ),
    "no images": (["upstream", 0, "dataset"], None, "upstream[0]: expected either dataset or folder"),
    "unknown images": (
        ["upstream", 0, "dataset"],
        "cifar10-nmp",
        "upstream[0].dataset: 'cifar10-nmp' is unknown; did you mean 'cifar10-npm'?",
    ),
    "no gate": (["verification", "upstream_top1"], None, "verification.upstream_top1: the key is missing: upstream"),
    "a recipe's unknown key": (
        [*RECIPE, "lr"],
        0.1,
        "upstream[0].recipe.lr: the key 'lr' is unknown; allowed: epochs, batch_size",
    ),
    "an unknown optimiser": (
        [*RECIPE, "optimiser"],
        "sdg",
        "upstream[0].recipe.optimiser: 'sdg' is not allowed: input should be 'sgd', 'adam'",
    ),
    "warm-up as long as the training": (
        [*RECIPE, "warmup_epochs"],
        20,
        "upstream[0].recipe: warmup_epochs is 20; expected less than epochs, 15",
    ),
    "milestones without their schedule": (
        [*RECIPE, "milestones"],
        [0.5],
        "upstream[0].recipe: milestones go with schedule multistep, and it needs them",
    ),
    "a name for a number of classes": (
        ["upstream", 0, "architecture"],
        "resnet18:10",
        "upstream[0].architecture: 'resnet18:10' is not allowed: ",
    ),
    "more classes than the network has": (
        ["datasets", 1, "name"],
        "gtsrb",
        "datasets[1].name: gtsrb has 43 classes, more than the 10 of resnet20-cifar10; label mapping gives each",
    ),
    "the same network twice": (
        ["backbones", 1],
        {"name": "again", "checkpoint": "resnet20-cifar10", "upstream_seed": 0},
        "backbones: dense and again are the same network; expected different ones",
    ),
    "the same settings, once said": (
        ["backbones", 2],
        {
            **SMALL["backbones"][1],
            "name": "again",
            "sparsify": {**SMALL["backbones"][1]["sparsify"], "interval": 100},
        },
        "backbones: gmp80 and again are the same network; expected different ones",
    ),
}


CASES = {name: (CONFIG, *case) for name, case in BAD.items()}
CASES |= {f"upstream: {name}": (SMALL, *case) for name, case in BAD_UPSTREAM.items()}


@pytest.mark.parametrize(("study", "path", "value", "expected"), CASES.values(), ids=CASES)
def test_bad_input_is_one_line_that_names_file_key_value_and_what_is_allowed(study, path, value, expected):
    message = complaint(edited(path, value, study))
    assert expected in message
    assert message.startswith("studies/mine.yaml: ")
    assert len(message.splitlines()) == 1


def test_the_example_of_upstream_training_is_a_study():
    (example,) = re.findall(r"```yaml\n(upstream:.+?)```", (ROOT / "docs/upstream.md").read_text(), re.DOTALL)
    study = load_study(SMALL | yaml.safe_load(example), "docs/upstream.md")
    assert [one.name for one in study.backbones] == ["dense", "gmp90", "lth90"]
    assert study.upstream[0].recipe.warmup_epochs == 5


@pytest.mark.parametrize("file", sorted((ROOT / "studies").iterdir()), ids=lambda path: path.stem)
def test_the_studies_here_are_valid(file):
    load_study(yaml.safe_load(file.read_text()), str(file))


def test_a_network_that_is_trained_for_nothing_is_told():
    config = SMALL | {"backbones": [{"name": "dense", "checkpoint": "mobilenetv2"}]}
    assert "upstream: no backbone has the checkpoint resnet20-cifar10; expected one" in complaint(config)


def test_trained_networks_are_compared_with_the_dense_one_of_their_seed():
    other = [
        {"name": "other", "checkpoint": "resnet20-cifar10", "upstream_seed": 1},
        {**SMALL["backbones"][1], "name": "other80", "upstream_seed": 1},
        {"name": "int8", "checkpoint": "resnet20-cifar10", "compression": {"algorithm": "quantise", "bits": 8}},
    ]
    study = load_study(SMALL | {"backbones": SMALL["backbones"] + other}, "studies/mine.yaml")
    dense = {one.name: study.dense_of(one) for one in study.backbones}
    assert dense.pop("other") == dense.pop("other80") == "other"
    assert set(dense.values()) == {"dense"}
    told = {one.name: study.declared(one) for one in study.backbones}
    alike = {name: (one["network"], one["upstream_seed"]) for name, one in told.items()}
    assert (alike["dense"], alike["other"]) == (("dense", 0), ("dense", 1))
    first = SMALL["backbones"][1]["name"]
    assert (alike[first], alike["other80"]) == ((first, 0), (first, 1))
    assert alike["int8"] == ("int8", 0)


def test_what_is_known_of_a_trained_network_before_it_is_made():
    backbones = [
        *SMALL["backbones"],
        {**SMALL["backbones"][4], "name": "acdc80-int8", "compression": {"algorithm": "quantise", "bits": 8}},
    ]
    study = load_study(SMALL | {"backbones": backbones}, "studies/mine.yaml")
    told = {one.name: study.declared(one) for one in study.backbones}
    assert told["dense"]["compression"] == "none"
    assert (told["lth95"]["compression"], told["lth95"]["sparsity_declared"]) == ("lth", 0.95)
    assert (told["acdc80-int8"]["compression"], told["acdc80-int8"]["sparsity_declared"]) == ("acdc+int8", 0.8)
    assert told["random"]["control"] == "random_init"


def test_published_weights_can_be_trained_further():
    start = {"name": "own", "checkpoint": "resnet18-v1", "dataset": "cifar10-npm", "image_size": 32}
    config = SMALL | {"upstream": [start | {"recipe": SMALL["upstream"][0]["recipe"]}]}
    config |= {
        "backbones": [{"name": "dense", "checkpoint": "own"}, {"name": "as-it-was", "checkpoint": "resnet18-v1"}]
    }
    study = load_study(config | {"paths": {"resnet18-v1": "w.pth"}}, "studies/mine.yaml")
    assert study.published_checkpoint("own") == "resnet18-v1"
    assert study.checkpoint_entry("own").architecture == "resnet18"
    assert study.upstream_datasets() == ["cifar10-npm"]


def test_shots_are_sorted():
    assert load_study(edited(["shots"], ["full", 20, 1]), "config.yaml").shots == [1, 20, "full"]


def test_each_fault_has_its_line():
    config = edited(["shots"], [0]) | {"methods": ["vp"]}
    assert len(complaint(config).splitlines()) == 2


def test_a_misspelt_key_is_told_once_and_first():
    config = edited(["protocol", "mapping_interval"], None) | {"methods": ["vp"]}
    config["protocol"] |= {"mapping_intervall": 1, "frame": 3}
    told = [line.removeprefix("studies/mine.yaml: ").partition("; ")[0] for line in complaint(config).splitlines()]
    assert told == [
        "protocol.mapping_intervall: the key 'mapping_intervall' is unknown",  # so mapping_interval is not missing
        "protocol.frame: the key 'frame' is unknown",
        "methods[0]: 'vp' is unknown",
    ]
    del config["protocol"]["precision"]
    assert "protocol.precision: the key is missing" in complaint(config)


def test_the_schema_for_editors_is_the_one_that_is_checked():
    """workflow/schemas/study.schema.json is written by `python -m hiddencost.study`."""
    committed = json.loads((ROOT / "workflow/schemas/study.schema.json").read_text())
    assert committed == Study.model_json_schema()


def test_photos_may_be_a_folder_of_them_and_of_others_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    photos = {"verification": CONFIG["verification"] | {"photos": "imagenet1000", "photos_top1": 700}}
    asked = CONFIG | photos | {"paths": {"imagenet1000": str(folder)}}
    for place in range(1000):
        (folder / f"n{10000000 + place}_a.jpg").write_text(str(place))
    before = read_call(asked, "studies/mine.yaml", "snakemake").own_contents
    assert before.keys() == {str(folder)}
    (folder / "n10000007_a.jpg").write_text("another")
    assert read_call(asked, "studies/mine.yaml", "snakemake").own_contents != before
    (folder / "n10000007_a.jpg").rename(folder / "photo.jpg")
    with pytest.raises(StudyError, match=r"^studies/mine\.yaml: paths\.imagenet1000: .*/own has 999 photos, by t"):
        read_call(asked, "studies/mine.yaml", "snakemake")
    with pytest.raises(StudyError, match=r"own has 0 photos, by their names; expected 20 directly in it"):
        read_call(CONFIG | {"paths": {"imagenet20": str(folder)}}, "studies/mine.yaml", "snakemake")


def lottery(paths):
    """A study of a checkpoint that was never public, with paths for it."""
    config = edited(["backbones", 1], {"name": "ticket", "checkpoint": "resnet50-lth8"})
    return load_study(config | {"paths": {"resnet50-lth8": paths}}, "studies/mine.yaml")


def test_files_of_ones_own_stand_for_what_cannot_be_downloaded(tmp_path):
    weights, mask = (tmp_path / name for name in ("w.pth", "m.pth"))
    entry = lottery({"weights": str(weights), "mask": str(mask)}).checkpoint_entry("resnet50-lth8")
    assert entry.unavailable is None
    assert [file.user_paths for file in entry.files.values()] == [[str(weights)], [str(mask)]]
    assert load_study(CONFIG, "config.yaml").checkpoint_entry("resnet50-lth8").unavailable


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gone.pth", "there is no file {}/gone.pth"),
        ("folder", "{}/folder is a folder; expected a file"),
        ("fifo", "{}/fifo is a pipe or a device; expected a file"),
        ("/proc/self/mem/a", "there is no file /proc/self/mem/a"),
        ("a" * 300, "{}/aaa"),
        ("a/" * 5000, "{}/a/a"),
        ("~nobody", "there is no file "),
        ("~no_such_user/w.pth", "there is no file {}/~no_such_user/w.pth"),
        ("a\0b", "{}/a\\x00b: embedded null byte; expected a file"),
        ("a\n\x1b[2Jb", "there is no file {}/a \\x1b[2Jb"),
        ("loop", "{}/loop: Too many levels of symbolic links; expected a file"),
    ],
)
def test_a_path_of_no_file_is_a_line(tmp_path, monkeypatch, path, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StudyError) as caught:
        read_call(CONFIG | {"paths": {"mobilenetv2": path}}, "studies/mine.yaml", "snakemake")
    assert str(caught.value).startswith(f"studies/mine.yaml: paths.mobilenetv2: {says.format(tmp_path)}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"weights": "w.pth"}, "paths.resnet50-lth8: no path for mask"),
        ({"weigths": "w.pth"}, "paths.resnet50-lth8.weigths: the key 'weigths' is unknown; did you mean 'weights'?"),
        ("w.pth", "paths.resnet50-lth8: it has the files weights, mask; expected a path for each"),
    ],
)
def test_a_path_for_each_file_is_expected(paths, expected):
    with pytest.raises(StudyError) as caught:
        lottery(paths).checkpoint_entry("resnet50-lth8")
    assert expected in str(caught.value)


def test_the_dense_counterpart_is_the_studys_or_the_catalogs():
    backbones = [
        {"name": "v2", "checkpoint": "resnet50-v2"},
        {"name": "v1", "checkpoint": "resnet50-v1"},
        {"name": "acdc", "checkpoint": "resnet50-acdc80"},
        {"name": "acdc-int8", "checkpoint": "resnet50-acdc80", "compression": {"algorithm": "quantise", "bits": 8}},
        {"name": "rigl", "checkpoint": "resnet50-rigl80", "dense": "v2"},
        {"name": "random", "checkpoint": "resnet50-v2", "control": "random_init"},
        {"name": "gmp", "checkpoint": "resnet18-gmp"},
    ]
    study = load_study(CONFIG | {"backbones": backbones}, "studies/mine.yaml")
    found = {one.name: study.dense_of(one) for one in study.backbones}
    assert found == {
        **{"v2": "v2", "v1": "v1", "acdc": "v1", "acdc-int8": "v1", "rigl": "v2", "random": "v2", "gmp": None},
    }


def test_the_dense_network_of_the_same_recipe_is_the_catalogs_whatever_the_study_compares_with():
    paper = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    study = load_study(paper | {"paths": {}}, "paper.yaml")
    told = {one.name: study.declared(one) for one in study.backbones}
    sparse = [name for name, one in told.items() if one["compression"] in ("acdc", "rigl", "lth")]
    assert len(sparse) == 16
    assert {told[name]["dense"] for name in sparse} == {"resnet50-dense"}
    assert {told[name]["recipe_dense"] for name in sparse} == {"resnet50-dense-v1"}
    recipes = {name: one["recipe_dense"] for name, one in told.items()}
    assert (recipes["resnet50-dense"], recipes["resnet50-dense-v1"]) == ("resnet50-dense", "resnet50-dense-v1")
    assert (recipes["resnet50-shuffled"], recipes["resnet18-gmp"]) == ("resnet50-dense", "resnet18-dense")
    alone = CONFIG | {
        "backbones": [
            {"name": "v2", "checkpoint": "resnet50-v2"},
            {"name": "acdc", "checkpoint": "resnet50-acdc80", "dense": "v2"},
        ]
    }
    study = load_study(alone, "mine.yaml")
    assert [study.recipe_dense_of(one) for one in study.backbones] == ["v2", None]


def test_what_is_known_of_a_backbone_before_it_is_made():
    own = {
        "as-it-is": {"checkpoint": "resnet50-acdc80"},
        "int8": {"checkpoint": "resnet50-acdc80", "compression": {"algorithm": "quantise", "bits": 8}},
        "shuffled": {"checkpoint": "resnet50-acdc80", "control": "shuffled"},
        "random": {"checkpoint": "resnet50-acdc80", "control": "random_init"},
        "nm": {"checkpoint": "resnet50-v1", "compression": {"algorithm": "nm", "n": 2, "m": 4}},
        "erk": {
            "checkpoint": "resnet50-v1",
            "compression": {"algorithm": "magnitude", "sparsity": 0.9, "scope": "erk"},
        },
        "unknown": {"checkpoint": "resnet18-gmp"},
    }
    backbones = [{"name": name} | one for name, one in own.items()]
    study = load_study(CONFIG | {"backbones": backbones}, "studies/mine.yaml")
    stated = {one.name: study.declared(one) for one in study.backbones}
    assert {name: (one["compression"], one["sparsity_declared"]) for name, one in stated.items()} == {
        **{"as-it-is": ("acdc", 0.8), "int8": ("acdc+int8", 0.8), "shuffled": ("acdc", 0.8), "random": ("none", 0.0)},
        **{"nm": ("2:4", 0.5), "erk": ("magnitude-erk", 0.9), "unknown": ("gmp", None)},
    }
    assert stated["shuffled"]["control"] == "shuffled"


def test_a_quantised_network_is_not_fine_tuned():
    config = edited(["backbones", 1, "compression"], {"algorithm": "quantise", "bits": 8}) | {"methods": ["ft"]}
    config["finetune"] = {key: config["probe"][key] for key in ("epochs", "learning_rate", "batch_size", "shuffle")}
    config["finetune"] |= {"weight_decay": 0.0, "test_batch_size": 8, "precision": "fp32"}
    assert "backbones[1].compression: ft, of methods, would undo the quantisation" in complaint(config)
    config["backbones"][1] = {"name": "ofq", "checkpoint": "swin-t-ofq-w2a2"}
    assert "backbones[1].checkpoint: ft, of methods, would undo the quantisation" in complaint(config)


def test_a_network_that_is_published_quantised_is_not_compressed_again():
    compression = {"algorithm": "quantise", "bits": 8}
    config = edited(["backbones", 1], {"name": "ofq8", "checkpoint": "swin-t-ofq-w2a2", "compression": compression})
    assert "backbones[1].compression: swin-t-ofq-w2a2 is quantised already" in complaint(config)


def test_a_recipe_may_differ_for_a_dataset():
    config = edited(["datasets", 0, "test_batch_size"], 64)
    study = load_study(config, "config.yaml")
    assert study.recipe("protocol", "cifar10-part", study.backbones[0].name)["test_batch_size"] == 64
    assert study.recipe("protocol", "cifar10-part", study.backbones[0].name)["image_size"] == 104
    assert study.recipe("probe", "cifar10-part", study.backbones[0].name)["test_batch_size"] == 64
    assert study.recipe("probe", "cifar10-part", study.backbones[0].name)["batch_size"] == 20


def test_the_batch_sizes_of_the_test_are_those_of_the_published_code():
    """landskape-ai/Reprogram_LT: prepare_expansive_data of data/prepare_data.py has 64 for Pets, 128 for the others;
    linear_probing.py tests in batches of --batch_size, 128 by default, as ilm_clip.py does, 16."""
    study = load_study(yaml.safe_load((ROOT / "studies/paper.yaml").read_text()), "paper.yaml")

    def sizes(recipe, backbone):
        return {
            one.name: size
            for one in study.datasets
            if (size := study.recipe(recipe, one.name, backbone)["test_batch_size"]) != 128
        }

    assert sizes("protocol", "resnet18-dense") == {"oxfordpets": 64}
    assert sizes("probe", "resnet18-dense") == {}
    assert sizes("protocol", "clip-dense") == dict.fromkeys((one.name for one in study.datasets), 16)


def test_what_a_study_does_not_say_of_steps_is_in_no_recipe():
    """Runs stand on their recipe: those of before stay as they are."""
    study = load_study(CONFIG, "config.yaml")
    recipe = study.recipe("protocol", "cifar10-part", study.backbones[0].name)
    assert recipe == CONFIG["protocol"] | {"image_size": 104}
    by_steps = {key: value for key, value in CONFIG["protocol"].items() if key != "epochs"} | {"steps": 50}
    by_steps["batch_size"] = {"1": 8, "default": 20}
    study = load_study(CONFIG | {"protocol": by_steps}, "config.yaml")
    recipe = study.recipe("protocol", "cifar10-part", study.backbones[0].name)
    assert recipe == by_steps | {"image_size": 104, "batch_size": {"1": 8, "default": 20}}
    assert RunProtocol(**recipe_of_run(recipe, 1)).batch_size == 8
    assert RunProtocol(**recipe_of_run(recipe, "20")).batch_size == 20


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "studies").glob("*.yaml")))
def test_the_studies_of_the_repository_are_valid(file):
    study = load_study(yaml.safe_load((ROOT / "studies" / file).read_text()), file)
    assert study.study == file.removesuffix(".yaml")
    for one in study.backbones:
        study.checkpoint_entry(one.checkpoint)


def test_a_name_is_looked_up_when_it_is_checked():
    registry = {"flm": ..., "ilm": ...}
    name = TypeAdapter(Annotated[str, one_of(registry, "prompting")])
    with pytest.raises(ValidationError, match="'frequent' is unknown; allowed: flm, ilm, prompting"):
        name.validate_python("frequent")
    registry["frequent"] = ...
    assert [name.validate_python(each) for each in ("frequent", "prompting")] == ["frequent", "prompting"]
    assert name.json_schema() == {"type": "string", "enum": ["flm", "ilm", "frequent", "prompting"]}


HOSTILE = "\x1b[2J\x07\u202eepoch\0\n\r"


@pytest.mark.parametrize(
    "hostile",
    [
        {"protocol": {HOSTILE: 1}},
        {"paths": {HOSTILE: "a"}},
        {"methods": [HOSTILE]},
        {"figures": {"labels": {HOSTILE: HOSTILE}, "title": 3}},
        {HOSTILE: {HOSTILE: 1}},
        {"study": HOSTILE},
        {"study": "a" * 7_000_000},
        {"methods": ["a" * 7_000_000]},
        {"a" * 7_000_000: 1},
        {"shots": list("a" * 2_000)},
        {"protocol": ["a" * 1000] * 7000},
    ],
)
def test_errors_are_lines_that_can_be_printed_and_read(hostile):
    with pytest.raises(StudyError) as error:
        load_study(copy.deepcopy(CONFIG) | hostile, "config.yaml")
    lines = str(error.value).split("\n")
    assert len(lines) <= 21
    assert all(line.isprintable() and len(line) < 2000 for line in lines)
    assert all(line.startswith("config.yaml: ") for line in lines[:20])
    assert len(lines) < 21 or lines[20] == "and 1,980 more"


def places(value, path=()):
    """The paths (keys and indices) of all values within one, but itself."""
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield [*path, key]
        yield from places(inner, (*path, key))


ANY = st.recursive(  # what YAML can say
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([(study, path) for study in (CONFIG, SMALL) for path in places(study)]), ANY)
def test_any_value_anywhere_is_taken_or_told_in_lines(place, value):
    study, path = place
    try:
        load_study(edited(path, value, study), "studies/mine.yaml")
    except StudyError as error:
        lines = str(error).splitlines()
        assert all(re.match(r"studies/mine\.yaml: |and \d+ more$", line) for line in lines)
        assert max(map(len, lines)) < 1500
