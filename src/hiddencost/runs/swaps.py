"""The cost taken apart: each network of a pair under the other's prompt, under its mapping, and under both."""

from itertools import product
from pathlib import Path

import torch

from hiddencost.datasets.prepared import Dataset
from hiddencost.prompting.matrix import map_logits
from hiddencost.runs import pairs
from hiddencost.runs.pairs import Adapted, PairInputs
from hiddencost.runs.sides import SIDES, SWAPS, accuracy_of


def write(inputs: PairInputs, output: Path, device: torch.device) -> None:
    """Write the test accuracies, shares of 1, of the eight ways to put together a network, a prompt and a mapping of
    a compressed network's run and the dense one's: see `pairs.evaluate`."""
    pairs.evaluate(inputs, output, device, SWAPS, swapped, swaps=True)


def swapped(pair: dict[str, Adapted], dataset: Dataset, runs: dict[str, str]) -> list[dict]:
    """Return the accuracies `SWAPS`, as one row; see `pairs.evaluate` for the arguments.

    A border is learned as pixels, before a network's own normalisation; what is added to an image (on CLIP, or under
    masks) is learned behind it, and is swapped between networks that normalise alike, see `pairs.comparable`.
    """
    learned = {side: pair[side].learned(run) for side, run in runs.items()}
    labels, found = torch.tensor(dataset.test_labels), {}
    for network, prompt in product(SIDES, SIDES):
        logits = pair[network].logits(dataset.test_images, learned[prompt]).cpu()
        for mapping in SIDES:
            predicted = map_logits(logits, learned[mapping]["mapping"]).argmax(1)
            found[accuracy_of(network, prompt, mapping)] = (predicted == labels).double().mean().item()
    return [found]
