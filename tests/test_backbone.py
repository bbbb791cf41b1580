import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hiddencost import catalog, contents
from hiddencost.compression.make import compress
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.networks import backbones, build, inference
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.families import family_of
from hiddencost.networks.layers import head_of
from hiddencost.prompting.border import BorderPrompt
from hiddencost.prompting.maps import paste
from hiddencost.prompting.sharing import SharedNetwork

CPU = torch.device("cpu")
ENTRY = catalog.checkpoint("mobilenetv2")


def imported(state, folder):
    """Import a state dict as MobileNetV2's published file, and load the backbone that comes of it."""
    path = folder / "file.pth"
    torch.save(state, path)
    files = {"weights": {"path": str(path), "sha256": sha256_file(path), "source": "test"}}
    write_json(folder / "fetched.json", {"failed": None, "files": files})
    import_checkpoint("mobilenetv2", ENTRY, folder / "fetched.json", folder / "out")
    return backbones.load(folder / "out")


@pytest.fixture
def state():
    return build.build("mobilenet_v2").state_dict()


def test_the_published_file_is_imported_whole(mobilenetv2):
    network, masks, manifest = backbones.load(mobilenetv2)
    assert manifest.keys_matched == manifest.keys == 314 - 52  # without the counters of batch norm
    assert masks == {}
    assert manifest.preprocessing.mean == [0.485, 0.456, 0.406]
    assert manifest.source_sha256 == {"weights": ENTRY.files["weights"].sha256}
    assert (manifest.compression, manifest.sparsity_declared) == ("none", 0)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_missing_key_an_extra_one_and_a_wrong_shape_are_named(state, tmp_path):
    del state["features.1.conv.0.0.weight"]
    state["features.99.weight"] = torch.zeros(1)
    state["classifier.1.weight"] = state["classifier.1.weight"].T.contiguous()
    with pytest.raises(ValueError, match=r"file\.pth") as caught:
        imported(state, tmp_path)
    message = str(caught.value)
    assert "missing key features.1.conv.0.0.weight" in message
    assert "unexpected key features.99.weight" in message
    assert "classifier.1.weight has shape [1280, 1000], expected [1000, 1280]" in message


def test_a_prefix_that_would_leave_the_network_random_is_refused(state, tmp_path):
    with pytest.raises(ValueError, match=r"missing key .* and \d+ more"):
        imported({f"backbone.{key}": tensor for key, tensor in state.items()}, tmp_path)


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("resnet50", "convolutional"),
        ("resnet20_cifar:10", "convolutional"),
        ("timm/x", "convolutional"),
        ("clip/a/b", "clip"),
    ],
)
def test_an_architecture_has_the_family_that_its_name_begins_with(architecture, family):
    assert family_of(architecture).name == family


def test_an_architecture_of_no_family_is_refused():
    with pytest.raises(ValueError, match=r"'clipx/ViT-B-32'.*'clipx/' is unknown; did you mean 'clip/'"):
        family_of("clipx/ViT-B-32")


def test_a_checkpoint_that_could_not_be_fetched_is_a_backbone_that_says_why(tmp_path, caplog):
    write_json(tmp_path / "fetched.json", {"failed": "example.org: 404", "files": {}})
    import_checkpoint("mobilenetv2", ENTRY, tmp_path / "fetched.json", tmp_path / "out")
    assert "checkpoint mobilenetv2 cannot be used: example.org: 404" in caplog.text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("weights.safetensors", "masks.safetensors", "manifest.json", contents.SEEN)
    }
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert (manifest["failed"], manifest["checkpoint"]) == ("example.org: 404", "mobilenetv2")
    with pytest.raises(ValueError, match=r"example\.org: 404"):
        backbones.load(tmp_path / "out")


def test_folding_changes_the_outputs_by_rounding_alone(mobilenetv2, threads):
    network, _, _ = backbones.load(mobilenetv2)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    folded = inference.for_inference(network, torch.device("cpu"))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-3)


def test_a_changed_weights_file_is_refused(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, None, None)
    weights = load_file(tmp_path / "weights.safetensors")
    weights["features.0.0.weight"][0] = 0
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(OSError, match=r"weights\.safetensors: sha256 is \w+, expected \w+, as it was made"):
        backbones.load(tmp_path)


def test_a_manifest_of_other_weights_is_refused(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, None, None)
    manifest = read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", manifest | {"masks_sha256": "0" * 64})
    with pytest.raises(OSError, match=r"masks\.safetensors"):
        backbones.load(tmp_path)


def same(image, kernel, stride, reduce):
    """Slide a window over an image [C, H, W] by TensorFlow's rule for padding SAME: ceil(n / stride) outputs, and of
    the padding that they need half before, rounded down. `reduce` is given what of the window lies in the image, and
    which part of the kernel lies over it."""
    (_, *sides), outputs, befores = image.shape, [], []
    for side in sides:
        count = math.ceil(side / stride)
        outputs.append(range(count))
        befores.append(max((count - 1) * stride + kernel - side, 0) // 2)
    result = []
    for row in outputs[0]:
        for column in outputs[1]:
            starts = [place * stride - before for place, before in zip((row, column), befores, strict=True)]
            inside = [slice(max(s, 0), min(s + kernel, n)) for s, n in zip(starts, sides, strict=True)]
            part = [slice(i.start - s, i.stop - s) for i, s in zip(inside, starts, strict=True)]
            result.append(reduce(image[:, inside[0], inside[1]], part))
    return np.stack(result, -1).reshape(-1, len(outputs[0]), len(outputs[1]))


def convolution(weight):
    """What `same` takes to convolve with a weight [O, I, k, k]."""
    return lambda window, part: np.einsum("oihw,ihw->o", weight[:, :, part[0], part[1]], window)


@pytest.fixture(scope="module")
def rigl():
    torch.manual_seed(0)
    return build.build("resnet50_rigl").requires_grad_(False)


def random_statistics(network):
    """Give batch norm something to do."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("side", [112, 56, 18])
def test_rigl_pools_as_tensorflow_does_with_padding_same(rigl, side):
    """Of the map behind the stem, whose side is half the input's, always even. torchvision's padding differs."""
    maps = torch.randn(4, side, side).relu()
    expected = same(maps.numpy(), 3, 2, lambda window, part: window.max((1, 2)))
    np.testing.assert_array_equal(rigl.initial_max_pool(rigl.pad(maps[None]))[0], expected)
    assert not np.array_equal(nn.functional.max_pool2d(maps, 3, 2, 1), expected)


@pytest.mark.parametrize("side", [110, 33])
def test_rigl_is_another_network_on_sides_of_no_multiple_of_4(rigl, side):
    """Which is why it is left out there: see `inputs.MULTIPLES`."""
    maps = rigl.initial_conv(torch.randn(1, 3, side, side))[0]
    expected = same(maps.numpy(), 3, 2, lambda window, part: window.max((1, 2)))
    assert rigl.initial_max_pool(rigl.pad(maps[None]))[0].shape != expected.shape


def test_rigl_convolves_with_padding_same_where_the_stride_is_1(rigl):
    layers = {name: m for name, m in rigl.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (1, 1)}
    assert len(layers) == 53 - 1 - 3 - 3  # stem; 3 x 3 and projection of the groups 2 to 4
    for name in ("layer1.block.0.conv1.conv", "layer1.block.0.conv2.conv", "layer1.block.0.shortcut.conv"):
        image, layer = torch.randn(64, 7, 7), layers[name]
        expected = same(image.numpy(), layer.kernel_size[0], 1, convolution(layer.weight.numpy()))
        np.testing.assert_allclose(layer(image[None])[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["initial_conv.conv", "layer2.block.0.conv2.conv", "layer2.block.0.shortcut.conv"])
def test_rigl_pads_evenly_where_it_strides(rigl, name):
    """RigL's fixed_padding adds k - 1 pixels, half of them before; then only whole windows count."""
    layer = rigl.get_submodule(name)
    kernel = layer.kernel_size[0]
    assert layer.stride == (2, 2)
    image = torch.randn(layer.in_channels, 14, 14)
    padded = np.pad(image.numpy(), [(0, 0), *[((kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2)] * 2])
    expected = [
        [
            np.einsum("oihw,ihw->o", layer.weight.numpy(), padded[:, y : y + kernel, x : x + kernel])
            for x in range(0, padded.shape[2] - kernel + 1, 2)
        ]
        for y in range(0, padded.shape[1] - kernel + 1, 2)
    ]
    np.testing.assert_allclose(layer(image[None])[0], np.moveaxis(np.array(expected), -1, 0), atol=1e-4)


def test_rigl_differs_from_torchvisions_resnet50_in_nothing_but_names_and_pooling(rigl, threads):
    random_statistics(rigl)
    rules = [
        (r"initial_conv\.(conv|bn)", r"\g<1>1"),
        (r"\.block", ""),
        (r"shortcut\.conv", "downsample.0"),
        (r"shortcut\.bn", "downsample.1"),
        (r"conv(\d)\.conv", r"conv\1"),
        (r"conv(\d)\.bn", r"bn\1"),
    ]
    state = {}
    for key, tensor in rigl.state_dict().items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        state[key] = tensor
    plain = build.build("resnet50")
    backbones.load_strictly(plain, state, "rigl")
    plain.maxpool = nn.Sequential(rigl.pad, rigl.initial_max_pool)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(rigl(images), plain(images))


def test_keras_resnet50_strides_in_the_first_convolution():
    network = build.build("resnet50_keras")
    strided = {name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
    assert strided == {"conv1", *(f"layer{n}.0.{layer}" for n in (2, 3, 4) for layer in ("conv1", "downsample.0"))}
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(
    "architecture",
    [
        *("resnet50_rigl", "resnet50_keras", "timm/efficientnet_lite0", "timm/lcnet_050"),
        pytest.param("timm/resnet50", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_network_is_folded_shared_and_has_its_head(architecture, threads):
    torch.manual_seed(0)
    network = random_statistics(build.build(architecture)).double()
    folded = inference.for_inference(network, CPU)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)
    assert head_of(folded).out_features == head_of(network).out_features == 1000
    prompts = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    mean, std = (torch.full((3, 1, 1), value, dtype=torch.float64) for value in (0.5, 0.25))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    border = BorderPrompt(canvas=96, image_size=16)
    canvas = border.compose(images, {"prompt": prompts}, torch.tensor([0, 0]), border.mask(), mean, std)
    expected = network(paste(canvas))
    torch.testing.assert_close(folded(paste(canvas)), expected, rtol=1e-9, atol=1e-9)
    shared = SharedNetwork(folded, 0.99)
    torch.testing.assert_close(shared(canvas), expected, rtol=1e-9, atol=1e-9)
    assert not {"conv1", "initial_conv_conv", "conv_stem"} & shared.ended.keys()  # it was shared behind the stem


def test_a_network_that_cannot_be_walked_keeps_its_batch_norm_and_says_so(caplog):
    network = build.build("timm/tf_efficientnet_lite0")  # pads by the size of what it is given
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(inference.for_inference(network, CPU)(images), network(images))
    assert "batch norm is not folded, as torch.fx cannot walk the network" in caplog.text


def test_a_network_without_a_linear_head_is_refused():
    with pytest.raises(ValueError, match="no linear layer"):
        head_of(nn.Sequential(nn.Conv2d(3, 4, 1)))
