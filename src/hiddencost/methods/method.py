"""What a method is: what tables and figures call it, which job runs it, and how it maps labels."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from hiddencost.digest import code_digest, module_file
from hiddencost.files import canonical, sha256_text

if TYPE_CHECKING:  # the Snakefile reads this module, and does without the seconds that PyTorch takes
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
        mapping: of visual prompting, "module:function" of what draws a label mapping. It is imported when it draws.
            The function's arguments: the source class that the network predicts for each chosen image, int64 [N], on
            the CPU, or None (see first_pass); the images' labels, int64 [N]; the numbers of source and of target
            classes; a random generator on the CPU. It returns the source class of each target class, int64 [K], no
            source class twice.
        first_pass: whether the first mapping is drawn from predictions under the untrained prompt, which take a pass
            over the chosen images; if not, the function gets None in their place.
        redraws: whether the mapping is drawn again at the start of each `mapping_interval`-th epoch, from predictions
            under the prompt of that time.
    """

    name: str
    label: str
    colour: str
    job: str = "train"
    families: tuple[str, ...] = ()
    trains: bool = True
    mapping: str | None = None
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

    def draw_mapping(
        self,
        predictions: "Tensor | None",
        labels: "Tensor",
        source_classes: int,
        classes: int,
        generator: "torch.Generator",
    ) -> "Tensor":
        """Draw a label mapping, int64 [classes]; see `mapping` for the arguments."""
        assert self.mapping, f"{self.name} draws no mapping"
        return resolve_name(self.mapping)(predictions, labels, source_classes, classes, generator)

    def mapping_passes(self, epochs: int, interval: int) -> int:
        """Return how many passes over its chosen images a run takes for its mappings."""
        return self.first_pass + sum(self.redraws_at(epoch, interval) for epoch in range(epochs))

    def digest(self) -> str:
        """Return the SHA-256 over what a run of it stands on beside the code of its job: how its mappings are drawn.

        What it is called and the colour it has are not in it. The mapping's module counts with all that it imports.
        """
        module, _, function = (self.mapping or "").partition(":")
        code = code_digest(module_file(module)) if module else None
        return sha256_text(canonical([function, code, self.first_pass, self.redraws, self.trains]))
