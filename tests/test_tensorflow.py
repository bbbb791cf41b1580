"""TensorFlow's checkpoints: what TensorFlow wrote (tensorflow/write.py), what its rules make, what can be wrong."""

import io
import random
import tarfile
from itertools import pairwise
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
from torch import nn

from hiddencost import catalog
from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.files import sha256_file, write_json
from hiddencost.networks import architectures, backbones
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.families import family_of
from hiddencost.networks.formats import rigl, tensorflow
from hiddencost.networks.formats.registry import READERS
from hiddencost.networks.formats.tensorflow import read_archive

WRITTEN = Path(__file__).with_name("tensorflow")
BUILD = architectures.build


# ------------------------------------------------------------------------------------- a writer, by the same sources


def varint(number):
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number, value):
    """A field of a protocol buffer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def masked(data):
    checksum = google_crc32c.value(data)
    return (((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def block(pairs, kind=0):
    """A block of a table with its trailer; each 16th key is written whole."""
    data, restarts, last = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % 16:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        else:
            restarts.append(len(data))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    data += b"".join(each.to_bytes(4, "little") for each in [*restarts, len(restarts)]) + bytes([kind])
    return data + masked(data)


def table(pairs, kind=0, length=40):
    """An index: blocks of so many keys, the index of these and the footer."""
    pairs, data, handles = sorted(pairs), b"", []
    for start in range(0, len(pairs), length):
        written = block(pairs[start : start + length], kind)
        handles.append((pairs[start : start + length][-1][0], varint(len(data)) + varint(len(written) - 5)))
        data += written
    ends = [len(data), len(data := data + block([])), len(data := data + block(handles))]
    places = [varint(start) + varint(end - start - 5) for start, end in pairwise(ends)]
    return data + b"".join(places).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def entry(values, shard, offset, changed):
    stated = {"dtype": {"f": 1, "i": 9}[values.dtype.kind], "shape": values.shape, "size": values.nbytes}
    stated |= {"shard": shard, "offset": offset, "checksum": masked(values.tobytes()), "more": b""} | changed
    shape = b"".join(field(2, field(1, side)) for side in stated["shape"])
    data = field(1, stated["dtype"]) + field(2, shape) + field(3, stated["shard"]) + field(4, stated["offset"])
    return data + field(5, stated["size"]) + varint(6 << 3 | 5) + stated["checksum"] + stated["more"]


def bundle(variables, prefix="s80/model.ckpt-3200000", shards=1, header=b"", changed=None, **options):
    """The files of a checkpoint: {path: bytes}; `changed`: what is stated of a variable otherwise, by its name."""
    data = [b""] * shards
    pairs = [(b"", field(1, shards) + field(3, field(1, 1)) + header)]
    for number, (name, values) in enumerate(sorted(variables.items())):
        shard = number % shards
        pairs.append((name.encode(), entry(values, shard, len(data[shard]), (changed or {}).get(name, {}))))
        data[shard] += values.tobytes()
    names = [f"{prefix}.data-{shard:05}-of-{shards:05}" for shard in range(shards)]
    return {f"{prefix}.index": table(pairs, **options)} | dict(zip(names, data, strict=True))


def archive(path, files, mode="w:gz"):
    options = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **options) as package:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
    return path


# ---------------------------------------------------------------------------------------- what TensorFlow has written


def test_variables_that_tensorflow_wrote_are_read():
    tensors, others = read_archive(WRITTEN / "variables.tar.gz", lambda name: name.startswith("plain/"))
    expected = {
        "float": torch.arange(24).reshape(2, 3, 4).float() / 8,
        "double": torch.linspace(-1, 1, 5, dtype=torch.float64),
        "half": torch.arange(3).half(),
        "int": torch.arange(-2, 3, dtype=torch.int32),
        "step": torch.tensor(3_200_000),
        "bool": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4),
        "bfloat16": (torch.arange(24).reshape(2, 3, 4).float() / 8).bfloat16(),
    }
    assert tensors.keys() == {f"plain/{name}" for name in expected}
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[f"plain/{name}"], tensor, rtol=0, atol=0)
    assert "others/text" in others


def test_a_checkpoint_of_tensorflow_1_is_read():
    """Its index is whole; of its data, variables that are not `kept` are zeros (see tensorflow/write.py)."""
    path, first = WRITTEN / "tensorflow1.tar.gz", ("policy/fully_connected/weights", "value/fully_connected/weights")

    def kept(name):
        last = name.startswith("network/rnn/value/fully_connected_2/")
        return name.endswith(first) or last or not name.startswith(("memory/Variable_", "network/"))

    tensors, others = read_archive(path, kept)
    assert (len(tensors), len(others)) == (30, 36)
    assert (tensors["global_step"].dtype, tensors["global_step"].item()) == (torch.int32, 2_000_000)
    assert tensors["memory/Variable"].tolist() == [0] * 25
    # as tf.train.load_checkpoint gives them
    mean = tensors["normalize_observ/Variable_1"]
    assert mean.tolist() == pytest.approx([2.3247158e-06, -1.1653919e-03, 3.1242928e-09, 1.2365485e-06], rel=1e-6)
    weights = tensors["network/rnn/value/fully_connected/weights"]
    assert weights.shape == (4, 200)
    assert weights[0, :3].tolist() == pytest.approx([0.00883046, -0.02648722, -0.02326292], rel=1e-5)
    with pytest.raises(
        ValueError, match="damaged: the checksum of network/rnn/policy/fully_connected_1/biases is anoth"
    ):
        read_archive(path, lambda name: name == "network/rnn/policy/fully_connected_1/biases")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("others/text", "others/text is of TensorFlow's type 7; expected plain numbers"),
        ("others/sliced", "others/sliced is stored in slices, of a partitioned variable; expected whole ones"),
    ],
)
def test_what_is_no_whole_tensor_of_numbers_is_refused(name, message):
    with pytest.raises(ValueError, match=rf"variables\.tar\.gz: {message}"):
        read_archive(WRITTEN / "variables.tar.gz", lambda each: each == name)


def narrowed(architecture, factor=64, classes=10):
    """A network a so many times as narrow, that computes as the whole one."""
    with torch.device("meta"):
        network = BUILD(f"{architecture}:{classes}")
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            sizes = [count if count == 3 else count // factor for count in (module.in_channels, module.out_channels)]
            place = {"stride": module.stride, "padding": module.padding, "bias": False}
            network.set_submodule(name, nn.Conv2d(*sizes, module.kernel_size, **place))
        elif isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.BatchNorm2d(module.num_features // factor))
        elif isinstance(module, nn.Linear):
            network.set_submodule(name, nn.Linear(module.in_features // factor, module.out_features))
    return network.eval()


@pytest.mark.parametrize("name", ["network", "uniform"])
def test_the_network_of_rigls_code_answers_as_in_tensorflow(name, threads):
    path = WRITTEN / f"{name}.tar.gz"
    state, masks, report, *_ = READERS["rigl"]({"weights": path})
    network = narrowed("resnet50_rigl")
    backbones.load_strictly(network, state, str(path))
    side = 64
    images = (torch.arange(side * side * 3) * 37 % 256 / 128 - 1).reshape(1, side, side, 3).permute(0, 3, 1, 2)
    answers = read_archive(path, lambda each: each == "answers")[0]["answers"]
    with torch.inference_mode():
        range_of = (answers.max() - answers.min()).item()
        torch.testing.assert_close(network(images), answers, rtol=0, atol=1e-5 * range_of)
        network.pad, network.initial_max_pool = nn.Identity(), nn.MaxPool2d(3, 2, 1)  # torchvision's
        assert (network(images) - answers).abs().max() > 1e-4 * range_of
    is_pruned = name == "network"
    assert report["masks"] == 53 + is_pruned  # 53 convolutions and the classifier
    assert (masks["initial_conv.conv.weight"].float().mean() < 0.8) == is_pruned
    assert all(
        0.3 < mask.float().mean() < 1 for key, mask in masks.items() if mask.numel() > 20 and "initial" not in key
    )


# ------------------------------------------------------------------------------- RigL's networks, by the code's rules


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    monkeypatch.setattr(architectures, "build", lambda name: narrowed(name, 32, 1000))


@pytest.fixture(scope="module")
def published():
    """The variables of RigL's ResNet-50 by their published names, in the order of its resnet_model.py, 32 times
    as narrow, with what its training has beside them."""
    generator = np.random.default_rng(0)
    variables, norms = {"global_step": np.int64(3_200_000), "last_mask_update_step": np.int64(0)}, []

    def layer(scope, shape):
        weights = generator.random(shape, np.float32) + 0.5
        mask = (generator.random(shape) < 0.2).astype(np.float32)
        parts = {"weights": weights, "mask": mask, "threshold": np.float32(0), "weights/Momentum": weights}
        variables.update({f"resnet_model/{scope}/{part}": values for part, values in parts.items()})

    def convolution(scope, kernel, inputs, outputs):
        layer(scope, (kernel, kernel, inputs, outputs))
        scope = "resnet_model/batch_normalization" + (f"_{len(norms)}" if norms else "")
        norms.append(scope)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            variables[f"{scope}/{part}"] = generator.random(outputs, np.float32) + 0.5

    def block(tail, inputs, width, projects):
        if projects:
            convolution(f"bottleneck_projection_{tail}", 1, inputs, 4 * width)
        convolution(f"bottleneck_1_{tail}", 1, inputs, width)
        convolution(f"bottleneck_2_{tail}", 3, width, width)
        convolution(f"bottleneck_3_{tail}", 1, width, 4 * width)

    convolution("initial_conv", 7, 3, 2)
    inputs = 2
    for group, (width, blocks) in enumerate([(2, 3), (4, 4), (8, 6), (16, 3)], 1):
        block(f"block_group_projection_block_group{group}", inputs, width, projects=True)
        inputs = 4 * width
        for number in range(1, blocks):
            block(f"block_group{group}_{number}_1", inputs, width, projects=False)
    layer("final_dense", (inputs, 1000))
    variables["resnet_model/final_dense/biases"] = generator.random(1000, np.float32)
    assert len(norms) == 53
    return variables


def imported(path, folder, name="resnet50-rigl80", **changed):
    """Import an archive as a checkpoint of the catalog; returns backbones.load's network, masks and manifest."""
    file = {"path": str(path), "sha256": sha256_file(path), "source": "test"}
    write_json(folder / "fetched.json", {"failed": None, "files": {"weights": file}})
    entry = catalog.checkpoint(name).model_copy(update=changed)
    import_checkpoint(name, entry, folder / "fetched.json", folder / "out")
    return backbones.load(folder / "out")


@pytest.mark.parametrize(("shards", "mode"), [(2, "w:gz"), (1, "w")])
def test_a_published_network_is_the_product_of_weights_and_masks(published, shards, mode, tmp_path, threads):
    files = {
        "s80/checkpoint": b'model_checkpoint_path: "model.ckpt-3200000"',
        "s80/._model.ckpt-3200000.index": b"mac",
    }
    path = archive(tmp_path / "s80erk5x.tar.gz", files | bundle(published, shards=shards), mode)
    network, masks, manifest = imported(path, tmp_path)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(masks) == len(convolutions) + 1 == 54
    assert manifest.report == {
        **{"keys": 53 * 5 + 2, "masks": 54, "zeros_not_masked": 0, "of_its_training": 2 + 2 * 54},
        "removed_by_masks": sum(
            int((value == 0).sum()) for name, value in published.items() if name.endswith("mask")
        ),
    }
    names = rigl.convolutions()
    assert list(names.values())[:3] == ["initial_conv", "layer1.block.0.shortcut", "layer1.block.0.conv1"]
    for number, (scope, ours) in enumerate(names.items()):
        values = {part: torch.from_numpy(published[f"resnet_model/{scope}/{part}"]) for part in ("weights", "mask")}
        unit = network.get_submodule(ours)
        product = (values["weights"] * values["mask"]).permute(3, 2, 0, 1)
        assert torch.equal(unit.conv.weight, product), ours
        assert torch.equal(masks[f"{ours}.conv.weight"], product != 0), ours
        norm = "resnet_model/batch_normalization" + (f"_{number}" if number else "")
        pairs = {"gamma": unit.bn.weight, "beta": unit.bn.bias}
        pairs |= {"moving_mean": unit.bn.running_mean, "moving_variance": unit.bn.running_var}
        for part, tensor in pairs.items():
            assert torch.equal(tensor, torch.from_numpy(published[f"{norm}/{part}"])), (ours, part)
    dense = {part: torch.from_numpy(published[f"resnet_model/final_dense/{part}"]) for part in ("weights", "mask")}
    assert torch.equal(network.fc.weight, (dense["weights"] * dense["mask"]).T)
    assert torch.equal(network.fc.bias, torch.from_numpy(published["resnet_model/final_dense/biases"]))
    sparsity = measure_sparsity(network, family_of("resnet50_rigl"), "initial_conv.conv")
    assert sparsity["convolutions_and_classifier"] == pytest.approx(0.8, abs=0.01)


STEM = "resnet_model/initial_conv"


def dense_stem(variables):
    """The variables of a network of uniform sparsity: the stem has no mask, and its scope twice."""
    left = {name: values for name, values in variables.items() if not name.startswith(STEM)}
    return left | {f"{STEM}/initial_conv/weights": variables[f"{STEM}/weights"]}


@pytest.mark.parametrize(("name", "kind"), [("resnet50-rigl80", "rigl"), ("resnet50-gmp80-extended", "gmp")])
def test_a_stem_that_was_not_pruned_needs_no_mask(name, kind, published, tmp_path, threads):
    """State of Sparsity's "extended" networks have such a stem, too, and are held to no published sparsity."""
    path = archive(tmp_path / "a.tar", bundle(dense_stem(published)), "w")
    network, masks, manifest = imported(path, tmp_path, name)
    assert manifest.compression == kind
    assert manifest.sparsity_declared == pytest.approx(0.8, abs=0.01)
    assert manifest.report["masks"] == 53
    assert masks["initial_conv.conv.weight"].all()
    stem = torch.from_numpy(published[f"{STEM}/weights"]).permute(3, 2, 0, 1)
    assert torch.equal(network.initial_conv.conv.weight, stem)


def without(*names):
    return lambda variables: {name: values for name, values in variables.items() if name not in names}


def put(name, values):
    return lambda variables: variables | {name: np.asarray(values, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(f"{STEM}/mask"), f"the variable {STEM}/mask is missing, of RigL's ResNet-50"),
        (without("resnet_model/final_dense/mask"), "the variable resnet_model/final_dense/mask is missing"),
        (
            without("resnet_model/batch_normalization_52/beta", "resnet_model/final_dense/biases"),
            "the variable resnet_model/batch_normalization_52/beta and 1 more is missing",
        ),
        (
            put("resnet_model/batch_normalization_53/beta", [1]),
            "unexpected variable resnet_model/batch_normalization_53",
        ),
        (put(f"{STEM}/weights/ExponentialMovingAverage", [1]), f"unexpected variable {STEM}/weights/Exponential"),
        (
            put("resnet_model/final_dense/kernel", [1]),
            "unexpected variable resnet_model/final_dense/kernel; expected those",
        ),
        (
            put(f"{STEM}/initial_conv/weights", [1]),
            "the weights of initial_conv are there twice, as resnet_model/initial",
        ),
        (
            lambda variables: dense_stem(variables) | {f"{STEM}/mask": np.float32([1])},
            f"{STEM}/mask is there, but not its {STEM}/weights: of a dense initial_conv, it is {STEM}/initial_conv/",
        ),
        (put(f"{STEM}/mask", [1, 0]), "the mask of initial_conv.conv.weight has shape [2], expected [2, 3, 7, 7]"),
        (
            put(f"{STEM}/mask", np.full((7, 7, 3, 2), 0.5)),
            "the mask of initial_conv.conv.weight has other values than 0",
        ),
        (put("resnet_model/final_dense/biases", [1]), "fc.bias has shape [1], expected [1000]"),
    ],
)
def test_what_is_not_the_published_network_is_named(change, message, published, tmp_path, threads):
    path = archive(tmp_path / "a.tar", bundle(change(published)), "w")
    with pytest.raises(ValueError, match=r"a\.tar: ") as caught:
        imported(path, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- what can be wrong

SMALL = {f"scope/{name}": np.arange(6, dtype=np.float32).reshape(2, 3) + ord(name) for name in "abc"}
INDEX = "model.ckpt-1.index"
DATA = "model.ckpt-1.data-00000-of-00001"


def small(**options):
    return bundle(SMALL, "model.ckpt-1", **options)


def stated(**changed):
    return small(changed={"scope/b": changed})


def damaged(name, place):
    files = small()
    files[name] = files[name][:place] + bytes([files[name][place] ^ 1]) + files[name][place + 1 :]
    return files


def part(name, size):
    files = small()
    return files | {name: files[name][:size]}


def lacking(name, **options):
    return {each: data for each, data in small(**options).items() if each != name}


HUGE = 2**62
WRONG = {
    "two indices": (
        small() | {"old/model.ckpt-0.index": b""},
        "2 files *.index, expected that of one TensorFlow checkpo",
    ),
    "no index": (lacking(INDEX), "0 files *.index, expected that of one TensorFlow checkpoint"),
    "no data": (lacking(DATA), f"it has no {DATA}, which scope/a is in"),
    "a data file of two": (
        lacking("model.ckpt-1.data-00001-of-00002", shards=2),
        "it has no model.ckpt-1.data-00001-of-00002, which scope/b is in",
    ),
    "another number of them": (stated(shard=7), "it has no model.ckpt-1.data-00007-of-00001, which scope/b is in"),
    "a bad tensor": (damaged(DATA, 30), f"{DATA} is damaged: the checksum of scope/b is another"),
    "a bad block": (damaged(INDEX, 3), f"{INDEX}: it is damaged: the checksum of its block at 0 is another"),
    "a compressed block": (small(kind=1), f"{INDEX}: its block at 0 is compressed (snappy); expected plain ones"),
    "a block of another kind": (small(kind=7), f"{INDEX}: its block at 0 is of the unknown type 7"),
    "a slice": (stated(more=field(7, b"")), "scope/b is stored in slices, of a partitioned variable"),
    "another type": (stated(dtype=7), "scope/b is of TensorFlow's type 7; expected plain numbers"),
    "an index cut at its end": (part(INDEX, -1), f"{INDEX}: it does not end as a TensorFlow index does"),
    "an index cut to its start": (part(INDEX, 40), f"{INDEX}: it does not end as a TensorFlow index does"),
    "an index without its start": (
        small() | {INDEX: small()[INDEX][60:]},
        "past its end: a part of a file",
    ),
    "data cut at its end": (part(DATA, -1), f"{DATA} has 71 bytes, expected 72, for scope/c"),
    "a huge size": (stated(size=HUGE), f"its variables have {HUGE + 48} bytes, its files"),
    "a huge shape": (
        stated(shape=[2**40, 2**40]),
        f"scope/b has 24 bytes, expected {2**82} of shape [{2**40}, {2**40}]",
    ),
    "a negative shape": (stated(shape=[2**64 - 1]), f"scope/b has shape [{2**64 - 1}]; expected up to 8 sides"),
    "many sides": (stated(shape=[1] * 100), "scope/b has shape [1, 1, 1, 1, 1, 1, 1, 1]; expected up to 8 sides"),
    "another shape": (stated(shape=[5]), "scope/b has 24 bytes, expected 20 of shape [5]"),
    "a far offset": (stated(offset=2**63), f"{DATA} has 72 bytes, expected {2**63 + 24}, for scope/b"),
    "big-endian": (
        small(header=field(2, 1)),
        f"{INDEX}: it was written on a big-endian machine; expected little-endian",
    ),
    "a later version": (
        small(header=field(3, field(1, 9) + field(2, 9))),
        f"{INDEX}: it is for readers of version 9; expected up to 1",
    ),
    "no header": (small() | {INDEX: table([(b"a", b"")])}, f"{INDEX}: it has no header"),
    "nothing": (small() | {INDEX: table([])}, f"{INDEX}: it has no header"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_checkpoint_is_refused_in_one_line(case, tmp_path):
    files, message = WRONG[case]
    path = archive(tmp_path / "a.tar", files, "w")
    with pytest.raises(ValueError, match=r"a\.tar: ") as caught:
        read_archive(path, lambda name: True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_block_that_is_named_twice_and_keys_that_grow_are_refused(tmp_path):
    data = block([(b"", field(1, 1))])
    twice = [(b"a", varint(0) + varint(len(data) - 5))] * 2
    handles = block(twice)
    places = varint(0) + varint(len(data) - 5) + varint(len(data)) + varint(len(handles) - 5)
    files = {INDEX: data + handles + places.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")}
    with pytest.raises(ValueError, match="its block at 0 begins before the end of the last"):
        read_archive(archive(tmp_path / "a.tar", files, "w"), lambda name: True)
    with pytest.raises(ValueError, match="an entry of its block at 5030 is longer than the block"):
        read_archive(archive(tmp_path / "a.tar", {INDEX: table([(b"a" * 5000, b"")])}, "w"), lambda name: True)
    keys = [(b"", field(1, 1)), *((b"a" * 250 + number.to_bytes(3, "big"), b"") for number in range(2000))]
    with pytest.raises(ValueError, match=r"model.ckpt-1.index: its keys take more than 8 times its \d+ bytes"):
        read_archive(archive(tmp_path / "a.tar", {INDEX: table(keys, length=3000)}, "w"), lambda name: True)


def test_the_block_of_metadata_is_checked_too(tmp_path):
    files = small()
    size = len(block([]))
    meta = files[INDEX].index(block([]))
    files[INDEX] = files[INDEX][:meta] + bytes([files[INDEX][meta] ^ 1]) + files[INDEX][meta + 1 :]
    assert size == 13
    with pytest.raises(ValueError, match=f"the checksum of its block at {meta} is another"):
        read_archive(archive(tmp_path / "a.tar", files, "w"), lambda name: True)


def test_a_file_that_an_archive_has_twice_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar", small() | {f"./{INDEX}": small()[INDEX]}, "w")
    with pytest.raises(
        ValueError, match=r"a\.tar: not an archive of .*damaged one: \./model\.ckpt-1\.index is there twice"
    ):
        read_archive(path, lambda name: True)


def test_an_archive_is_refused_where_it_is_cut_and_where_it_is_none(tmp_path):
    whole = archive(tmp_path / "a.tar.gz", small()).read_bytes()
    path = tmp_path / "part.tar.gz"
    for size in (2, 20, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=r"part\.tar\.gz: not an archive of a TensorFlow checkpoint, or a damaged one"
        ):
            read_archive(path, lambda name: True)


class Right:
    """A checksum that is that of anything."""

    def __ne__(self, other):
        return False


@pytest.mark.parametrize("are_checked", [True, False])
@pytest.mark.parametrize("name", [INDEX, DATA])
def test_whatever_is_damaged_ends_in_one_line(name, are_checked, tmp_path, monkeypatch):
    """Bytes of a file are changed, cut or put in at random. Where checksums are checked, what is read is right."""
    if not are_checked:
        monkeypatch.setattr(tensorflow, "_masked_checksum", lambda data: Right())
    generator, path, refusals = random.Random(0), tmp_path / "a.tar", list[str]()
    for _ in range(60):
        files = small(length=generator.choice([1, 40]))
        data = bytearray(files[name])
        place = generator.randrange(len(data))
        data[place : place + generator.randrange(3)] = generator.randbytes(generator.randrange(3))
        files[name] = bytes(data)
        try:
            tensors, _ = read_archive(archive(path, files, "w"), lambda name: name in SMALL)
            assert not are_checked or all(np.array_equal(tensors[name], SMALL[name]) for name in tensors)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > (30 if are_checked else 5)
    assert all(str(path) in refusal and "\n" not in refusal for refusal in refusals)
