"""How far does rounding move an accuracy? Runs of the same seeds, computed in ways that differ by rounding alone.

    python bench/rounding.py

Takes MobileNetV2 through the workflow, where it is not there yet, and the repository's part of CIFAR-10, and writes
bench/results/rounding.{json,md}. The first step of Adam is the sign of the gradient, whatever its size: where a
gradient is all but zero its rounding decides, and from there on two computations of one run are two runs.
"""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from certified import ROOT, network
from throughput import DEVICE, machine, publish
from torch import Tensor

from hiddencost import catalog
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.readers.registry import READERS
from hiddencost.datasets.splits import draw_splits, take_shots
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.train import train_prompts
from hiddencost.study.recipes import RunProtocol

DATASET, CLASSES = "cifar10-part", 10
METHODS, SHOTS, SEEDS = ("rlm", "flm", "ilm"), (1, 10), range(4)
PROTOCOL = RunProtocol(
    **{"canvas": 112, "image_size": 32, "epochs": 3, "learning_rate": 0.01, "milestones": [0.5], "gamma": 0.1},
    **{"batch_size": 20, "shuffle": True, "mapping_interval": 1, "precision": "fp32", "test_batch_size": 128},
)
CHUNK = 32


class Way(NamedTuple):
    """How runs are computed.

    Attributes:
        chunk: how many images go through the network at a time for a gradient.
        other_threads: whether on one thread, or, where that is all there is, on two.
        ulps: by how many units in the last place of float32, 1.2e-7 of it at most, the mean of the input is moved.
    """

    chunk: int = CHUNK
    other_threads: bool = False
    ulps: int = 0


WAYS = {
    f"chunks of {CHUNK}": Way(),
    "chunks of 8": Way(chunk=8),
    "chunks of 64": Way(chunk=64),
    "other threads": Way(other_threads=True),
    "input moved by 1e-7": Way(ulps=1),
}


def images_and_labels() -> tuple[tuple[Tensor, Tensor], tuple[np.ndarray, Tensor]]:
    """Return the training images, uint8 [M, 3, s, s], and labels, int64 [M]; and those of the test."""
    entry = catalog.datasets()[DATASET]
    files = {part: ROOT / entry.files[part].sources[0].path for part in ("train", "test")}
    read = READERS["cifar_binary"](DATASET, {}, files, ROOT)
    parts = []
    for part in (read.train, read.test):
        pairs = list(part.images)
        pictures = np.stack([pixels(image, PROTOCOL.image_size) for image, _ in pairs])
        parts.append((pictures, torch.tensor([label for _, label in pairs])))
    (train, train_labels), test = parts
    return (torch.from_numpy(train).to(DEVICE), train_labels), test


def accuracies(way: Way, seed: int, data: tuple, runs: list[tuple[str, list[int]]]) -> list[float]:
    """Train the runs, each its method and images, in one way. Returns the test accuracy of each, in %."""
    folded, mean, std = network()
    if way.ulps:
        mean = torch.nextafter(mean, mean + way.ulps)
    prompted = PromptedNetwork(folded, mean, std, PROTOCOL, Plan(chunk=way.chunk))
    (images, labels), (test, expected) = data
    found, before = [float("nan")] * len(runs), torch.get_num_threads()
    torch.set_num_threads(before if not way.other_threads else 1 if before > 1 else 2)
    for number, run in train_prompts(prompted, images, labels, CLASSES, runs, seed, PROTOCOL):
        logits = prompted.test_logits(test, run.parameters)[:, run.mapping.to(DEVICE)].cpu()
        found[number] = 100 * (logits.argmax(1) == expected).double().mean().item()
    torch.set_num_threads(before)
    return found


def measure() -> pd.DataFrame:
    """Return a row a run: its way, method, shots, seed and accuracy, in %."""
    data, rows = images_and_labels(), []
    cells = list(itertools.product(METHODS, SHOTS))
    for seed, (name, way) in itertools.product(SEEDS, WAYS.items()):
        classes = draw_splits(DATASET, data[0][1].numpy(), CLASSES, seed)
        found = accuracies(way, seed, data, [(method, take_shots(classes, shots)) for method, shots in cells])
        told = {"way": name, "seed": seed}
        rows += [told | {"method": m, "shots": s, "accuracy": a} for (m, s), a in zip(cells, found, strict=True)]
        print(told, [round(accuracy, 1) for accuracy in found], flush=True)
    return pd.DataFrame(rows)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Say how far rounding moves accuracies, and how far seeds do.

    Args:
        runs: a row a run, as `measure` returns them.

    Returns:
        A row a method and number of shots, in points: `mean`, the accuracy; `rounding`, the standard deviation over
        the ways of one seed, pooled over seeds; `seeds`, that over the seeds of one way, pooled over ways (both
        n - 1); and `most`, the largest difference of two ways of one seed.
    """
    cell = ["method", "shots"]

    def pooled(by: str) -> pd.Series:
        return runs.groupby([*cell, by], sort=False)["accuracy"].var().groupby(cell, sort=False).mean() ** 0.5

    ways = runs.groupby([*cell, "seed"], sort=False)["accuracy"]
    columns = {
        "mean": runs.groupby(cell, sort=False)["accuracy"].mean(),
        "rounding": pooled("seed"),
        "seeds": pooled("way"),
        "most": (ways.max() - ways.min()).groupby(cell, sort=False).max(),
    }
    return pd.DataFrame(columns).reset_index()


def main() -> None:
    runs = measure()
    table = summarise(runs)
    lines = [
        f"MobileNetV2, {DATASET}: images of {PROTOCOL.image_size} pixels on {PROTOCOL.canvas}, {PROTOCOL.epochs} "
        f"epochs, fp32, 500 test images; {len(SEEDS)} seeds, each computed in {len(WAYS)} ways "
        f"({', '.join(WAYS)}); measured on {machine()}. Accuracy in %, standard deviations in points.",
        "",
        "| method | shots | accuracy | deviation over ways of one seed | over seeds of one way "
        "| most between two ways of a seed |",
        "|---|---|---|---|---|---|",
    ]
    row = "| {method} | {shots} | {mean:.1f} | {rounding:.2f} | {seeds:.2f} | {most:.1f} |"
    lines += [row.format(**record) for record in table.to_dict("records")]
    records = {"device": machine(), "cells": table.to_dict("records"), "runs": runs.to_dict("records")}
    publish("rounding", records, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
