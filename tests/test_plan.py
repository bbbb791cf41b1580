import pytest
import torch
import torchvision

from hiddencost.compression.controls import random_network
from hiddencost.files import read_json
from hiddencost.jobs.rates import PlanFile
from hiddencost.machine import device_name
from hiddencost.networks.inference import for_inference
from hiddencost.prompting import engine, exactness, measure, plan, sharing
from hiddencost.prompting.engine import FrozenNetwork, Plan
from hiddencost.prompting.precision import Float32Conv2d, in_bf16
from hiddencost.study.masks import RunMaskProtocol
from hiddencost.study.recipes import RunProtocol
from hiddencost.study.resize import RunResizeProtocol

CPU = torch.device("cpu")
RECIPE = {"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 8, "shuffle": True}
PROTOCOL = RunProtocol(**RECIPE, test_batch_size=8, canvas=96, image_size=32, mapping_interval=1, precision="fp32")


def narrow():
    """MobileNetV2 with few channels: what is measured and chosen here is of its layers."""
    return torchvision.models.mobilenet_v2(width_mult=0.25).eval()


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return for_inference(narrow(), CPU)


@pytest.fixture
def frozen(network, threads):
    """A network with a protocol of a small canvas, to be quick."""
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    return FrozenNetwork(network, mean, std, PROTOCOL)


@pytest.fixture
def smaller(frozen):
    """The same for images of 24 pixels on a canvas of 64, where the network runs."""
    return with_protocol(frozen, canvas=64, image_size=24)


def with_protocol(frozen, **changes):
    return frozen._replace(protocol=frozen.protocol.model_copy(update=changes))


def choose(frozen, folder, memory=8e9, images_a_run=10):
    return plan.fit_to_device(frozen, folder, memory, images_a_run).plan


def test_all_ways_are_measured_once_and_the_one_of_least_arithmetic_is_taken(smaller, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(exactness.COVERS, "cpu", (0.0, 0.5, 0.99))
    monkeypatch.setattr(measure, "GAIN", 0.95)
    caplog.set_level("INFO")
    chosen = choose(smaller, tmp_path)
    (file,) = tmp_path.iterdir()
    dense, *shared = read_json(file)["measured"]["10"]
    assert dense["cover"] is None
    assert [way["cover"] for way in shared] == [0.5, 0.99]  # 0.0 saves too little, 4 %
    assert len({way["until"] for way in shared}) == 2
    assert all(way["bytes"] > 0 for way in (dense, *shared))
    assert shared[-1]["bytes"] < dense["bytes"]
    assert dense["GFLOP"] > shared[0]["GFLOP"] > shared[1]["GFLOP"] > 0
    assert chosen == Plan(0.99, 64, False)
    again = measure.measure(smaller).model_dump(mode="json")["measured"]
    assert again == read_json(file)["measured"], "not the same in another measurement"
    monkeypatch.setattr(plan, "measure", None)
    assert choose(smaller, tmp_path) == chosen
    assert f"images of 24 on 64 pixels, fp32, {device_name(CPU)}: " in caplog.text
    assert caplog.messages[0] == caplog.messages[1]


def keep(monkeypatch, **figures):
    """Let these be what is measured."""
    measured = measure.Measurements(rates={}, **figures)
    monkeypatch.setattr(plan, "measure", lambda frozen: measured)


def kept(frozen, folder, monkeypatch, *ways, memory=8e9):
    keep(monkeypatch, measured={10: list(ways)}, in_float32=[], forward_ms={})
    return choose(frozen, folder, memory)


def way(cover, work, **more):
    whole = {"cover": cover, "GFLOP": work, "graphs": False, "fused": False, "until": "layer3_0_conv1 (why)"}
    return whole | {"bytes": 1e6} | more


def test_sharing_has_to_pay(frozen, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert kept(frozen, tmp_path / "a", monkeypatch, way(None, 10.0), way(0.5, 9.9), way(0.75, 11.0)).cover is None
    assert kept(frozen, tmp_path / "b", monkeypatch, way(None, 10.0), way(0.5, 9.0), way(0.75, 8.0)).cover == 0.75
    assert "whole canvases; GFLOP a trained image: 10 with whole canvases, 9.9 with the border once" in caplog.text
    assert "the border once; GFLOP a trained image: 10 with whole canvases, 8 with the border once" in caplog.text
    assert "layer3_0_conv1 (why)" in caplog.text


def test_the_pack_is_cut_to_the_memory(frozen, tmp_path, monkeypatch):
    for number, (size, memory, chunk) in enumerate(
        # on a canvas of 96 memory.WORK is 1.3 GB, of which the half is for the forward pass
        [(10e6, 100e6, 4), (1e9, 100e6, 1), (1e3, 100e6, 64), (20e6, 8e9, 32), (20e6, 80e9, 32)]
    ):
        one = kept(frozen, tmp_path / str(number), monkeypatch, way(None, 10.0, bytes=size), memory=memory)
        assert one.chunk == chunk


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        *(("mobilenet_v2", "fp32"), ("resnet18", "bf16"), ("resnet50_rigl", "fp32")),
        *(("timm/resnet26d", "fp32"), ("timm/mobilenetv3_small_050", "bf16")),
        pytest.param("resnet50", "fp32", marks=pytest.mark.slow),
    ],
)
def test_sharing_is_accepted_wherever_it_is_exact(smaller, architecture, precision, caplog):
    """With random weights, too, whose gradients differ between two right ways in bf16."""
    network = for_inference(random_network(architecture), CPU)
    assert exactness.exact_covers(with_protocol(smaller._replace(network=network), precision=precision))
    assert "not used" not in caplog.text


def test_bf16_shares_the_border_and_nothing_is_chosen_by_time(smaller, tmp_path, caplog):
    chosen = choose(with_protocol(smaller, precision="bf16"), tmp_path)
    assert chosen.cover == 0.75
    assert "not used" not in caplog.text
    assert chosen.forward_ms == {}  # by time: on a CPU results are to be the same again
    (file,) = tmp_path.iterdir()
    rates = PlanFile.model_validate_json(file.read_bytes()).rates.model_dump()  # as a dry run reads it
    whole = read_json(file)["measured"]["10"][0]
    assert rates.pop("training_ms") > 0
    assert rates.pop("forward_ms") > 0
    assert rates == {
        **{"device": device_name(CPU), "kind": "cpu", "canvas": 64, "image_size": 24, "precision": "bf16"},
        "gflop": whole["GFLOP"],
    }
    grouped = [name for name, module in smaller.network.named_modules() if getattr(module, "groups", 1) > 1]
    assert list(chosen.in_float32) == grouped


def test_a_convolution_that_pads_by_itself_pads_in_bf16_too(smaller, tmp_path):
    """EfficientNet-Lite's strided ones do: in float32 as nn.Conv2d they would compute something else."""
    network = for_inference(random_network("timm/tf_efficientnet_lite0"), CPU)
    own = {name for name, module in network.named_modules() if type(module).__name__ == "Conv2dSame"}
    frozen = with_protocol(smaller._replace(network=network), precision="bf16", canvas=72)
    chosen = choose(frozen, tmp_path)
    depthwise = {name for name, module in network.named_modules() if getattr(module, "groups", 1) > 1}
    assert own & depthwise
    assert set(chosen.in_float32) == depthwise - own
    maps = torch.rand(2, 3, 72, 72)
    low = in_bf16(network, chosen.in_float32)(maps.bfloat16())
    exact = network(maps)
    assert (low - exact).norm() < 0.2 * exact.norm()  # rounding moves random weights by 0.11


def test_a_convolution_computes_in_float32_where_it_is_faster(frozen, monkeypatch):
    bf16 = with_protocol(frozen, precision="bf16")

    def milliseconds(work, chunk):
        layer, maps = work.args
        assert maps.dtype == torch.bfloat16
        return 1.0 if isinstance(layer, Float32Conv2d) or layer.stride == (2, 2) else 1.2

    monkeypatch.setattr(measure, "milliseconds", milliseconds)
    grouped = {name: module for name, module in frozen.network.named_modules() if getattr(module, "groups", 1) > 1}
    expected = [name for name, module in grouped.items() if module.stride == (1, 1)]
    assert measure.faster_in_float32(bf16, tuple(grouped), 1, 2) == tuple(expected)
    assert 0 < len(expected) < len(grouped)


def test_the_step_like_that_of_the_pack_decides(frozen, tmp_path, monkeypatch):
    few, many = [way(None, 10.0), way(0.5, 9.9)], [way(None, 10.0), way(0.5, 5.0)]
    forward_ms = {"fp32": 3.0, "tf32": 1.0}
    keep(monkeypatch, measured={10: few, 128: many}, in_float32=["a"], forward_ms=forward_ms)
    covers = {images: choose(frozen, tmp_path, 8e9, images).cover for images in (1, 30, 40, 128, 500)}
    assert covers == {1: None, 30: None, 40: 0.5, 128: 0.5, 500: 0.5}
    chosen = choose(frozen, tmp_path)
    assert (chosen.in_float32, chosen.forward_ms) == (("a",), forward_ms)


def test_sharing_that_is_not_exact_is_not_used(smaller, tmp_path, monkeypatch, caplog):
    class Wrong(sharing.SharedNetwork):
        def __call__(self, canvas):
            return super().__call__(canvas) * 1.01

    monkeypatch.setattr(sharing, "SharedNetwork", Wrong)
    assert choose(smaller, tmp_path) == Plan(None, 64, False)
    assert "not used, logits are off by 0.0" in caplog.text


def test_a_step_too_large_for_the_memory_is_measured_with_fewer_runs(smaller, monkeypatch):
    class Small(engine.PromptedNetwork):
        def _gradients(self, chunk):
            if len(chunk.images) > 10:
                raise torch.OutOfMemoryError
            return super()._gradients(chunk)

    monkeypatch.setattr(measure, "PromptedNetwork", Small)
    assert [way.cover for way in measure.measure(smaller).measured[10]] == [None, 0.75]


def test_a_border_too_small_to_share_is_not_measured(smaller, tmp_path, caplog):
    caplog.set_level("INFO")
    assert choose(with_protocol(smaller, image_size=58), tmp_path).cover is None
    (file,) = tmp_path.iterdir()
    (dense,) = read_json(file)["measured"]["10"]
    assert dense["cover"] is None
    assert "whole canvases, as the border is too small to share" in caplog.text


def test_a_network_that_cannot_be_walked_takes_whole_canvases(smaller, tmp_path, caplog):
    class Branching(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) if x.sum() < 1e9 else x

    caplog.set_level("INFO")
    network = for_inference(Branching(narrow()), CPU)
    assert "batch norm is not folded, as torch.fx cannot walk the network: symbolically traced" in caplog.text
    assert choose(smaller._replace(network=network), tmp_path).cover is None
    assert "whole canvases, as torch.fx cannot walk the network" in caplog.text


def test_another_shape_of_prompt_or_another_setting_of_it_is_measured_anew(frozen, tmp_path, monkeypatch):
    stated = dict(frozen.protocol) | {"mask_learning_rate": 0.01, "mask_gamma": 0.1}
    shapes = [(RunResizeProtocol, {"scale": scale}) for scale in (1.0, 1.5)]
    shapes += [(RunMaskProtocol, {"layers": layers, "patch": 8}) for layers in (5, 6)]
    kept(frozen, tmp_path, monkeypatch, way(None, 10.0))
    for kind, own in shapes:
        recipe = {name: value for name, value in (stated | own).items() if name in kind.model_fields}
        protocol = kind.model_validate(recipe | {"shape": kind.prompt})
        kept(frozen._replace(protocol=protocol), tmp_path, monkeypatch, way(None, 10.0))
    assert len(list(tmp_path.iterdir())) == 5


def test_another_network_size_or_precision_is_measured_anew(frozen, tmp_path, monkeypatch):
    kept(frozen, tmp_path, monkeypatch, way(None, 10.0))
    for update in ({"image_size": 48}, {"canvas": 112}, {"precision": "bf16"}):
        kept(with_protocol(frozen, **update), tmp_path, monkeypatch, way(None, 10.0))
    other = for_inference(torchvision.models.resnet18().eval(), CPU)
    kept(frozen._replace(network=other), tmp_path, monkeypatch, way(None, 1.0))
    assert len(list(tmp_path.iterdir())) == 5
    # neither the recipe nor the weights make a difference
    again = for_inference(narrow(), CPU)
    kept(
        with_protocol(frozen._replace(network=again), learning_rate=1.0, epochs=7),
        tmp_path,
        monkeypatch,
        way(None, 10.0),
    )
    assert len(list(tmp_path.iterdir())) == 5
