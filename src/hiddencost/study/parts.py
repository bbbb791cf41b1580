"""The parts of a study, each checked by itself."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from hiddencost.compression.registry import COMPRESSIONS, CONTROLS, OneShotCompression
from hiddencost.messages import InWords, Record, describe_unknown_name, one_of, refuse_duplicates
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.networks.families import FAMILIES
from hiddencost.study.analyses import ANALYSES
from hiddencost.study.names import Name, ShownName
from hiddencost.study.own import Checkpoint, OwnNetwork
from hiddencost.study.recipes import Fraction, Size, is_size
from hiddencost.study.sparsifiers import SPARSIFIERS, rounded_sparsity, with_defaults
from hiddencost.study.upstream_recipe import UpstreamRecipe


def ascending(values: list) -> list:
    """Sort shots by number, `full` last."""
    return sorted(values, key=lambda shots: float("inf") if shots == "full" else shots)


def _shots(value: Any) -> int | str:
    if value == "full" or is_size(value):
        return value
    raise ValueError(
        f"{value!r} is not a number of images per class; expected an integer from 1, or 'full'{_meant_shots(value)}"
    )


def _meant_shots(value: Any) -> str:
    text = value.strip().casefold() if isinstance(value, str) else ""
    meant = int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else "full" if text[:3] in ("all", "ful") else None
    return f"; did you mean {meant!r}?" if meant else ""


# diverging, from high to low, and told apart by all common kinds of colour vision
PALETTES = ("RdBu_r", "PuOr_r", "BrBG_r", "PRGn_r")


def _class_names(value: Any) -> list[str] | dict[str, str]:
    values = value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else []
    if not values or not all(isinstance(name, str) and name.strip() and name.isprintable() for name in values):
        raise ValueError(f"{value!r} is not allowed: expected names, as printable texts, of all classes")
    refuse_duplicates(values)
    if isinstance(value, list):
        return value
    refuse_duplicates([str(folder) for folder in value])  # 1 and "1" are one folder
    return {str(folder): name for folder, name in value.items()}


RECIPES = tuple(
    dict.fromkeys([*(family.recipe for family in FAMILIES.values()), *(job.recipe for job in JOBS.values())])
)


def _test_batch_sizes(value: Any) -> int | dict[str, int]:
    by_recipe = value if isinstance(value, dict) else {"protocol": value}
    for recipe, size in by_recipe.items():
        if recipe not in RECIPES:
            raise ValueError(f"the recipe {describe_unknown_name(recipe, RECIPES)}")
        if not is_size(size):
            raise ValueError(f"{value!r} is not allowed: expected an integer from 1, or such integers by recipe")
    return value


def _shown(text: str) -> str:
    if text.strip() and text.replace("\n", "").isprintable() and not text.startswith("_"):
        return text
    raise ValueError(f"{text!r} cannot be shown; expected printable text that does not begin with '_'")


Shots = Annotated[int | str, BeforeValidator(_shots)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
RecipeName = Annotated[str, one_of(RECIPES)]
MethodName = Annotated[str, one_of(METHODS)]
AnalysisName = Annotated[str, one_of(ANALYSES)]
# in figures: Matplotlib leaves out of a legend what begins with "_"
Words = Annotated[str, Field(max_length=200), AfterValidator(_shown)]
Colour = Annotated[str, InWords(r"^#[0-9a-fA-F]{6}$", "'#' and six hexadecimal digits, such as '#d55e00'")]


class Compression(Record):
    """Compression made by this workflow: one-shot, without retraining."""

    algorithm: Annotated[str, one_of(COMPRESSIONS)] = Field(
        description="; ".join(f"{name}: {entry.description}" for name, entry in COMPRESSIONS.items())
    )
    sparsity: float | None = Field(None, gt=0, lt=1, description="share of the convolutions' weights set to zero")
    scope: Annotated[str, one_of(("global", "layer", "erk"))] | None = Field(
        None,
        description="over what magnitude and random choose: all convolutions together (global, the default), the "
        "same share of each (layer), or shares by layer size (erk: Erdős-Rényi-Kernel, as RigL)",
    )
    n: int | None = Field(None, ge=1, description="weights kept of each m")
    m: int | None = Field(None, ge=2, description="weights in a group, along the input channels")
    bits: int | None = Field(None, ge=2, le=8, description="of a weight; one scale an output channel")
    calibration: Name | None = Field(
        None,
        description="what wanda and sparsegpt look at: the training images of a dataset of the study or the catalog, "
        "at the size of the canvas",
    )
    samples: int | None = Field(None, ge=1, description="images of them, 128 if not said")
    seed: Seed | None = Field(None, description="which of them are drawn, 0 if not said")

    @property
    def entry(self) -> OneShotCompression:
        """What the registry has of its algorithm."""
        return COMPRESSIONS[self.algorithm]

    def settings(self) -> dict:
        """Return all settings, those that are not said too, and the algorithm."""
        return self.entry.complete(self.model_dump())

    @model_validator(mode="after")
    def _what_the_algorithm_needs(self) -> "Compression":
        given, entry = self.model_dump(exclude_none=True, exclude={"algorithm"}), self.entry
        if missing := set(entry.required) - set(given):
            raise ValueError(f"{self.algorithm} needs {' and '.join(sorted(missing))}")
        if surplus := set(given) - set(entry.settings):
            raise ValueError(
                f"{self.algorithm} takes {', '.join(entry.settings)}, not {' and '.join(sorted(surplus))}"
            )
        entry.check_settings(given)
        return self


class Sparsify(Record):
    """How upstream training makes a sparse network. What is not said is as in `sparsifiers.SPARSIFIERS`."""

    algorithm: Annotated[str, one_of(SPARSIFIERS)] = Field(
        description="; ".join(f"{name}: {entry.description}" for name, entry in SPARSIFIERS.items())
    )
    sparsity: float = Field(
        ge=0.0001, le=0.9999, description="share of zeros, of the layers that the algorithm prunes, to six digits"
    )
    begin: Fraction | None = Field(None, description="gmp: share of the training before the first weight goes")
    end: Fraction | None = Field(None, description="gmp, rigl: share of the training after which masks stay")
    interval: int | None = Field(None, ge=1, description="gmp, rigl: steps between two changes of the masks")
    warm_up: Fraction | None = Field(None, description="acdc: share of the training that is dense at first")
    phase: Fraction | None = Field(None, ge=0.0001, description="acdc: share of the training of a phase")
    fine_tuning: Fraction | None = Field(None, description="acdc: share of the training of the last sparse phase")
    distribution: Annotated[str, one_of(("erk", "uniform"))] | None = Field(
        None, description="rigl: sparsity by layer size (Erdős-Rényi-Kernel), or the same in each layer but the stem"
    )
    drop: Fraction | None = Field(None, description="rigl: share of the connections that the first change replaces")
    share: Fraction | None = Field(
        None, ge=0.01, description="lth: share of the weights that a round prunes; each round is a training"
    )
    rewind_epoch: int | None = Field(None, ge=0, description="lth: after which weights are rewound to")

    @model_validator(mode="after")
    def _what_the_algorithm_takes(self) -> "Sparsify":
        given = {key for key, value in self if value is not None} - {"algorithm", "sparsity"}
        sparsifier = SPARSIFIERS[self.algorithm]
        if surplus := given - set(sparsifier.defaults):
            takes = ", ".join(sparsifier.defaults)
            raise ValueError(f"{self.algorithm} takes sparsity, {takes}, not {' and '.join(sorted(surplus))}")
        if rounded_sparsity(self.sparsity) != self.sparsity:
            raise ValueError(f"sparsity is {self.sparsity}; expected six digits behind the point at most")
        sparsifier.check_settings(self.settings())
        return self

    def settings(self) -> dict:
        """Return all settings, those that are not said too."""
        return with_defaults(self.model_dump())


class Upstream(Record):
    """A network that this study trains itself, dense and sparsified: backbones name it as their checkpoint."""

    name: Name = Field(description="what `checkpoint` of backbones calls it: none of the catalog's names")
    architecture: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_./-]+$",
        description="trained from scratch: a name of torchvision, timm/NAME, or for images of 32 pixels "
        "resnet18_cifar or resnet20_cifar",
    )
    checkpoint: Name | None = Field(None, description="published weights to start from, instead of an architecture")
    dataset: Name | None = Field(None, description="what it is trained on: a name of the catalog")
    folder: str | None = Field(
        None, description="or images of your own, such as ImageNet-1k: train/CLASS/*, val/CLASS/*"
    )
    image_size: int = Field(ge=8, description="side of the images that it sees, in pixels")
    recipe: UpstreamRecipe

    @model_validator(mode="after")
    def _one_of_each(self) -> "Upstream":
        for one, other in (("architecture", "checkpoint"), ("dataset", "folder")):
            if bool(getattr(self, one)) == bool(getattr(self, other)):
                raise ValueError(f"expected either {one} or {other}")
        return self


class Backbone(Record):
    """A checkpoint as it is, compressed here, or replaced by a control."""

    name: Name
    checkpoint: Checkpoint = Field(
        description="a name of the catalog, timm-NAME for a model of timm, openclip-NAME.TAG for a CLIP of "
        "open_clip, a name under `upstream`, or a network of your own: a mapping with its file and architecture"
    )
    sparsify: Sparsify | None = Field(None, description="of a checkpoint of `upstream`: how it becomes sparse")
    upstream_seed: Seed | None = Field(
        None, description="of a checkpoint of `upstream`: of its training; 0 if not said"
    )
    compression: Compression | None = Field(None, examples=[{"algorithm": "magnitude", "sparsity": 0.5}])
    control: Annotated[str, one_of(CONTROLS)] | None = Field(
        None,
        description="; ".join(f"{name}: {entry.description}" for name, entry in CONTROLS.items())
        + ". Exempt from the photos",
    )
    dense: Name | None = Field(
        None,
        description="the backbone that this one is compared with; without it the dense one of the same checkpoint, "
        "or of the checkpoint that the catalog names as its dense counterpart",
    )

    _own: OwnNetwork | None = PrivateAttr(None)

    @property
    def own(self) -> OwnNetwork | None:
        """The network of one's own that its checkpoint names; None of another, and where no study has named it."""
        return self._own

    def training(self) -> tuple[dict | None, int]:
        """Return how its checkpoint is trained, if the study trains it: all settings of the sparsifier (None: dense),
        and the seed."""
        return self.sparsify.settings() if self.sparsify else None, self.upstream_seed or 0

    @model_validator(mode="after")
    def _one_change(self) -> "Backbone":
        if self.compression and self.control:
            raise ValueError("a backbone has either a compression or a control, not both")
        return self


class TargetDataset(Record):
    """A target task: a dataset of the catalog, or images of your own."""

    name: Name = Field(description="a name of the catalog, or one of your own with folder or npz")
    image_size: int | None = Field(
        None, ge=1, description="side of the image within the canvas, in pixels; on CLIP the image fills the canvas"
    )
    folder: str | None = Field(
        None, description="images of your own: train/CLASS/* and test/CLASS/*, or CLASS/* with a test_share"
    )
    npz: str | None = Field(None, description="arrays of your own: x_train, y_train, x_test, y_test")
    test_share: Fraction | None = Field(None, description="share of the images of a folder of classes to test on")
    classes: Annotated[list[str] | dict[str, str], BeforeValidator(_class_names)] | None = Field(
        None,
        description="of your own images, names of the classes: by their folders, or of an npz in the labels' order",
    )
    batch_size: int | None = Field(None, ge=1, description="instead of the recipes'")
    test_batch_size: Annotated[Size | dict[RecipeName, Size], BeforeValidator(_test_batch_sizes)] | None = Field(
        None, description="instead of the recipes': of all, or by recipe, such as {protocol: 64}"
    )

    @property
    def is_users(self) -> bool:
        """Whether it is the user's, and not of the catalog."""
        return bool(self.folder or self.npz)

    def test_batch_size_of(self, recipe: str) -> int | None:
        """Return what it has in place of a recipe's own, by the name of the recipe, None where it has nothing."""
        sizes = self.test_batch_size
        return sizes.get(recipe) if isinstance(sizes, dict) else sizes

    @model_validator(mode="after")
    def _one_origin(self) -> "TargetDataset":
        if self.folder and self.npz:
            raise ValueError("a dataset of your own has either a folder or an npz, not both")
        if self.test_share and not self.folder:
            raise ValueError("test_share goes with folder alone")
        if self.classes is not None and not isinstance(self.classes, dict if self.folder else list):
            raise ValueError("classes: expected a name for each folder (folder: name), or with npz a list of names")
        if self.classes is not None and not self.is_users:
            raise ValueError("classes go with folder or npz alone; the catalog names those of its datasets")
        return self


class Expectation(Record):
    """A published accuracy to stand beside ours."""

    backbone: Name
    dataset: Name
    method: MethodName
    shots: Shots
    accuracy: float = Field(ge=0, le=100, description="%")
    std: float | None = Field(None, ge=0, description="%, over the published trials")
    epoch: Annotated[str, one_of(("last", "best on test"))] | None = Field(
        None, description="whose accuracy was published; best on test: chosen by the test set. Ours is the last's"
    )
    source: str


# of which tables have a difference from the dense network
SHOWN_METRICS = "accuracy", "worst_class_accuracy", "class_gap", "ece", "ece_scaled"


class Figures(Record):
    """Which figures there are and how they look. Nothing here retrains."""

    width: float = Field(6.8, ge=1, le=50, description="inches")
    panel_height: float = Field(2.3, ge=0.5, le=50, description="inches, of a panel of curves")
    title: Words | None = Field(None, description="stands on each figure; without it the study's name")
    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(refuse_duplicates)] | None = Field(
        None, description="those to show, in this order; without it all"
    )
    backbones: Annotated[list[Name], Field(min_length=1), AfterValidator(refuse_duplicates)] | None = Field(
        None, description="those to show, in this order; without it all"
    )
    methods: Annotated[list[MethodName], Field(min_length=1), AfterValidator(refuse_duplicates)] | None = Field(
        None, description="those to show, in this order; without it all"
    )
    shots: Annotated[list[Shots], Field(min_length=1), AfterValidator(refuse_duplicates)] | None = Field(
        None, description="those that accuracy, cost, maps and reliability show; without it all"
    )
    metric: Annotated[str, one_of(SHOWN_METRICS)] = Field(
        "accuracy",
        description="what curves, costs and their map are of; a cost is above zero where it is worse",
    )
    style: Annotated[str, one_of(("light", "dark"))] = Field("light", description="for paper, or for dark slides")
    labels: dict[ShownName, Words] = Field(
        default_factory=dict, description="what to write instead of the name of a dataset, a backbone or a method"
    )
    colours: dict[ShownName, Colour] = Field(
        default_factory=dict, description="#rrggbb of a backbone, or (in the report) of a method"
    )
    palette: Annotated[str, one_of(PALETTES)] = Field(PALETTES[0], description="of heat maps, Matplotlib's name")
    formats: Annotated[list[Annotated[str, one_of(("pdf", "svg"))]], AfterValidator(refuse_duplicates)] = Field(
        ["pdf"], description="in which figures are written beside png, which the report shows"
    )
