"""Files that are not what the reports beside them say are found by the plan and by the job, and made again."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, source_files

from hiddencost import contents
from hiddencost.catalog.entries import DatasetLayout
from hiddencost.compression import gate
from hiddencost.compression.make import compress
from hiddencost.datasets import prepared
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.readers.registry import READERS
from hiddencost.fetch import fetch_all
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.jobs import damage, downloads, layout
from hiddencost.jobs.call import read_call
from hiddencost.messages import StudyError
from hiddencost.networks import backbones
from hiddencost.networks.manifest import Manifest

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
FOLDER = Path("resources/datasets/toy/8")
LAYOUT = {"reader": "npz", "options": {"path": "toy.npz"}, "classes": None, "counts": None, "native_size": None}
REMADE = "files that are not what the report beside them says"


def call(**flags):
    return read_call(CONFIG | flags, "config.yaml", "snakemake")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A dataset that is prepared from arrays."""
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8), np.arange(6) % 2
    np.savez("toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    def make():
        prepare("toy", DatasetLayout(**LAYOUT), None, 8, FOLDER)

    make()
    return make


def zero_an_image(path):
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(-8 * 8 * 3, os.SEEK_END)
        file.write(bytes(8 * 8 * 3))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_arrays_are_held_against_the_digest_that_runs_are_kept_under(toy):
    before = prepared.load(FOLDER)
    images = FOLDER / "train_images.npy"
    assert damage.why_again(call(), str(images)) is None
    zero_an_image(images)
    with pytest.raises(OSError, match=f"^{images}: sha256 is {sha256_file(images)}, expected .*made again$"):
        prepared.load(FOLDER)
    assert damage.why_again(call(), str(images)) == REMADE
    assert damage.why_again(call(), str(FOLDER / "test_images.npy")) is None
    toy()
    assert prepared.load(FOLDER).digest == before.digest
    assert damage.why_again(call(), str(images)) is None


def test_arrays_are_read_once_where_they_stay_as_they_were(toy, monkeypatch):
    monkeypatch.setattr(contents, "sha256_file", lambda path: pytest.fail(f"{path} was read"))
    prepared.load(FOLDER)
    assert damage.why_again(call(), str(FOLDER / "train_images.npy")) is None
    with pytest.raises(pytest.fail.Exception, match="was read"):
        damage.why_again(call(check="full"), str(FOLDER / "train_images.npy"))


@pytest.mark.parametrize("spoil", [os.remove, zero_an_image, lambda path: (os.remove(path), os.mkdir(path))])
def test_an_array_that_is_gone_or_no_file_is_made_again(toy, spoil):
    path = FOLDER / "test_images.npy"
    spoil(path)
    assert damage.why_again(call(), str(path)) == REMADE
    with pytest.raises(OSError, match=r"test_images.npy: "):
        prepared.load(FOLDER)


@pytest.mark.parametrize("spoil", [os.remove, lambda path: Path(path).write_bytes(b"lighter")])
def test_a_download_that_is_no_longer_what_it_was_is_fetched_again(tmp_path, monkeypatch, spoil):
    monkeypatch.chdir(tmp_path)
    Path("own.pth").write_bytes(b"weights")
    folder = Path("resources/checkpoints/net")
    files = source_files({"weights": {"name": "w.pth", "sources": [{"path": "own.pth"}]}})
    write_json(folder / "fetched.json", fetch_all("net", files, folder, Path("lock.json")))
    assert damage.why_again(call(), str(folder / "fetched.json")) is None
    spoil(folder / "own/w.pth")
    assert damage.why_again(call(), str(folder / "fetched.json")) == REMADE


@pytest.fixture
def network(tmp_path, monkeypatch):
    """The files of a network as imported."""
    monkeypatch.chdir(tmp_path)
    folder = Path("resources/backbones/net")
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    manifest = Manifest(checkpoint="net", architecture="resnet20_cifar", preprocessing=preprocessing)
    backbones.save(folder, {"weight": torch.ones(9)}, {"weight": torch.ones(9, dtype=torch.bool)}, manifest)
    return folder


@pytest.mark.parametrize("name", ["weights.safetensors", "masks.safetensors"])
def test_a_network_that_is_not_as_it_was_made_is_made_again(network, name):
    assert damage.why_again(call(), str(network / name)) is None
    data = bytearray((network / name).read_bytes())
    data[-1] ^= 1
    (network / name).write_bytes(data)
    assert damage.why_again(call(), str(network / name)) == REMADE
    others = {"weights.safetensors", "masks.safetensors", "manifest.json"} - {name}
    assert [damage.why_again(call(), str(network / other)) for other in others] == [None, None]


def test_a_network_that_a_disk_has_changed_fails_the_job_is_no_result_and_is_known_to_the_next_plan(network):
    path = network / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    # as where the disk changes bits and no times
    contents.keep(network, Manifest.read(network).sha256)
    assert damage.why_again(call(), str(path)) is None
    with pytest.raises(OSError, match=f"^{path}: sha256 is {sha256_file(path)}, expected .*made again$"):
        compress(network, "made", None, None)
    assert not Path("made").exists()
    with pytest.raises(OSError, match=f"^{path}: sha256 is "):
        gate.verify(network, {}, lambda network, manifest: pytest.fail("not loaded"))
    assert damage.why_again(call(), str(path)) == REMADE


def test_a_network_that_could_not_be_made_is_tried_again_when_told(network):
    manifest = network / "manifest.json"
    assert damage.why_again(call(retry="true"), str(manifest)) is None
    backbones.save_failure(network, "404", Manifest.read(network))
    assert damage.why_again(call(), str(manifest)) is None
    assert damage.why_again(call(retry="true"), str(manifest)) == "it has failed, and is tried again"


@pytest.mark.parametrize("content", ['{"files": {"weights": {}}}', '{"files": [3]}', "[]", '{"files"', None])
def test_a_damaged_report_of_a_download_is_told_in_a_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = Path(layout.FETCHED["checkpoints"].format(home=layout.SHARED, name="net"))
    path.parent.mkdir(parents=True)
    path.write_text(content) if content else path.mkdir()
    assert damage.why_again(call(), str(path)) is None
    with pytest.raises(StudyError, match=f"{path}") as told:
        downloads.report_of(path.parent)
    assert len(str(told.value).splitlines()) == 1


def test_a_failure_is_recorded_and_tried_again_when_told(toy):
    Path("toy.npz").write_bytes(b"no arrays")
    toy()
    report = str(FOLDER / "dataset.json")
    assert "cannot be read as an npz" in read_json(report)["failed"]
    assert damage.why_again(call(), report) is None
    assert damage.why_again(call(retry="true"), report) == "it has failed, and is tried again"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOSPC])
def test_an_error_of_a_moment_fails_the_job_and_is_no_result(toy, monkeypatch, number):
    before = read_json(FOLDER / "dataset.json")

    def read(options, files, scratch):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise ValueError("toy.npz: cannot be read") from error

    monkeypatch.setattr("hiddencost.datasets.readers.npz.read", read)
    with pytest.raises(OSError, match=os.strerror(number)):
        toy()
    assert read_json(FOLDER / "dataset.json") == before
    assert READERS["npz"].module  # what is replaced is what is called


@pytest.mark.parametrize("is_folder", [False, True])
def test_images_that_are_gone_since_the_plan_fail_the_job_and_are_no_result(toy, is_folder):
    before = read_json(FOLDER / "dataset.json")
    os.remove("toy.npz")
    options = {"path": "toy.npz"}
    if is_folder:  # the mount point of a disk
        os.mkdir("toy.npz")
        options["test_share"] = 0.5
    gone = DatasetLayout(**LAYOUT | {"reader": "folder" if is_folder else "npz", "options": options})
    with pytest.raises(FileNotFoundError, match=r"^toy\.npz is gone since the call was planned"):
        prepare("toy", gone, None, 8, FOLDER)
    assert read_json(FOLDER / "dataset.json") == before


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR])
def test_what_is_wrong_with_a_path_is_a_result(toy, monkeypatch, number):
    def read(options, files, scratch):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise ValueError(f"toy.npz: {error.strerror}") from error

    monkeypatch.setattr("hiddencost.datasets.readers.npz.read", read)
    toy()
    assert read_json(FOLDER / "dataset.json")["failed"] == f"toy.npz: {os.strerror(number)}"
