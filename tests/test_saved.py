"""Files of saved classifiers that are damaged, that make no sense, or that mean harm: none is loaded."""

import errno
import json
import logging
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_process import tiny_network
from safetensors import safe_open
from safetensors.torch import save_file

import hiddencost
from hiddencost.networks import backbones
from hiddencost.networks.architectures import ARCHITECTURES
from hiddencost.runs import saved, trained
from hiddencost.runs.classifier import TrainedClassifier

RUN = {"study": "s", "backbone": "net", "dataset": "toy", "method": "ilm", "shots": "2", "seed": 0}
ABOUT = {
    "architecture": "tiny",
    "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3},
    "classes": ["apple", "pear", "plum"],
    "size": "12",
    "prompt": "border",
    "canvas": 16,
    "image_size": 12,
    "run": RUN | {"accuracy": 0.5, "run": "ab"},
}
IMAGES = torch.arange(3 * 12 * 12).reshape(1, 3, 12, 12).remainder(256).to(torch.uint8)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny_network)
    model = TrainedClassifier(tiny_network(), ABOUT)
    model.prompt.copy_(torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)))
    model.mapping.copy_(torch.tensor([7, 29, 3]))
    return model


@pytest.fixture
def path(tmp_path, model):
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def rewrite(path):
    """Write the file anew, with its checksum: other settings, and tensors that a function of them changes."""

    def rewrite(settings=None, change=lambda tensors: None):
        with safe_open(path, "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no dict)
        change(tensors)
        saved.write(path, ABOUT | (settings or {}), tensors)

    return rewrite


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A path, and what is saved there: bytes, and what they are loaded as."""
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", tiny_network)
        model = TrainedClassifier(tiny_network(), ABOUT)
        model.save(path)
        yield path, path.read_bytes(), model


def refused_or_the_same(whole, damaged):
    path, _, model = whole
    path.write_bytes(damaged)
    try:
        again = hiddencost.load(path)
    except ValueError as error:
        return "damaged" in str(error) or "save() wrote" in str(error)
    # damaged in the name of the checksum: it counts as a file of before there were any, and is whole
    return b'"sha256"' not in damaged and again.about == ABOUT and again(IMAGES).equal(model(IMAGES))


@given(in_header=st.booleans(), share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_loaded_or_changes_what_is_loaded(whole, in_header, share, bit):
    content = bytearray(whole[1])
    header = 8 + int.from_bytes(content[:8], "little")
    content[int(share * header) if in_header else header + int(share * (len(content) - header))] ^= 1 << bit
    assert refused_or_the_same(whole, bytes(content))


@pytest.mark.parametrize("cut", [0, 7, 300, -1])
def test_a_file_cut_short_is_refused(path, cut):
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"model.safetensors: not a safetensors file, or a damaged one"):
        hiddencost.load(path)


def test_a_file_of_before_there_were_checksums_is_loaded_with_a_warning(path, model, caplog):
    with safe_open(path, "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no dict)
    save_file(tensors, path, metadata={"hiddencost": json.dumps(ABOUT)})
    with caplog.at_level(logging.WARNING):
        assert hiddencost.load(path)(IMAGES).equal(model(IMAGES))
    assert "whether it is whole cannot be told" in caplog.text


def test_weights_of_a_mapping_are_held_against_its_method(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny_network)
    model = TrainedClassifier(tiny_network(), ABOUT | {"run": ABOUT["run"] | {"method": "fm"}})
    model.mapping.copy_(torch.eye(3, 31))
    for number, (mapping, told) in enumerate(
        (
            (model.mapping, None),
            (torch.arange(3), r"mapping has shape \[3\]"),
            (torch.eye(3, 30), r"mapping has shape \[3, 30\]"),
            (torch.full((3, 31), torch.nan), "mapping has a value that is no finite"),
            (torch.ones(3, 31, dtype=torch.int64), "mapping has a value that is no finite"),
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        saved.write(path, model.about, backbones.weights_of(model.state_dict()) | {"mapping": mapping})
        if told is None:
            assert torch.equal(hiddencost.load(path)(IMAGES), model(IMAGES))
        else:
            with pytest.raises(ValueError, match=told):
                hiddencost.load(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors["prompt"].view(-1)[5].fill_(float("nan")), "prompt has a value that is no finite"),
        (lambda tensors: tensors["network.0.weight"].fill_(float("inf")), "network.0.weight has a value that is no"),
        (
            lambda tensors: tensors["mapping"][0].fill_(-1),
            "mapping names a class that there is not; expected 0 to 29",
        ),
        (
            lambda tensors: tensors["mapping"][0].fill_(30),
            "mapping names a class that there is not; expected 0 to 29",
        ),
        (lambda tensors: tensors.update(mapping=torch.zeros(3)), "mapping names a class"),
        (lambda tensors: tensors.update(mapping=torch.zeros(4, dtype=torch.int64)), r"mapping has shape \[4\]"),
        (lambda tensors: tensors.update(prompt=torch.zeros(3, 16, 16, dtype=torch.int32)), "prompt has a value"),
        (lambda tensors: tensors.pop("network.0.weight"), "missing key network.0.weight"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "unexpected key more"),
    ],
)
def test_tensors_that_make_no_sense_are_refused(path, rewrite, change, told):
    rewrite(change=change)
    with pytest.raises(ValueError, match=told):
        hiddencost.load(path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"preprocessing": {"mean": [0.5] * 3, "std": [0.25, 0, 0.25]}}, r"preprocessing.std\[1\]: 0 is not allowed"),
        ({"preprocessing": {"mean": [0.5] * 2, "std": [0.25] * 3}}, r"preprocessing.mean"),
        ({"canvas": 10**9}, "canvas: 1000000000 is not allowed"),
        ({"canvas": 0}, "canvas: 0 is not allowed"),
        ({"image_size": 17}, "canvas: 16 pixels; expected at least those of the image"),
        ({"image_size": -1}, "image_size: -1 is not allowed"),
        ({"size": "9999"}, "canvas: 16 pixels"),
        ({"size": "12-stretched-bicubic"}, "size: '12-stretched-bicubic' is not allowed"),
        ({"prompt": "frame"}, "prompt: 'frame' is unknown; allowed: border, additive"),
        ({"prompt": "additive", "interpolation": "bicubic", "border": 9}, "canvas: 16 pixels"),
        ({"prompt": "masks", "layers": 10**6, "patch": 8}, "layers: 1000000 is not allowed"),
        ({"prompt": "masks", "layers": 5, "patch": 10**6}, "patch: 1000000 is not allowed"),
        ({"classes": []}, "classes"),
        ({"classes": ["apple"]}, r"mapping has shape \[3\], expected \[1\]"),
        ({"run": RUN}, "run.accuracy: the key is missing"),
        ({"run": ABOUT["run"] | {"method": "ft"}}, "run.method: 'ft' is unknown"),
        ({"architecture": "resnet18:1000000000000"}, "missing key network.bn1"),  # without taking its memory
        ({"architecture": "tiny:7"}, "no such classifier can be built"),
        ({"architecture": "abc/def"}, "no such classifier can be built: architecture 'abc/def'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(path, rewrite, settings, told):
    rewrite(settings)
    with pytest.raises(ValueError, match=told):
        hiddencost.load(path)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't allocate memory"), OSError(errno.EIO, "Input/output error")]
)
def test_an_error_of_the_machine_is_none_of_the_file(path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(trained, "_as_saved", fail)
    with pytest.raises(type(error)) as raised:
        hiddencost.load(path)
    assert raised.value is error


@pytest.mark.parametrize("library", ["clip", "timm"])
@pytest.mark.parametrize(
    "place", ["hf-hub:somebody/something", "hf_hub:somebody/something", "local-dir:FOLDER", "FOLDER"]
)
def test_a_name_never_leads_out_of_the_file(path, rewrite, tmp_path, monkeypatch, library, place):
    """open_clip and timm would ask the hub, or read the folder, of such names."""
    import open_clip.factory
    import timm.models._factory

    for module, names in (
        (open_clip.factory, ["_get_hf_config", "get_model_config"]),
        (timm.models._factory, ["load_model_config_from_hf", "load_model_config_from_path"]),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *arguments, **options: pytest.fail("it leaves the file"))
    monkeypatch.setattr(open_clip, "get_model_config", open_clip.factory.get_model_config)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 30}))
    rewrite({"architecture": f"{library}/{place.replace('FOLDER', str(tmp_path))}", "widths": None, "texts": 3})
    with pytest.raises(ValueError, match="no such classifier can be built: architecture"):
        hiddencost.load(path)


@pytest.mark.parametrize("text", ["[", "[" * 10_000, '"text"', "[1]", "7", '{"size": "x"}', '{"size": {}}'])
def test_what_is_no_settings_is_refused(path, text):
    with safe_open(path, "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no dict)
    save_file(tensors, path, metadata={"hiddencost": text})
    with pytest.raises(ValueError, match=r"model.safetensors: what it says of itself is not what a loaded"):
        hiddencost.load(path)


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: neither a folder nor a file"):
        hiddencost.load(tmp_path / "model.safetensors")
