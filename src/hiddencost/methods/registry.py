"""The methods of adapting a network to a task, by name, and the jobs that run them.

Nothing here imports torch: the Snakefile reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FAMILIES = ("convolutional", "clip")  # families of networks


@dataclass(frozen=True)
class Job:
    """A kind of job that trains packs: all its methods of one (backbone, dataset, seed).

    recipe: the key of the study that holds their recipe; folder: of their tables, in results/STUDY; passes: what a
    training image costs an epoch, in forward passes through the network; 0 of methods that train on stored features.
    """

    recipe: str
    folder: str
    passes: int


JOBS = {
    "train": Job("protocol", "runs", passes=2),  # backward, to the image alone, costs as much as forward
    "probe": Job("probe", "probes", passes=0),
    "finetune": Job("finetune", "finetuned", passes=3),  # backward to the weights costs as much again
}


@dataclass(frozen=True)
class Method:
    """A method: what tables and figures call it, what runs it, and how it maps labels.

    name: in studies and tables. label, colour (#rrggbb): in figures and in the report. job: of `JOBS`. families: of
    the networks that it is served for. trains: whether it learns from the chosen images of a budget; if not, it
    classifies by the texts of a CLIP.

    Of visual prompting, which maps each target class to a source class of the network:
    draw: makes a mapping, int64 [classes], of (predictions, labels, source_classes, classes, generator): the source
    class predicted for each chosen image and its label, int64 [N] each, on the CPU, and a random stream of the run's
    seed. first_pass: whether the first mapping is drawn from predictions under the untrained prompt, which take a
    pass over the images; if not, draw is given None for them. redraws: whether the mapping is drawn anew at the start
    of each `mapping_interval`-th epoch, from predictions under the prompt of then.
    """

    name: str
    label: str
    colour: str
    job: str = "train"
    families: tuple[str, ...] = FAMILIES
    trains: bool = True
    draw: Callable[[Tensor | None, Tensor, int, int, torch.Generator], Tensor] | None = None
    first_pass: bool = False
    redraws: bool = False

    @property
    def prompts(self) -> bool:
        """Whether it learns a visual prompt, and maps labels."""
        return self.job == "train"

    @property
    def probes(self) -> bool:
        """Whether it classifies stored features."""
        return self.job == "probe"

    @property
    def changes_weights(self) -> bool:
        """Whether it trains the network's own weights."""
        return self.job == "finetune"

    @property
    def recipe(self) -> str:
        """The key of the study that holds its recipe."""
        return JOBS[self.job].recipe

    @property
    def maps_by_predictions(self) -> bool:
        """Whether its mapping depends on what the network predicts."""
        return self.first_pass or self.redraws

    def redraws_at(self, epoch: int, interval: int) -> bool:
        """Whether the mapping is drawn anew at the start of an epoch, counted from 0."""
        return self.redraws and epoch > 0 and epoch % interval == 0

    def mapping_passes(self, epochs: int, interval: int) -> int:
        """Return how many passes over the chosen images the mappings of a run take."""
        return self.first_pass + sum(self.redraws_at(epoch, interval) for epoch in range(epochs))


def _at_random(
    predictions: Tensor | None, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    from hiddencost.methods.mapping import random_mapping

    return random_mapping(source_classes, classes, generator)


def _by_frequency(
    predictions: Tensor, labels: Tensor, source_classes: int, classes: int, generator: torch.Generator
) -> Tensor:
    from hiddencost.methods.mapping import count_predictions, greedy_mapping

    return greedy_mapping(count_predictions(predictions, labels, source_classes, classes))


# in the order of figures and tables; colours are Okabe and Ito's, told apart by all common kinds of colour vision
METHODS = {
    method.name: method
    for method in (
        Method("rlm", "RLM-VP", "#E69F00", draw=_at_random),
        Method("flm", "FLM-VP", "#0072B2", draw=_by_frequency, first_pass=True),
        Method("ilm", "ILM-VP", "#D55E00", draw=_by_frequency, first_pass=True, redraws=True),
        Method("lp", "linear probe", "#555555", job="probe"),
        Method("ft", "fine-tuning", "#009E73", job="finetune", families=("convolutional",)),
        Method("zs", "zero-shot", "#CC79A7", job="probe", families=("clip",), trains=False),
    )
}


def run_by(job: str) -> list[str]:
    """Return the names of the methods that a job runs."""
    return [method.name for method in METHODS.values() if method.job == job]
