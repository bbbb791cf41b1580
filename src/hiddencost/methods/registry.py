"""The methods of adapting a network to a task, by name, and the jobs that run them.

What the rest of the code asks of a method is an attribute of its entry in METHODS; nothing else compares names. A new
label mapping is a function (see `Method.draw`) and an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Job:
    """A kind of job that trains packs: the runs of one (backbone, dataset, seed), of all methods that it runs.

    Attributes:
        recipe: the key of the study that holds the recipe of its methods.
        folder: of its tables, in results/STUDY.
        passes: what a training image costs an epoch, in forward passes through the network; 0 where methods train on
            stored features.
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
    """A method: what tables and figures call it, which job runs it, and how it maps labels.

    A label mapping says which class of the network, a source class, stands for each class of the target task.

    Attributes:
        name: in studies and tables.
        label: in figures and in the report.
        colour: #rrggbb, in figures and in the report.
        job: that runs it, of `JOBS`.
        families: names of the families of networks that it serves (`networks.families`); empty: all.
        trains: whether it learns from the images that a budget chooses; zero-shot classification, by the texts of a
            CLIP, does not.
        draw: of visual prompting, draws a mapping. Its arguments: the source class that the network predicts for each
            chosen image, int64 [N], on the CPU, or None (see first_pass); the images' labels, int64 [N]; the numbers
            of source and target classes; a random generator, a function of the run's seed alone. It returns the
            source class of each target class, int64 [K], no source class twice.
        first_pass: whether the first mapping is drawn from predictions under the untrained prompt, which take a pass
            over the chosen images; if not, `draw` has None in their place.
        redraws: whether the mapping is drawn again at the start of each `mapping_interval`-th epoch, from predictions
            under the prompt of that time.
    """

    name: str
    label: str
    colour: str
    job: str = "train"
    families: tuple[str, ...] = ()
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

    def serves(self, family: str) -> bool:
        """Say whether it is for networks of a family, by the family's name."""
        return not self.families or family in self.families

    @property
    def recipe(self) -> str:
        """The key of the study that holds its recipe."""
        return JOBS[self.job].recipe

    @property
    def maps_by_predictions(self) -> bool:
        """Whether its mapping depends on what the network predicts."""
        return self.first_pass or self.redraws

    def redraws_at(self, epoch: int, interval: int) -> bool:
        """Say whether the mapping is drawn again at the start of an epoch, counted from 0."""
        return self.redraws and epoch > 0 and epoch % interval == 0

    def mapping_passes(self, epochs: int, interval: int) -> int:
        """Return how many passes over its chosen images a run takes for its mappings."""
        return self.first_pass + sum(self.redraws_at(epoch, interval) for epoch in range(epochs))


# imported as they are called: the Snakefile, which reads this module, does without the seconds that PyTorch takes
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
        Method("rlm", label="RLM-VP", colour="#E69F00", draw=_at_random),
        Method("flm", label="FLM-VP", colour="#0072B2", draw=_by_frequency, first_pass=True),
        Method("ilm", label="ILM-VP", colour="#D55E00", draw=_by_frequency, first_pass=True, redraws=True),
        Method("lp", label="linear probe", colour="#555555", job="probe"),
        Method("ft", label="fine-tuning", colour="#009E73", job="finetune", families=("convolutional",)),
        Method("zs", label="zero-shot", colour="#CC79A7", job="probe", families=("clip",), trains=False),
    )
}


def run_by(job: str) -> list[str]:
    """Return the names of the methods that a job runs."""
    return [method.name for method in METHODS.values() if method.job == job]
