"""The linear probe: a new head on stored features of the frozen network."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from hiddencost.datasets import prepared
from hiddencost.files import sha256_file
from hiddencost.methods.registry import METHODS
from hiddencost.networks.clip.texts import read_texts, zero_shot_head
from hiddencost.prompting.schedule import epoch_batches, optimiser, stream
from hiddencost.runs.pack import Runs, complete, score, timing
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import Recipe


def load_features(path: str | Path) -> tuple[Tensor, Tensor]:
    """Return the features of the training and the test images, float32 [N, D] each."""
    features = load_file(path)
    return features["train"], features["test"]


def train_probe(features: Tensor, labels: Tensor, classes: int, seed: int, recipe: Recipe) -> nn.Linear:
    """Train a linear head by cross-entropy with Adam (arXiv 2308.14969's linear probing).

    With the network frozen in evaluation mode and no augmentation, training on stored features is the same as
    training the head behind the network. features: float32 [N, D]; labels: int64 [N]. The random streams (the
    head's initial weights, PyTorch's default; the order of the batches) depend on `seed` alone.
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


def probe_pack(
    inputs: PackInputs,
    features: str | Path,
    request: PackRequest,
    output: str | Path,
    texts: str | Path | None = None,
) -> None:
    """Train the runs of lp on stored features, and on CLIP try those of zs; see `pack.complete`.

    The request's `recipe` is a Recipe, of which zs reads `test_batch_size` alone. texts: of a CLIP, the file of
    `clip.write_texts`, for zs: its texts classify the features as they are (`clip.zero_shot_head`), without a
    training image, whatever the shots.
    """
    untrained = [method for method, _ in request.runs if not METHODS[method].trains]
    recipe = Recipe.model_validate(request.recipe)

    def train(dataset: prepared.Dataset, runs: Runs) -> Iterator[tuple]:
        train_features, test_features = load_features(features)
        train_labels, test_labels = torch.tensor(dataset.train_labels), torch.tensor(dataset.test_labels)
        for run, (method, chosen) in runs.items():
            start = time.perf_counter()
            if method in untrained:
                learned = {"weight": zero_shot_head(*read_texts(texts))}
                epochs = 0
            else:
                inputs = train_features[chosen], train_labels[chosen], len(dataset.classes)
                learned = dict(train_probe(*inputs, request.seed, recipe).named_parameters())
                epochs = recipe.epochs
            seconds = time.perf_counter() - start
            result = timing(seconds, len(chosen) * epochs, torch.device("cpu"), "fp32")
            logits = functional.linear(test_features, **learned)
            yield run, learned, result | score(logits, test_labels, request.recipe["test_batch_size"])

    of_texts = {method: {"texts": sha256_file(texts)} for method in untrained}
    complete(inputs, request, output, train, of_texts, features=sha256_file(features))
