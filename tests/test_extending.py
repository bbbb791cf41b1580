"""What a study can be extended by from outside, in a few lines: registered, named in a study, run to its figures."""

import in_process
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageColor
from scipy.optimize import linear_sum_assignment

from hiddencost.methods.mapping import count_predictions
from hiddencost.methods.registry import METHODS, Method


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
    matching = Method("olm", label="OLM-VP", colour="#56B4E9", draw=best_matching, first_pass=True, redraws=True)
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
