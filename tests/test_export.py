"""Learned models as programs of torch.export and as ONNX, for batches of any size."""

import numpy as np
import onnxruntime
import pytest
import tiny_clip
import torch
from made_classifier import make_classifier
from PIL import Image

KINDS = {
    "border": {},
    "mapping with a bias": {"method": "fm"},
    "linear probe": {"method": "lp", "size": "32", "image_size": 32},
    "resize": {"prompt": "resize", "scale": 1.2},
    "masks, of images that are enlarged": {"prompt": "masks", "layers": 5, "patch": 4},
    "transformer": {"architecture": "timm/test_vit.r160_in1k", "canvas": 160},
    "clip": {
        **{"prompt": "additive", "border": 8, "interpolation": "bicubic", "widths": None, "texts": 30},
        **{"size": "32", "canvas": tiny_clip.CANVAS, "image_size": tiny_clip.CANVAS},
    },
}


@pytest.fixture(autouse=True)
def flags_of_a_new_process():
    """torch.export asks for flags of TF32 that are at odds once convolutions alone have theirs, as in training."""
    convolutions = torch.backends.cudnn.conv
    kept = convolutions.fp32_precision
    convolutions.fp32_precision = torch.backends.cudnn.rnn.fp32_precision
    yield
    convolutions.fp32_precision = kept


@pytest.fixture(params=KINDS)
def model(request, tmp_path, threads):
    settings = KINDS[request.param]
    if request.param == "clip":
        settings = settings | {"architecture": tiny_clip.configure(tmp_path / "clip")}
    return make_classifier(**settings)


def images(count, side):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def test_a_program_takes_images_of_floating_point(threads):
    model, given = make_classifier(), images(2, 24) / 255
    program = torch.export.export(model, (given,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for count in (1, 5):
        torch.testing.assert_close(program.module()(images(count, 24) / 255), model(images(count, 24)))


def test_exported_it_computes_the_same_for_batches_of_any_size(model, tmp_path):
    side, path = model.size[0], tmp_path / "model.onnx"
    program = torch.export.export(model, (images(2, side),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.onnx.export(program, (), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    for count in (1, 2, 5):
        given = images(count, side)
        expected = model(given)
        assert expected.std() > 0.01
        torch.testing.assert_close(program.module()(given), expected)
        (found,) = session.run(None, {name: given.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_the_two_lines_that_make_a_file_of_onnx(tmp_path, monkeypatch, threads):
    monkeypatch.chdir(tmp_path)
    model, photo = make_classifier(), Image.new("RGB", (50, 40), "red")
    images = model.transform([photo, photo])
    torch.onnx.export(model, (images,), "prompted.onnx", dynamo=True, dynamic_shapes=({0: "batch"},))
    session = onnxruntime.InferenceSession("prompted.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images[:1].numpy()})
    np.testing.assert_allclose(found, model(images[:1]).numpy(), rtol=1e-4, atol=1e-4)
