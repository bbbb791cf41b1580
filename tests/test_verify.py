import pytest
import torch
from safetensors.torch import load_file, save_file

from hiddencost import backbone, catalog
from hiddencost.compress import compress
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.verify import measure_sparsity, verify

PHOTOS = catalog.load("photos")["imagenet20"]
SETTINGS = {"sparsity_tolerance": 0.005, "photos_top1": 12}


@pytest.fixture(scope="module")
def make(mobilenetv2, tmp_path_factory):
    def make(sparsity=None, control=None):
        folder = tmp_path_factory.mktemp("backbone")
        compress(mobilenetv2, folder, {"algorithm": "magnitude", "sparsity": sparsity} if sparsity else None, control)
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
    result = verify(make(), photos, PHOTOS, SETTINGS)
    assert result["passed"]
    assert result["reasons"] == []
    assert result["photos"] == {"top1": 18, "count": 20, "exempt": False}
    assert result["sparsity_measured"] == 0
    assert result["keys_matched"] == 262
    assert len(result["fingerprint"]["first"]) == 8


def test_a_pruned_network_passes_with_its_sparsity_measured_per_layer(make, photos, threads):
    result = verify(make(0.2), photos, PHOTOS, SETTINGS)
    assert result["passed"]
    assert result["sparsity_measured"] == pytest.approx(0.2, abs=1e-4)
    assert len(result["sparsity"]["layers"]) == 53
    assert result["sparsity"]["layers"]["classifier.1"] == 0
    assert result["sparsity"]["convolutions_without_stem"] != result["sparsity"]["convolutions"]
    assert 0 < result["sparsity"]["all_parameters"] < 0.2
    assert result["masks"]["tensors"] == 52


def test_a_network_that_pruning_destroyed_is_stopped(make, photos, threads):
    result = verify(make(0.45), photos, PHOTOS, SETTINGS)
    assert not result["passed"]
    assert len(result["reasons"]) == 1
    assert "of 20 ImageNet photos classified rightly, at least 12 expected" in result["reasons"][0]


def test_the_random_control_is_exempt_by_declaration_and_another_random_network_is_not(make, photos, threads):
    folder = make(control="random_init")
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert result["passed"]
    assert result["photos"]["exempt"]
    assert result["photos"]["top1"] < 4
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"control": None})
    assert not verify(folder, photos, PHOTOS, SETTINGS)["passed"]


def test_a_sparsity_other_than_declared_is_stopped(make, photos, threads):
    folder = make(0.2)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"sparsity_declared": 0.21})
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert result["reasons"] == ["sparsity of the convolutions is 0.2000, declared 0.2100, tolerance 0.005"]
    assert verify(folder, photos, PHOTOS, SETTINGS | {"sparsity_tolerance": 0.02})["passed"]


def test_a_mask_that_disagrees_with_the_weights_in_one_place_is_found(make, photos, threads):
    folder = make(0.2)
    mask = load_file(folder / "masks.safetensors")["features.1.conv.0.0.weight"]

    def revive(weights):
        weights["features.1.conv.0.0.weight"][tuple(torch.nonzero(~mask)[0])] = 0.1

    spoil(folder, revive)
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert result["reasons"] == ["features.1.conv.0.0.weight: mask and weights disagree in 1 places"]


def test_a_pruned_network_without_its_masks_is_stopped(make, photos, threads):
    folder = make(0.2)
    save_file({}, folder / "masks.safetensors")
    manifest = read_json(folder / "manifest.json")
    digest = sha256_file(folder / "masks.safetensors")
    write_json(folder / "manifest.json", manifest | {"masks_sha256": digest})
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert len(result["reasons"]) == 52
    assert result["reasons"][0] == "features.0.0.weight: no mask"


def test_weights_that_are_not_finite_and_files_that_do_not_match_are_reasons_and_no_crash(make, photos, threads):
    folder = make()
    spoil(folder, lambda weights: weights["features.0.0.weight"].fill_(float("nan")))
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert "its logits on a fixed input are not finite" in result["reasons"]
    write_json(folder / "verification.json", result)
    spoil(folder, lambda weights: weights.pop("features.0.0.weight"))
    result = verify(folder, photos, PHOTOS, SETTINGS)
    assert not result["passed"]
    assert "weights.safetensors: missing key features.0.0.weight" in result["reasons"][0]


def test_the_stem_is_left_out_where_papers_leave_it_out():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2), torch.nn.Conv2d(1, 1, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[1].weight.copy_(torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]]))
    measured = measure_sparsity(network, stem="0")
    assert measured["convolutions"] == 3 / 8
    assert measured["convolutions_without_stem"] == 3 / 4
    assert measured["layers"]["1"] == 3 / 4


def test_every_checkpoint_of_the_catalog_names_its_stem():
    for entry in catalog.load("checkpoints").values():
        assert isinstance(backbone.build(entry["architecture"]).get_submodule(entry["stem"]), torch.nn.Conv2d)
