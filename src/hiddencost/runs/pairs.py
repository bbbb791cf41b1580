"""A compressed network beside the dense one, each with what its finished prompting runs learned: nothing is trained.

What is stored is computed with anew, in float32, so that an accuracy may differ from that of the table of runs by
rounding.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from hiddencost.datasets import prepared
from hiddencost.files import atomic
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.layers import head_of
from hiddencost.prompting.engine import Plan, PromptedNetwork, stacked
from hiddencost.prompting.matrix import map_logits
from hiddencost.prompting.prompt import Parameters
from hiddencost.runs import ledger, packfile
from hiddencost.runs.sides import DENSE, OWN
from hiddencost.study.protocols import RUN_PROTOCOLS, shape_of_run
from hiddencost.study.recipes import recipe_of_run

log = logging.getLogger(__name__)

AT_A_TIME = {"cpu": 8, "cuda": 64}  # images, with a gradient
RUN = ["method", "shots", "seed"]  # of the runs of a backbone on a dataset
KEYS = ["backbone", "dense", "dataset", *RUN, "run", "run_dense"]


@dataclass(frozen=True)
class PairInputs:
    """The files of a pair.

    Attributes:
        folders: of the two backbones, by `OWN` and `DENSE`.
        packs: the tables of their prompting runs.
        texts: of those that have texts, the files.
        dataset: the folder of the images, at the size of prompting.
        dataset_name: as the study has it.
    """

    folders: dict[str, Path]
    packs: dict[str, list[Path]]
    texts: dict[str, Path]
    dataset: Path
    dataset_name: str

    @classmethod
    def of(cls, files: Any, dataset: str) -> "PairInputs":
        """Take them from named input files: a list of files stands for the folder that they are in."""
        texts = {OWN: list(files.texts), DENSE: list(files.dense_texts)}
        return cls(
            folders={OWN: Path(files.backbone[0]).parent, DENSE: Path(files.dense[0]).parent},
            packs={OWN: list(map(Path, files.packs)), DENSE: list(map(Path, files.dense_packs))},
            texts={side: Path(found[0]) for side, found in texts.items() if found},
            dataset=Path(files.dataset[0]).parent,
            dataset_name=dataset,
        )


class Adapted:
    """A network and its finished prompting runs.

    Attributes:
        prompted: the network behind canvases.
        mapping_interval: of the recipe.
        runs: the run's name in the ledger by (method, shots, seed).
    """

    def __init__(self, folder: Path, packs: Sequence[Path], texts: Path | None, device: torch.device):
        """Read a network and its runs; see `PairInputs`."""
        request = packfile.stored_request(packs[0])
        assert request, "a pack's table of this version"
        network, manifest = backbones.load_classifier(folder, texts)
        family = family_of(manifest.architecture)
        recipe = recipe_of_run(request.recipe, request.runs[0][1])
        protocol = RUN_PROTOCOLS[shape_of_run(recipe, family.prompt)].model_validate(recipe)
        network, plan = family.for_inference(network, device), Plan(chunk=AT_A_TIME[device.type])
        normalisation = backbones.normalisation(manifest.preprocessing, device)
        self.prompted, self.head = PromptedNetwork(network, *normalisation, protocol, plan), head_of(network)
        self.mapping_interval = protocol.mapping_interval
        self.runs, self.ledger = finished(packs), request.ledger

    def learned(self, run: str) -> dict[str, Tensor]:
        """Return what a run has learned: what its prompt names, its mapping, and the mappings of its epochs."""
        return ledger.read(self.ledger, run)[0]

    def _prompt(self, learned: Mapping[str, Tensor]) -> Parameters:
        return {name: learned[name].to(self.prompted.device) for name in self.prompted.new_prompt()}

    def logits(self, images: np.ndarray, learned: Mapping[str, Tensor]) -> Tensor:
        """Return the source logits of images, uint8 [N, 3, s, s], under a prompt that either network has learned:
        float32 [N, S]."""
        return self.prompted.test_logits(images, self._prompt(learned))

    def features(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return what enters the classifier under the prompt as training begins, float32 [N, D] on the host, and the
        source logits."""
        caught: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))
        try:
            logits = self.logits(images, self.prompted.new_prompt())
        finally:
            hook.remove()
        return torch.cat(caught), logits

    def gradient(self, images: np.ndarray, labels: Tensor, learned: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the gradients of the mean cross-entropy of images with respect to all that a prompt trains."""
        device, prompt = self.prompted.device, self._prompt(learned)
        mapping = learned["mapping"].to(device)
        trained = prompt.keys() - self.prompted.prompt.not_trained

        def compute(part: slice, _: slice) -> tuple[Tensor, ...]:
            leaves = {name: one.requires_grad_(name in trained) for name, one in stacked([prompt]).items()}
            pictures, truth = torch.tensor(images[part]).to(device), labels[part].to(device)
            runs = torch.zeros(len(pictures), dtype=torch.int64, device=device)
            logits = self.prompted.logits(pictures, leaves, runs, "fp32")
            loss = functional.cross_entropy(map_logits(logits, mapping), truth, reduction="sum")
            return torch.autograd.grad(loss, [one for one in leaves.values() if one.requires_grad])

        chunks = [gradients for gradients, _, _ in self.prompted.in_chunks([len(images)], compute, gradient=True)]
        return [torch.cat(of_chunks).sum(0).cpu() / len(images) for of_chunks in zip(*chunks, strict=True)]


def finished(packs: Iterable[Path]) -> dict[tuple[str, str, int], str]:
    """Return the names in the ledger of the runs that have a result, by (method, shots, seed)."""
    tables = [pd.read_parquet(pack) for pack in packs]
    rows = pd.concat([table[table["status"] == "ok"] for table in tables if "run" in table] or [pd.DataFrame()])
    return {(one.method, one.shots, one.seed): one.run for one in rows.itertuples()}


def evaluate(
    inputs: PairInputs,
    output: Path,
    device: torch.device,
    columns: Sequence[str],
    look: Callable[[dict[str, Adapted], prepared.Dataset, dict[str, str]], list[dict]],
    swaps: bool = False,
) -> None:
    """Write what is found of each two runs of a pair that are alike in method, images per class and seed.

    There is no row where one of them has no result, where the networks have other source classes or prompts, or where
    a prompt is not the other network's, as `swaps` asks.

    Args:
        inputs: the pair's files.
        output: the table, parquet: KEYS and `columns`.
        device: that computes.
        columns: of what is found.
        look: finds rows of `columns`, of both networks and the names of both runs, by OWN and DENSE, and the dataset.
            It is called once for budgets that choose the same images, which are one run.
        swaps: whether it puts a network behind the other's prompt.
    """
    requests = {side: packfile.stored_request(packs[0]) for side, packs in inputs.packs.items()}
    whose = {OWN: "backbone", DENSE: "dense"}
    names = {whose[side]: request.backbone for side, request in requests.items() if request}
    runs = {side: finished(packs) for side, packs in inputs.packs.items()}
    common = [(key, {side: runs[side][key] for side in runs}) for key in runs[OWN] if key in runs[DENSE]]
    rows: list[dict] = []
    if common and (pair := comparable(inputs, device, swaps)):
        dataset, found = prepared.load(inputs.dataset), dict[tuple[str, ...], list[dict]]()
        for key, both in tqdm(common, unit=" runs", mininterval=10):
            if (of_runs := tuple(both.values())) not in found:
                found[of_runs] = look(pair, dataset, both)
            keys = names | {"dataset": inputs.dataset_name} | dict(zip(RUN, key, strict=True))
            keys |= {"run": both[OWN], "run_dense": both[DENSE]}
            rows += [keys | row for row in found[of_runs]]
    with atomic(output) as temporary:
        pd.DataFrame(rows, columns=[*KEYS, *columns]).to_parquet(temporary, index=False)


def comparable(inputs: PairInputs, device: torch.device, swaps: bool) -> dict[str, Adapted] | None:
    """Return both networks, None, with a warning, where a prompt or a mapping of one is none of the other's.

    See `evaluate` for the arguments. A prompt that is added to normalised images is one for networks that normalise
    them alike.
    """
    pair = {
        side: Adapted(folder, inputs.packs[side], inputs.texts.get(side), device)
        for side, folder in inputs.folders.items()
    }
    own, dense = (pair[side].prompted for side in (OWN, DENSE))
    if own.source_classes != dense.source_classes or own.prompt != dense.prompt:
        log.warning("the two networks have other source classes or other prompts: nothing of them is compared")
        return None
    alike = torch.equal(own.mean, dense.mean) and torch.equal(own.std, dense.std)
    if swaps and own.prompt.behind_normalisation and not alike:
        log.warning(
            "the prompts are added to normalised images, which the two networks normalise otherwise: none is swapped"
        )
        return None
    return pair
