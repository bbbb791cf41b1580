import hashlib
import importlib.util

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from hiddencost import catalog, datasets, prepare

ENTRY = catalog.load("datasets")["cifar10-part"]


def test_the_carried_part_is_prepared_at_any_size(tmp_path):
    prepare.prepare("cifar10-part", ENTRY, 32, ROOT, tmp_path / "32")
    prepare.prepare("cifar10-part", ENTRY, 48, ROOT, tmp_path / "48")
    native, large = datasets.load(tmp_path / "32"), datasets.load(tmp_path / "48")
    assert native.train_images.shape == (250, 3, 32, 32)
    assert large.test_images.shape == (500, 3, 48, 48)
    assert native.test_images.dtype == np.uint8
    assert np.bincount(native.train_labels).tolist() == [25] * 10
    assert np.bincount(native.test_labels).tolist() == [50] * 10
    assert native.classes[6] == "frog"
    assert native.train_labels[0] == 6  # CIFAR-10's first image is a frog
    assert native.digest != large.digest
    assert isinstance(native.train_images, np.memmap)


def test_resizing_is_that_of_pil():
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 20, 30), dtype=np.uint8)
    expected = Image.fromarray(image[0].transpose(1, 2, 0)).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(prepare.resize(image, 12)[0], np.asarray(expected).transpose(2, 0, 1))


def test_another_file_than_the_catalog_s_is_refused(tmp_path):
    (tmp_path / "data/cifar10-part").mkdir(parents=True)
    for part in ("train", "test"):
        (tmp_path / ENTRY["files"][part]["path"]).write_bytes(b"\0" * 3073)
    with pytest.raises(ValueError, match=r"train\.bin: sha256 is \w+, the catalog says 4510"):
        prepare.prepare("cifar10-part", ENTRY, 32, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"train": 251, "test": 500}}, "cifar10-part train: 250 images, the catalog says 251"),
        ({"classes": ENTRY["classes"][:9]}, r"labels are \[0, .*, 9\], expected 0 to 8"),
    ],
)
def test_counts_and_labels_are_held_against_the_catalog(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        prepare.prepare("cifar10-part", ENTRY | change, 32, ROOT, tmp_path)


@pytest.fixture
def rebuild(tmp_path):
    """data/cifar10-part/rebuild.py, as a module that writes to a temporary folder."""
    copy = tmp_path / "rebuild.py"
    copy.write_text((ROOT / "data/cifar10-part/rebuild.py").read_text())
    spec = importlib.util.spec_from_file_location("rebuild", copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rebuild_takes_the_first_images_of_each_class(rebuild, tmp_path, monkeypatch):
    records = np.random.default_rng(0).integers(0, 256, (2000, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    (tmp_path / "all.bin").write_bytes(records.tobytes())
    md5 = hashlib.md5(records.tobytes()).hexdigest()
    monkeypatch.setattr(rebuild, "PARTS", {"train.bin": ("all.bin", md5, 25)})
    rebuild.main(tmp_path)
    built = np.fromfile(tmp_path / "train.bin", np.uint8).reshape(-1, 3073)
    assert np.bincount(built[:, 0]).tolist() == [25] * 10
    for label in range(10):
        first = records[records[:, 0] == label][:25]
        np.testing.assert_array_equal(built[built[:, 0] == label], first)


def test_rebuild_refuses_another_file_than_the_official_one(rebuild, tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(SystemExit, match=r"md5 is .*, expected 5dd7e06a14cb22eb9f671a540d1b7c25"):
        rebuild.main(tmp_path)


def test_rebuild_and_catalog_speak_of_the_same_files(rebuild):
    assert {ENTRY["counts"]["train"] / 10, ENTRY["counts"]["test"] / 10} == {n for _, _, n in rebuild.PARTS.values()}
    table = (ROOT / "data/cifar10-part/README.md").read_text()
    for part in ("train", "test"):
        assert ENTRY["files"][part]["sha256"] in table
