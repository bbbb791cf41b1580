import io
import re
import tarfile
import zipfile
from itertools import permutations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from hiddencost import catalog
from hiddencost.compression import gate
from hiddencost.compression.gate import mask_violations, verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import NORMALISATIONS, VIEWS, Recognised, imagenet_photos
from hiddencost.compression.photos import _photos as photos_and_labels
from hiddencost.compression.registry import COMPRESSIONS
from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.compression.verification import KnownImages
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.networks import backbones, build
from hiddencost.networks.families import FAMILIES, family_of
from hiddencost.networks.layers import convolutions
from hiddencost.networks.manifest import Manifest
from hiddencost.packed import pack

PHOTOS = catalog.photos()["imagenet20"]
MANY = catalog.photos()["imagenet1000"].model_copy(update={"resize": 8, "crop": 8})
COLOURS = torch.arange(12).reshape(1, 3, 2, 2)
CONVOLUTIONAL = FAMILIES["convolutional"]
SETTINGS = {"sparsity_tolerance": 0.005, "photos_top1": 12}


def verified(folder, photos, entry, settings, views=None):
    """As the workflow's gate, but for the other views of the photos, which take their time."""
    recognise = imagenet_photos(photos, entry, settings["photos_top1"], views=views or {}, normalisations={})
    return verify(folder, settings, recognise)


def verified_without_photos(folder, settings=SETTINGS):
    """As the gate, of a network that knows all photos."""
    return verify(folder, settings, lambda network, manifest: Recognised(20, 20, "ImageNet photos", 12))


@pytest.fixture(scope="module")
def make(mobilenetv2, tmp_path_factory):
    def make(sparsity=None, control=None, compression=None):
        folder = tmp_path_factory.mktemp("backbone")
        compression = {"algorithm": "magnitude", "sparsity": sparsity} if sparsity else compression
        compress(mobilenetv2, folder, compression, control)
        return folder

    return make


def spoil(folder, change):
    """Change a backbone's tensors, and its manifest with them."""
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")
    manifest = read_json(folder / "manifest.json")
    digest = sha256_file(folder / "weights.safetensors")
    write_json(folder / "manifest.json", manifest | {"weights_sha256": digest})


def test_the_real_network_passes(make, photos, threads):
    result = verified(make(), photos, PHOTOS, SETTINGS)
    assert result.passed
    assert result.reasons == []
    assert result.photos == KnownImages(top1=18, count=20, of="ImageNet photos", exempt=False)
    assert result.sparsity_measured == 0
    assert result.keys_matched == 262
    assert len(result.fingerprint.first) == 8


def test_a_pruned_network_passes_with_its_sparsity_measured_per_layer(make, photos, threads):
    result = verified(make(0.2), photos, PHOTOS, SETTINGS)
    assert result.passed
    assert result.sparsity_measured == pytest.approx(0.2, abs=1e-4)
    assert len(result.sparsity["layers"]) == 53
    assert result.sparsity["layers"]["classifier.1"] == 0
    assert result.sparsity["convolutions_without_stem"] != result.sparsity["convolutions"]
    assert 0 < result.sparsity["all_parameters"] < 0.2
    assert result.masks["tensors"] == 52


def test_a_network_that_pruning_destroyed_is_stopped(make, photos, threads):
    result = verified(make(0.45), photos, PHOTOS, SETTINGS)
    assert not result.passed
    assert len(result.reasons) == 1
    assert "of 20 ImageNet photos classified rightly, at least 12 expected" in result.reasons[0]


def test_a_stem_with_swapped_colours_is_stopped_though_it_knows_most_photos(make, photos, threads):
    folder, red_and_blue = make(), {"with red and blue swapped": VIEWS["with red and blue swapped"]}
    assert verified(folder, photos, PHOTOS, SETTINGS, red_and_blue).passed
    spoil(folder, lambda weights: weights["features.0.0.weight"].copy_(weights["features.0.0.weight"].flip(1)))
    result = verified(folder, photos, PHOTOS, SETTINGS, red_and_blue)
    assert result.photos.top1 >= 12
    assert len(result.reasons) == 1
    told = "it knows the ImageNet photos better with red and blue swapped, 17 of them and 13 as declared"
    assert told in result.reasons[0]


@pytest.mark.parametrize(
    ("view", "reorder"),
    [
        ("with red and blue swapped", lambda name, weight: weight.flip(1) if name == "features.0.0" else weight),
        ("with rows and columns swapped", lambda name, weight: weight.transpose(2, 3)),
        ("turned by 180 degrees", lambda name, weight: weight.flip(2, 3)),
    ],
)
def test_a_pruned_network_in_another_order_is_doubted(make, photos, threads, view, reorder):
    network, _, manifest = backbones.load(make(0.3))
    for name, layer in convolutions(network).items():
        layer.weight.copy_(reorder(name, layer.weight).clone())
    looks = {"views": {view: VIEWS[view]}, "normalisations": {}}
    (doubt,) = imagenet_photos(photos, PHOTOS, 0, **looks)(network, manifest).doubts
    assert f"better {view}" in doubt


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}


@pytest.fixture(scope="module")
def read_once(photos):
    """The photos, small, uint8 [20, 3, 28, 28], and their labels."""
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    images, labels = photos_and_labels(photos, PHOTOS, manifest, None)
    return images[:, :, ::8, ::8], labels


@pytest.fixture
def seen(read_once, monkeypatch):
    monkeypatch.setattr("hiddencost.compression.photos._photos", lambda *arguments: read_once)
    return read_once


class ByColours(torch.nn.Module):
    """A network that tells the photos by the colours of 25 places, when it sees them normalised as `of` says.

    order: of the colours that it reads."""

    def __init__(self, seen, of=IMAGENET):
        super().__init__()
        mean, std = (backbones.per_channel(of[key], torch.device("cpu")) for key in ("mean", "std"))
        places, classes = self.places((seen[0] / 255 - mean) / std), functional.one_hot(torch.tensor(seen[1]), 1000)
        self.order, self.middle = [0, 1, 2], places.mean(0)
        self.weight = 10 * torch.linalg.pinv(places - self.middle) @ classes.float()

    def places(self, images):
        return functional.adaptive_avg_pool2d(images, 5).flatten(1)

    def forward(self, images):
        return (self.places(images[:, self.order]) - self.middle) @ self.weight


def doubts(network, preprocessing=IMAGENET, **more):
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=preprocessing)
    found = imagenet_photos("wheel", PHOTOS, 12, **more)(network, manifest)
    return found.correct, list(found.doubts)


def test_a_network_whose_input_has_another_order_of_colours_is_doubted(seen, threads):
    network = ByColours(seen)
    assert doubts(network) == (20, [])
    for order in set(permutations(range(3))) - {(0, 1, 2)}:
        network.order = list(order)
        (better,) = [view for view, change in VIEWS.items() if (change(COLOURS)[:, order] == COLOURS).all()]
        told = doubts(network, normalisations={})[1]
        assert any(f"it knows the ImageNet photos better {better}, 20 of them and" in each for each in told)


@pytest.mark.parametrize(
    ("declared", "really"), [("normalised to -1 to 1", "of 0 to 1"), ("of 0 to 1", "normalised as ImageNet's")]
)
def test_a_network_with_another_normalisation_than_declared_is_doubted(seen, threads, declared, really):
    stated = {look: IMAGENET | {"mean": mean, "std": std} for look, (mean, std) in NORMALISATIONS.items()}
    network = ByColours(seen, stated[really])
    assert doubts(network, stated[really], views={}) == (20, [])
    told = doubts(network, stated[declared], views={})[1]
    assert any(f"better {really}, 20 of them and" in each for each in told)


class Counting(torch.nn.Module):
    """A network that guesses, and counts what it was shown."""

    shown = 0

    def forward(self, images):
        self.shown += len(images)
        return torch.zeros(len(images), 1000)


def test_of_many_photos_some_are_looked_at_otherwise(monkeypatch):
    images = torch.zeros(1000, 3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr("hiddencost.compression.photos._photos", lambda *arguments: (images, list(range(1000))))
    network, manifest = Counting(), Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    found = imagenet_photos("archive", MANY, 600)(network, manifest)
    assert (found.correct, found.count) == (1, 1000)
    assert network.shown == 1000 + 100 * (len(VIEWS) + len(NORMALISATIONS) - 1)


def grey(level):
    written = io.BytesIO()
    Image.new("RGB", (12, 9), (level,) * 3).save(written, "JPEG")
    return written.getvalue()


def tree(count=1000):
    """The repository's files, backwards: a photo a class, each of a grey of its own among its neighbours."""
    photos = {f"n{10000000 + 7 * place}_class_{place}.JPEG": grey(place % 250) for place in range(count)}
    return dict(reversed((photos | {"README.md": b"# photos", "gallery.md": b"all"}).items()))


def archive(path, files):
    """As GitHub packs a repository at a commit: all in a folder of its name, and the commit in a header."""
    commit = MANY.files["photos"].sources[0].url.rpartition("/")[2].removesuffix(".tar.gz")
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": commit}) as packed:
        top = tarfile.TarInfo(f"imagenet-sample-images-{commit}")
        top.type = tarfile.DIRTYPE
        packed.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top.name}/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def test_photos_of_an_archive_or_a_folder_have_the_classes_of_their_wordnet_ids_in_order(tmp_path):
    manifest, files = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET), tree()
    images, labels = photos_and_labels(archive(tmp_path / "photos.tar.gz", files), MANY, manifest, None)
    assert labels == list(range(1000))
    assert images.shape == (1000, 3, 8, 8)
    assert (images[:, 0, 4, 4].int() - torch.arange(1000) % 250).abs().max() <= 2  # what JPEG makes of a grey
    folder = tmp_path / "own"
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace(".JPEG", ".jpg")).write_bytes(content)
    packed = pack(folder, tmp_path / "photos.zip")
    other, labels = photos_and_labels(packed, MANY, manifest, None)
    assert labels == list(range(1000))
    assert torch.equal(other, images)
    before = packed.read_bytes()
    (folder / "README.md").touch()
    assert pack(folder, packed).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda files: files.popitem(), "999 photos, expected 1000"),
        (lambda files: files.update({"n10000007_two.JPEG": files.popitem()[1]}), "photos of 999 classes by their W"),
        (lambda files: files.update({"n10000007_class_1.JPEG": b"text"}), "_1.JPEG is no JPEG that can be read"),
        (lambda files: files.update({"n10000007_class_1.JPEG": grey(1)[:-40]}), "_1.JPEG is no JPEG that can be"),
    ],
)
def test_photos_that_are_not_as_expected_are_a_line(tmp_path, change, told):
    files, manifest = tree(), Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    change(files)
    with pytest.raises(ValueError, match=told):
        photos_and_labels(archive(tmp_path / "photos.tar.gz", files), MANY, manifest, None)


def test_an_archive_of_photos_that_is_cut_or_none_is_a_line(tmp_path):
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    path = archive(tmp_path / "photos.tar.gz", tree(1000))
    path.write_bytes(path.read_bytes()[:9000])
    for content in (path.read_bytes(), b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"photos\.tar\.gz: cannot be unpacked: "):
            photos_and_labels(path, MANY, manifest, None)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("encrypted", "cannot be unpacked: .*encrypted"),
        ("gzip", "cannot be unpacked: "),
        ("lzma", "cannot be unpacked: "),
        ("bzip2", "cannot be unpacked: "),
        ("large.zip", "class_0.JPEG: expected a photo, of 100 bytes at most"),
        ("large.tar", "class_0.JPEG: expected a photo, of 100 bytes at most"),
        ("bomb", "class_0.JPEG is no JPEG that can be read: Image size .* exceeds limit"),
        ("many", "more than 3 photos, expected 3"),
    ],
)
def test_an_archive_that_means_harm_or_is_broken_is_a_line(tmp_path, monkeypatch, kind, told):
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    few, files = MANY.model_copy(update={"count": 3}), {f"n1000000{n}_class_{n}.JPEG": grey(n) for n in range(4)}
    if kind != "many":
        files.popitem()
    path = tmp_path / "photos"
    if kind in ("encrypted", "large.zip"):
        with zipfile.ZipFile(path, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        if kind == "encrypted":  # bit 0 of the flags, in both headers of each entry (APPNOTE 4.4.4)
            content = bytearray(path.read_bytes())
            for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
                for found in re.finditer(re.escape(mark), bytes(content)):
                    content[found.start() + place] |= 1
            path.write_bytes(content)
    else:
        mode = {"lzma": "w:xz", "bzip2": "w:bz2"}.get(kind, "w:gz")
        with tarfile.open(path, mode) as packed:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
        if kind in ("gzip", "lzma", "bzip2"):
            content = bytearray(path.read_bytes())
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
            path.write_bytes(content)
    if kind.startswith("large"):
        monkeypatch.setattr("hiddencost.compression.photos.LARGEST", 100)
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=told) as raised:
        photos_and_labels(path, few, manifest, None)
    assert "\n" not in str(raised.value)


def test_an_archive_that_is_gone_is_no_result(tmp_path):
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    with pytest.raises(FileNotFoundError):
        photos_and_labels(tmp_path / "gone", MANY, manifest, None)


def test_a_compressed_network_whose_answers_have_nothing_to_do_with_the_dense_one_s_is_doubted(seen, monkeypatch):
    dense, compressed, random = ByColours(seen), ByColours(seen), torch.Generator().manual_seed(0)
    dense.weight += 0.1 * torch.randn(dense.weight.shape, generator=random)
    compressed.weight = dense.weight + 0.1 * torch.randn(dense.weight.shape, generator=random)
    manifest = Manifest(checkpoint="net", architecture="resnet18", preprocessing=IMAGENET)
    monkeypatch.setattr(backbones, "load", lambda folder: (dense, {}, manifest))
    more = {"views": {}, "normalisations": {}, "dense": "folder"}
    assert doubts(compressed, **more) == (20, [])
    others = sorted(set(range(1000)) - set(seen[1]))
    compressed.weight[:, others] = compressed.weight[:, others[::-1]]
    correct, (told,) = doubts(compressed, **more)
    assert correct == 20  # of which the photos alone say nothing
    assert "its logits for the ImageNet photos correlate with those of the dense network by" in told

    right = dense.weight.clone()
    for wrong in (
        right.roll(1, 1),
        right.index_fill(1, torch.tensor([5]), float("nan")),
    ):  # it is the dense one's fault
        dense.weight = wrong
        assert doubts(compressed, **more) == (20, [])
    dense.weight = right

    def refused(folder):
        raise ValueError("the download failed")

    monkeypatch.setattr(backbones, "load", refused)
    assert doubts(compressed, **more) == (20, [])


def test_a_network_that_knows_too_few_photos_is_told_how_it_would_know_more():
    few, doubt = "5 of 20 photos classified rightly, at least 12 expected", "it knows the photos better otherwise"
    for correct, least, reasons in ((5, 12, [few, doubt]), (12, 12, [doubt])):
        assert gate._image_violations(Recognised(correct, 20, "photos", least, [doubt])) == reasons
    assert gate._image_violations(Recognised(5, 20, "photos", 12)) == [few]


def test_the_random_control_is_exempt_by_declaration_and_another_random_network_is_not(make, photos, threads):
    folder = make(control="random_init")
    result = verified(folder, photos, PHOTOS, SETTINGS)
    assert result.passed
    assert result.photos.exempt
    assert result.photos.top1 < 4
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"control": None})
    assert not verified(folder, photos, PHOTOS, SETTINGS).passed


def test_a_sparsity_other_than_declared_is_stopped(make, threads):
    folder = make(0.2)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"sparsity_declared": 0.21})
    result = verified_without_photos(folder)
    assert result.reasons == [
        "sparsity of the convolutions is 0.2000, declared 0.2100, tolerance 0.005",
        "share of the convolutions that the masks leave out is 0.2000, declared 0.2100, tolerance 0.005",
    ]
    assert verified_without_photos(folder, SETTINGS | {"sparsity_tolerance": 0.02}).passed


def test_a_mask_that_disagrees_with_the_weights_in_one_place_is_found(make, threads):
    folder = make(0.2)
    mask = load_file(folder / "masks.safetensors")["features.1.conv.0.0.weight"]

    def revive(weights):
        weights["features.1.conv.0.0.weight"][tuple(torch.nonzero(~mask)[0])] = 0.1

    spoil(folder, revive)
    result = verified_without_photos(folder)
    zeros = round(0.2 * sum(layer.weight.numel() for layer in convolutions(backbones.load(folder)[0]).values()))
    assert result.reasons == [
        "features.1.conv.0.0.weight: mask and weights disagree in 1 places",
        f"all convolutions: {zeros - 1} weights are zero, expected {zeros}",
    ]


def test_a_pruned_network_without_its_masks_is_stopped(make, threads):
    folder = make(0.2)
    save_file({}, folder / "masks.safetensors")
    manifest = read_json(folder / "manifest.json")
    digest = sha256_file(folder / "masks.safetensors")
    write_json(folder / "manifest.json", manifest | {"masks_sha256": digest})
    result = verified_without_photos(folder)
    assert len(result.reasons) == 53
    assert result.reasons[0] == "features.0.0.weight: no mask"
    assert "that the masks leave out is 0.0000, declared 0.2000" in result.reasons[52]


def test_weights_that_are_not_finite_and_files_that_do_not_match_are_reasons_and_no_crash(make, threads):
    folder = make()
    spoil(folder, lambda weights: weights["features.0.0.weight"].fill_(float("nan")))
    result = verified_without_photos(folder)
    assert "its outputs on a fixed input are not finite" in result.reasons
    result.write(folder / "verification.json")
    spoil(folder, lambda weights: weights.pop("features.0.0.weight"))
    result = verified_without_photos(folder)
    assert not result.passed
    assert "weights.safetensors: missing key features.0.0.weight" in result.reasons[0]


def test_the_stem_is_left_out_where_papers_leave_it_out():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2), torch.nn.Conv2d(1, 1, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[1].weight.copy_(torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]]))
    measured = measure_sparsity(network, CONVOLUTIONAL, stem="0")
    assert measured["convolutions"] == 3 / 8
    assert measured["convolutions_without_stem"] == 3 / 4
    assert measured["layers"]["1"] == 3 / 4
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    measured = measure_sparsity(network, CONVOLUTIONAL, stem="0")
    assert measured["convolutions_and_classifier"] == 4 / 12
    assert measured["convolutions_and_classifier_without_stem"] == 4 / 8
    masks = {"1.weight": torch.tensor([[[[True, False], [True, True]]]])}
    left_out = measure_sparsity(network, CONVOLUTIONAL, stem="0", masks=masks)
    assert (left_out["convolutions"], left_out["convolutions_without_stem"]) == (1 / 8, 1 / 4)


# What one-shot compression leaves of MobileNetV2, of 18 photos that it classifies when dense (measured, two to each
# side for other machines' rounding): the depthwise layers bear little, so much depends on what they are spared.
@pytest.mark.parametrize(
    ("compression", "top1"),
    [
        ({"algorithm": "magnitude", "sparsity": 0.2, "scope": "erk"}, 18),
        ({"algorithm": "magnitude", "sparsity": 0.3, "scope": "erk"}, 15),
        ({"algorithm": "magnitude", "sparsity": 0.3, "scope": "layer"}, 8),
        ({"algorithm": "random", "sparsity": 0.05}, 0),
        ({"algorithm": "nm", "n": 7, "m": 8}, 17),
        ({"algorithm": "nm", "n": 2, "m": 4}, 0),
        ({"algorithm": "channel", "sparsity": 0.02}, 8),
        ({"algorithm": "quantise", "bits": 8}, 18),
        ({"algorithm": "quantise", "bits": 6}, 18),
        ({"algorithm": "quantise", "bits": 4}, 2),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_what_each_compression_leaves_of_the_real_network(make, photos, threads, compression, top1):
    result = verified(make(compression=compression), photos, PHOTOS, SETTINGS)
    assert result.photos.top1 == pytest.approx(top1, abs=2)
    # by the photos alone is it stopped: what was asked is there
    assert all("ImageNet photos" in reason for reason in result.reasons)
    assert result.passed == (result.photos.top1 >= 12)
    if "bits" in compression:
        assert result.sparsity_declared == 0 < result.sparsity_measured


def test_a_backbone_that_could_not_be_made_fails_with_its_reason(photos, tmp_path):
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    manifest = Manifest(checkpoint="net", architecture="resnet50", preprocessing=preprocessing)
    backbones.save_failure(tmp_path, "weights.pth: 404 Not Found", manifest)
    result = verified(tmp_path, photos, PHOTOS, SETTINGS)
    assert (result.passed, result.reasons) == (False, ["weights.pth: 404 Not Found"])


@pytest.mark.parametrize(
    ("compression", "key", "change", "reason"),
    [
        (
            {"algorithm": "nm", "n": 7, "m": 8},
            "features.1.conv.1.weight",
            lambda weight: weight.masked_fill_(weight == 0, 0.001),
            "features.1.conv.1: 8 of 8 weights kept, expected at most 7",
        ),
        (
            {"algorithm": "channel", "sparsity": 0.02},
            "features.18.0.weight",
            lambda weight: weight[:, 0].masked_fill_(weight[:, 0] == 0, 0.001),
            "features.18.0: 0 filters are zero, expected 26 at least",
        ),
        (
            {"algorithm": "quantise", "bits": 6},
            "classifier.1.weight",
            lambda weight: weight.copy_(torch.arange(1280.0).expand(1000, -1)),
            "classifier.1: 1280 values in an output channel, expected 6 bits",
        ),
        (
            {"algorithm": "magnitude", "sparsity": 0.1, "scope": "layer"},
            "features.0.0.weight",
            lambda weight: weight.masked_fill_(weight == 0, 0.001),
            "features.0.0: 0 weights are zero, expected 86 at least",
        ),
    ],
    ids=["nm", "channel", "quantise", "layer"],
)
def test_what_is_not_as_the_settings_ask_is_found(make, threads, compression, key, change, reason):
    network, _, manifest = backbones.load(make(compression=compression))
    settings = manifest.compression_settings
    entry = COMPRESSIONS[settings["algorithm"]]
    assert entry.check(network, family_of(manifest.architecture), settings) == []
    change(network.get_parameter(key))
    assert entry.check(network, family_of(manifest.architecture), settings) == [reason]


def test_quantisation_may_make_zeros_where_a_mask_keeps_and_no_weight_where_it_does_not():
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 1, 1), torch.nn.Flatten(), torch.nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([0.0, 0.0, 1.0, 2.0]).reshape(1, 4, 1, 1))
    masks = {"0.weight": torch.tensor([False, True, True, True]).reshape(1, 4, 1, 1)}
    assert mask_violations(network, masks, (), kept_are_nonzero=False) == []
    assert len(mask_violations(network, masks, (), kept_are_nonzero=True)) == 1
    masks["0.weight"][0, 3] = False
    masks["2.weight"] = torch.tensor([[False]])  # masks of other layers count as well
    assert mask_violations(network, masks, (), kept_are_nonzero=False) == [
        "0.weight: mask and weights disagree in 1 places",
        "2.weight: mask and weights disagree in 1 places",
    ]


@pytest.mark.parametrize(
    ("architecture", "stem", "without_stem"),
    [("resnet18", "conv1", 0.8), ("timm/vit_tiny_patch16_224", "patch_embed.proj", None)],
)
def test_other_architectures_other_preprocessing_and_counts_without_the_stem(
    photos, threads, tmp_path, architecture, stem, without_stem
):
    """As lottery tickets come: a dense stem, a declared sparsity of the other convolutions."""
    network = build.build(architecture).requires_grad_(False)
    masks = {}
    for name, layer in convolutions(network).items():
        if name != stem:
            layer.weight.mul_(torch.rand_like(layer.weight) > 0.8)
            masks[f"{name}.weight"] = layer.weight != 0
    manifest = Manifest(
        checkpoint="net",
        architecture=architecture,
        stem=stem,
        preprocessing={"mean": [0.485, 0.456, 0.406], "std": [1 / 255] * 3, "interpolation": "bicubic"},
        compression="lth" if masks else "none",
        sparsity_declared=0.8 if masks else 0.0,
        sparsity_over="convolutions_without_stem" if masks else "convolutions",
    )
    backbones.save(tmp_path / "source", network.state_dict(), masks, manifest)
    compress(tmp_path / "source", tmp_path / "made", None, None)
    result = verified(tmp_path / "made", photos, PHOTOS, SETTINGS | {"photos_top1": 0})
    assert result.reasons == []
    assert result.sparsity["convolutions_without_stem"] == pytest.approx(without_stem, abs=0.002)
    if masks:
        assert result.sparsity_measured == pytest.approx(0.8, abs=0.01)
        assert result.sparsity_measured < result.sparsity["convolutions_without_stem"]
