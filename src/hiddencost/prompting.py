"""The visual prompting runs of a pack."""

from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost import backbone, datasets
from hiddencost.engine import PromptedNetwork, resolve_precision, train_prompts
from hiddencost.pack import PackInputs, complete, score, timing
from hiddencost.plan import choose
from hiddencost.protocol import RunProtocol


def train_pack(
    inputs: PackInputs, request: dict, plans: str | Path, output: str | Path, device: torch.device
) -> None:
    """Train the runs of rlm, flm and ilm that the ledger does not hold yet, side by side, and write the rows of all.

    See `pack.complete` for the request, whose `recipe` is a RunProtocol, and for the output; `plan.choose` for the
    folder `plans`.
    """
    protocol = RunProtocol.model_validate(request["recipe"])
    precision = resolve_precision(protocol.precision, device)

    def train(dataset: datasets.Dataset, runs: list[tuple[str, list[int]]]) -> Iterator[tuple]:
        network, _, manifest = backbone.load(inputs.backbone)
        network = backbone.for_inference(network, device)
        mean, std = backbone.normalisation(manifest, device)
        images, labels = (torch.tensor(part, device=device) for part in (dataset.train_images, dataset.train_labels))
        test_images, test_labels = torch.tensor(dataset.test_images, device=device), torch.tensor(dataset.test_labels)
        plan = choose(network, mean, std, protocol, plans)  # after the images, with the memory that they leave
        prompted = PromptedNetwork(network, mean, std, protocol, plan)
        total = protocol.epochs * sum(len(chosen) for _, chosen in runs)
        described = tqdm(total=total, desc=f"0 of {len(runs)} runs done", unit=" images", mininterval=10)
        with described as bar, logging_redirect_tqdm():
            steps = train_prompts(
                prompted, images, labels, len(dataset.classes), runs, request["seed"], protocol, bar.update
            )
            for done, (number, run) in enumerate(steps, 1):
                bar.set_description(f"{done} of {len(runs)} runs done", refresh=False)
                result = timing(run.seconds, run.images, device, precision)
                if run.diverged:
                    result |= {"status": "diverged", "reason": run.diverged}
                else:
                    logits = prompted.test_logits(test_images, run.prompt)[:, run.mapping.to(device)]
                    result |= score(logits, test_labels, protocol.test_batch_size)
                learned = {"prompt": run.prompt.cpu(), "mapping": run.mapping, "mappings": torch.tensor(run.mappings)}
                yield number, learned, result

    complete(inputs, request, output, train, precision=precision)
