"""A network that another study has made, in the place of a checkpoint that nobody publishes."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from stubbed_project import CONFIG as SMALL
from timm.data import ImageNetInfo
from tiny_network import tiny

from hiddencost.catalog.entries import Preprocessing
from hiddencost.compression.gate import verify
from hiddencost.compression.photos import Recognised
from hiddencost.fetch import fetch_all
from hiddencost.files import read_json, write_json
from hiddencost.jobs import away, checkpoints, downloads, grid, places, results, upstream, values
from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError
from hiddencost.networks import architectures, backbones
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.manifest import Manifest
from hiddencost.report import provenance
from hiddencost.study.load import load_study
from hiddencost.study.made import FILES
from hiddencost.study.sparsifiers import lottery_levels

GMP = "results/remade/backbones/resnet18-gmp"
TICKET = "results/remade/backbones/resnet50-lth8"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text()) | SMALL
CONFIG |= {
    "backbones": [
        {"name": "dense", "checkpoint": "resnet18-v1"},
        {"name": "gmp", "checkpoint": "resnet18-gmp"},
        {"name": "lth8", "checkpoint": "resnet50-lth8", "dense": "dense"},
    ],
    "paths": {"resnet18-gmp": {"network": GMP}, "resnet50-lth8": {"network": TICKET}},
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the study above, with changes, in an empty folder, where all networks are tiny."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(architectures, "build", tiny)
    return lambda **changes: read_call(CONFIG | changes, "mine.yaml", "snakemake")


TRAINED = {
    "data": {"folder": "/data/imagenet", "classes": ["n01440764", "n01443537"]},
    **{"recipe": {"epochs": 90}, "sparsify": {"algorithm": "gmp", "sparsity": 0.85}, "seed": 0, "processes": 1},
}


def make(folder=GMP, **changes):
    """Write a network as a study that trained it does: 85 % sparse by GMP, of 70.5 % upstream; return its state."""
    network = tiny("resnet18")
    weight = network.conv2.weight.data
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[: round(0.15 * weight.numel())] = True
    mask = mask.view_as(weight)
    weight[~mask] = 0
    manifest = {
        **{"checkpoint": "resnet18-imagenet", "architecture": "resnet18", "stem": "conv1", "compression": "gmp"},
        **{"sparsity_declared": 0.85, "sparsity_over": "convolutions_without_stem", "upstream_top1": 70.5},
        "preprocessing": Preprocessing(mean=[0.5] * 3, std=[0.25] * 3, interpolation="bilinear"),
        "upstream": TRAINED,
    }
    backbones.save(folder, network.state_dict(), {"conv2.weight": mask}, Manifest(**manifest | changes))
    return network.state_dict()


def imported(call, checkpoint="resnet18-gmp"):
    """Fetch and import a checkpoint, as its jobs do; return the folder."""
    entry = call.published[checkpoint]
    report = Path(places.fetched(call, "checkpoints", checkpoint))
    write_json(report, fetch_all(checkpoint, entry.files, report.parent, Path("lock.json")))
    folder = Path(places.imported_folder(call, checkpoint))
    import_checkpoint(checkpoint, entry.layout(), report, folder)
    return folder


def test_a_network_that_is_not_made_yet_is_left_out_with_what_makes_it(call):
    asked = call()
    reasons = grid.left_out(asked)["backbone"]
    assert list(reasons) == ["gmp", "lth8"]
    assert all("snakemake --configfile studies/remade.yaml makes such" in reason for reason in reasons.values())
    away.refuse_unmade(asked)  # it is no file that is gone
    assert places.fetched(asked, "checkpoints", "resnet18-gmp") not in results.downloads_to_fetch(asked)
    public = call(paths={"resnet18-v1": {"network": GMP}})
    assert grid.left_out(public)["backbone"]["dense"].startswith("no study has made the network /")


def test_a_network_of_another_study_stands_for_a_checkpoint(call):
    state = make()
    asked = call()
    assert list(grid.left_out(asked)["backbone"]) == ["lth8"]
    assert results._known_upstream(asked, asked.study.backbone("gmp"))["top1"] == 70.5
    folder = imported(asked)
    network, masks, manifest = backbones.load(folder)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert torch.equal(masks["conv2.weight"], state["conv2.weight"] != 0)
    assert (manifest.checkpoint, manifest.compression) == ("resnet18-gmp", "gmp")
    assert (manifest.sparsity_declared, manifest.sparsity_over) == (0.85, "convolutions_without_stem")
    assert manifest.preprocessing.mean == [0.5] * 3
    assert manifest.upstream == TRAINED
    known, asks = Recognised(20, 20, "photos", 0), checkpoints.verify_backbone(asked)
    assert verify(folder, asks, lambda network, manifest: known).passed
    make(sparsity_declared=0.5)
    assert not verify(imported(call()), asks, lambda network, manifest: known).passed


def test_the_job_that_fetches_takes_the_files_of_the_other_study(call):
    """Which are others than those of the published one: of a lottery ticket no `mask`."""
    make(TICKET, compression="lth", architecture="resnet50", sparsity_declared=0.832)
    asked = call()
    files = checkpoints.fetch_checkpoint(asked, "resnet50-lth8")
    report, own = places.fetched(asked, "checkpoints", "resnet50-lth8"), downloads.own_paths(asked)
    params = json.dumps(values.texts(files, checkpoints.DOWNLOAD))
    code = (
        "import json, runpy, sys; from types import SimpleNamespace as S; "
        "job = S(rule='fetch_checkpoint', log=['log'], output=[sys.argv[3]], "
        "params=json.loads(sys.argv[1]), config={'own_paths': json.loads(sys.argv[4])}, scriptdir=sys.argv[2]); "
        "runpy.run_path(sys.argv[2] + '/fetch.py', {'snakemake': job})"
    )
    given = [params, str(ROOT / "workflow/scripts"), report, json.dumps(own)]
    subprocess.run([sys.executable, "-c", code, *given], check=True)
    report = read_json(report)
    assert report["failed"] is None
    assert {key: Path(file["path"]).name for key, file in report["files"].items()} == FILES


def test_the_report_tells_how_a_network_of_another_study_was_trained(call):
    make("backbones/gmp")
    study = {"backbones": [{"name": "dense"}, {"name": "gmp"}]}
    (row,) = provenance.trainings(study, Path())
    settings = 'folder "/data/imagenet", epochs 90, algorithm "gmp", sparsity 0.85, processes 1, seed 0'
    assert row["backbone"] == "gmp"
    assert set(row["settings"].split(", ")) == set(settings.split(", "))


def test_what_another_study_makes_anew_is_imported_anew(call):
    make()
    before = checkpoints.import_checkpoint(call(), "resnet18-gmp")
    assert checkpoints.import_checkpoint(call(), "resnet18-gmp") == before
    make(upstream_top1=69.0)
    assert checkpoints.import_checkpoint(call(), "resnet18-gmp") != before


def test_a_network_that_was_there_and_is_gone_is_as_it_was_last_seen(call, caplog):
    make()
    before = checkpoints.import_checkpoint(call(), "resnet18-gmp")
    shutil.rmtree("results")
    now = call()
    assert checkpoints.import_checkpoint(now, "resnet18-gmp") == before
    assert "resnet18-gmp" not in grid.left_out(now)["backbone"]
    gone = f"paths.resnet18-gmp: there is no {Path(GMP).absolute()}/manifest.json now"
    assert f"{gone}: what was made of it is used" in caplog.text
    with pytest.raises(StudyError, match=r"^mine.yaml: paths.resnet18-gmp: there is no .* has to be made$"):
        away.refuse_unmade(now)


def test_a_network_is_as_last_seen_while_its_study_makes_it_anew(call, caplog):
    make()
    Path(GMP, "verification.json").write_text("{}")  # stays when Snakemake removes what it makes again
    before = checkpoints.import_checkpoint(call(), "resnet18-gmp")
    for file in FILES.values():
        Path(GMP, file).unlink()
    now = call()
    assert "gmp" not in grid.left_out(now)["backbone"]
    assert checkpoints.import_checkpoint(now, "resnet18-gmp") == before
    assert f"paths.resnet18-gmp: there is no {Path(GMP).absolute()}/manifest.json now" in caplog.text


def test_tables_and_figures_have_the_sparsity_of_the_network(call):
    assert results.stated_backbones(call())["gmp"]["sparsity_declared"] is None  # nobody knows the published one's
    make()
    asked = call()
    assert results.stated_backbones(asked)["gmp"]["sparsity_declared"] == 0.85
    assert {one.backbones["gmp"].sparsity for one in results.figures(asked).values()} == {0.85}


def test_a_network_of_another_sparsity_than_the_catalog_states_is_a_line(call):
    acdc = {"architecture": "resnet50", "compression": "acdc", "sparsity_over": "convolutions_and_classifier"}
    given = {
        "backbones": [{"name": "acdc80", "checkpoint": "resnet50-acdc80"}],
        "paths": {"resnet50-acdc80": {"network": GMP}},
    }
    make(**acdc, sparsity_declared=0.8)
    assert results.stated_backbones(call(**given))["acdc80"]["sparsity_declared"] == 0.8
    make(**acdc, sparsity_declared=0.9)
    with pytest.raises(StudyError, match=rf"^mine.yaml: paths.resnet50-acdc80: {Path(GMP).absolute()}: sparsity is "):
        call(**given)


def test_a_network_of_another_study_has_a_dense_one_of_its_recipe_in_that_study_alone(call):
    study, backbone = call().study, call().study.backbone("gmp")
    assert (study.dense_of(backbone), study.recipe_dense_of(backbone)) == ("dense", None)
    both = call(paths=CONFIG["paths"] | {"resnet18-v1": {"network": "results/remade/backbones/resnet18-dense"}}).study
    assert both.recipe_dense_of(backbone) == both.dense_of(backbone) == "dense"
    published = call(paths={}).study
    assert published.recipe_dense_of(backbone) == "dense"
    other = call(paths={"resnet18-v1": {"network": "results/remade/backbones/resnet18-dense"}}).study
    assert other.recipe_dense_of(backbone) is None


def test_claims_are_told_what_is_made_and_what_is_a_file_of_ones_own(call):
    own = {"resnet18-gmp": "gmp.pth", "resnet50-lth8": {"network": TICKET}}
    told = results.claims(replace(call(), study=call().study.model_copy(update={"paths": own})))
    assert (told["own"], told["made"]) == (["resnet18-gmp"], ["resnet50-lth8"])


def test_1000_classes_are_those_of_imagenet_in_order(call):
    wnids = ImageNetInfo("imagenet-1k").label_names()
    for classes in (wnids, [f"{number:04}" for number in range(1000)]):
        make(classes=classes)
        assert list(grid.left_out(call())["backbone"]) == ["lth8"]
    make(classes=wnids[::-1])
    with pytest.raises(StudyError, match=r"resnet18-gmp: its classes are n15075141 to n01440764; expected ImageNet"):
        call()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "resnet34"}, " is a network resnet34; expected resnet18"),
        ({"architecture": "resnet18:10"}, " is a network resnet18:10; expected resnet18"),
        ({"compression": "rigl"}, ": compression is rigl; expected gmp"),
        ({"compression": "none", "control": "shuffled"}, ": compression is shuffled; expected gmp"),
    ],
)
def test_another_network_than_the_checkpoint_is_a_line(call, changes, says):
    make(**changes)
    with pytest.raises(StudyError) as caught:
        call()
    assert str(caught.value) == f"mine.yaml: paths.resnet18-gmp: {Path(GMP).absolute()}{says}"


def test_a_manifest_that_is_none_is_a_line(call):
    make()
    Path(GMP, "manifest.json").write_text("{")
    with pytest.raises(StudyError, match=r"^mine.yaml: paths.resnet18-gmp: .*manifest.json is damaged"):
        call()


def test_a_network_that_failed_or_was_changed_is_none(call):
    make()
    backbones.save_failure(GMP, "the training diverged", Manifest.read(GMP))
    why = read_json(imported(call()) / "manifest.json")["failed"]
    assert why == "the study that was to make it could not: the training diverged"
    make()
    Path(GMP, "weights.safetensors").write_bytes(b"other")  # as of a network that is made while it is fetched
    with pytest.raises(OSError, match=r"weights.safetensors: sha256 is .* as .*manifest.json states; call again"):
        imported(call())


def test_masks_are_those_of_its_study(call):
    make()
    _, masks, _ = backbones.load(imported(call()))
    assert list(masks) == ["conv2.weight"]  # none of conv1, which was not pruned


def test_a_network_goes_with_no_other_file_and_stands_for_no_dataset(call):
    with pytest.raises(StudyError, match=r"paths.resnet18-gmp.network: the key 'network' is unknown"):
        call(paths={"resnet18-gmp": {"network": GMP, "weights": "a"}})
    with pytest.raises(StudyError, match=r"paths.cifar10-part.network: the key 'network' is unknown"):
        call(paths={"cifar10-part": {"network": GMP}})


def study(name):
    return load_study(yaml.safe_load((ROOT / f"studies/{name}.yaml").read_text()), f"studies/{name}.yaml")


def test_what_the_paper_takes_of_remade_is_made_there_as_the_catalog_says():
    paper, remade = study("paper"), study("remade")
    taken = {name: paper.made_network(name) for name in paper.paths}
    assert list(taken) == ["resnet18-gmp", "resnet34-gmp", *(f"resnet50-lth{state}" for state in range(1, 11))]
    for name, folder in taken.items():
        assert folder.endswith(f"/results/remade/backbones/{name}")
        made, wanted = remade.backbone(name), paper.published_entry(name)
        assert remade.checkpoint_entry(made.checkpoint).architecture == wanted.architecture
        assert made.sparsify.algorithm == wanted.compression


def test_the_tickets_of_remade_are_ten_states_of_20_percent_from_the_published_weights():
    """VITA-Group/CV_LTH_Pre-training, main_imp_imagenet.py: --percent 0.2, rewound to the first weights."""
    remade = study("remade")
    states = [remade.backbone(f"resnet50-lth{state}") for state in range(1, 11)]
    assert [one.sparsify.sparsity for one in states] == lottery_levels(states[-1].sparsify.sparsity, 0.2)
    assert {(one.sparsify.rewind_epoch, one.sparsify.settings()["share"]) for one in states} == {(0, 0.2)}
    assert remade.trained_here("resnet50-tickets").recipe.epochs == 10


def test_a_training_from_published_weights_is_told_their_architecture(call):
    recipe = {"epochs": 1, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 0, "crop": "padded"}
    own = {"name": "own", "checkpoint": "resnet18-v1", "dataset": "cifar10-part", "image_size": 32}
    asked = call(
        upstream=[own | {"recipe": recipe | {"precision": "fp32"}}],
        backbones=[{"name": "dense", "checkpoint": "own"}],
        paths={},
        verification=CONFIG["verification"] | {"upstream_top1": 5},
    )
    (settings,) = {str(one): one for one in upstream.products(asked, "dense").values()}.values()
    assert settings["architecture"] == "resnet18"
