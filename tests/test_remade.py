"""studies/remade.yaml in small: from CIFAR-10 and published weights, by each algorithm, into rows and figures of its
own and of studies/paper.yaml. In this process, with the settings of the workflow's jobs and in its files."""

import shutil
from functools import partial
from pathlib import Path

import in_process
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, fetched
from in_process import CPU

from hiddencost import catalog
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.datasets import prepared
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.splits import draw_splits
from hiddencost.fetch import fetch_all
from hiddencost.files import write_json
from hiddencost.jobs import checkpoints, datasets, grid, layout, results, upstream
from hiddencost.jobs.call import read_call
from hiddencost.networks import backbones
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.manifest import Manifest
from hiddencost.study.sparsifiers import SPARSIFIERS
from hiddencost.upstream import gate, training
from hiddencost.upstream.job import UpstreamJob

pytestmark = pytest.mark.slow
UPSTREAM, TARGET = "cifar10-part", "digits"
# in the place of ResNets: one from scratch, and one whose published weights are in a package registry
RESNET, MOBILENET = "resnet20_cifar", "mobilenetv2"
# in the place of what studies/paper.yaml compares with, which is public and too large here
DENSE = {"resnet18-v1": "resnet18-dense", "resnet50-v2": "resnet50-lth0"}
SIZE, CANVAS = 16, 24  # pixels
KINDS = ("accuracy", "heatmap", "glance")  # the paper's figures 1 and 2 are the first, 6 the first two
# what would be more of the same: another ResNet, more rounds
MORE = ("resnet34", "resnet50-rewound7", "resnet50-rewound10", *(f"resnet50-lth{state}" for state in range(3, 11)))


def shrink(config):
    """Make a study small: its grid, its canvas, its epochs."""
    config.update(seeds=[0], shots=[1, 10], methods=["ilm"], datasets=[{"name": TARGET, "image_size": SIZE}])
    config["backbones"] = [one for one in config["backbones"] if not one["name"].startswith(MORE)]
    config["protocol"].update(canvas=CANVAS, epochs=5, precision="fp32")


def small_remade():
    config = yaml.safe_load((ROOT / "studies/remade.yaml").read_text())
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
    return config


def small_paper():
    config = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    shrink(config)
    config["paths"] |= {name: {"network": f"results/remade/backbones/{made}"} for name, made in DENSE.items()}
    taken = {one["checkpoint"] for one in config["backbones"] if not one.get("control")} & set(config["paths"])
    config["paths"] = {name: config["paths"][name] for name in taken}
    config["backbones"] = [
        one for one in config["backbones"] if one["checkpoint"] in taken and not one.get("control")
    ]
    config["verification"].update(photos_top1=0)
    return config


def prepare_images(call, downloads):
    """Prepare the images of a call, and draw its splits."""
    sizes = {(UPSTREAM, SIZE)} if call.study.upstream else set()
    for name, size in sizes | {(TARGET, size) for size in datasets.sizes_of(call, TARGET)}:
        entry = call.datasets[name]
        files = {key: file.from_paths([str(ROOT / file.sources[0].path)]) for key, file in entry.files.items()}
        prepare(name, entry, fetched(downloads, name, files), size, Path(call.prepared_folder(name, size)))
    images = prepared.load(datasets.first_prepared(call, TARGET))
    split = draw_splits(TARGET, images.train_labels, len(images.classes), 0)
    write_json(call.path(layout.SPLIT, dataset=TARGET, seed=0), {"permutations": split})


def train_upstream(call, backbone):
    """Do the trainings that a backbone stands on and that are not there, each round from the network before."""
    before = state = None
    for product, settings in upstream.products(call, backbone).items():
        path = Path(product)
        job = settings | {"unfinished": str(path.parent / "unfinished.state")}
        if "until" in settings:
            state = product
            if not path.exists():
                training.train_rewind_point(UpstreamJob.model_validate(job | {"output": state}), CPU, 0)
        elif path.name == layout.NETWORK_FILES[0]:
            job |= {"output": str(path.parent)} | ({"ticket": before, "rewind": state} if before else {})
            if not path.exists():
                training.train_backbone(UpstreamJob.model_validate(job), CPU, 0)
            before = str(path.parent)


def make_remade(call, name):
    """Make a backbone of what was trained, and put it to the gate."""
    train_upstream(call, name)
    folder = call.path(layout.BACKBONE, backbone=name)
    compress(Path(checkpoints.source_network(call, name)[0]).parent, folder, **checkpoints.compress(call, name))
    recognised = partial(gate.recognised, least=call.study.verification.upstream_top1)
    verdict = verify(folder, checkpoints.verify_trained(call), recognised, gate.masked_keys)
    assert verdict.passed, verdict.reasons
    verdict.write(call.path(layout.VERIFICATION, backbone=name))


def make_paper(call, name):
    """Fetch and import the network of the other study that a backbone is, and put it to the gate."""
    checkpoint = call.study.backbone(name).checkpoint
    entry, report = call.published[checkpoint], Path(layout.FETCHED["checkpoints"].format(checkpoint))
    write_json(report, fetch_all(checkpoint, entry.files, report.parent, Path("lock.json")))
    import_checkpoint(checkpoint, entry.layout(), report, layout.IMPORTED.format(checkpoint=checkpoint))
    in_process.make_backbone(call, name)


def finish(call, make, downloads):
    """Make backbones, runs, tables and figures; return the table of runs, and the figures' files by name."""
    prepare_images(call, downloads)
    assert not grid.left_out(call)["backbone"]
    for backbone in call.study.backbones:
        make(call, backbone.name)
    packs = [in_process.train(call, "train", **pack) for pack in grid.packs(call, "train")]
    written = in_process.write_tables(call, packs)
    names = [name for name, figure in results.figures(call).items() if figure.kind in KINDS]
    return pd.read_parquet(written["runs"]), in_process.draw_figures(call, names)


@pytest.fixture(scope="module")
def finished(mobilenetv2, downloads, tmp_path_factory):
    """Both studies, one after the other: by name their calls, tables of runs and figures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    original = catalog.checkpoint

    def small(name):
        kind = RESNET if name.startswith("resnet18") else original(MOBILENET).architecture
        named = original(name)
        return named if name == MOBILENET else named.model_copy(update={"architecture": f"{kind}:10"})

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("remade"))
        shutil.copytree(mobilenetv2, layout.IMPORTED.format(checkpoint=MOBILENET))
        remade = read_call(small_remade(), "remade.yaml", "snakemake")
        done = {"remade": (remade, *finish(remade, make_remade, downloads))}
        patch.setattr(catalog, "checkpoint", small)
        paper = read_call(small_paper(), "paper.yaml", "snakemake")
        done["paper"] = (paper, *finish(paper, make_paper, downloads))
        yield done
    torch.set_num_threads(before)


def test_each_algorithm_makes_its_networks_and_all_of_them_have_results(finished):
    call, runs, _ = finished["remade"]
    assert set(runs["compression"]) == {"none", *SPARSIFIERS}
    assert runs["status"].eq("ok").all()
    assert len(runs) == 2 * len(call.study.backbones) == 2 * 9


def test_networks_of_one_study_are_rows_of_the_other(finished):
    paper, runs, _ = finished["paper"]
    assert runs["status"].eq("ok").all()
    assert set(runs["backbone"]) == {
        "resnet18-dense",
        "resnet18-gmp",
        "resnet50-dense",
        "resnet50-lth1",
        "resnet50-lth2",
    }
    for name in ("resnet18-gmp", "resnet50-lth2"):
        weights, masks, manifest = backbones.load(paper.path(layout.BACKBONE, backbone=name))
        folder = f"results/remade/backbones/{name}"
        made, made_masks, stated = backbones.load(folder)
        assert all(torch.equal(made.state_dict()[key], value) for key, value in weights.state_dict().items())
        assert all(torch.equal(mask, masks[key]) for key, mask in made_masks.items())
        assert manifest.upstream_top1 == stated.upstream_top1 == Manifest.read(folder).upstream_top1


def test_both_have_the_figures_of_the_paper(finished):
    for _, _, figures in finished.values():
        assert {name.partition("-")[0] for name in figures} == set(KINDS)
        assert all(file.stat().st_size > 10_000 for file in figures.values())
