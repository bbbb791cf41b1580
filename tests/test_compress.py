import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet50

from hiddencost.compression.controls import shuffle
from hiddencost.compression.gate import mask_violations
from hiddencost.compression.make import compress
from hiddencost.compression.quantise import quantise
from hiddencost.compression.registry import COMPRESSIONS, Unstructured
from hiddencost.files import read_json
from hiddencost.networks import backbones
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.layers import convolutions, erk_densities
from hiddencost.networks.manifest import Manifest

NAMED = {"checkpoint": "net", "architecture": "resnet50"}
NAMED |= {"preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}}
CONVOLUTIONAL = FAMILIES["convolutional"]
MAGNITUDE = {"algorithm": "magnitude", "sparsity": 0.3}
TWO_OF_FOUR = {"algorithm": "nm", "n": 2, "m": 4}


def keys_of(network):
    return [f"{name}.weight" for name in convolutions(network)]


def network():
    """Four convolutions, a stem of 3 channels and a depthwise one among them, and a head; always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 8, 1)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5)).requires_grad_(False)


def prune(network, settings):
    """Prune a network in place as a study's settings say; return the masks."""
    compression = COMPRESSIONS[settings["algorithm"]]
    return compression.apply(network, CONVOLUTIONAL, compression.complete(settings))


def violations(network, settings):
    return COMPRESSIONS[settings["algorithm"]].check(network, CONVOLUTIONAL, settings)


def weights_of(folder):
    return load_file(folder / "weights.safetensors")


def zeros(folder):
    return {key: tensor == 0 for key, tensor in weights_of(folder).items()}


@pytest.fixture(scope="module")
def sparse(mobilenetv2, tmp_path_factory):
    """MobileNetV2, a fifth of it zero, as an imported sparse checkpoint."""
    folder = tmp_path_factory.mktemp("sparse")
    pruned, masks, manifest = backbones.load(mobilenetv2)
    masks |= prune(pruned, {"algorithm": "magnitude", "sparsity": 0.2, "scope": "global"})
    # a published mask can reach the head, too
    head = pruned.classifier[1].weight
    masks["classifier.1.weight"] = head.abs() > 0.01
    head.mul_(masks["classifier.1.weight"])
    backbones.save(folder, pruned.state_dict(), masks, manifest.replace(compression="acdc", sparsity_declared=0.2))
    return folder


@pytest.mark.parametrize(
    ("compression", "control", "declared"),
    [
        (MAGNITUDE, None, ("magnitude", None, None, 0.3)),
        ({"algorithm": "random", "sparsity": 0.3, "scope": "layer"}, None, ("random-layer", None, None, 0.3)),
        # half of the convolutions but for the stem and the depthwise ones: 0.97 of their weights
        (TWO_OF_FOUR | {"sparsity": None}, None, ("2:4", None, None, 0.4851)),
        ({"algorithm": "quantise", "bits": 4}, None, ("int4", None, 4, 0.0)),
        (None, "random_init", ("none", "random_init", None, 0.0)),
        (None, "shuffled", ("none", "shuffled", None, 0.0)),
    ],
)
def test_compression_and_control_are_declared(mobilenetv2, tmp_path, compression, control, declared):
    compress(mobilenetv2, tmp_path, compression, control)
    manifest = read_json(tmp_path / "manifest.json")
    keys = ("compression", "control", "quantisation_bits", "sparsity_declared")
    assert tuple(manifest[key] for key in keys) == declared


def test_a_checkpoint_that_failed_stays_one_and_says_why(tmp_path):
    manifest = Manifest(**NAMED, compression="gmp", sparsity_declared=0.8)
    backbones.save_failure(tmp_path / "source", "weights.pth: 404 Not Found", manifest)
    compress(tmp_path / "source", tmp_path / "made", MAGNITUDE, None)
    with pytest.raises(ValueError, match="404 Not Found"):
        backbones.load(tmp_path / "made")
    assert read_json(tmp_path / "made" / "manifest.json")["compression"] == "gmp+magnitude"


# ---------------------------------------------------------------------------------------- magnitude and random


def test_another_unstructured_pruning_says_which_weights_it_takes(monkeypatch):
    other = Unstructured("gradmag", description="", defaults={"scope": "global"}, method="L1Unstructured")
    monkeypatch.setitem(COMPRESSIONS, "gradmag", other)
    masks = {name: prune(network(), MAGNITUDE | {"algorithm": name}) for name in ("gradmag", "magnitude", "random")}
    assert all(torch.equal(mask, masks["magnitude"][key]) for key, mask in masks["gradmag"].items())
    assert not all(torch.equal(mask, masks["random"][key]) for key, mask in masks["gradmag"].items())


def test_global_magnitude_pruning_removes_the_smallest_weights_and_keeps_the_rest(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, MAGNITUDE, None)
    dense, pruned = weights_of(mobilenetv2), weights_of(tmp_path)
    masks = load_file(tmp_path / "masks.safetensors")
    assert len(masks) == 52
    assert "classifier.1.weight" not in masks
    kept = torch.cat([dense[key][mask].abs() for key, mask in masks.items()])
    removed = torch.cat([dense[key][~mask].abs() for key, mask in masks.items()])
    assert removed.max() <= kept.min()
    assert len(removed) / (len(removed) + len(kept)) == pytest.approx(0.3, abs=1e-5)
    for key, tensor in pruned.items():
        assert torch.equal(tensor, dense[key] * masks[key] if key in masks else dense[key]), key


def test_with_scope_layer_each_convolution_loses_the_smallest_of_its_own():
    pruned, dense = network(), network()
    masks = prune(pruned, MAGNITUDE | {"scope": "layer"})
    for name, layer in convolutions(dense).items():
        mask = masks[f"{name}.weight"]
        assert int((~mask).sum()) == round(0.3 * mask.numel())
        assert layer.weight[~mask].abs().max() <= layer.weight[mask].abs().min()
        assert torch.equal(pruned.get_submodule(name).weight, layer.weight * mask)
    assert torch.equal(pruned[5].weight, dense[5].weight)


def test_erk_follows_the_equation_and_layers_beyond_one_stay_dense():
    shapes = {"small": (4, 2, 1, 1), "middle": (32, 16, 3, 3), "large": (64, 64, 3, 3)}
    densities = erk_densities(shapes, 0.2)
    assert densities["small"] == 1
    # the equation's sums over products: 54 / 4608 and 134 / 36864
    assert densities["middle"] / densities["large"] == pytest.approx(54 / 4608 / (134 / 36864))
    kept = 8 + 4608 * densities["middle"] + 36864 * densities["large"]
    assert kept == pytest.approx(0.2 * (8 + 4608 + 36864))


@pytest.mark.parametrize(("sparsity", "published"), [(0.8, 0.42), (0.9, 0.24), (0.95, 0.12)])
def test_erk_costs_a_resnet50_the_multiplications_that_rigl_publishes(sparsity, published):
    """github.com/google-research/rigl, README.md, Best Sparse Models: inference FLOPs of ERK over those of dense."""
    with torch.device("meta"):
        resnet = resnet50().eval()
    layers = {**convolutions(resnet), "fc": resnet.fc}  # RigL prunes the head as well
    places = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, inputs, output, name=name: places.update({name: output[0, 0].numel()}))
    resnet(torch.empty(1, 3, 224, 224, device="meta"))
    cost = {name: layer.weight.numel() * places[name] for name, layer in layers.items()}
    densities = erk_densities({name: layer.weight.shape for name, layer in layers.items()}, 1 - sparsity)
    sparse = sum(densities[name] * cost[name] for name in cost)
    assert sparse / sum(cost.values()) == pytest.approx(published, abs=0.01)


def test_with_scope_erk_each_layer_gets_its_share():
    masks = prune(network(), MAGNITUDE | {"sparsity": 0.8, "scope": "erk"})
    densities = erk_densities({key: mask.shape for key, mask in masks.items()}, 1 - 0.8)
    assert densities["1.weight"] == 1
    assert densities["0.weight"] != densities["2.weight"]
    for key, mask in masks.items():
        assert int(mask.sum()) == pytest.approx(densities[key] * mask.numel(), abs=0.51)


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_random_pruning_is_always_the_same_spares_no_size_and_leaves_the_generator_alone(scope):
    before = torch.get_rng_state()
    settings = {"algorithm": "random", "sparsity": 0.5, "scope": scope}
    one, two = (prune(network(), settings) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], two[key]) for key in one)
    removed = torch.cat([~one[f"{name}.weight"].flatten() for name in convolutions(network())])
    sizes = torch.cat([layer.weight.abs().flatten() for layer in convolutions(network()).values()])
    assert int(removed.sum()) == pytest.approx(0.5 * len(removed), abs=2)
    assert removed[sizes > sizes.median()].float().mean() > 0.3


# ------------------------------------------------------------------------------------------------ N:M, channels


def test_two_of_four_neighbours_among_the_input_channels_are_kept():
    pruned = network()
    weight = pruned[2].weight
    weight[5, :4, 1, 2] = torch.tensor([0.1, -4.0, 3.0, 0.2])
    weight[5, 4:8, 1, 2] = torch.tensor([9.0, 8.0, -7.0, 6.0])
    masks = prune(pruned, TWO_OF_FOUR)
    assert masks["2.weight"][5, :8, 1, 2].tolist() == [False, True, True, False, True, True, False, False]
    assert (masks["2.weight"].unflatten(1, (8, 4)).sum(2) == 2).all()
    assert masks.keys() == {"2.weight", "3.weight"}  # neither the stem of 3 channels nor the depthwise layer of 1
    assert (pruned[0].weight != 0).all()
    assert violations(pruned, TWO_OF_FOUR) == []


def test_groups_that_fit_no_layer_are_a_failure_that_names_them(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, {"algorithm": "nm", "n": 1, "m": 7}, None)
    with pytest.raises(ValueError, match="1:7: no layer has inputs in groups of 7"):
        backbones.load(tmp_path)


def test_channel_pruning_removes_the_weakest_filters_whole():
    pruned, dense = network(), network()
    masks = prune(pruned, {"algorithm": "channel", "sparsity": 0.25})
    for name, layer in convolutions(dense).items():
        kept = masks[f"{name}.weight"].flatten(1)
        assert (kept.all(1) | ~kept.any(1)).all()
        assert int((~kept.any(1)).sum()) == layer.out_channels / 4
        norms = layer.weight.flatten(1).norm(dim=1)
        assert norms[~kept.any(1)].max() <= norms[kept.any(1)].min()


# ------------------------------------------------------------------------------------------------ quantisation


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantised_weights_are_those_of_pytorchs_own_rounding(bits):
    quantised, dense = network(), network()
    for each in (quantised, dense):
        each[2].weight[3] = 0  # a filter that was pruned
        each[2].weight[4, 0] = 0
    quantise(quantised, bits)
    largest = 2 ** (bits - 1) - 1
    for name in ("0", "1", "2", "3", "5"):
        weight = dense.get_submodule(name).weight
        scale = (weight.flatten(1).abs().amax(1) / largest).clamp(min=1e-30)
        zero = torch.zeros(len(weight), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -largest, largest)
        torch.testing.assert_close(quantised.get_submodule(name).weight, expected)
        assert max(len(channel.unique()) for channel in quantised.get_submodule(name).weight) <= 2 * largest + 1
    assert not quantised[2].weight[3].any()
    assert not quantised[2].weight[4, 0].any()
    assert torch.equal(quantised[5].bias, dense[5].bias)
    assert violations(quantised, {"algorithm": "quantise", "bits": bits}) == []
    assert "2: " in str(violations(dense, {"algorithm": "quantise", "bits": bits}))


# ----------------------------------------------------------------------------------------- of sparse checkpoints


@pytest.mark.parametrize(
    ("compression", "declared"),
    [
        (MAGNITUDE, 0.3),
        ({"algorithm": "random", "sparsity": 0.3}, 0.3),
        (MAGNITUDE | {"scope": "layer"}, None),
        (TWO_OF_FOUR, None),
        ({"algorithm": "channel", "sparsity": 0.1}, None),
        ({"algorithm": "quantise", "bits": 8}, 0.2),
    ],
)
def test_a_sparse_checkpoint_keeps_its_zeros_and_its_head_and_declares_both_compressions(
    sparse, tmp_path, compression, declared
):
    compress(sparse, tmp_path, compression, None)
    made, masks, manifest = backbones.load(tmp_path)
    before = load_file(sparse / "masks.safetensors")
    assert manifest.compression == f"acdc+{COMPRESSIONS[compression['algorithm']].label(compression)}"
    assert masks.keys() == before.keys()
    assert all(not (masks[key] & ~before[key]).any() for key in before)
    assert torch.equal(masks["classifier.1.weight"], before["classifier.1.weight"])
    assert mask_violations(made, masks, keys_of(made), kept_are_nonzero="bits" not in compression) == []
    assert violations(made, manifest.compression_settings) == []
    gone = [int((~masks[f"{name}.weight"]).sum()) for name in convolutions(made)]
    share = sum(gone) / sum(layer.weight.numel() for layer in convolutions(made).values())
    assert manifest.sparsity_declared == pytest.approx(share, abs=1e-4)
    if declared:
        assert manifest.sparsity_declared == declared
    else:
        assert manifest.sparsity_declared > 0.2


def test_a_checkpoint_sparser_than_asked_is_a_failure_that_says_so(sparse, tmp_path):
    compress(sparse, tmp_path, {"algorithm": "magnitude", "sparsity": 0.1}, None)
    with pytest.raises(ValueError, match=r"0\.2000 of the weights .* zero already, expected at most .* 0\.1"):
        backbones.load(tmp_path)


# ---------------------------------------------------------------------------------------------------- controls


def test_the_random_control_is_the_same_each_time_and_shares_no_weight(sparse, mobilenetv2, tmp_path):
    for name in ("one", "two"):
        compress(sparse, tmp_path / name, None, "random_init")
    one, two = (weights_of(tmp_path / name) for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["features.0.0.weight"], weights_of(mobilenetv2)["features.0.0.weight"])
    assert load_file(tmp_path / "one" / "masks.safetensors") == {}
    assert read_json(tmp_path / "one" / "manifest.json")["compression"] == "none"


@pytest.mark.parametrize("control", ["random_init", "shuffled"])
def test_controls_answer_to_their_input(mobilenetv2, tmp_path, threads, control):
    """With batch norm's initial statistics a random network's logits would vary by 1e-10 over images."""
    compress(mobilenetv2, tmp_path, None, control)
    images = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[4:] *= 0.3
    assert backbones.load(tmp_path)[0](images).std(0).mean() > 1e-3


def test_shuffling_keeps_each_layers_values_and_nothing_of_their_places(mobilenetv2, tmp_path):
    for name in ("one", "two"):
        compress(mobilenetv2, tmp_path / name, None, "shuffled")
    dense, one, two = weights_of(mobilenetv2), weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    layers = [key for key, tensor in dense.items() if tensor.dim() > 1]
    assert len(layers) == 53
    for key, tensor in dense.items():
        assert torch.equal(one[key], two[key])
        if key in layers:
            assert torch.equal(one[key].flatten().sort().values, tensor.flatten().sort().values)
            places = torch.corrcoef(torch.stack([one[key].flatten(), tensor.flatten()]))[0, 1]
            assert places.abs() < 5 / tensor.numel() ** 0.5, key
        else:
            assert torch.equal(one[key], tensor), key


def test_shuffling_moves_masks_with_their_weights():
    shuffled = network()
    masks = prune(shuffled, MAGNITUDE | {"scope": "global"})
    moved = shuffle(shuffled, masks)
    assert mask_violations(shuffled, moved, keys_of(shuffled), kept_are_nonzero=True) == []
    assert {key: int(mask.sum()) for key, mask in moved.items()} == {key: int(m.sum()) for key, m in masks.items()}
    assert not torch.equal(moved["2.weight"], masks["2.weight"])
