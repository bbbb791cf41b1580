"""The visual prompting runs of a pack."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.datasets import prepared
from hiddencost.files import sha256_file
from hiddencost.machine import free_memory
from hiddencost.methods.registry import METHODS
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.family import Family
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.engine import FrozenNetwork, PromptedNetwork
from hiddencost.prompting.matrix import map_logits
from hiddencost.prompting.plan import fit_to_device
from hiddencost.prompting.precision import resolve_precision
from hiddencost.prompting.prompt import Parameters
from hiddencost.prompting.train import train_prompts
from hiddencost.runs import interrupted, not_run, packfile
from hiddencost.runs.pack import Runs, TrainedRun, complete, timing
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.protocols import RUN_PROTOCOLS, shape_of_run
from hiddencost.study.recipes import PromptingProtocol, recipe_of_run

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
    names: str | Path | None = None,
) -> None:
    """Make the pack of the runs of visual prompting, trained side by side; see `pack.complete`. Methods that cannot
    map labels are not run, see `not_run.without_mapping`.

    Once a minute the runs under way are kept in the ledger's folder, and a job that was killed goes on from there.

    Args:
        inputs: the pack's files.
        request: what the table must hold; its recipe is one of RUN_PROTOCOLS.
        plans: folder of the plans, see `fit_to_device`.
        output: the table.
        device: to train on.
        memory: of the job, in bytes, see `fit_to_device`.
        texts: of a CLIP, the file of its texts, see `backbones.load_classifier`.
        names: for methods that read names, the file of how alike these are, see `clip.names.write_names`.
    """
    left_out = not_run.without_mapping(inputs, request, names)
    asked = request.asking(tuple(run for run in request.runs if run[0] not in left_out)) if left_out else request
    job = PromptingJob(inputs, asked, plans, device, memory, texts, names)
    determines = {"precision": resolve_precision(job.protocol.precision, device)}
    if texts:
        determines["texts"] = sha256_file(texts)
    of_names = {"names": sha256_file(names)} if names else {}
    by_names = [method for method, _ in asked.runs if METHODS[method].reads_names]
    complete(inputs, asked, output, job, dict.fromkeys(by_names, of_names), **determines)
    if left_out:
        not_run.add_not_run(inputs, request, left_out, Path(output))


@dataclass(frozen=True)
class PromptingJob:
    """Trains the prompts of a pack side by side; its fields are `train_pack`'s arguments."""

    inputs: PackInputs
    request: PackRequest
    plans: str | Path
    device: torch.device
    memory: int
    texts: str | Path | None
    names: str | Path | None = None

    @cached_property
    def family(self) -> Family:
        return family_of(Manifest.read(self.inputs.backbone).architecture)

    @cached_property
    def protocol(self) -> PromptingProtocol:
        """The recipe, with the batch size of the first run where they differ."""
        recipe = recipe_of_run(self.request.recipe, self.request.runs[0][1])
        return RUN_PROTOCOLS[shape_of_run(recipe, self.family.prompt)].model_validate(recipe)

    @property
    def unfinished(self) -> Path:
        """The file of the runs under way."""
        return packfile.unfinished(self.request)

    def prompted_network(self, runs: Runs) -> PromptedNetwork:
        """Return the pack's network, fitted to the device for some of its runs."""
        network, manifest = backbones.load_classifier(self.inputs.backbone, self.texts)
        network = self.family.for_inference(network, self.device)
        mean, std = backbones.normalisation(manifest.preprocessing, self.device)
        a_step = sum(min(run.batch_size, len(run.images)) for run in runs.values()) / len(runs)
        return fit_to_device(FrozenNetwork(network, mean, std, self.protocol), self.plans, self.memory, a_step)

    def train(self, dataset: prepared.Dataset, runs: Runs) -> Iterator[TrainedRun]:
        used, runs_on = _used(runs)
        images, labels = _on(self.device, dataset.train_images, used), torch.tensor(dataset.train_labels[used])
        prompted = self.prompted_network(runs)  # after the images, with what they leave of a GPU
        names = list(runs)
        stored = interrupted.states(self.unfinished, self.device)
        states = {number: stored[name] for number, name in enumerate(names) if name in stored}
        if states:
            log.info("%d runs go on where an earlier job was interrupted", len(states))
        precision = resolve_precision(self.protocol.precision, self.device)
        sizes = [run.batch_size for run in runs.values()]
        recipes = [self.protocol.model_copy(update={"batch_size": size}) for size in sizes]
        total = sum(one.images_on(len(run.images)) for one, run in zip(recipes, runs.values(), strict=True))
        described = tqdm(total=total, desc=f"0 of {len(runs)} runs done", unit=" images", mininterval=10)
        with described as bar, logging_redirect_tqdm():
            data = images, labels, len(dataset.classes), runs_on, self.request.seed
            more = self.protocol, bar.update, states, self._keeper(names)
            similarities = self.similarities(runs)
            trained = train_prompts(prompted, *data, *more, batch_sizes=sizes, similarities=similarities)
            for done, (number, run) in enumerate(trained, 1):
                bar.set_description(f"{done} of {len(runs)} runs done", refresh=False)
                how = timing(run.seconds, run.images, self.device, precision)
                learned = {name: tensor.cpu() for name, tensor in run.parameters.items()}
                learned |= {"mapping": run.mapping, "mappings": torch.tensor(run.mappings)}
                logits = None if run.diverged else _test_logits(prompted, dataset, run.parameters, run.mapping)
                yield TrainedRun(names[number], learned, how, logits, run.diverged)
        self.unfinished.unlink(missing_ok=True)
        if prompted.certified.images:  # a lower precision was tried
            log.info("images of mapping passes: %s", prompted.certified)

    def similarities(self, runs: Runs) -> Tensor | None:
        """Return how alike the names of classes are, where one of some runs maps by these."""
        if not any(METHODS[run.method].reads_names for run in runs.values()):
            return None
        assert self.names, "a run that maps by names has them among its inputs"
        return load_file(self.names)["similarities"]

    def predict(
        self, dataset: prepared.Dataset, runs: Runs, learned: Iterable[tuple[str, dict[str, Tensor]]]
    ) -> Iterator[tuple[str, Tensor]]:
        prompted = self.prompted_network(runs)
        for run, kept in learned:
            parameters = {name: kept[name].to(self.device) for name in prompted.new_prompt()}
            yield run, _test_logits(prompted, dataset, parameters, kept["mapping"])

    def _keeper(self, names: list[str]) -> Callable[[Callable[[], dict]], None]:
        """Return what keeps the states of runs under way, by their numbers, once in KEEP_SECONDS."""
        kept = time.monotonic()

        def keep(states: Callable[[], dict]) -> None:
            nonlocal kept
            if time.monotonic() - kept >= KEEP_SECONDS:
                interrupted.keep_states(self.unfinished, {names[number]: one for number, one in states().items()})
                kept = time.monotonic()

        return keep


def _test_logits(prompted: PromptedNetwork, dataset: prepared.Dataset, prompt: Parameters, mapping: Tensor) -> Tensor:
    """Return the logits of the test images over the target classes, [N, K]."""
    return map_logits(prompted.test_logits(dataset.test_images, prompt), mapping.to(prompted.device))


def _used(runs: Runs) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """Return the indices of the images that runs are trained on, in order, and the runs with indices among those."""
    used = np.unique(np.concatenate([run.images for run in runs.values()])).astype(np.int64)
    return used, [(run.method, np.searchsorted(used, run.images).tolist()) for run in runs.values()]


def _on(device: torch.device, images: np.ndarray, used: np.ndarray) -> Tensor:
    """Return images of a file, uint8, on the device; on the host where they would take half of its free memory."""
    some = torch.from_numpy(images[used])
    if device.type == "cuda" and some.nbytes > free_memory() / 2:
        log.info("%.1f GB of training images stay on the host", some.nbytes / 1e9)
        return some
    return some.to(device)
