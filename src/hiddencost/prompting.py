"""The visual prompting runs of a pack."""

import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from hiddencost import backbone, datasets
from hiddencost.engine import PromptedNetwork, resolve_precision, train_prompt
from hiddencost.pack import PackInputs, Train, complete, score, timing
from hiddencost.protocol import RunProtocol


def train_pack(inputs: PackInputs, request: dict, output: str | Path, device: torch.device) -> None:
    """Train the runs of rlm, flm and ilm that the ledger does not hold yet, and write the rows of all.

    See `pack.complete` for the request, whose `recipe` is a RunProtocol, and for the output.
    """
    protocol = RunProtocol.model_validate(request["recipe"])
    precision = resolve_precision(protocol.precision, device)

    def prepare(dataset: datasets.Dataset) -> Train:
        network, _, manifest = backbone.load(inputs.backbone)
        mean, std = backbone.normalisation(manifest, device)
        prompted = PromptedNetwork(backbone.for_inference(network, device), mean, std, protocol)
        train_labels = torch.tensor(dataset.train_labels)
        test_images = torch.tensor(dataset.test_images, device=device)
        test_labels = torch.tensor(dataset.test_labels)
        classes = len(dataset.classes)

        def train(method: str, chosen: list[int]) -> tuple[dict[str, Tensor], dict]:
            images = torch.tensor(dataset.train_images[chosen], device=device)
            labels = train_labels[chosen].to(device)
            start = time.perf_counter()
            total = len(chosen) * protocol.epochs
            with tqdm(total=total, desc=f"{method}, {len(chosen)} images", unit=" images", mininterval=10) as bar:
                run = train_prompt(prompted, images, labels, classes, method, request["seed"], protocol, bar.update)
            result = timing(start, bar.n, device, precision)
            if run.diverged:
                result |= {"status": "diverged", "reason": run.diverged}
            else:
                logits = prompted.predict(test_images, run.prompt)[:, run.mapping.to(device)]
                result |= score(logits, test_labels, protocol.test_batch_size)
            learned = {"prompt": run.prompt.cpu(), "mapping": run.mapping, "mappings": torch.tensor(run.mappings)}
            return learned, result

        return train

    complete(inputs, request, output, prepare, precision=precision)
