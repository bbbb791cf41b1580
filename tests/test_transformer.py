"""Vision transformers and ConvNeXts: what compresses them reaches the linear layers of their blocks, and they compute
as they are. On networks of each of the catalog's architectures, for images of 32 pixels."""

import numpy as np
import pytest
import reference_pruning
import timm
import torch
from torch import nn
from torchvision.models import SwinTransformer

from hiddencost import catalog
from hiddencost.catalog.libraries import timm_entry
from hiddencost.compression.controls import shuffle
from hiddencost.compression.gate import mask_violations
from hiddencost.compression.make import compress, share_reached
from hiddencost.compression.registry import COMPRESSIONS
from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.methods.registry import METHODS
from hiddencost.networks import backbones, inputs
from hiddencost.networks.families import FAMILIES, family_of, family_of_checkpoint
from hiddencost.networks.manifest import Manifest

FAMILY = FAMILIES["transformer"]
TOYS = {
    "vit-b-16-augreg": ("timm/vit_base_patch16_224", {"embed_dim": 32, "num_heads": 4, "img_size": 32, "depth": 1}),
    "deit-s": (
        "timm/deit_small_patch16_224",
        {"embed_dim": 16, "num_heads": 2, "img_size": 32, "depth": 2, "patch_size": 8},
    ),
    "swin-t": (
        "timm/swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4), "img_size": 32, "window_size": 4},
    ),
    "convnext-t": ("timm/convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}),
    "swin-t-v1": ("swin_t", {}),
}
HALF = {"algorithm": "magnitude", "sparsity": 0.5}
CALIBRATED = [
    {"algorithm": algorithm, "calibration": "cifar10"} | level
    for algorithm in ("wanda", "sparsegpt")
    for level in ({"sparsity": 0.5}, {"n": 2, "m": 4})
]
PRUNED = [
    *(HALF, HALF | {"scope": "erk"}, {"algorithm": "nm", "n": 2, "m": 4}, {"algorithm": "channel", "sparsity": 0.25}),
    *CALIBRATED,
]


def made(name):
    """A network as of the catalog's entry, small, with random weights of a size that tells its layers apart."""
    architecture, settings = TOYS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        if name == "swin-t-v1":
            network = SwinTransformer([4, 4], 8, [2, 1], [2, 4], [4, 4], num_classes=10)
        else:
            network = timm.create_model(architecture.removeprefix("timm/"), num_classes=10, **settings)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else nn.init.normal_(parameter, 0.5, 0.2)
    return network.eval().requires_grad_(False)


def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def compressed(name, settings):
    """A network, compressed; its masks; and the settings as they are complete."""
    entry, network = COMPRESSIONS[settings["algorithm"]], made(name)
    settings = entry.complete(settings)
    seen = {"images": images()} if entry.calibrated else {}
    return network, entry.apply(network, FAMILY, settings, **seen), settings


@pytest.mark.parametrize("name", TOYS)
def test_pruning_reaches_the_linear_layers_of_the_blocks_alone(name):
    assert family_of(TOYS[name][0]) is family_of_checkpoint(name) is FAMILY
    network = made(name)
    linear = {f"{key}.weight" for key, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    outside = {key for key in linear if key.startswith("head") or "reduction" in key}
    assert set(FAMILY.prunable_weights(network)) == linear - outside
    assert len(linear - outside) >= 4
    assert outside


def test_each_method_that_serves_networks_with_a_head_of_their_own_serves_them():
    assert [name for name, method in METHODS.items() if method.serves(FAMILY.name)] == [
        name for name, method in METHODS.items() if method.serves("convolutional")
    ]


def test_what_is_asked_of_a_published_one_by_its_name_in_timm_is_what_is_asked_here():
    assert family_of_checkpoint("timm-deit_small_patch16_224.fb_in1k") is FAMILY
    assert family_of_checkpoint("timm-resnet18.a1_in1k") is FAMILIES["convolutional"]
    for name in ("vit-b-16-augreg", "vit-b-16-augreg-in1k", "deit-s", "swin-t", "convnext-t"):
        entry = catalog.checkpoints()[name]
        of_library = timm_entry(entry.files["weights"].sources[0].hf.removeprefix("timm/"))
        for key in ("preprocessing", "stem", "canvas", "format"):
            assert getattr(entry, key) == getattr(of_library, key), (name, key)
        assert entry.files["weights"].sources == of_library.files["weights"].sources
        assert entry.licence.lower() == of_library.licence
        assert of_library.architecture.startswith(f"{entry.architecture}.")
        fixed = timm.get_pretrained_cfg(entry.architecture.removeprefix("timm/")).fixed_input_size
        assert bool(inputs.why_not_published(entry.architecture, 96)) == fixed


@pytest.mark.parametrize("settings", PRUNED, ids=str)
@pytest.mark.parametrize("name", TOYS)
def test_all_that_prunes_here_prunes_them(name, settings):
    network, masks, settings = compressed(name, settings)
    entry, dense = COMPRESSIONS[settings["algorithm"]], made(name)
    weights = FAMILY.prunable_weights(network)
    assert list(entry.pruned_weights(network, FAMILY, settings)) == list(weights)  # groups of 4 fit all
    assert masks.keys() == weights.keys()
    assert mask_violations(network, masks, weights, kept_are_nonzero=True) == []
    assert entry.check(network, FAMILY, settings) == []
    assert entry.check(dense, FAMILY, settings)
    for stem in (None, catalog.checkpoints()[name].stem):
        found = measure_sparsity(network, FAMILY, stem)
        assert found["blocks"] == pytest.approx(settings.get("sparsity") or 0.5, abs=0.01)
        assert found["convolutions"] == 0
    unpruned = {key: tensor for key, tensor in network.state_dict().items() if key not in weights}
    assert all(torch.equal(tensor, dense.state_dict()[key]) for key, tensor in unpruned.items())
    assert network(images()).isfinite().all()
    assert not torch.allclose(network(images()), dense(images()))


@pytest.mark.parametrize("settings", [CALIBRATED[0], CALIBRATED[3]], ids=str)
@pytest.mark.parametrize("name", ["deit-s", "swin-t", "convnext-t"])
def test_the_first_linear_layer_is_pruned_as_by_a_plain_reimplementation(name, settings):
    """Of tokens [N, T, C], of windows of them, and of maps [N, H, W, C]: one input a token."""
    (key, weight), *_ = FAMILY.prunable_weights(dense := made(name)).items()
    seen = []
    weight.module.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().numpy()))
    dense(images())
    network, _, settings = compressed(name, settings)
    rows, columns = weight.tensor.double().numpy(), seen[0].reshape(-1, seen[0].shape[-1]).T
    level = {part: settings[part] for part in ("sparsity", "n", "m")}
    if settings["algorithm"] == "wanda":
        expected = reference_pruning.wanda(rows, columns, **level)
    else:
        (expected,) = reference_pruning.sparsegpt([rows], [columns], len(seen[0]), **level)
    found = network.state_dict()[key].double().numpy()
    assert ((found != 0) == (expected != 0)).all()
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", TOYS)
def test_all_their_layers_are_quantised(name, bits):
    network, _, settings = compressed(name, {"algorithm": "quantise", "bits": bits})
    assert COMPRESSIONS["quantise"].check(network, FAMILY, settings) == []
    assert len(COMPRESSIONS["quantise"].check(made(name), FAMILY, settings | {"bits": 2})) > 4
    difference = (network(images()) - made(name)(images())).abs().max()
    assert 0 < difference < (2 if bits == 4 else 0.2)


@pytest.mark.parametrize("name", TOYS)
def test_what_runs_is_the_network(name):
    """LayerNorm, GELU, layer scale and windows are computed as they are: there is no batch norm to fold."""
    network, given = made(name), images().requires_grad_()
    running = FAMILY.for_inference(network, torch.device("cpu"))
    answers, expected = running(given), network(given)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-4)
    (gradient,), (plainly,) = (torch.autograd.grad(each.logsumexp(1).sum(), given) for each in (answers, expected))
    torch.testing.assert_close(gradient, plainly, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TOYS)
def test_shuffled_weights_keep_their_values(name):
    shuffled, dense = made(name), made(name)
    shuffle(shuffled, {})
    for key, tensor in shuffled.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, dense.state_dict()[key].flatten().sort().values), key
    assert not torch.allclose(shuffled(images()), dense(images()))


@pytest.mark.parametrize(
    "architecture",
    [
        *("vit_b_32", "swin_v2_t", "timm/deit3_small_patch16_224", "timm/swinv2_tiny_window8_256"),
        *("timm/swinv2_cr_tiny_224", "timm/beit_base_patch16_224", "timm/convnextv2_atto", "timm/flexivit_small"),
        *("timm/eva02_tiny_patch14_224", "timm/vit_relpos_small_patch16_224", "timm/vit_tiny_patch16_224"),
    ],
)
def test_of_all_networks_of_such_blocks_pruning_reaches_most_weights_and_no_mlp_of_places(architecture):
    family = family_of(architecture)
    with torch.device("meta"):
        network = family.build(architecture)
    reached = family.prunable_weights(network)
    share = sum(weight.tensor.numel() for weight in reached.values()) / sum(p.numel() for p in network.parameters())
    assert share > 0.8
    assert not [key for key in reached if "cpb_mlp" in key or "meta_mlp" in key or "rel_pos" in key]


@pytest.mark.parametrize(
    ("architecture", "share"),
    [("timm/mixer_b16_224", 0.0100), ("vgg11", 0.0716), ("mobilenet_v3_small", 0.607), ("mobilenet_v2", 1)],
)
def test_how_much_of_a_network_pruning_reaches(architecture, share):
    family = family_of(architecture)
    with torch.device("meta"):
        assert share_reached(family.build(architecture), family) == pytest.approx(share, abs=0.005)


def test_a_network_that_pruning_hardly_reaches_is_refused(tmp_path, monkeypatch):
    toy = nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten(), nn.Linear(4, 96), nn.Linear(96, 10)).requires_grad_(False)
    manifest = Manifest(
        checkpoint="toy",
        architecture="timm/mixer_toy",
        preprocessing={"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"},
    )
    manifest.write(tmp_path)
    monkeypatch.setattr(backbones, "load", lambda folder: (toy, {}, manifest))
    compress(tmp_path, tmp_path / "made", HALF, None)
    assert Manifest.read(tmp_path / "made").failed == (
        "magnitude: of timm/mixer_toy, pruning reaches all convolutions, 33 % of the weights before the head; "
        "expected at least 50 %"
    )
