"""What a study can be extended by from outside, in a few lines: registered, named in a study, run to its figures."""

import in_process
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor
from scipy.optimize import linear_sum_assignment

import hiddencost
from hiddencost.datasets import prepared
from hiddencost.figures.registry import FIGURES, FigureKind
from hiddencost.methods.mapping import count_predictions
from hiddencost.methods.registry import METHODS, Method
from hiddencost.networks.convolutional import Convolutional
from hiddencost.prompting.prompts import PROMPTS, BorderPrompt
from hiddencost.study.recipes import RUN_PROTOCOLS, RunProtocol


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
    assert finished.runs["method"].value_counts().to_dict() == {"flm": 8, "olm": 8}
    mappings = pd.read_parquet(finished.tables["mappings"]).groupby("method")["source"]
    assert len(mappings.get_group("olm")) == 8 * 3
    assert set(pd.read_parquet(finished.tables["remapped"])["method"]) == {"olm"}
    assert {"mapping", "movement", "prompts"} < set(finished.figures)
    assert ImageColor.getrgb(matching.colour) in colours_of(finished.figures["accuracy"])
    keys = np.load(finished.tables["prompts"]).files
    assert "dense/toy/olm/full/0" in keys


class Sides(BorderPrompt):
    """A border on the left and on the right alone."""

    def mask(self):
        rows = torch.arange(self.canvas)
        return super().mask() & torch.isin(rows, rows[slice(*self.inside)])[:, None]


class SidesProtocol(RunProtocol):
    prompt = "sides"


def test_a_prompt_shape(tmp_path, monkeypatch, threads):
    monkeypatch.setitem(PROMPTS, "sides", Sides)
    monkeypatch.setitem(RUN_PROTOCOLS, "sides", SidesProtocol)
    monkeypatch.setattr(Convolutional, "prompt", "sides")
    finished = in_process.run(in_process.STUDY | {"methods": ["ilm"]}, tmp_path, monkeypatch)
    assert set(finished.runs["status"]) == {"ok"}
    network = hiddencost.load("results/tiny", backbone="dense", shots="full", seed=0)
    learned = (network.prompt != 0).all(0)
    assert learned[2:14, :2].all()  # images of 12 pixels on a canvas of 16
    assert learned[2:14, 14:].all()
    assert not learned[:2].any()
    assert not learned[14:].any()
    assert not learned[:, 2:14].any()
    dataset = prepared.load("resources/datasets/toy/12")
    predicted = network(torch.tensor(dataset.test_images)).argmax(1).numpy()
    assert (predicted == dataset.test_labels).mean() == pytest.approx(network.run["accuracy"])
    shown = np.load(finished.tables["prompts"])["dense/toy/ilm/full/0"]
    assert len(np.unique(shown[:, 2:14, :2])) > 5
    assert (shown[:, :2] == shown[0, 0, 0]).all()
    assert "prompts" in finished.figures


def draw_losses(tables, content, settings):
    """A bar a backbone: its mean accuracy."""
    figure = Figure(layout="constrained")
    means = tables["summary"].groupby("backbone", sort=False)["accuracy_mean"].mean()
    figure.subplots().bar([content.backbones[name].label for name in means.index], means, color="#123456")
    return figure


def test_a_figure(tmp_path, monkeypatch, threads):
    bars = FigureKind("test_extending:draw_losses", ("summary",), "Mean accuracy of each network.", compares=True)
    monkeypatch.setitem(FIGURES, "bars", bars)
    finished = in_process.run(in_process.STUDY | {"methods": ["flm"]}, tmp_path, monkeypatch)
    assert ImageColor.getrgb("#123456") in colours_of(finished.figures["bars"])
