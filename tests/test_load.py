"""Runs of a finished study as torch modules: of one made by hand here, of a real one in test_real_study."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

import hiddencost
from hiddencost import catalog
from hiddencost.command import main as command
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import pixels, prepare
from hiddencost.datasets.splits import draw_splits
from hiddencost.files import atomic, read_json, write_json
from hiddencost.methods.registry import METHODS
from hiddencost.networks import backbones, build
from hiddencost.networks.manifest import Manifest
from hiddencost.results.tables import run_columns, write
from hiddencost.runs import ledger
from hiddencost.runs.ledger import Result
from hiddencost.runs.pack import TrainedRun, complete
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.sources import LOCK

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NET = {"backbone": "net", "dataset": "toy", "seed": 0}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_network():
    """A MobileNetV2 that never learned, with the batch statistics that keep its activations from fading."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build.build("mobilenet_v2").train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics are those of all it has seen
        network(torch.randn(16, 3, 32, 32))
    return network


def learned_by(method):
    """What stands for training: tensors that the method leaves, of 3 classes on a canvas of 32."""
    if method == "lp":
        return {"weight": torch.randn(3, 1280, generator=seeded(2)), "bias": torch.ones(3)}
    mapping = torch.tensor([7, 400, 3])
    prompt, drawn = torch.randn(3, 32, 32, generator=seeded(1)), mapping.expand(2, 3).contiguous()
    if METHODS[method].weighted:
        mapping = torch.randn(METHODS[method].shape_of_mapping(1000, 3), generator=seeded(4))
    return {"prompt": prompt, "mapping": mapping, "mappings": drawn}


class Job:
    """Stands for training: a network that is right of every third image; rlm diverges."""

    def train(self, dataset, runs):
        logits = torch.tensor([[1.0, 0, 0]]).repeat(len(dataset.test_labels), 1)
        for run, (method, _, _) in runs.items():
            learned = {} if method == "ft" else learned_by(method)
            why = "the loss is nan" if method == "rlm" else None
            yield TrainedRun(run, learned, {"train_seconds": 1.0}, None if why else logits, why)


def complete_packs(folder, **recipe):
    """Make the packs of a study, as the workflow does but for the training; returns the rows of their runs."""
    rows = []
    for kind, methods, size, determines in (
        ("runs", ("flm", "ilm", "rlm", "blm", "fm"), 24, {"precision": "fp32"}),
        ("probes", ("lp",), 32, {"features": "ab" * 32}),
        ("finetuned", ("ft",), 32, {"precision": "fp32"}),
    ):
        dataset, network = folder.parents[1] / f"resources/datasets/toy/{size}", folder / "backbones/net"
        inputs = PackInputs(network, network / "verification.json", dataset, folder / "splits/toy/seed0.json")
        sizes = dict.fromkeys(("batch_size", "test_batch_size"), 8) | (
            {"canvas": 32, "image_size": size} if kind == "runs" else {}
        )
        request = {"study": "s", **NET, "recipe": sizes | recipe, "canvas": 32, "code": "c"}
        request |= {
            "images": "toy",
            "size": str(size),
            "ledger": str(folder / "ledger"),
            "runs": [[one, shots] for one in methods for shots in (2, "full")],
        }
        path = folder / f"{kind}/net/toy/seed0.parquet"
        complete(inputs, PackRequest(**request), path, Job(), **determines)
        rows.append(pd.read_parquet(path))
    return pd.concat(rows)


@pytest.fixture
def study(made, tmp_path, threads):
    """The folder of the study that is made once, to change."""
    for name in ("results", "resources"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "results/s"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished study of a random network and 3 classes, of images of 24 pixels on a canvas of 32, in a folder."""
    top = tmp_path_factory.mktemp("made")
    folder, resources = top / "results/s", top / "resources"
    images, labels = np.random.default_rng(0).integers(0, 256, (9, 3, 24, 24), np.uint8), np.arange(9) % 3
    np.savez(top / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for size in (24, 32):
        prepare("toy", user_entry("toy", npz=top / "toy.npz"), None, size, resources / f"datasets/toy/{size}")
    save_network(folder, random_network())
    write_json(
        folder / "backbones/net/verification.json",
        {"passed": True} | dict.fromkeys(("sparsity_declared", "sparsity_measured"), 0.0),
    )
    (folder / "splits/toy").mkdir(parents=True)
    write_json(folder / "splits/toy/seed0.json", {"permutations": draw_splits("toy", labels, 3, 0)})
    write(complete_packs(folder).reindex(columns=run_columns()), folder / "tables/runs.parquet")
    return top


def save_network(folder, network):
    preprocessing = {"mean": MEAN, "std": STD, "interpolation": "bilinear"}
    manifest = Manifest(checkpoint="net", architecture="mobilenet_v2", preprocessing=preprocessing)
    backbones.save(folder / "backbones/net", network.state_dict(), {}, manifest)


def run_of(study, method, shots=2):
    runs = pd.read_parquet(study / "tables/runs.parquet").set_index(["method", "shots"])
    return runs.loc[(method, str(shots)), "run"]


def entry_of(study, method, shots=2):
    return ledger.entry(study / "ledger", run_of(study, method, shots))


def some_images(height, width):
    return torch.randint(256, (4, 3, height, width), dtype=torch.uint8, generator=seeded(3))


def normalised(images):
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def network_of(study):
    return backbones.load(study / "backbones/net")[0]


@pytest.mark.parametrize("method", ["flm", "blm", "fm"])
def test_a_prompt_and_its_mapping_classify_images(study, method):
    model = hiddencost.load(study, backbone="net", dataset="toy", method=method, shots=2, seed=0)
    assert model.classes == ["0", "1", "2"]
    told = NET | {"study": "s", "method": method, "shots": "2", "accuracy": 3 / 9, "run": run_of(study, method)}
    assert model.run == told
    images, learned = some_images(24, 24), learned_by(method)
    canvas = functional.pad(images.double() / 255, (4, 4, 4, 4))  # Normalize(ZeroPad(x) + σ(W) ⊙ M), arXiv 2308.14969
    border = functional.pad(torch.zeros(24, 24), (4, 4, 4, 4), value=1)
    with torch.inference_mode():
        prompted = canvas + learned["prompt"].double().sigmoid() * border
        logits, weights = network_of(study).double()(normalised(prompted)), learned["mapping"].double()
        expected = logits[:, [7, 400, 3]]
        if method != "flm":
            expected = logits @ weights[:, :1000].T + (weights[:, 1000] if method == "fm" else 0)
    assert expected.std() > 0.01
    torch.testing.assert_close(model.double()(images), expected)
    assert not model(images).requires_grad


def test_a_linear_probe_classifies_images(study):
    model = hiddencost.load(study, method="lp", shots="full")
    images, head = some_images(32, 32), learned_by("lp")
    network = network_of(study).double()
    network.classifier = torch.nn.Identity()
    with torch.inference_mode():
        expected = network(normalised(images.double() / 255)) @ head["weight"].double().T + 1
    assert expected.std() > 0.01
    torch.testing.assert_close(model.double()(images), expected)


@pytest.mark.parametrize("size", [(24, 24), (17, 17), (80, 100)])
def test_images_of_any_size_are_resized_as_the_study_resizes_its_own(study, size):
    model = hiddencost.load(study, method="flm", shots=2)
    images, seen = some_images(*size), []
    prepared = np.stack([pixels(Image.fromarray(one.permute(1, 2, 0).numpy()), 24) for one in images])
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, :, 4:28, 4:28]))
    model(images)
    rounding = 1 / 255 / min(STD)  # torchvision and Pillow may round a pixel differently
    torch.testing.assert_close(seen[0], normalised(torch.tensor(prepared) / 255), rtol=0, atol=1.01 * rounding)


@pytest.mark.parametrize("method", ["flm", "lp"])
def test_a_file_of_before_prompts_were_named_is_read(study, tmp_path, method):
    model = hiddencost.load(study, method=method, shots=2)
    images = some_images(24, 24)
    before = model(images)
    for name in ("prompt", "image_size"):
        del model.about[name]
    model.save(tmp_path / "model.safetensors")
    assert hiddencost.load(tmp_path / "model.safetensors")(images).equal(before)


@pytest.mark.parametrize("method", ["flm", "blm", "fm", "lp"])
def test_a_saved_model_is_a_file_that_needs_no_study(study, tmp_path, method):
    model = hiddencost.load(study, method=method, shots=2)
    model.to(memory_format=torch.channels_last).save(tmp_path / "model.safetensors")
    images = some_images(24, 24)
    before, about = model(images), (model.classes, model.run)
    study.rename(tmp_path / "gone")
    again = hiddencost.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(again(images), before)
    assert (again.classes, again.run) == about


def test_a_file_of_the_ledger_is_loaded_within_its_study(study, monkeypatch):
    expected = hiddencost.load(study, method="flm", shots=2)
    monkeypatch.chdir(study)
    model = hiddencost.load(entry_of(study, "flm").relative_to(study))
    assert torch.equal(model(some_images(24, 24)), expected(some_images(24, 24)))
    probe = entry_of(study, "lp")
    monkeypatch.chdir(probe.parent)
    assert hiddencost.load(probe.name).run["method"] == "lp"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"backbone": "nett"}, "backbone 'nett' is unknown; did you mean 'net'? allowed: net"),
        ({"method": "flm", "shots": 3}, "shots '3' is unknown; allowed: 2, full"),
        ({"method": "flm"}, "2 runs fit; expected one, by shots: 2, full"),
        ({"shots": 2}, "7 runs fit; expected one, by method: flm, ilm, rlm, blm, fm, lp, ft"),
        (
            {"method": "rlm", "shots": 2},
            "the run net, toy, rlm, 2, 0 has no result: diverged: the loss is nan",
        ),
        (
            {"method": "ft", "shots": 2},
            "the run net, toy, ft, 2, 0 kept no weights; expected a run of rlm, flm, ilm, flm-opt, ilm-opt, sem, "
            "blm, blm+, fm, lp or zs",
        ),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_line(study, asked, told):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{study}/tables/runs.parquet: {told}')}$"):
        hiddencost.load(study, **asked)


def test_a_missing_file_is_named(study, tmp_path):
    ticket, run = {"method": "ilm", "shots": 2}, run_of(study, "ilm")
    entry_of(study, "ilm").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"ledger/{run[0]}/{run}.safetensors: there is none; to train it again: snakemake"
    ):
        hiddencost.load(study, **ticket)
    (study / "tables/runs.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"tables/runs.parquet: there is none; run the study"):
        hiddencost.load(study, **ticket)
    with pytest.raises(FileNotFoundError, match=r"results/other: there is none; expected a study's folder"):
        hiddencost.load(tmp_path / "results/other", **ticket)


def test_a_file_of_something_else_is_refused(study, tmp_path):
    path = tmp_path / "model.safetensors"
    with atomic(path) as temporary:
        save_file({"weight": torch.ones(2)}, temporary)
    with pytest.raises(ValueError, match=r"model.safetensors: expected a file that a loaded run's save\(\) wrote"):
        hiddencost.load(path)
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"model.safetensors: not a safetensors file, or a damaged one"):
        hiddencost.load(path)
    with pytest.raises(ValueError, match=r"model.safetensors: a file holds one run; expected no shots beside it"):
        hiddencost.load(path, shots=2)
    ledger.record(study / "ledger", "99", {"prompt": torch.zeros(3, 32, 32)}, Result(status="ok"))
    with pytest.raises(ValueError, match="the run 99 is not, or no longer, one of the study"):
        hiddencost.load(ledger.entry(study / "ledger", "99"))


PUBLISHED = catalog.checkpoint("mobilenetv2").files["weights"].sha256


@pytest.mark.parametrize(
    ("manifest", "first_use", "origin"),
    [
        ({"checkpoint": "mobilenetv2", "source_sha256": {"weights": PUBLISHED}}, {}, ("mobilenetv2", False)),
        ({"checkpoint": "mobilenetv2", "source_sha256": {"weights": "ab" * 32}}, {}, (None, False)),
        ({"checkpoint": "mine", "source_sha256": {"weights": PUBLISHED}}, {}, ("mobilenetv2", False)),
        ({"checkpoint": "mine", "upstream": {}, "source_sha256": {"weights": PUBLISHED}}, {}, ("mobilenetv2", True)),
        ({"checkpoint": "mine", "upstream": {}, "source_sha256": {}}, {}, (None, True)),
        ({"checkpoint": "resnet50-acdc80", "source_sha256": {"weights": "ab" * 32}}, {}, (None, False)),
        (
            {"checkpoint": "resnet50-acdc80", "source_sha256": {"weights": "ab" * 32}},
            "ab",
            ("resnet50-acdc80", False),
        ),
        (
            {"checkpoint": "resnet18-v1", "source_sha256": {"weights": "f37072fd" + "0" * 56}},
            {},
            ("resnet18-v1", False),
        ),
    ],
)
def test_a_model_says_whose_weights_it_has(study, manifest, first_use, origin):
    folder, file = study / "backbones/net", catalog.checkpoint("resnet50-acdc80").files["weights"].name
    Manifest.read(folder).replace(**manifest).write(folder)
    write_json(study.parents[1] / LOCK, {f"resnet50-acdc80/{file}": first_use * 32} if first_use else {})
    about = hiddencost.load(study, method="flm", shots=2).about
    assert (about["origin"]["published"], about["origin"]["trained"]) == origin


def other_weights(study):
    network = random_network()
    network.classifier[1].bias.data += 1
    save_network(study, network)


def other_split(study):
    path = study / "splits/toy/seed0.json"
    write_json(path, {"permutations": [list(reversed(one)) for one in read_json(path)["permutations"]]})


@pytest.mark.parametrize("stated", ["", None], ids=["own", "of an older version"])
def test_images_are_read_where_the_table_says_or_as_older_tables_have_it_by_their_name(study, stated):
    table, asked, images = study / "runs/net/toy/seed0.parquet", {"method": "flm", "shots": 2}, some_images(24, 24)
    before, runs = hiddencost.load(study, **asked)(images), pq.read_table(table)
    request = json.loads(runs.schema.metadata[b"request"]) | {"images": stated}
    if stated is None:
        del request["images"]
    else:
        (study.parents[1] / "resources").rename(study / "own")
    pq.write_table(runs.replace_schema_metadata({"request": json.dumps(request)}), table)
    assert hiddencost.load(study, **asked)(images).equal(before)


def other_images(study):
    for path in (study.parents[1] / "resources/datasets/toy").glob("*/dataset.json"):
        manifest = read_json(path)
        write_json(path, manifest | {"sha256": manifest["sha256"] | {"test_images.npy": "cd" * 32}})


@pytest.mark.parametrize("method", ["flm", "lp"])
@pytest.mark.parametrize(
    "change", [other_weights, other_split, other_images, lambda study: complete_packs(study, epochs=7)]
)
def test_what_does_not_belong_together_is_refused(study, method, change):
    """As after a call that was interrupted: the table is still that of the runs before."""
    path = entry_of(study, method)
    change(study)
    for asked in ({"method": method, "shots": 2}, None):
        with pytest.raises(
            ValueError, match=rf"^{path}: was trained with another .*; run the study again, then load$"
        ):
            hiddencost.load(study, **asked) if asked else hiddencost.load(path)


def test_a_damaged_entry_of_the_ledger_is_refused(study):
    path = entry_of(study, "flm")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of a tensor
    path.write_bytes(content)
    remedy = "to train it again: snakemake --force results/s/runs/net/toy/seed0.parquet"
    for asked in ({"method": "flm", "shots": 2}, None):
        with pytest.raises(ValueError, match=rf"^{path} is damaged; {remedy}$"):
            hiddencost.load(study, **asked) if asked else hiddencost.load(path)


@pytest.mark.parametrize(
    ("method", "change", "told"),
    [
        ("flm", {"prompt": torch.zeros(3, 24, 24)}, r"prompt has shape \[3, 24, 24\], expected \[3, 32, 32\]"),
        ("ilm", {"mapping": torch.zeros(4, dtype=torch.int64)}, r"mapping has shape \[4\], expected \[3\]"),
        ("lp", {"weight": torch.zeros(3, 7)}, r"weight has shape \[3, 7\], expected \[3, 1280\]"),
    ],
)
def test_tensors_of_another_shape_are_refused(study, method, change, told):
    run = run_of(study, method)
    result = ledger.find(study / "ledger", run)
    ledger.record(study / "ledger", run, learned_by(method) | change, result)
    with pytest.raises(ValueError, match=told):
        hiddencost.load(study, method=method, shots=2)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(3, 24, 24, dtype=torch.uint8), r"uint8 \[3, 24, 24\]; expected \[N, 3, H, W\], or of grey"),
        (torch.zeros(1, 24, 24, 3, dtype=torch.uint8), r"uint8 \[1, 24, 24, 3\]; expected"),
        (torch.zeros(1, 4, 24, 24, dtype=torch.uint8), r"uint8 \[1, 4, 24, 24\]; expected"),
        (torch.zeros(1, 3, 24, 24, dtype=torch.int64), r"int64 \[1, 3, 24, 24\]; expected"),
        (torch.full((1, 3, 24, 24), 255.0), r"float32 \[1, 3, 24, 24\], from 255 to 255; .*, not normalised"),
        (torch.full((1, 3, 24, 24), -0.1), r"float32 \[1, 3, 24, 24\], from -0.1 to -0.1; .*, not normalised"),
        (torch.full((1, 3, 24, 24), torch.nan), r"float32 \[1, 3, 24, 24\], from nan to nan; expected"),
    ],
)
def test_images_of_another_type_shape_or_range_are_refused(made, images, told):
    with pytest.raises(ValueError, match=f"^images: {told}"):
        loaded(made, "flm")(images)


def loaded(made, method):
    return hiddencost.load(made / "results/s", method=method, shots=2)


@pytest.mark.parametrize("method", ["flm", "lp"])
@pytest.mark.parametrize("size", [(24, 24), (17, 30), (80, 100)])
def test_floating_point_from_0_to_1_is_what_integers_to_255_are(made, method, size):
    model, images, seen = loaded(made, method), some_images(*size), []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images), model(images.double() / 255)
    # integers are rounded as they are resized
    rounding = 0 if size == (model.size[0], model.size[0]) else 1.01 / 255 / min(STD)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=rounding + 1e-6)


def test_gradients_flow_back_to_images_of_floating_point(made):
    images = (some_images(17, 30) / 255).requires_grad_()
    loaded(made, "flm")(images).sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0


def test_grey_images_are_those_with_three_equal_colours(made):
    model, grey = loaded(made, "flm"), some_images(30, 20)[:, :1]
    for images in (grey, grey / 255):
        assert model(images).equal(model(images.repeat(1, 3, 1, 1)))


def test_training_mode_leaves_the_network_as_it_is(made, tmp_path):
    """As a training loop asks for it that the model is a part of: batch norm would take the statistics of batches."""
    model, images = loaded(made, "flm"), some_images(24, 24)
    before, state = model(images), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert nn.Sequential(model).train()[0].training
    assert model(images).equal(before)
    assert all(tensor.equal(state[key]) for key, tensor in model.state_dict().items())
    assert not any(module.training for module in model.network.modules())
    model.save(tmp_path / "model.safetensors")
    assert hiddencost.load(tmp_path / "model.safetensors")(images).equal(before)
    assert not model.eval().training


def photos_of(images):
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize("method", ["flm", "lp"])
def test_photos_become_what_the_study_made_of_its_images(made, tmp_path, method):
    model = loaded(made, method)
    side = model.size[0]
    photos = [*photos_of(some_images(40, 24)), *photos_of(some_images(9, 70))]
    expected = torch.tensor(np.stack([pixels(photo, side) for photo in photos]))
    assert model.transform(photos).equal(expected)
    assert model.transform(tuple(photos)).equal(expected)
    assert model.transform(photos[5]).equal(expected[5])
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
    assert model.transform([tmp_path / f"{number}.png" for number in range(8)]).equal(expected)
    assert model.transform(str(tmp_path / "5.png")).equal(expected[5])
    assert model(model.transform(photos)).shape == (8, 3)


def test_photos_of_other_modes_are_read_as_the_eye_sees_them(made, tmp_path):
    model, photo = loaded(made, "lp"), photos_of(some_images(32, 32))[0]
    grey = model.transform(photo.convert("L"))
    assert grey[0].equal(grey[1])
    assert grey[0].equal(torch.tensor(np.array(photo.convert("L"))))
    exif = Image.Exif()
    exif[274] = 3  # the camera was upside down
    photo.rotate(180).save(tmp_path / "turned.png", exif=exif)
    upright = torch.tensor(np.array(photo)).permute(2, 0, 1)
    with Image.open(tmp_path / "turned.png") as turned:
        assert model.transform([turned, tmp_path / "turned.png"]).equal(upright.expand(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("photos", "told"),
    [
        ([], "an empty list; expected a PIL image, the path of one, or a list of these"),
        (torch.zeros(3, 24, 24), "Tensor; expected a PIL image"),
        ([np.zeros((24, 24, 3))], "ndarray; expected a PIL image"),
        ([[Image.new("L", (9, 9))]], "list; expected a PIL image"),
        (Image.new("I;16", (9, 9)), "a PIL image of mode I;16; expected 8 bits a pixel"),
        (Image.new("F", (9, 9)), "a PIL image of mode F; expected 8 bits a pixel"),
    ],
)
def test_what_is_no_photo_is_told(made, photos, told):
    with pytest.raises(ValueError, match=f"^photos: {told}"):
        loaded(made, "flm").transform(photos)


def test_a_file_that_is_no_photo_is_told(made, tmp_path):
    (tmp_path / "photo.jpg").write_text("a note")
    with pytest.raises(ValueError, match=r"photo.jpg: cannot be read as an image"):
        loaded(made, "flm").transform([tmp_path / "photo.jpg"])


def test_the_package_stays_light():
    code = "import sys, hiddencost; assert not {'torch', 'pandas', 'hiddencost.runs.trained'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="module 'hiddencost' has no attribute 'lode'"):
        hiddencost.lode  # noqa: B018


def test_a_run_of_older_code_is_told_and_not_called_missing(study):
    entry = entry_of(study, "flm")
    older = entry.parents[1] / entry.stem[:2] / entry.name
    older.parent.mkdir()
    entry.rename(older)
    told = f"the run {entry.stem} was trained by an older version of the code; run the study again, then load"
    with pytest.raises(ValueError, match=told):
        hiddencost.load(older)
    with pytest.raises(ValueError, match=told):
        hiddencost.load(study, method="flm", shots=2)


def test_the_command_predicts_a_line_for_each_image(study, tmp_path, capsys, monkeypatch):
    pixels = some_images(40, 30).permute(0, 2, 3, 1).numpy()
    files = [str(tmp_path / f"{number}.png") for number in range(4)]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image).save(file)
    model = hiddencost.load(study, method="flm", shots=2)
    model.save(tmp_path / "saved.safetensors")
    scores = model(model.transform(files)).softmax(1)
    expected = [
        f"{file}\t{model.classes[one.argmax()]}\t{one.max():.1%}" for file, one in zip(files, scores, strict=True)
    ]
    command.main(["predict", str(study), *files, "--method", "flm", "--shots", "2"])
    assert capsys.readouterr().out.splitlines() == expected
    command.main(["predict", str(tmp_path / "saved.safetensors"), *files])
    assert capsys.readouterr().out.splitlines() == expected
    with monkeypatch.context() as patch:  # the one way in of images
        patch.setattr(type(model), "transform", lambda self, photos: torch.zeros(1, 3, 24, 24, dtype=torch.uint8))
        command.main(["predict", str(tmp_path / "saved.safetensors"), *files])
    black = model(torch.zeros(1, 3, 24, 24, dtype=torch.uint8)).softmax(1)[0]
    line = f"\t{model.classes[black.argmax()]}\t{black.max():.1%}"
    assert capsys.readouterr().out.splitlines() == [file + line for file in files]
    for words, told in (
        (["predict", str(tmp_path / "none"), *files], "hiddencost: .*none: there is none; expected a study's folder"),
        (
            ["predict", str(study), str(tmp_path / "toy.npz"), "--method", "flm", "--shots", "2"],
            "hiddencost: .*toy.npz: ",
        ),
    ):
        with pytest.raises(SystemExit, match=told):
            command.main(words)
