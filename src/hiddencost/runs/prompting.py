"""The visual prompting runs of a pack."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.datasets import prepared
from hiddencost.files import read_json, sha256_file
from hiddencost.machine import free_memory
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.prompting.engine import FrozenNetwork
from hiddencost.prompting.plan import fit_to_device
from hiddencost.prompting.precision import resolve_precision
from hiddencost.prompting.train import train_prompts
from hiddencost.runs import interrupted
from hiddencost.runs.pack import Runs, complete, score, timing
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import RUN_PROTOCOLS

log = logging.getLogger(__name__)
KEEP_SECONDS = 60  # what a killed job loses at most of its training


def train_pack(
    inputs: PackInputs,
    request: PackRequest,
    plans: str | Path,
    output: str | Path,
    device: torch.device,
    memory: int,
    texts: str | Path | None = None,
) -> None:
    """Train the runs of visual prompting that the ledger does not hold yet, side by side, and write the rows of all.

    See `pack.complete` for the request, whose `recipe` is one of RUN_PROTOCOLS, and for the output; `fit_to_device`
    for the folder `plans` and for `memory`; `backbone.load_classifier` for `texts`. Once a minute the runs under way
    are kept in the ledger's folder, and a job that was killed goes on from there.
    """
    family = family_of(read_json(inputs.backbone / "manifest.json")["architecture"])
    protocol = RUN_PROTOCOLS[family.prompt].model_validate(request.recipe)
    precision = resolve_precision(protocol.precision, device)
    pack = "_".join(str(getattr(request, axis)) for axis in ("backbone", "dataset", "seed"))
    unfinished = Path(request.ledger, "unfinished", f"{pack}.states")

    def train(dataset: prepared.Dataset, runs: Runs) -> Iterator[tuple]:
        network, manifest = backbones.load_classifier(inputs.backbone, texts)
        network = family.for_inference(network, device)
        mean, std = backbones.normalisation(manifest, device)
        used, runs_on = _used(runs)
        images, labels = _on(device, dataset.train_images, used), torch.tensor(dataset.train_labels[used])
        test_labels = torch.tensor(dataset.test_labels)
        a_step = sum(min(protocol.batch_size, len(chosen)) for _, chosen in runs_on) / len(runs_on)
        # after the images, with what they leave of a GPU
        prompted = fit_to_device(FrozenNetwork(network, mean, std, protocol), plans, memory, a_step)
        names = list(runs)
        stored = interrupted.states(unfinished, device)
        states = {number: stored[name] for number, name in enumerate(names) if name in stored}
        if states:
            log.info("%d runs go on where an earlier job was interrupted", len(states))
        kept = time.monotonic()

        def keep(states: Callable[[], dict]) -> None:
            nonlocal kept
            if time.monotonic() - kept >= KEEP_SECONDS:
                interrupted.keep_states(unfinished, {names[number]: state for number, state in states().items()})
                kept = time.monotonic()

        total = protocol.epochs * sum(len(chosen) for _, chosen in runs.values())
        described = tqdm(total=total, desc=f"0 of {len(runs)} runs done", unit=" images", mininterval=10)
        with described as bar, logging_redirect_tqdm():
            data = images, labels, len(dataset.classes), runs_on
            steps = train_prompts(prompted, *data, request.seed, protocol, bar.update, states, keep)
            for done, (number, run) in enumerate(steps, 1):
                bar.set_description(f"{done} of {len(runs)} runs done", refresh=False)
                result = timing(run.seconds, run.images, device, precision)
                if run.diverged:
                    result |= {"status": "diverged", "reason": run.diverged}
                else:
                    logits = prompted.test_logits(dataset.test_images, run.prompt)[:, run.mapping.to(device)]
                    result |= score(logits, test_labels, protocol.test_batch_size)
                learned = {"prompt": run.prompt.cpu(), "mapping": run.mapping, "mappings": torch.tensor(run.mappings)}
                yield names[number], learned, result
        unfinished.unlink(missing_ok=True)
        if prompted.certified.images:  # a lower precision was tried
            log.info("images of mapping passes: %s", prompted.certified)

    of_texts = {"texts": sha256_file(texts)} if texts else {}
    complete(inputs, request, output, train, precision=precision, **of_texts)


def _used(runs: Runs) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """Return the indices of the images that runs are trained on, in order, and the runs with indices among those."""
    used = np.unique(np.concatenate([chosen for _, chosen in runs.values()])).astype(np.int64)
    return used, [(method, np.searchsorted(used, chosen).tolist()) for method, chosen in runs.values()]


def _on(device: torch.device, images: np.ndarray, used: np.ndarray) -> torch.Tensor:
    """Return images of a file, uint8, on the device; on the host where they would take half of its free memory."""
    some = torch.from_numpy(images[used])
    if device.type == "cuda" and some.nbytes > free_memory() / 2:
        log.info("%.1f GB of training images stay on the host", some.nbytes / 1e9)
        return some
    return some.to(device)
