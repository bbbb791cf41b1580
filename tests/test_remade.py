"""studies/remade.yaml in small, by Snakemake: from CIFAR-10 and published weights, by each algorithm, into rows and
figures of its own and of studies/paper.yaml."""

import compileall

import pandas as pd
import pytest
import torch
from conftest import copy_project
from stubbed_project import configure, nothing_to_do, snakemake

from hiddencost.networks import backbones
from hiddencost.study.sparsifiers import SPARSIFIERS

pytestmark = pytest.mark.slow
UPSTREAM, TARGET = "cifar10-part", "digits"
# in the place of ResNets: one from scratch, and one whose published weights are in a package registry
RESNET, MOBILENET = "resnet20_cifar", "mobilenetv2"
# in the place of what studies/paper.yaml compares with, which is public and too large here
DENSE = {"resnet18-v1": "resnet18-dense", "resnet50-v2": "resnet50-lth0"}
SIZE, CANVAS = 16, 24  # pixels
# of each group of networks: the paper has figures 1 and 2 of the kind accuracy, and 6 of both
KINDS = ("accuracy", "heatmap")
GROUPS = {"remade": ["resnet18-gmp", "resnet50", "resnet50-lth0-lth"], "paper": ["resnet18-gmp", "resnet50-lth"]}
# what would be more of the same: another ResNet, more rounds
MORE = ("resnet34", "resnet50-rewound7", "resnet50-rewound10", *(f"resnet50-lth{state}" for state in range(3, 11)))
LIBRARIES = "torch,torchvision,timm,seaborn"


def shrink(config):
    """Make a study small: its grid, its canvas, its epochs."""
    config.update(seeds=[0], shots=[1, 10], methods=["ilm"], datasets=[{"name": TARGET, "image_size": SIZE}])
    config["backbones"] = [one for one in config["backbones"] if not one["name"].startswith(MORE)]
    config["protocol"].update(canvas=CANVAS, epochs=5, precision="fp32")


def shrink_remade(config):
    shrink(config)
    config["upstream"] = [one for one in config["upstream"] if not one["name"].startswith(MORE)]
    for network in config["upstream"]:
        from_scratch = network["name"] != "resnet50-tickets"
        network.pop("checkpoint", None)
        network.pop("folder")
        network |= {"architecture": RESNET} if from_scratch else {"checkpoint": MOBILENET}
        network |= {"dataset": UPSTREAM, "image_size": SIZE}
        network["recipe"] |= {"epochs": 3, "batch_size": 50, "warmup_epochs": 0, "precision": "fp32"}
        network["recipe"] |= (
            {"learning_rate": 0.05} if from_scratch else {"learning_rate": 0.005, "milestones": [0.67]}
        )
    fewer = {
        **{"resnet18-gmp": {"interval": 2}, "resnet50-acdc90": {"phase": 0.15}, "resnet50-rigl90": {"interval": 3}},
        "resnet50-rewound4": {"share": 0.5904, "rewind_epoch": 1},  # in one round
    }
    for backbone in config["backbones"]:
        if backbone["name"] in fewer:
            backbone["sparsify"] |= fewer[backbone["name"]]
    config["verification"].update(upstream_top1=5)


def shrink_paper(config):
    shrink(config)
    config["paths"] |= {name: {"network": f"results/remade/backbones/{made}"} for name, made in DENSE.items()}
    taken = {one["checkpoint"] for one in config["backbones"] if not one.get("control")} & set(config["paths"])
    config["paths"] = {name: config["paths"][name] for name in taken}
    config["backbones"] = [
        one for one in config["backbones"] if one["checkpoint"] in taken and not one.get("control")
    ]
    config["verification"].update(photos_top1=0)


def shrink_catalog(entries):
    """Let the networks that studies/paper.yaml takes be of the small ones' architectures."""
    mobilenet = entries[MOBILENET]["architecture"]
    for name, entry in entries.items():
        if name.startswith(("resnet18", "resnet50")):
            entry["architecture"] = f"{RESNET if name.startswith('resnet18') else mobilenet}:10"


# in the place of photos of ImageNet, whose classes the small networks have not
GATE = """

def imagenet_photos(*asked):
    return lambda network, manifest: Recognised(20, 20, "photos", 0)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with both studies, small, done one after the other as far as their figures."""
    project = tmp_path_factory.mktemp("project")
    copy_project(project)
    configure(project, shrink_catalog, "src/hiddencost/catalog/checkpoints.yaml")
    with open(project / "src/hiddencost/compression/photos.py", "a") as photos:
        photos.write(GATE)
    compileall.compile_dir(project / "src", quiet=1)
    for study, change in {"remade": shrink_remade, "paper": shrink_paper}.items():
        file = f"studies/{study}.yaml"
        configure(project, change, file)
        snakemake(project, *figures(study), "--configfile", file, preloaded=LIBRARIES)
    return project


def figures(study):
    names = [f"{kind}-{group}" for group in GROUPS[study] for kind in KINDS]
    return [f"results/{study}/figures/{name}.png" for name in [*names, "glance"]]


def runs_of(project, study):
    return pd.read_parquet(project / f"results/{study}/tables/runs.parquet")


def test_each_algorithm_makes_its_networks_and_all_of_them_have_results(project):
    runs = runs_of(project, "remade")
    assert set(runs["compression"]) == {"none", *SPARSIFIERS}
    assert runs["status"].eq("ok").all()
    assert len(runs) == 2 * 9


def test_networks_of_one_study_are_rows_of_the_other(project):
    runs = runs_of(project, "paper")
    assert runs["status"].eq("ok").all()
    assert set(runs["backbone"]) == {
        "resnet18-dense",
        "resnet18-gmp",
        "resnet50-dense",
        "resnet50-lth1",
        "resnet50-lth2",
    }
    for name in ("resnet18-gmp", "resnet50-lth2"):
        weights, masks, manifest = backbones.load(project / f"results/paper/backbones/{name}")
        made, made_masks, stated = backbones.load(project / f"results/remade/backbones/{name}")
        assert all(torch.equal(made.state_dict()[key], value) for key, value in weights.state_dict().items())
        assert all(torch.equal(mask, masks[key]) for key, mask in made_masks.items())
        assert manifest.upstream_top1 == stated.upstream_top1


@pytest.mark.parametrize("study", GROUPS)
def test_both_have_the_figures_of_the_paper(project, study):
    assert all((project / file).stat().st_size > 10_000 for file in figures(study))


@pytest.mark.parametrize("study", GROUPS)
def test_nothing_of_it_is_to_be_made_again(project, study):
    assert nothing_to_do(project, *figures(study), "--configfile", f"studies/{study}.yaml")
