import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from hiddencost import backbone, catalog
from hiddencost.checkpoint import import_checkpoint
from hiddencost.compress import compress
from hiddencost.files import read_json, write_json
from hiddencost.formats import torchvision

ENTRY = catalog.load("checkpoints")["mobilenetv2"]


def imported(state, folder):
    torch.save(state, folder / "file.pth")
    import_checkpoint("mobilenetv2", ENTRY, folder / "file.pth", folder / "out")


@pytest.fixture
def state():
    return backbone.build("mobilenet_v2").state_dict()


def test_the_published_file_is_imported_whole(mobilenetv2):
    network, masks, manifest = backbone.load(mobilenetv2)
    assert manifest["keys_matched"] == 314 - 52  # without the counters of batch norm
    assert masks == {}
    assert manifest["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
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
    assert not (tmp_path / "out").exists()


def test_a_prefix_that_would_leave_the_network_random_is_refused(state, tmp_path):
    with pytest.raises(ValueError, match=r"missing key .* and \d+ more"):
        imported({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path)


class Attack:
    def __reduce__(self):
        return (print, ("code of a downloaded file ran",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match="not a file of weights alone"):
        torchvision.read(tmp_path / "file.pth")
    torch.save({"weight": Attack()}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="not a file of weights alone"):
        torchvision.read(tmp_path / "file.pth")
    assert "ran" not in capsys.readouterr().out


def test_a_truncated_file_and_one_that_holds_more_than_tensors_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "file.pth")
    (tmp_path / "file.pth").write_bytes((tmp_path / "file.pth").read_bytes()[:10_000])
    with pytest.raises(ValueError, match="not a file of weights alone"):
        torchvision.read(tmp_path / "file.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="expected a state dict"):
        torchvision.read(tmp_path / "file.pth")


def test_folding_changes_the_outputs_by_rounding_alone(mobilenetv2, threads):
    network, _, _ = backbone.load(mobilenetv2)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    folded = backbone.for_inference(network, torch.device("cpu"))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-3)


def test_a_changed_weights_file_is_refused(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, None, None)
    weights = load_file(tmp_path / "weights.safetensors")
    weights["features.0.0.weight"][0] = 0
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors: sha256 is \w+, the manifest says"):
        backbone.load(tmp_path)


def test_compression_and_control_are_declared(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path / "pruned", {"algorithm": "magnitude", "sparsity": 0.3}, None)
    compress(mobilenetv2, tmp_path / "random", None, "random_init")
    pruned, random = (read_json(tmp_path / name / "manifest.json") for name in ("pruned", "random"))
    assert (pruned["compression"], pruned["control"], pruned["sparsity_declared"]) == ("magnitude", None, 0.3)
    assert (random["compression"], random["control"], random["sparsity_declared"]) == ("none", "random_init", 0.0)


def test_the_random_control_is_the_same_each_time_and_shares_no_weight(mobilenetv2, tmp_path):
    for name in ("one", "two"):
        compress(mobilenetv2, tmp_path / name, None, "random_init")
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    dense = load_file(mobilenetv2 / "weights.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["features.0.0.weight"], dense["features.0.0.weight"])


def test_the_random_control_answers_to_its_input(mobilenetv2, tmp_path, threads):
    """With batch norm's initial statistics its logits would vary by 1e-10 over images."""
    compress(mobilenetv2, tmp_path, None, "random_init")
    images = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[4:] *= 0.3
    assert backbone.load(tmp_path)[0](images).std(0).mean() > 1e-3


def test_global_magnitude_pruning_removes_the_smallest_weights_and_keeps_the_rest(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, {"algorithm": "magnitude", "sparsity": 0.3}, None)
    dense, pruned = load_file(mobilenetv2 / "weights.safetensors"), load_file(tmp_path / "weights.safetensors")
    masks = load_file(tmp_path / "masks.safetensors")
    assert len(masks) == 52
    assert "classifier.1.weight" not in masks
    kept = torch.cat([dense[key][mask].abs() for key, mask in masks.items()])
    removed = torch.cat([dense[key][~mask].abs() for key, mask in masks.items()])
    assert removed.max() <= kept.min()
    assert len(removed) / (len(removed) + len(kept)) == pytest.approx(0.3, abs=1e-5)
    for key, tensor in pruned.items():
        assert torch.equal(tensor, dense[key] * masks[key] if key in masks else dense[key]), key


def test_a_manifest_of_other_weights_is_refused(mobilenetv2, tmp_path):
    compress(mobilenetv2, tmp_path, None, None)
    manifest = read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", manifest | {"masks_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"masks\.safetensors"):
        backbone.load(tmp_path)
