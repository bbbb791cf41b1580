"""The linear probe: a new head on stored features of the frozen network."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from hiddencost.datasets import prepared
from hiddencost.files import sha256_file
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.schedule import epoch_batches, optimiser, stream
from hiddencost.runs.pack import Runs, TrainedRun, complete, timing
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import Recipe

TextHead = Callable[[], Tensor]  # float32 [classes, D], over features


def load_features(path: str | Path) -> tuple[Tensor, Tensor]:
    """Return the features of the training and the test images, float32 [N, D] each."""
    features = load_file(path)
    return features["train"], features["test"]


def train_probe(features: Tensor, labels: Tensor, classes: int, seed: int, recipe: Recipe) -> nn.Linear:
    """Train a linear head by cross-entropy with Adam (arXiv 2308.14969's linear probing).

    With the network frozen in evaluation mode and no augmentation, training on stored features is the same as
    training the head behind the network.

    Args:
        features: float32 [N, D].
        labels: int64 [N].
        classes: how many there are.
        seed: of the random streams: the head's initial weights (PyTorch's default), and the order of the batches.
        recipe: of the training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(features.shape[1], classes)
    shuffle = stream(seed, "batches")
    adam, schedule = optimiser(list(head.parameters()), recipe, len(labels))
    for _ in range(recipe.epochs):
        for batch in epoch_batches(len(labels), recipe, shuffle):
            loss = functional.cross_entropy(head(features[batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    return head.requires_grad_(False)


def linear_probe(
    features: Tensor, labels: Tensor, classes: int, seed: int, recipe: Recipe, text_head: TextHead | None
) -> dict[str, Tensor]:
    """Make the classifier of a run of lp; see `train_probe`.

    Args:
        features: of the images that the budget chooses, float32 [N, D]; none where the method does not train.
        labels: int64 [N].
        classes: how many there are.
        seed: of the run.
        recipe: of the training.
        text_head: makes the weights of the classifier by the network's texts for the dataset, None where it has none.

    Returns:
        A linear layer over features: `weight`, float32 [classes, D], and, if it has one, `bias`, [classes].
    """
    return dict(train_probe(features, labels, classes, seed, recipe).named_parameters())


def zero_shot(
    features: Tensor, labels: Tensor, classes: int, seed: int, recipe: Recipe, text_head: TextHead | None
) -> dict[str, Tensor]:
    """Make the classifier of a run of zs, of texts alone; see `linear_probe` for the arguments."""
    assert text_head is not None, "zs is of networks with texts"
    return {"weight": text_head()}


def probe_pack(
    inputs: PackInputs,
    features: str | Path,
    request: PackRequest,
    output: str | Path,
    texts: str | Path | None = None,
) -> None:
    """Make the pack of the runs of lp and, on networks with texts, of zs; see `pack.complete`.

    Args:
        inputs: the pack's files.
        features: of the dataset's images, see `features.extract_features`.
        request: what the table must hold; its recipe is a Recipe.
        output: the table.
        texts: the file of `networks.embed.embed_texts`, of a network that has texts, for zs.
    """
    untrained = [method for method, _ in request.runs if not METHODS[method].trains]
    of_texts = {"texts": sha256_file(texts)} if texts else {}
    family = family_of(Manifest.read(inputs.backbone).architecture)
    text_head = partial(family.text_head, texts) if texts else None
    job = ProbeJob(request.seed, Recipe.model_validate(request.recipe), features, text_head)
    complete(inputs, request, output, job, dict.fromkeys(untrained, of_texts), features=sha256_file(features))


@dataclass(frozen=True)
class ProbeJob:
    """Makes linear classifiers of stored features: each run's by the function of its method."""

    seed: int
    recipe: Recipe
    features: str | Path
    text_head: TextHead | None

    def train(self, dataset: prepared.Dataset, runs: Runs) -> Iterator[TrainedRun]:
        train_features, test_features = load_features(self.features)
        labels = torch.tensor(dataset.train_labels)
        for run, (method, chosen, _) in runs.items():
            start = time.perf_counter()
            inputs = train_features[chosen], labels[chosen], len(dataset.classes), self.seed, self.recipe
            head = METHODS[method].load_function()(*inputs, self.text_head)
            images = len(chosen) * self.recipe.epochs
            how = timing(time.perf_counter() - start, images, torch.device("cpu"), "fp32")
            yield TrainedRun(run, head, how, functional.linear(test_features, **head))

    def predict(
        self, dataset: prepared.Dataset, runs: Runs, learned: Iterable[tuple[str, dict[str, Tensor]]]
    ) -> Iterator[tuple[str, Tensor]]:
        _, test_features = load_features(self.features)
        for run, head in learned:
            yield run, functional.linear(test_features, **head)
