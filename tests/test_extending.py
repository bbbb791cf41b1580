"""What a study can be extended by from outside, in a few lines: registered, named in a study, run to its figures."""

from dataclasses import dataclass
from pathlib import Path

import in_process
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor
from scipy.optimize import linear_sum_assignment
from torch import nn

import hiddencost
from hiddencost.catalog.entries import CheckpointLayout, Preprocessing
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.compression.registry import COMPRESSIONS, CONTROLS, Control, OneShotCompression
from hiddencost.datasets import prepared
from hiddencost.figures.registry import FIGURES, FigureKind
from hiddencost.files import sha256_file, write_json
from hiddencost.methods.mapping import count_predictions
from hiddencost.methods.registry import METHODS, Method
from hiddencost.networks import backbones
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.convolutional import Convolutional
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.formats.reading import ImportedCheckpoint
from hiddencost.networks.formats.registry import READERS, Reader
from hiddencost.networks.layers import layer_weights
from hiddencost.prompting.border import BorderPrompt
from hiddencost.prompting.prompts import PROMPTS
from hiddencost.report.summary import measures
from hiddencost.results.claims import Cells
from hiddencost.runs.metrics import METRICS, Metric
from hiddencost.study.protocols import RUN_PROTOCOLS
from hiddencost.study.recipes import RunProtocol


def colours_of(image):
    """The colours of an image file, as (r, g, b)."""
    return {colour for _, colour in Image.open(image).convert("RGB").getcolors(1 << 24)}


def best_matching(predictions, labels, source_classes, classes, generator):
    """A one-to-one mapping of most images in all, where the greedy one takes the largest count first."""
    counts = count_predictions(predictions, labels, source_classes, classes)
    targets, sources = linear_sum_assignment(counts.T, maximize=True)
    assert targets.tolist() == list(range(classes))
    return torch.from_numpy(sources)


def test_a_label_mapping(tmp_path, monkeypatch, threads):
    how = {"mapping": f"{__name__}:best_matching", "first_pass": True, "redraws": True}
    matching = Method("olm", label="OLM-VP", colour="#56B4E9", **how)
    monkeypatch.setitem(METHODS, "olm", matching)
    finished = in_process.run(in_process.STUDY | {"methods": ["flm", "olm"]}, tmp_path, monkeypatch)
    assert set(finished.runs["status"]) == {"ok"}
    listed = in_process.listed_figures(finished.study)
    assert {"accuracy", "heatmap", "reliability", "glance", "mapping", "movement", "prompts"} <= listed.keys()
    # no figure knows methods by name
    assert in_process.draw_figures(in_process.Call(finished.study), listed).keys() == listed.keys()
    assert finished.runs["method"].value_counts().to_dict() == {"flm": 8, "olm": 8}
    mappings = pd.read_parquet(finished.tables["mappings"]).groupby("method")["source"]
    assert len(mappings.get_group("olm")) == 8 * 3
    assert set(pd.read_parquet(finished.tables["remapped"])["method"]) == {"olm"}
    keys = np.load(finished.tables["prompts"]).files
    assert "dense/toy/olm/full/0" in keys


@dataclass(frozen=True)
class Sides(BorderPrompt):
    """A border on the left and on the right alone, as high as is stated."""

    height: int

    def mask(self):
        rows = torch.arange(self.canvas)
        above = (self.canvas - self.height) // 2
        return super().mask() & torch.isin(rows, rows[above : above + self.height])[:, None]


class SidesProtocol(RunProtocol):
    height: int

    prompt = "sides"
    prompt_settings = ("height",)


class Sided(Convolutional):
    """Networks that are prompted at their sides."""

    prompt = "sides"

    def run_settings(self, checkpoint, image_size):
        return super().run_settings(checkpoint, image_size) | {"height": 8}


def test_a_prompt_shape(tmp_path, monkeypatch, threads):
    monkeypatch.setitem(PROMPTS, "sides", f"{__name__}:Sides")
    monkeypatch.setitem(RUN_PROTOCOLS, "sides", SidesProtocol)
    monkeypatch.setitem(FAMILIES, "convolutional", Sided("a network", "all convolutions", "photos"))
    finished = in_process.run(in_process.STUDY | {"methods": ["ilm"]}, tmp_path, monkeypatch, ["prompts"])
    assert set(finished.runs["status"]) == {"ok"}
    network = hiddencost.load("results/tiny", backbone="dense", shots="full", seed=0)
    learned = (network.prompt != 0).all(0)
    assert learned[4:12, :2].all()  # images of 12 pixels on a canvas of 16
    assert learned[4:12, 14:].all()
    assert not learned[:4].any()
    assert not learned[12:].any()
    assert not learned[:, 2:14].any()
    dataset = prepared.load("results/tiny/own/datasets/toy/12")
    predicted = network(torch.tensor(dataset.test_images)).argmax(1).numpy()
    assert (predicted == dataset.test_labels).mean() == pytest.approx(network.run["accuracy"])
    shown = np.load(finished.tables["prompts"])["dense/toy/ilm/full/0"]
    assert len(np.unique(shown[:, 2:14, :2])) > 5
    assert (shown[:, :2] == shown[0, 0, 0]).all()


def draw_losses(tables, content, settings):
    """A bar a backbone: its mean accuracy."""
    figure = Figure(layout="constrained")
    means = tables["summary"].groupby("backbone", sort=False)["accuracy_mean"].mean()
    figure.subplots().bar([content.backbones[name].label for name in means.index], means, color="#123456")
    return figure


def test_a_figure(tmp_path, monkeypatch, threads):
    bars = FigureKind("test_extending:draw_losses", ("summary",), "Mean accuracy of each network.", compares=True)
    monkeypatch.setitem(FIGURES, "bars", bars)
    study = in_process.STUDY | {"methods": ["flm"], "shots": [1, 1000]}
    finished = in_process.run(study, tmp_path, monkeypatch, ["bars"])
    assert ImageColor.getrgb("#123456") in colours_of(finished.figures["bars"])
    # no class of the toy has a thousand images
    assert finished.runs.groupby("shots")["classes_short"].unique().map(list).to_dict() == {"1": [0], "1000": [3]}


class Striped(OneShotCompression):
    """Removes weights at even distances, whatever they are."""

    def apply(self, network, family, settings):
        weights = family.prunable_weights(network)
        masks = {key: self.mask(weight.tensor, settings) for key, weight in weights.items()}
        for key, weight in weights.items():
            weight.tensor.mul_(masks[key])
        return masks

    def check(self, network, family, settings):
        weights = {key: weight.tensor for key, weight in family.prunable_weights(network).items()}
        return [f"{key}: no stripes" for key, tensor in weights.items() if tensor[~self.mask(tensor, settings)].any()]

    def mask(self, tensor, settings):
        return (torch.arange(tensor.numel()) % round(1 / settings["sparsity"]) > 0).view_as(tensor)


def test_a_compression(tmp_path, monkeypatch, threads):
    striped = Striped("striped", "Stripes", description="weights at even distances")
    monkeypatch.setitem(COMPRESSIONS, "striped", striped)
    backbone = {"name": "striped", "checkpoint": "mobilenetv2"}
    backbone |= {"compression": {"algorithm": "striped", "sparsity": 0.25}}
    config = in_process.STUDY | {"methods": ["flm", "lp"], "backbones": [in_process.STUDY["backbones"][0], backbone]}
    finished = in_process.run(config, tmp_path, monkeypatch, ["heatmap", "glance"])
    runs = finished.runs[finished.runs["backbone"] == "striped"]
    assert set(runs["status"]) == {"ok"}
    assert set(runs["compression"]) == {"striped"}
    assert set(runs["sparsity_measured"]) == {0.25}
    assert set(Cells(backbones=["striped"]).backbones) == {"striped"}  # claims may speak of it
    shown = in_process.listed_figures(finished.study)["heatmap"].backbones
    assert shown["striped"].label == "Stripes 25 %"
    # the gate asks it whether a network keeps to its settings
    made = tmp_path / "results/tiny/backbones/striped"
    network, masks, manifest = backbones.load(made)
    network[0].weight.fill_(1)
    backbones.save(made, network.state_dict(), masks, manifest)
    report = verify(made, {"sparsity_tolerance": 1}, lambda network, manifest: Recognised(0, 0, "photos", 0))
    assert "0.weight: no stripes" in report.reasons


def test_a_compression_that_looks_at_images(tmp_path, monkeypatch, threads):
    """Of the study's own, 16 of 24 drawn by the seed: to runs and the gate."""
    settings = {"calibration": "toy", "samples": 16}
    levels = {
        "half": {"algorithm": "wanda", "sparsity": 0.5},
        "again": {"algorithm": "wanda", "sparsity": 0.5, "seed": 1},
        "pairs": {"algorithm": "sparsegpt", "n": 2, "m": 4},
    }
    made = [
        {"name": name, "checkpoint": "mobilenetv2", "compression": settings | one} for name, one in levels.items()
    ]
    config = {"methods": ["flm"], "seeds": [0], "shots": [1], "backbones": [in_process.STUDY["backbones"][0], *made]}
    finished = in_process.run(in_process.STUDY | config, tmp_path, monkeypatch)
    runs = finished.runs.set_index("backbone")
    assert runs["compression"].to_dict() == {
        **{"dense": "none", "half": "wanda", "again": "wanda", "pairs": "sparsegpt-2:4"}
    }
    assert runs["sparsity_measured"]["half"] == pytest.approx(0.5, abs=0.01)
    assert 0.3 < runs["sparsity_measured"]["pairs"] < 0.5  # of the stem none, whose channels are three
    shown = in_process.listed_figures(finished.study)["heatmap"].backbones
    assert shown["pairs"].label == "SparseGPT 2:4 50 %"
    networks = {name: backbones.load(tmp_path / "results/tiny/backbones" / name) for name in levels}
    stated = settings | levels["half"] | {"n": None, "m": None, "seed": 0}
    assert networks["half"][2].compression_settings == stated
    assert any(not torch.equal(networks["half"][1][key], mask) for key, mask in networks["again"][1].items())


class Negated(Control):
    """A network with the signs of all weights turned."""

    def apply(self, network, masks, architecture):
        for weight in layer_weights(network).values():
            weight.tensor.neg_()
        return network, masks


def test_a_control(tmp_path, monkeypatch, threads):
    negated = Negated("signs turned", "with the signs of its weights turned", keeps_weights=True)
    monkeypatch.setitem(CONTROLS, "negated", negated)
    backbone = {"name": "negated", "checkpoint": "mobilenetv2", "control": "negated"}
    config = in_process.STUDY | {"methods": ["flm", "lp"], "backbones": [in_process.STUDY["backbones"][0], backbone]}
    finished = in_process.run(config, tmp_path, monkeypatch, ["heatmap", "glance"])
    runs = finished.runs[finished.runs["backbone"] == "negated"]
    assert set(runs["status"]) == {"ok"}
    assert set(runs["control"]) == {"negated"}
    assert set(Cells(backbones=["negated"]).backbones) == {"negated"}
    shown = in_process.listed_figures(finished.study)["heatmap"].backbones
    assert (shown["negated"].role, shown["negated"].label) == ("control", "signs turned")
    (dense, _, _), (turned, _, _) = (backbones.load(tmp_path / f"results/tiny/backbones/{name}") for name in shown)
    assert torch.equal(dense[0].weight, -turned[0].weight)


def read(files):
    """A reader of checkpoints that are an .npz, an array each weight."""
    arrays = np.load(files["weights"])
    state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return ImportedCheckpoint(state, {}, {"keys": len(state)})


class Perceptron(nn.Sequential):
    """A network without a convolution."""

    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 10))


class Perceptrons(Convolutional):
    """Networks whose linear layers are pruned, the head with them."""

    name, prefixes, sparsity_over = "perceptron", ("perceptron/",), "linear_layers"

    def build(self, architecture, widths=None):
        return Perceptron().eval()

    def prunable_weights(self, network):
        return layer_weights(network)

    def sparsity_groups(self, network, stem):
        return {"linear_layers": list(layer_weights(network))}


def test_a_format_and_a_family_of_networks(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "npz", Reader(__name__))
    monkeypatch.setitem(FAMILIES, "perceptron", Perceptrons("a perceptron", "all linear layers", "photos"))
    published, file = Perceptron().eval().requires_grad_(False), tmp_path / "weights.npz"
    np.savez(file, **{key: tensor.numpy() for key, tensor in published.state_dict().items()})
    files = {"weights": {"path": str(file), "sha256": sha256_file(file), "source": "test"}}
    write_json(tmp_path / "fetched.json", {"failed": None, "files": files})
    layout = CheckpointLayout(
        architecture="perceptron/tiny",
        format="npz",
        preprocessing=Preprocessing(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear"),
        stem=None,
        upstream_top1=None,
        sparsity_over="linear_layers",
    )
    import_checkpoint("tiny", layout, tmp_path / "fetched.json", tmp_path / "imported")
    compress(tmp_path / "imported", tmp_path / "dense", None, None)
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(backbones.load(tmp_path / "dense")[0](images), published(images))
    compress(tmp_path / "imported", tmp_path / "pruned", {"algorithm": "magnitude", "sparsity": 0.75}, None)
    known = Recognised(20, 20, "photos", 0)
    verification = verify(tmp_path / "pruned", {"sparsity_tolerance": 0.001}, lambda network, manifest: known)
    assert verification.passed, verification.reasons
    assert verification.sparsity["linear_layers"] == pytest.approx(0.75, abs=0.001)
    assert Reader(__name__).file == Path(__file__)


def draw_sureness(tables, content, settings):
    summary = tables["summary"]
    figure = Figure(figsize=(3, 3))
    figure.subplots().scatter(
        summary["sureness_mean"], summary["sureness_dense_minus_backbone_mean"], color="#654321"
    )
    return figure


def test_a_metric(tmp_path, monkeypatch, threads):
    """It scores the runs of a study that has run before, and trains nothing."""
    config = in_process.STUDY | {"methods": ["flm", "lp"], "seeds": [0]}
    before = in_process.run(config, tmp_path, monkeypatch).runs
    monkeypatch.setattr("hiddencost.runs.prompting.train_prompts", None)  # a call would raise
    monkeypatch.setattr("hiddencost.runs.probe.train_probe", None)
    sureness = Metric(
        "Mean confidence", lambda one: one.confidence.mean().item(), percent=True, unit="%", paired=True
    )
    monkeypatch.setitem(METRICS, "sureness", sureness)
    kind = FigureKind("test_extending:draw_sureness", ("summary",), "Mean confidence.", compares=True)
    monkeypatch.setitem(FIGURES, "sureness", kind)
    finished = in_process.run(config, tmp_path, monkeypatch, ["sureness"])
    pd.testing.assert_frame_equal(finished.runs.drop(columns="sureness"), before)
    assert finished.runs["sureness"].between(1 / 3, 1).all()
    assert pd.read_parquet(finished.tables["runs"])["sureness"].std() > 0
    assert ImageColor.getrgb("#654321") in colours_of(finished.figures["sureness"])
    assert "Mean confidence" in {one["label"] for one in measures()}
