import copy
import math

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from conftest import report_prepared
from safetensors import safe_open
from torch import nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from hiddencost.compression.make import compress
from hiddencost.datasets.prepared import ARRAYS
from hiddencost.files import write_json
from hiddencost.networks import backbones, layers
from hiddencost.prompting.schedule import stream
from hiddencost.runs import finetune, ledger
from hiddencost.runs.finetune import augment, fine_tune, finetune_pack, logits_of, with_new_head
from hiddencost.runs.metrics import METRICS, Metric
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import RunFineTuning, finetuning_size

CPU = torch.device("cpu")
CANVAS = 64
RECIPE = RunFineTuning(
    **{"epochs": 2, "learning_rate": 1e-3, "weight_decay": 5e-4, "batch_size": 6, "shuffle": True},
    **{"test_batch_size": 16, "precision": "fp32", "canvas": CANVAS},
)

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture(scope="module")
def pruned(mobilenetv2, tmp_path_factory):
    """The real MobileNetV2 without the smallest 30 % of its convolutions' weights: the folder of a backbone."""
    folder = tmp_path_factory.mktemp("pruned")
    compress(mobilenetv2, folder, {"algorithm": "magnitude", "sparsity": 0.3}, None)
    return folder


def colours(count, seed=0):
    """Images [count, 3, s, s] whose strongest channel is their class, and the classes."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(seed).integers(0, 128, (count, 3, *2 * [finetuning_size(CANVAS)]), np.uint8)
    images[np.arange(count), labels] += 128
    return images, labels


def constants(dtype=torch.float32):
    return torch.full((3, 1, 1), 0.5, dtype=dtype), torch.full((3, 1, 1), 0.25, dtype=dtype)


def small_network():
    torch.manual_seed(0)
    start = [nn.Conv2d(3, 8, 3, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*start, nn.Dropout(0.2), nn.Linear(8, 1000)).eval().requires_grad_(False)


def train_small(seed=0, masks=(), **changes):
    network = with_new_head(small_network(), 3, seed)
    recipe = RECIPE.model_copy(update=changes)
    return network, fine_tune(network, dict(masks), *colours(12), range(12), seed, recipe, *constants())


def nonzero(network, masks):
    return sum(int((network.get_parameter(key)[~mask] != 0).sum()) for key, mask in masks.items())


def test_masks_hold_after_every_step_on_a_real_network(pruned):
    source, masks, manifest = backbones.load(pruned)
    network = with_new_head(source, 3, seed=0)
    assert sum(int((~mask).sum()) for mask in masks.values()) > 600_000
    seen = {"optimiser": [], "step": []}
    # Adam itself does not move what has no gradient and is zero, whatever its weight decay
    hook = register_optimizer_step_post_hook(lambda *_: seen["optimiser"].append(nonzero(network, masks)))
    try:
        fine_tune(
            *(
                network,
                masks,
                *colours(12),
                range(12),
                0,
                RECIPE,
                *backbones.normalisation(manifest.preprocessing, CPU),
            ),
            progress=lambda images: seen["step"].append(nonzero(network, masks)),
        )
    finally:
        hook.remove()
    assert seen == {"optimiser": [0] * 4, "step": [0] * 4}
    before = source.state_dict()
    for name, weight in network.named_parameters():
        if not name.startswith("classifier."):
            kept = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            assert (weight[kept] != before[name][kept]).float().mean() > 0.9, f"{name} was not trained"
    moved = [name for name, value in network.named_buffers() if "running" in name and (value != before[name]).any()]
    assert len(moved) == 2 * 52, "batch norm did not adapt"


def test_without_its_mask_a_zero_does_not_last():
    key, mask = "0.weight", torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    for masks, expected in (({}, int((~mask).sum())), ({key: mask}, 0)):
        network = with_new_head(small_network(), 3, seed=0)
        network[0].weight.detach().masked_fill_(~mask, 0)
        fine_tune(network, masks, *colours(12), range(12), 0, RECIPE, *constants())
        assert nonzero(network, {key: mask}) == expected


def test_masks_undo_what_the_optimiser_does_to_pruned_weights():
    network = with_new_head(small_network(), 3, seed=0)
    masks, seen = {"0.weight": torch.arange(216).reshape(8, 3, 3, 3) % 2 == 0}, []
    hook = register_optimizer_step_post_hook(lambda *_: network[0].weight.detach().fill_(float("nan")))
    try:
        arguments = network, masks, *colours(12), range(12), 0, RECIPE, *constants()
        fine_tune(*arguments, progress=lambda _: seen.append(nonzero(network, masks)))
    finally:
        hook.remove()
    assert seen == [0, 0]


def test_a_pruned_weight_that_is_not_zero_at_the_end_is_an_error():
    network = with_new_head(small_network(), 3, seed=0)
    masks = {"0.weight": torch.zeros(8, 3, 3, 3, dtype=torch.bool)}
    arguments = network, masks, *colours(12), range(12), 0, RECIPE, *constants()
    with pytest.raises(RuntimeError, match=r"0\.weight: 5 of 216 pruned weights are not zero"):
        fine_tune(*arguments, progress=lambda _: network[0].weight.detach().flatten()[:5].fill_(1))


def reference(network, masks, images, labels, seed, recipe, mean, std):
    """The published fine-tuning, written plainly: losses by step."""
    weights = dict(network.named_parameters())
    first = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    second, step, losses = copy.deepcopy(first), 0, []
    order, places = stream(seed, "batches"), stream(seed, "augmentation")
    torch.manual_seed(stream(seed, "dropout").initial_seed())
    network.train()
    for epoch in range(recipe.epochs):
        rate = recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
        for batch in torch.randperm(len(labels), generator=order).split(recipe.batch_size):
            room = images.shape[-1] - recipe.canvas + 1
            tops, lefts = torch.randint(room, (2, len(batch), 1), generator=places)
            mirrored = torch.rand(len(batch), 1, generator=places) < 0.5
            inputs = []
            for index, top, left, mirror in zip(batch, tops, lefts, mirrored, strict=True):
                image = torch.from_numpy(images[index])[:, top : top + recipe.canvas, left : left + recipe.canvas]
                inputs.append((((image.flip(2) if mirror else image).to(mean.dtype) / 255) - mean) / std)
            loss = functional.cross_entropy(network(torch.stack(inputs)), torch.from_numpy(labels)[batch])
            gradients = torch.autograd.grad(loss, list(weights.values()))
            step += 1
            with torch.no_grad():
                for (key, weight), gradient in zip(weights.items(), gradients, strict=True):
                    mask = masks[key].to(mean.dtype) if key in masks else 1
                    gradient = mask * gradient + recipe.weight_decay * weight
                    first[key] = 0.9 * first[key] + 0.1 * gradient
                    second[key] = 0.999 * second[key] + 0.001 * gradient**2
                    weight -= (
                        rate * (first[key] / (1 - 0.9**step)) / ((second[key] / (1 - 0.999**step)).sqrt() + 1e-8)
                    )
                    weight *= mask
            losses.append(loss.item())
    return losses


def test_training_follows_the_published_algorithm_step_by_step(pruned):
    """In float64, where rounding does not grow, on the real network with its masks and its dropout."""
    source, masks, _ = backbones.load(pruned)
    mean, std = constants(torch.float64)
    networks = [with_new_head(source.double(), 3, seed=5) for _ in range(2)]
    recipe = RECIPE.model_copy(update={"weight_decay": 0.05})
    images, labels = colours(12)
    trained = fine_tune(networks[0], masks, images, labels, range(12), 5, recipe, mean, std)
    with torch.random.fork_rng(devices=[]):
        losses = reference(networks[1], masks, images, labels, 5, recipe, mean, std)
    assert len(losses) == trained.images / 6 == 4
    torch.testing.assert_close(torch.tensor(trained.losses), torch.tensor(losses), rtol=1e-6, atol=1e-6)
    for (key, found), expected in zip(
        networks[0].state_dict().items(), networks[1].state_dict().values(), strict=True
    ):
        if found.is_floating_point():
            assert (found - expected).norm() <= 1e-5 * expected.norm() + 1e-9, key


def test_a_seed_gives_the_same_numbers_again_and_another_seed_others():
    (one, first), (two, second), (_, other) = train_small(0), train_small(0), train_small(1)
    state = torch.random.get_rng_state()
    fine_tune(with_new_head(one, 3, 0), {}, *colours(12), range(12), 0, RECIPE, *constants())
    assert torch.equal(state, torch.random.get_rng_state()), "the global random stream was touched"
    assert first.losses == second.losses
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert first.losses != other.losses


def test_each_epoch_tells_its_losses(caplog):
    caplog.set_level("DEBUG", finetune.__name__)
    course = train_small()[1]
    told = [run for record in caplog.records for run in record.ended]
    losses = np.reshape(course.losses, (len(told), -1)).tolist()
    assert told == [("ft", 12, epoch, of_epoch, ()) for epoch, of_epoch in enumerate(losses, 1)]
    assert len(told) > 1


def test_only_the_chosen_images_are_trained_on():
    images, labels = colours(24)
    twice = np.concatenate([images[12:], images[:12]]), np.concatenate([labels[12:], labels[:12]])
    losses = []
    for (some, theirs), chosen in (((images, labels), range(12)), (twice, range(12, 24))):
        network = with_new_head(small_network(), 3, 0)
        losses.append(fine_tune(network, {}, some, theirs, chosen, 0, RECIPE, *constants()).losses)
    assert losses[0] == losses[1]


def test_bf16_is_close_to_fp32():
    fp32, bf16 = (train_small(precision=precision)[1].losses for precision in ("fp32", "bf16"))
    assert fp32 != bf16
    assert bf16 == pytest.approx(fp32, rel=0.02)


def test_augmentation_crops_and_mirrors():
    size, canvas, count = 9, 6, 400
    images = torch.arange(3 * size * size, dtype=torch.uint8).reshape(1, 3, size, size).expand(count, -1, -1, -1)
    crops = augment(images, canvas, stream(0, "augmentation"))
    assert crops.shape == (count, 3, canvas, canvas)
    assert crops.dtype == torch.uint8
    windows = {}
    for top in range(4):
        for left in range(4):
            window = images[0, :, top : top + canvas, left : left + canvas]
            windows |= {str(window.tolist()): (top, left, False), str(window.flip(2).tolist()): (top, left, True)}
    found = [windows[str(crop.tolist())] for crop in crops]
    assert set(found) == set(windows.values()), "a place or a side is never taken"
    assert 0.4 < sum(mirrored for _, _, mirrored in found) / count < 0.6
    assert torch.equal(crops, augment(images, canvas, stream(0, "augmentation")))


def test_the_test_sees_the_centre():
    images, _ = colours(5)
    images[:, :, 4:-5, 4:-5] = 255  # 73 pixels: 64 in the middle, from (73 - 64) / 2, and none of the border
    network = nn.Flatten()
    assert images.shape[-1] == 73
    logits = logits_of(network, images, CANVAS, *constants())
    assert logits.shape == (5, 3 * CANVAS**2)
    assert (logits == 2).all()


@pytest.mark.parametrize("build", [torchvision.models.resnet18, lambda: timm.create_model("mobilenetv3_small_050")])
def test_the_head_is_new_and_the_source_untouched(build):
    source = build().eval().requires_grad_(False)
    before = copy.deepcopy(source.state_dict())
    network = with_new_head(source, 7, seed=0)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert all(parameter.requires_grad for parameter in network.parameters())
    fine_tune(network, {}, *colours(4), range(4), 0, RECIPE.model_copy(update={"epochs": 1}), *constants())
    assert all(torch.equal(before[key], value) for key, value in source.state_dict().items())
    heads = [layers.head_of(with_new_head(source, 7, seed)).weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_published_size():
    assert finetuning_size(224) == 256
    assert finetuning_size(CANVAS) == 73


@pytest.fixture
def pack(pruned, tmp_path, monkeypatch):
    """The files of a pack, in a folder of its own: the pruned network, its head too, colours to tell, a split."""
    monkeypatch.chdir(tmp_path)
    network, masks, manifest = backbones.load(pruned)
    masks["classifier.1.weight"] = torch.arange(1280).expand(1000, -1) % 2 == 0
    network.classifier[1].weight.mul_(masks["classifier.1.weight"])
    backbones.save("backbone", network.state_dict(), masks, manifest)
    (tmp_path / "dataset").mkdir()
    for name, array in zip(ARRAYS, (*colours(36), *colours(30, seed=1)), strict=True):
        np.save(tmp_path / "dataset" / name, array)
    report_prepared(["red", "green", "blue"], sha256=dict.fromkeys(ARRAYS, "ab")).write("dataset")
    gate = {"passed": True, "reasons": [], "sparsity_declared": 0.3, "sparsity_measured": 0.3}
    write_json("verification.json", gate)
    write_json("split.json", {"permutations": [list(range(label, 36, 3)) for label in range(3)]})
    return PackInputs(*(tmp_path / name for name in ("backbone", "verification.json", "dataset", "split.json")))


def run_pack(pack, *shots, folder="ledger", metrics="m1", **changes):
    request = {"study": "s", "backbone": "pruned", "dataset": "colours", "seed": 0, "code": "c1", "ledger": folder}
    recipe = RECIPE.model_dump() | {"epochs": 6, "batch_size": 9} | changes
    asked = PackRequest(
        **request, metrics=metrics, canvas=64, size="73", recipe=recipe, runs=[("ft", n) for n in shots]
    )
    finetune_pack(pack, asked, "out.parquet", CPU)
    return pd.read_parquet("out.parquet")


@pytest.mark.slow
def test_a_pack_learns_what_is_plain_and_repeats_itself(pack):
    table = run_pack(pack, 1, "full")
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["n_train"].tolist() == [3, 36]
    assert table["accuracy"][1] > 0.8, "chance is 1/3"
    assert table["precision"].tolist() == ["fp32", "fp32"]
    assert (table["bin_count"].map(sum) == 30).all()
    assert (table["images_per_second"] * table["train_seconds"]).tolist() == pytest.approx([18, 216])
    again = run_pack(pack, "full", folder="another")
    assert again.loc[0, ["run", "accuracy", "nll", "ece"]].equals(table.loc[1, ["run", "accuracy", "nll", "ece"]])
    for run in table["run"]:
        with safe_open(ledger.entry("ledger", run), "pt") as kept:
            assert list(kept.keys()) == ["logits"], "a network is too large for the ledger"
            assert kept.get_tensor("logits").shape == (30, 3)


def test_a_new_metric_scores_the_test_logits_that_are_kept(pack, monkeypatch):
    table = run_pack(pack, 1)
    monkeypatch.setitem(METRICS, "sureness", Metric("Sureness", lambda one: one.confidence.mean().item()))
    monkeypatch.setattr(finetune, "fine_tune", None)  # it would fail
    again = run_pack(pack, 1, metrics="m2")
    assert 1 / 3 < again["sureness"][0] < 1
    pd.testing.assert_frame_equal(again.drop(columns="sureness"), table)


def test_a_run_that_diverges_is_recorded_as_such(pack):
    table = run_pack(pack, 2, learning_rate=1e30)
    assert table["status"].tolist() == ["diverged"]
    assert "accuracy" not in table
    assert table["reason"][0] == "the loss is nan at step 2, epoch 2"
    assert table["train_seconds"][0] > 0


def test_images_of_another_size_are_refused(pack):
    with pytest.raises(ValueError, match="dataset: images of 73 pixels; expected 91, for a canvas of 80"):
        run_pack(pack, 1, canvas=80)
