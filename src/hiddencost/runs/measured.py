"""The measures of a compressed network and the dense one, run by run: see `measures`."""

from pathlib import Path

import numpy as np
import torch

from hiddencost.datasets.prepared import Dataset
from hiddencost.methods.method import Method
from hiddencost.methods.registry import METHODS
from hiddencost.prompting.matrix import map_logits
from hiddencost.runs import pairs
from hiddencost.runs.measures import MEASURES, Answers
from hiddencost.runs.pairs import Adapted, PairInputs
from hiddencost.runs.sides import DENSE, OWN

GRADIENT_IMAGES = 1000  # of the test set, evenly spaced, at most: with a gradient an image costs three times as much
COLUMNS = ["measure", "value", "value_dense"]


def write(inputs: PairInputs, output: Path, device: torch.device) -> None:
    """Write each measure of each pair of runs, a row a measure: `value`, the compressed network's, and `value_dense`,
    the dense one's, empty where the measure is of both; see `pairs.evaluate`."""
    known: dict[str, tuple] = {}  # measures of the networks alone, and what these are of, by its side

    def look(pair: dict[str, Adapted], dataset: Dataset, runs: dict[str, str]) -> list[dict]:
        for side in pair.keys() - known.keys():
            features, logits = pair[side].features(dataset.test_images)
            known[side] = features.numpy(), logits.argmax(1).cpu().numpy()
        both = {side: answers(pair[side], dataset, runs[side], *known[side]) for side in pair}
        rows = []
        for name, measure in MEASURES.items():
            values = known.get(name) or measure.values(both[OWN], both[DENSE])
            if measure.of_networks:
                known[name] = values
            rows.append(dict(zip(COLUMNS, (name, *values), strict=True)))
        return rows

    pairs.evaluate(inputs, output, device, COLUMNS, look)


def answers(adapted: Adapted, dataset: Dataset, run: str, features: np.ndarray, first: np.ndarray) -> Answers:
    """Return what a network answers with what a run has learned; features, first: see `Answers`."""
    images, labels, learned = dataset.test_images, torch.tensor(dataset.test_labels), adapted.learned(run)
    mapping, logits = learned["mapping"], adapted.logits(images, learned).cpu()
    method = _method(adapted, run)
    some = np.unique(np.linspace(0, len(images) - 1, min(GRADIENT_IMAGES, len(images))).astype(np.int64))
    return Answers(
        features=features,
        first=first,
        predicted=logits.argmax(1).numpy(),
        logits=map_logits(logits, mapping).numpy(),
        labels=labels.numpy(),
        gradient=torch.cat([one.flatten() for one in adapted.gradient(images[some], labels[some], learned)]).numpy(),
        mapping=method.sources_of(mapping).numpy(),
        of_seeds=np.array(
            [method.sources_of(adapted.learned(one)["mapping"]).numpy() for one in _other_seeds(adapted, run)]
        ),
        of_epochs=drawn_at(method, learned["mappings"], adapted.mapping_interval).numpy(),
    )


def drawn_at(method: Method, mappings: torch.Tensor, interval: int) -> torch.Tensor:
    """Return the mappings of a run's epochs, int64 [E, K], at which it was drawn, or, of one that is learned, all."""
    if not method.moves_mapping:
        return mappings[:1]
    return mappings if method.learns_mapping else mappings[::interval]


def _method(adapted: Adapted, run: str) -> Method:
    return METHODS[next(method for (method, _, _), one in adapted.runs.items() if one == run)]


def _other_seeds(adapted: Adapted, run: str) -> list[str]:
    """Return the other seeds' runs that are alike in method and images per class."""
    alike = {key[:2] for key, one in adapted.runs.items() if one == run}
    return list(dict.fromkeys(one for key, one in adapted.runs.items() if key[:2] in alike and one != run))
