"""What a product was made for stands beside it, and nothing else says that it is up to date."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from stubbed_project import CONFIG

from hiddencost.jobs import grid, layout, requests, training
from hiddencost.jobs.call import read_call
from hiddencost.runs import packfile

STUDY = yaml.safe_load((ROOT / "config.yaml").read_text()) | CONFIG | {"study": "quickstart"}
PRODUCT, INPUT = "results/quickstart/backbones/dense/verification.json", "resources/raw/x/fetched.json"
PARAMS = ["'photos_top1=12'", "'code=\"1\"'"]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the stubbed study in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda: read_call(STUDY, "config.yaml", "snakemake")


@pytest.fixture
def made(call):
    """A call, in whose folder a product was made of an input."""
    for file in (PRODUCT, INPUT):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(file)
    requests.keep([PRODUCT], PARAMS, [INPUT, "resources/raw/none"])
    return call()


def params(call):
    requests.read_anew()  # as another call
    return requests.as_recorded(call, PRODUCT)["params"]


def test_a_product_has_the_params_that_it_was_made_for_and_a_copy_of_the_folder_has_them_too(made):
    assert params(made) == PARAMS
    shutil.copytree("results", "copy")  # with other time stamps
    shutil.rmtree("results")
    Path("copy").rename("results")
    os.utime(INPUT, (0, 2**33))
    assert params(made) == PARAMS
    assert requests.as_recorded(made, PRODUCT)["input"] == ["resources/raw/none", INPUT]


@pytest.mark.parametrize(
    "edit",
    [
        lambda: requests.forget([PRODUCT]),  # as a job does that begins, and may be killed
        lambda: shutil.rmtree("results/quickstart/requests"),
        lambda: Path(PRODUCT).write_text("another file"),
        lambda: requests.file_of(PRODUCT).write_text('{"params": '),
        lambda: requests.file_of(PRODUCT).write_text("[]"),
        lambda: requests.file_of(PRODUCT).write_bytes(b"\xff"),
    ],
    ids=["begun", "of an older version", "another product", "half a request", "no request", "no text"],
)
def test_a_product_of_which_nobody_knows_what_it_was_made_for_has_no_params_of_a_job(made, edit):
    edit()
    assert params(made) == ["nobody knows what it was made for"]


@pytest.mark.parametrize(("new", "told"), [("other", [f"{INPUT} as it was then"]), (None, []), (INPUT, [])])
def test_an_input_counts_by_what_is_in_it_as_far_as_it_is_there(made, new, told):
    Path(INPUT).write_text(new) if new else Path(INPUT).unlink()
    os.utime(INPUT, (0, 0)) if new else None
    assert params(made) == [*PARAMS, *told]


def test_of_a_large_file_the_size_counts(tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(requests.LARGE + 1))
    assert requests.content(str(large)) == f"size:{requests.LARGE + 1}"
    assert requests.content(str(tmp_path / "none")) == ""


def test_a_pack_whose_runs_are_no_longer_in_the_ledger_is_made_again(call):
    pack = {"backbone": "dense", "dataset": "cifar10-part", "seed": 0}
    table, entry = grid.pack_table(call(), "train", pack), Path(call().path(layout.LEDGER), "a/ab.safetensors")
    packfile.write([{"run": "ab"}, {"status": "not run"}], training.wanted(call(), "train", **pack), Path(table))
    requests.keep([table], PARAMS, [])
    assert training.why_made(call(), "train", pack, is_planned=False) == training.LOST
    assert requests.as_recorded(call(), table)["params"] == [*PARAMS, "runs that the ledger does not hold any more"]
    entry.parent.mkdir(parents=True)
    entry.touch()
    requests.read_anew()
    assert training.why_made(call(), "train", pack, is_planned=False) is None
    assert requests.as_recorded(call(), table)["params"] == PARAMS
