"""What a method is: what tables and figures call it, which job runs it, and how it maps labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from hiddencost.digest import APART, code_digest, module_file
from hiddencost.files import canonical, sha256_text
from hiddencost.messages import describe_unknown_name
from hiddencost.methods import mapping_rule
from hiddencost.methods.mapping_rule import MappingRule


@dataclass(frozen=True)
class Job:
    """A kind of job that trains packs: the runs of one (backbone, dataset, seed), of all methods that it runs.

    Attributes:
        recipe: the key of the study that holds the recipe of its methods.
        folder: of its tables, in results/STUDY.
        passes: what a training image costs an epoch, in forward passes through the network; 0 where methods train on
            stored features.
        prompts: whether its methods show images under a prompt.
        crops: whether its methods crop larger images to the canvas, which is then of its runs' recipe.
    """

    recipe: str
    folder: str
    passes: int
    prompts: bool = False
    crops: bool = False

    @property
    def on_features(self) -> bool:
        """Whether its methods train on stored features."""
        return not self.passes


# backward, to the image alone, costs as much as forward, and to the weights as much again
JOBS = {
    "train": Job("protocol", "runs", passes=2, prompts=True),
    "probe": Job("probe", "probes", passes=0),
    "finetune": Job("finetune", "finetuned", passes=3, crops=True),
}


@dataclass(frozen=True)
class Method(MappingRule):
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
        function: of a method of another job than train, "module:function" of what makes a run's classifier. It is
            imported when it runs; see `runs.probe.linear_probe` and `runs.finetune.fine_tune` for the arguments and
            what it returns.

    Raises:
        ValueError: if the job is none of JOBS, if a method of the job train names no mapping, or one of another job
            no function, or both are named.
    """

    name: str
    label: str
    colour: str
    job: str = "train"
    families: tuple[str, ...] = ()
    trains: bool = True
    function: str | None = None

    def __post_init__(self) -> None:
        if self.job not in JOBS:
            raise ValueError(f"method {self.name}: job {describe_unknown_name(self.job, JOBS)}")
        expected, other = ("mapping", "function") if self.prompts else ("function", "mapping")
        if not getattr(self, expected) or getattr(self, other):
            raise ValueError(f"method {self.name}, of the job {self.job}: expected its {expected}, and no {other}")

    @property
    def prompts(self) -> bool:
        """Whether it learns a visual prompt, and maps labels."""
        return self.job == "train"

    @property
    def is_one_to_one(self) -> bool:
        """Whether it maps each target class to a source class of its own, of which there have to be as many."""
        return self.prompts and not self.weighted

    @property
    def probes(self) -> bool:
        """Whether it classifies stored features."""
        return self.job == "probe"

    @property
    def changes_weights(self) -> bool:
        """Whether it trains the network's own weights."""
        return self.job == "finetune"

    def serves(self, family: str, is_imagenet: bool = True) -> bool:
        """Say whether it is for networks of a family, by the family's name, over the classes of ImageNet-1k, whose
        names are known, or others."""
        return (not self.families or family in self.families) and (is_imagenet or not self.reads_names)

    @property
    def recipe(self) -> str:
        """The key of the study that holds its recipe."""
        return JOBS[self.job].recipe

    def mapping_passes(self, epochs: int, interval: int) -> int:
        """Return how many passes over its chosen images a run takes for its mappings."""
        return self.first_pass + self.redraws * (max(0, epochs - 1) // interval)  # as `redraws_at` says

    def load_function(self) -> Callable[..., Any]:
        """Import what makes a run's classifier; see `function`."""
        assert self.function, f"{self.name} prompts"
        return resolve_name(self.function)

    def digest(self) -> str:
        """Return the SHA-256 over what a run of it stands on beside the code of its job: what its mappings are drawn
        by, or what makes its classifier.

        What it is called and the colour it has are not in it. The function's module counts with all that it imports,
        and `MappingRule` with that of a mapping.
        """
        module, _, function = str(self.mapping or self.function).partition(":")
        drawing = [mapping_rule.__file__] if self.mapping else []
        settings = self.weighted, self.top_share, self.learning_rate, self.reads_names
        further = [setting for setting in settings if setting]
        code = code_digest(module_file(module), *drawing, apart=APART[self.job])
        return sha256_text(canonical([function, code, self.first_pass, self.redraws, self.trains, *further]))
