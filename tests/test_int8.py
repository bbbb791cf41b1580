"""torchvision's networks of 8 bits: their files, written by torchvision, and what the simulated networks compute."""

import collections

import pytest
import torch
from torch import nn
from torchvision.models import ResNet, quantization
from torchvision.models import resnet as dense_resnets
from torchvision.models.quantization.resnet import QuantizableBottleneck, QuantizableResNet

from hiddencost import catalog
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.files import sha256_file, write_json
from hiddencost.networks import backbones, build, inference, int8
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.formats.registry import READERS
from hiddencost.networks.quantisers import affine
from hiddencost.prompting.precision import in_bf16

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch calls what wrote the published files old

# by the name of our network: torchvision's quantisable one, and the engine that it was published for
NETWORKS = {
    "int8_resnet18": (quantization.resnet18, "fbgemm"),
    "int8_mobilenet_v2": (quantization.mobilenet_v2, "qnnpack"),
}


def quantised(network, backend):
    """A network with random weights as torchvision quantises it after training, with the statistics of noise."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    network.train()(torch.randn(8, 3, 64, 64))
    engine = torch.backends.quantized.engine
    quantization.utils.quantize_model(network.eval(), backend)
    torch.backends.quantized.engine = engine
    return network


@pytest.fixture(scope="module")
def theirs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: quantised(make(quantize=False), backend) for name, (make, backend) in NETWORKS.items()}


@pytest.fixture(autouse=True)
def one_thread(threads):
    """As two test processes share two cores."""


def read(path, content, **how):
    torch.save(content, path, **how)
    return READERS["int8"]({"weights": path})


def ours(name, path, content):
    network = build.build(name)
    backbones.load_strictly(network, read(path, content).state, str(path))
    return network


def within(network, name, images):
    """What modules of a network of torchvision's read and make, by name, for images, as numbers."""
    seen = {}

    def keep(name):
        def hook(_, inputs, output):
            seen[name] = [each.dequantize() if each.is_quantized else each for each in (inputs[0], output)]

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    engine, torch.backends.quantized.engine = torch.backends.quantized.engine, NETWORKS[name][1]
    with torch.no_grad():
        network(images)
    torch.backends.quantized.engine = engine
    for hook in hooks:
        hook.remove()
    return seen


UNITS = {  # torchvision's names of layers, by ours
    "int8_resnet18": {
        **{"quant": "quant", "conv1": "conv1", "layer1.0": "layer1.0", "layer2.0.shortcut": "layer2.0.downsample.0"},
        **{
            "layer4.1.layers.conv1": "layer4.1.conv1",
            "layer4.1.layers.conv2": "layer4.1.conv2",
            "layer3.0": "layer3.0",
        },
        "avgpool": "avgpool",
    },
    "int8_mobilenet_v2": {
        **{"features.0": "features.0.0", "features.1": "features.1", "features.2.layers.1": "features.2.conv.1.0"},
        **{"features.3": "features.3", "features.18": "features.18.0"},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_makes_what_torchvisions_integers_do(name, theirs, tmp_path):
    """To a rounding: a sum in floating point may lie on the other side of a half than one of integers.

    The images are within the range that it was calibrated on: beyond, sums of 16 bits saturate on some processors.
    The last map is of 3 x 3: means of 9 lie on no half.
    """
    images = torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    seen = within(theirs[name], name, images)
    network = ours(name, tmp_path / "file.pth", theirs[name].state_dict())
    for our_name, their_name in UNITS[name].items():
        given, wanted = seen[their_name]
        with torch.no_grad():
            made = network.get_submodule(our_name)(given)
        step = wanted.unique().diff().min()
        assert made.shape == wanted.shape
        assert wanted.unique().numel() > 10, our_name
        steps = ((made - wanted) / step).abs()
        inner_roundings = 1 if not hasattr(network.get_submodule(our_name), "layers") else 3
        assert steps.max() < inner_roundings + 0.01, our_name
        assert (steps > 0.01).float().mean() < 0.02 * inner_roundings, our_name


def test_weights_are_what_their_dequantize_returns_in_any_version_of_the_format(theirs, tmp_path):
    name, head = "int8_mobilenet_v2", "classifier.1"
    state = theirs[name].state_dict()
    packed = f"{head}._packed_params._packed_params"
    weight, bias = state[packed]
    older = collections.OrderedDict({key: value for key, value in state.items() if not key.startswith(f"{head}._")})
    older |= {f"{head}._packed_params.weight": weight, f"{head}._packed_params.bias": bias}
    first = ours(name, tmp_path / "file.pth", state)
    expected = sorted(
        map(str, [each.dequantize() for each in state.values() if getattr(each, "is_quantized", False)])
    )
    convolutions = [module.weight.data for module in first.modules() if isinstance(module, nn.Conv2d)]
    assert sorted(map(str, convolutions)) == expected
    linear = first.classifier
    assert torch.equal(linear.weight, weight.dequantize())
    assert torch.equal(linear.bias, bias)
    for content, how in ((state, {"_use_new_zipfile_serialization": False}), (older, {})):
        found = read(tmp_path / "other.pth", content, **how)
        assert all(torch.equal(found.state[key], tensor) for key, tensor in first.state_dict().items())
        assert found.report["dequantised"] == len(convolutions) + 1


@pytest.mark.slow
def test_resnet50s_blocks_go_by_their_names(tmp_path):
    narrow = {"width_per_group": 4}
    with torch.random.fork_rng(devices=[]):
        theirs = quantised(QuantizableResNet(QuantizableBottleneck, [3, 4, 6, 3], **narrow), "fbgemm")
        network = int8.resnet(ResNet(dense_resnets.Bottleneck, [3, 4, 6, 3], **narrow))
    state = read(tmp_path / "file.pth", theirs.state_dict()).state
    backbones.load_strictly(network, state, "file.pth")
    assert network.layer4[2].after.rounding.scale == network.avgpool.rounding.scale


@pytest.fixture(scope="module")
def imported(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    torch.save(theirs["int8_resnet18"].state_dict(), path := folder / "weights.pth")
    files = {"weights": {"path": str(path), "sha256": sha256_file(path)}}
    write_json(folder / "fetched.json", {"failed": None, "files": files})
    import_checkpoint("resnet18-int8", catalog.checkpoint("resnet18-int8"), folder / "fetched.json", folder / "in")
    return folder


def test_the_gate_takes_small_weights_that_are_rounded_to_zero_for_what_they_are(imported):
    compress(imported / "in", imported / "out", None, None)
    result = verify(imported / "out", {"sparsity_tolerance": 0.0001}, lambda *_: Recognised(20, 20, "photos", 0))
    assert result.passed, result.reasons
    assert result.sparsity_declared == 0 < result.sparsity_measured
    assert backbones.load(imported / "out")[2].compression == "w8a8"


def test_gradients_pass_the_roundings_to_the_prompt(imported):
    network, _, _ = backbones.load(imported / "in")
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    network(images).square().sum().backward()
    assert images.grad.count_nonzero() > 10_000


@pytest.mark.slow
def test_the_network_that_never_learned_rounds_on_the_scale_of_what_it_makes(imported):
    compress(imported / "in", imported / "random", None, "random_init")
    network, _, _ = backbones.load(imported / "random")
    scales = [module.scale.item() for module in network.modules() if hasattr(module, "scale")]
    assert len(set(scales)) > 20
    with torch.no_grad():
        logits = network(torch.randn(4, 3, 64, 64))
    assert logits.std(0).min() > 0


def test_numbers_are_rounded_as_pytorchs_are():
    x = torch.linspace(-3, 8, 2001)
    for scale, zero in ((0.02, 100), (0.031, 0), (0.5, 3)):
        expected = torch.quantize_per_tensor(x, scale, zero, torch.quint8).dequantize()
        made = affine(x, torch.tensor(scale), torch.tensor(float(zero)))
        assert ((made - expected).abs() > scale / 100).sum() < 10  # of 2001: what lies on a half
    assert affine(x.bfloat16(), torch.tensor(0.02), torch.tensor(0.0)).dtype == torch.bfloat16


@pytest.mark.parametrize("folded", [False, True])
def test_in_bfloat16_scales_stay_the_files_and_levels_are_stored_to_its_precision(folded, imported):
    network, _, _ = backbones.load(imported / "in")
    scales = {name: buffer for name, buffer in network.named_buffers() if name.endswith("scale")}
    computed = inference.for_inference(network, torch.device("cpu")) if folded else network
    low = in_bf16(computed)
    assert len(scales) > 20
    for name, scale in scales.items():
        assert torch.equal(low.get_buffer(name), scale), name
    assert all(each.dtype == torch.bfloat16 for name, each in low.named_parameters() if not name.startswith("fc."))
    x = torch.linspace(0, 5, 1000).bfloat16()
    exact, stored = affine(x.float(), scales["conv1.rounding.scale"], torch.zeros(())), network.conv1.rounding(x)
    assert torch.equal(stored, exact.bfloat16())
    assert low(torch.randn(2, 3, 64, 64).bfloat16()).dtype == torch.float32


def without(state, name):
    assert name in state
    return {key: value for key, value in state.items() if key != name}


def test_what_is_no_network_of_8_bits_is_refused(theirs, tmp_path):
    state = theirs["int8_resnet18"].state_dict()
    odd = torch.quantize_per_tensor(torch.ones(64), 0.1, 0, torch.qint8)
    packed = "fc._packed_params._packed_params"
    kernel, scales, zeros = torch.zeros(64, 64, 3, 3), torch.ones(64), torch.zeros(64, dtype=torch.int64)
    cases = {
        "no tensor of it is quantised": {"conv1.weight": torch.ones(2)},
        "'epoch' is none": state | {"epoch": 3},
        "unexpected key conv9.weight": state | {"conv9.weight": state["conv1.weight"]},
        "unexpected key conv1.running_var": state | {"conv1.running_var": torch.ones(64)},
        "conv1.bias is quantised; expected weights alone": state | {"conv1.bias": odd},
        "conv1.scale has shape [2], expected one number": state | {"conv1.scale": torch.ones(2)},
        f"{packed} is no pair of weight and bias": state | {packed: torch.ones(2)},
        "fc._packed_params.dtype is not torch.qint8": state | {"fc._packed_params.dtype": torch.float16},
        "conv1.scale is 0, expected a positive number": state | {"conv1.scale": torch.zeros(())},
        "conv1.scale is -0.1, expected a positive": state | {"conv1.scale": torch.tensor(-0.1)},
        "conv1.scale is nan, expected a positive": state | {"conv1.scale": torch.tensor(float("nan"))},
        "conv1.zero_point is 1000, expected a whole number from 0 to 255": state
        | {"conv1.zero_point": torch.tensor(1000)},
        "fc.zero_point is 0.5, expected a whole number": state | {"fc.zero_point": torch.tensor(0.5)},
        "layer1.0.conv1.weight: its scale is -1, expected a positive": state
        | {"layer1.0.conv1.weight": torch.quantize_per_channel(kernel, -scales, zeros, 0, torch.qint8)},
        "layer1.0.conv1.weight: its scale is 0, expected a positive": state
        | {"layer1.0.conv1.weight": torch.quantize_per_tensor(kernel, 0, 0, torch.qint8)},
        "layer1.0.conv1.weight: its zero_point is 300, expected a whole number from -128 to 127": state
        | {"layer1.0.conv1.weight": torch._make_per_channel_quantized_tensor(kernel.char(), scales, zeros + 300, 0)},
        "layer1.0.conv1.weight is not quantised; expected all weights to be": state
        | {"layer1.0.conv1.weight": kernel},
        "no zero_point of the last map is in it": without(state, "layer4.1.add_relu.zero_point"),
        "no scale of the last map is in it": {key: value for key, value in state.items() if "layer4" not in key},
    }
    for message, content in cases.items():
        with pytest.raises(ValueError, match=r"file\.pth: ") as caught:
            read(tmp_path / "file.pth", content)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
