"""What a product was made for stands beside it, and nothing else says that it is up to date."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from stubbed_project import CONFIG

from hiddencost import contents, files
from hiddencost.jobs import grid, layout, requests, training, values
from hiddencost.jobs.call import read_call
from hiddencost.runs import packfile

STUDY = yaml.safe_load((ROOT / "config.yaml").read_text()) | CONFIG | {"study": "quickstart"}
PRODUCT, INPUT = "results/quickstart/backbones/dense/verification.json", "resources/raw/x/fetched.json"
PARAMS = ["photos_top1=12", 'code="1"']


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
        lambda: requests.begin([PRODUCT], []),  # as a job does that begins, and may be killed
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


def zero(path):
    """Zero a file in its place, and keep its size and times."""
    times = os.stat(path)
    Path(path).write_bytes(bytes(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_large_files_count_by_what_is_in_them_and_are_read_once(call, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED", -(10**12))  # as if all had been written long ago
    read, features = [], "results/quickstart/features/dense/x.safetensors"
    monkeypatch.setattr(contents, "sha256_file", lambda path: (read.append(path), files.sha256_file(path))[1])
    for path in (PRODUCT, features):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"\1" * (requests.LARGE + 1))
    requests.keep([PRODUCT], PARAMS, [features])
    before = len(read)
    assert params(call()) == PARAMS
    assert len(read) == before
    requests.read_anew()
    full = dataclasses.replace(call(), check=True)
    assert requests.as_recorded(full, PRODUCT)["params"] == PARAMS
    assert sorted(map(os.path.relpath, read[before:])) == sorted((PRODUCT, features))
    os.utime(features)
    assert params(call()) == PARAMS
    zero(features)
    assert params(call()) == [*PARAMS, f"{features} as it was then"]
    zero(PRODUCT)
    assert params(call()) == ["nobody knows what it was made for"]


def test_an_input_that_changes_while_a_job_runs_is_one_that_the_product_was_not_made_of(made):
    requests.begin([PRODUCT], [INPUT])
    Path(INPUT).write_text("another")
    requests.keep([PRODUCT], PARAMS, [INPUT])
    assert params(made) == [*PARAMS, f"{INPUT} as it was then"]
    requests.begin([PRODUCT], [INPUT])
    requests.keep([PRODUCT], PARAMS, [INPUT])
    assert params(made) == PARAMS


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("before", [None, "an older one"])
def test_what_one_job_of_a_group_makes_for_another_is_what_that_was_made_of(made, order, before):
    """They begin together, and end in any order."""
    network = "results/quickstart/backbones/dense/manifest.json"
    if before:
        Path(network).write_text(before)
    jobs = [([network], [INPUT]), ([PRODUCT], [network])][::order]
    for products, inputs in jobs:
        requests.begin(products, inputs)
    Path(network).write_text("a network")
    for products, inputs in jobs:
        requests.keep(products, PARAMS, inputs)
    assert params(made) == PARAMS


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOTDIR])
@pytest.mark.parametrize("of", ["read_json", "sha256_file"])
def test_what_cannot_be_read_is_a_product_of_which_nobody_knows_and_no_traceback(made, monkeypatch, number, of):
    def fails(path):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr({"read_json": requests, "sha256_file": contents}[of], of, fails)
    assert params(made) == ["nobody knows what it was made for"]


def test_a_pack_that_answers_another_request_than_it_is_said_to_is_made_again(call):
    """As a `--touch` of an older version has left them."""
    pack = {"backbone": "dense", "dataset": "cifar10-part", "seed": 0}
    table, wanted = grid.pack_table(call(), "train", pack), training.wanted(call(), "train", **pack)
    asked = [*values.texts(wanted.model_dump(mode="json"), training.params("train")).values()]
    for canvas, told in ((wanted.canvas, asked), (wanted.canvas + 8, ["nobody knows what it was made for"])):
        packfile.write([], wanted.model_copy(update={"canvas": canvas}), Path(table))
        requests.keep([table], asked, [])
        assert requests.as_recorded(call(), table)["params"] == told


def test_a_pack_whose_runs_are_no_longer_in_the_ledger_is_made_again(call):
    pack = {"backbone": "dense", "dataset": "cifar10-part", "seed": 0}
    table, entry = grid.pack_table(call(), "train", pack), Path(call().path(layout.LEDGER), "a/ab.safetensors")
    wanted = training.wanted(call(), "train", **pack)
    packfile.write([{"run": "ab"}, {"status": "not run"}], wanted, Path(table))
    asked = [*values.texts(wanted.model_dump(mode="json"), training.params("train")).values()]
    requests.keep([table], asked, [])
    assert training.why_made(call(), "train", pack, is_planned=False) == training.LOST
    assert requests.as_recorded(call(), table)["params"] == [*asked, "runs that the ledger does not hold any more"]
    entry.parent.mkdir(parents=True)
    entry.touch()
    requests.read_anew()
    assert training.why_made(call(), "train", pack, is_planned=False) is None
    assert requests.as_recorded(call(), table)["params"] == asked
