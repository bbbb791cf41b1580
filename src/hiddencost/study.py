"""The study: one YAML file as typed objects, checked before any job starts."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hiddencost import catalog, compression, upstream
from hiddencost.protocol import (
    JOBS,
    METHODS,
    PROMPTING,
    ClipProtocol,
    FineTuning,
    Fraction,
    Protocol,
    Recipe,
    finetuning_size,
)


class StudyError(ValueError):
    """What is wrong in a study, a line each: file, key, value and what was expected."""


def unknown(name: object, allowed: Iterable[str]) -> str:
    """Say that a name is not one of those allowed, with the nearest of them."""
    allowed = [str(one) for one in allowed]
    near = get_close_matches(str(name), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{name!r} is unknown; {hint}allowed: {', '.join(allowed)}"


def one_of(*allowed: str) -> Any:
    """The type of a name out of a fixed list."""

    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(unknown(name, allowed))
        return name

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(allowed)})]


def ascending(values: list) -> list:
    """Sort shots by number, `full` last."""
    return sorted(values, key=lambda shots: float("inf") if shots == "full" else shots)


def distinct(values: list) -> list:
    """Refuse a list in which something stands twice."""
    names = [getattr(value, "name", value) for value in values]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once; each must be different")
    return values


def _shots(value: Any) -> int | str:
    if value == "full" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"{value!r} is not a number of images per class; expected an integer from 1, or 'full'")


# diverging, from high to low, and told apart by all common kinds of colour vision
PALETTES = ("RdBu_r", "PuOr_r", "BrBG_r", "PRGn_r")


def _own_files(value: Any) -> str | dict[str, str]:
    paths = value if isinstance(value, dict) else {"file": value}
    if paths and all(isinstance(path, str) for path in paths.values()):
        for key in paths:
            if not (isinstance(key, str) and re.fullmatch(NAME, key) and len(key) <= NAME_LENGTH):
                raise ValueError(f"{key!r} is not the name of a file of the catalog's entry")
        return value
    raise ValueError(f"{value!r} is not allowed: expected a path, or a path for each file of the catalog's entry")


NAME, NAME_LENGTH = r"^[a-z0-9][a-z0-9._-]*$", 64
Name = Annotated[str, Field(pattern=NAME, max_length=NAME_LENGTH)]
Shots = Annotated[int | str, BeforeValidator(_shots)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
CLOSED = {"additionalProperties": False}  # for editors: of a mapping whose keys are names, no other keys
OwnFiles = Annotated[
    str | Annotated[dict[Name, str], Field(min_length=1, json_schema_extra=CLOSED)], BeforeValidator(_own_files)
]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Checked = TypeVar("Checked", bound=BaseModel)


class Part(BaseModel):
    """A part of the study: immutable, without keys beyond its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Compression(Part):
    """Compression made by this workflow: one-shot, without retraining."""

    algorithm: one_of(*compression.SETTINGS) = Field(
        description="magnitude: removes the smallest weights; random: any weights; nm: all but the n largest of "
        "each m in a row; channel: the filters of smallest norm; quantise: none, but rounds all to `bits`"
    )
    sparsity: float | None = Field(None, gt=0, lt=1, description="share of the convolutions' weights set to zero")
    scope: one_of("global", "layer", "erk") | None = Field(
        None,
        description="over what magnitude and random choose: all convolutions together (global, the default), the "
        "same share of each (layer), or shares by layer size (erk: Erdős-Rényi-Kernel, as RigL)",
    )
    n: int | None = Field(None, ge=1, description="weights kept of each m")
    m: int | None = Field(None, ge=2, description="weights in a group, along the input channels")
    bits: int | None = Field(None, ge=2, le=8, description="of a weight; one scale an output channel")

    @model_validator(mode="after")
    def _what_the_algorithm_needs(self) -> "Compression":
        given = {key for key in ("sparsity", "scope", "n", "m", "bits") if getattr(self, key) is not None}
        needs = compression.SETTINGS[self.algorithm]
        if missing := set(needs) - given - {"scope"}:
            raise ValueError(f"{self.algorithm} needs {' and '.join(sorted(missing))}")
        if surplus := given - set(needs):
            raise ValueError(f"{self.algorithm} takes {', '.join(needs)}, not {' and '.join(sorted(surplus))}")
        if self.algorithm == "nm" and self.n >= self.m:
            raise ValueError(f"n is {self.n}; expected less than m, {self.m}")
        return self


class Sparsify(Part):
    """How upstream training makes a sparse network. What is not said is as in `upstream.SPARSIFIERS`."""

    algorithm: one_of(*upstream.SPARSIFIERS) = Field(
        description="gmp: gradual magnitude pruning; acdc: alternating compressed and decompressed training; rigl: "
        "sparse from the start, small weights dropped and grown by gradient; lth: lottery tickets, by iterative "
        "magnitude pruning with rewinding, a training a round"
    )
    sparsity: float = Field(
        ge=0.0001, le=0.9999, description="share of zeros, of the layers that the algorithm prunes, to six digits"
    )
    begin: Fraction | None = Field(None, description="gmp: share of the training before the first weight goes")
    end: Fraction | None = Field(None, description="gmp, rigl: share of the training after which masks stay")
    interval: int | None = Field(None, ge=1, description="gmp, rigl: steps between two changes of the masks")
    warm_up: Fraction | None = Field(None, description="acdc: share of the training that is dense at first")
    phase: Fraction | None = Field(None, description="acdc: share of the training of a phase")
    fine_tuning: Fraction | None = Field(None, description="acdc: share of the training of the last sparse phase")
    distribution: one_of("erk", "uniform") | None = Field(
        None, description="rigl: sparsity by layer size (Erdős-Rényi-Kernel), or the same in each layer but the stem"
    )
    drop: Fraction | None = Field(None, description="rigl: share of the connections that the first change replaces")
    share: Fraction | None = Field(None, description="lth: share of the weights that a round prunes")
    rewind_epoch: int | None = Field(None, ge=0, description="lth: after which weights are rewound to")

    @model_validator(mode="after")
    def _what_the_algorithm_takes(self) -> "Sparsify":
        given = {key for key, value in self if value is not None} - {"algorithm", "sparsity"}
        takes = upstream.SPARSIFIERS[self.algorithm]
        if surplus := given - set(takes):
            raise ValueError(
                f"{self.algorithm} takes sparsity, {', '.join(takes)}, not {' and '.join(sorted(surplus))}"
            )
        if upstream.as_level(self.sparsity) != self.sparsity:
            raise ValueError(f"sparsity is {self.sparsity}; expected six digits behind the point at most")
        told = self.settings()
        if self.algorithm == "gmp" and told["begin"] >= told["end"]:
            raise ValueError(f"begin is {told['begin']}; expected less than end, {told['end']}")
        if self.algorithm == "acdc" and told["warm_up"] + 2 * told["phase"] + told["fine_tuning"] > 1 + 1e-9:
            raise ValueError(
                "warm_up, two phases and fine_tuning are more than the whole training; expected at most 1"
            )
        return self

    def settings(self) -> dict:
        """Return all settings, those that are not said too."""
        return upstream.with_defaults(self.model_dump())


class Upstream(Part):
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
    recipe: upstream.UpstreamRecipe

    @model_validator(mode="after")
    def _one_of_each(self) -> "Upstream":
        for one, other in (("architecture", "checkpoint"), ("dataset", "folder")):
            if bool(getattr(self, one)) == bool(getattr(self, other)):
                raise ValueError(f"expected either {one} or {other}")
        return self


class Backbone(Part):
    """A checkpoint as it is, compressed here, or replaced by a control."""

    name: Name
    checkpoint: Name = Field(
        description="a name of the catalog, timm-NAME for a model of timm, openclip-NAME.TAG for a CLIP of "
        "open_clip, or a name under `upstream`"
    )
    sparsify: Sparsify | None = Field(None, description="of a checkpoint of `upstream`: how it becomes sparse")
    upstream_seed: Seed | None = Field(
        None, description="of a checkpoint of `upstream`: of its training; 0 if not said"
    )
    compression: Compression | None = None
    control: one_of("random_init", "shuffled") | None = Field(
        None,
        description="random_init: the checkpoint's architecture without its weights; shuffled: with its weights "
        "permuted within each layer. Exempt from the photos",
    )
    dense: Name | None = Field(
        None,
        description="the backbone that this one is compared with; without it the dense one of the same checkpoint, "
        "or of the checkpoint that the catalog names as its dense counterpart",
    )

    def training(self) -> tuple[dict | None, int]:
        """Return how its checkpoint is trained, if the study trains it: all settings of the sparsifier (None: dense),
        and the seed."""
        return self.sparsify and self.sparsify.settings(), self.upstream_seed or 0

    @model_validator(mode="after")
    def _one_change(self) -> "Backbone":
        if self.compression and self.control:
            raise ValueError("a backbone has either a compression or a control, not both")
        return self


class TargetDataset(Part):
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
    batch_size: int | None = Field(None, ge=1, description="instead of the recipes'")
    test_batch_size: int | None = Field(None, ge=1, description="instead of the recipes'")

    @property
    def own(self) -> bool:
        """Whether it is the user's, and not of the catalog."""
        return bool(self.folder or self.npz)

    @model_validator(mode="after")
    def _one_origin(self) -> "TargetDataset":
        if self.folder and self.npz:
            raise ValueError("a dataset of your own has either a folder or an npz, not both")
        if self.test_share and not self.folder:
            raise ValueError("test_share goes with folder alone")
        return self


class Expectation(Part):
    """A published accuracy to stand beside ours."""

    backbone: Name
    dataset: Name
    method: one_of(*METHODS)
    shots: Shots
    accuracy: float = Field(ge=0, le=100, description="%")
    std: float | None = Field(None, ge=0, description="%, over the published trials")
    source: str


class Verification(Part):
    """What a backbone must show before anything is trained on it."""

    sparsity_tolerance: float = Field(ge=0, le=1, description="largest difference of declared and measured sparsity")
    photos_top1: int = Field(ge=0, le=20, description="ImageNet photos, of 20, to classify rightly (controls exempt)")
    upstream_top1: float | None = Field(
        None,
        ge=0,
        le=100,
        description="instead of the photos, of networks that the study trains itself: least top-1, %, on 1000 test "
        "images (or all, if fewer) of their upstream data set (controls exempt)",
    )


class Figures(Part):
    """Which figures there are and how they look. Nothing here retrains."""

    width: float = Field(6.8, gt=0, description="inches")
    panel_height: float = Field(2.3, gt=0, description="inches, of a panel of curves")
    title: str | None = Field(None, description="stands on each figure; without it the study's name")
    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct)] | None = Field(
        None, description="those to show, in this order; without it all"
    )
    backbones: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct)] | None = Field(
        None, description="those to show, in this order; without it all"
    )
    labels: dict[Name, str] = Field(
        default_factory=dict, description="what to write instead of the name of a dataset, a backbone or a method"
    )
    colours: dict[one_of(*METHODS), Colour] = Field(
        default_factory=dict, description="colour of a method, #rrggbb, where the default is not wanted"
    )
    palette: one_of(*PALETTES) = Field(PALETTES[0], description="of the heat maps, as Matplotlib names it")
    formats: Annotated[list[one_of("pdf", "svg")], AfterValidator(distinct)] = Field(
        ["pdf"], description="in which figures are written beside png, which the report shows"
    )


class Study(Part):
    """The grid of runs, and the recipes."""

    study: Name = Field(description="name of the study: its results are in results/{study}/")
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)]
    shots: Annotated[list[Shots], Field(min_length=1), AfterValidator(distinct), AfterValidator(ascending)] = Field(
        description="images per class, or full"
    )
    methods: Annotated[list[one_of(*METHODS)], Field(min_length=1), AfterValidator(distinct)]
    upstream: Annotated[list[Upstream], AfterValidator(distinct)] = Field(
        default_factory=list,
        description="networks that the study trains itself, for `checkpoint` of backbones to name",
    )
    backbones: Annotated[list[Backbone], Field(min_length=1), AfterValidator(distinct)]
    datasets: Annotated[list[TargetDataset], Field(min_length=1), AfterValidator(distinct)]
    paths: dict[Name, OwnFiles] = Field(
        default_factory=dict,
        json_schema_extra=CLOSED,
        description="files of your own for checkpoints and datasets of the catalog, above all of those that cannot "
        "be downloaded: a path, or a path for each of its files",
    )
    protocol: Protocol | None = Field(
        None, description="the recipe of rlm, flm and ilm, and the canvas of all methods, but on CLIP"
    )
    clip: ClipProtocol | None = Field(None, description="the recipe of rlm, flm and ilm on CLIP, and its texts")
    probe: Recipe | None = Field(None, description="the recipe of lp")
    finetune: FineTuning | None = Field(None, description="the recipe of ft")
    verification: Verification
    jobs_per_gpu: Literal[1, 2, 3, 4, 6, 12] = Field(
        1,
        description="training jobs that share a GPU of a workstation; results depend on it by rounding alone",
    )
    expectations: list[Expectation] = Field(
        default_factory=list, description="published accuracies, set beside ours in tables/expectations.csv"
    )
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _checkpoints_are_known(self) -> "Study":
        published = catalog.load("checkpoints")
        own = [one.name for one in self.upstream]

        def check(where: str, name: str, others: list[str]) -> None:
            if not name.startswith(catalog.FAMILIES) and name not in (*published, *others):
                raise ValueError(f"{where}: {unknown(name, [*others, *published])}, or {catalog.ANY}")

        for index, one in enumerate(self.upstream):
            where = f"upstream[{index}]"
            if one.name in published or one.name.startswith(catalog.FAMILIES):
                raise ValueError(f"{where}.name: {one.name!r} is of the catalog; expected another")
            if one.checkpoint:
                check(f"{where}.checkpoint", one.checkpoint, [])
                if catalog.is_clip(one.checkpoint):
                    raise ValueError(f"{where}.checkpoint: {one.checkpoint} is a CLIP, which is not trained upstream")
            if one.dataset and one.dataset not in catalog.load("datasets"):
                raise ValueError(f"{where}.dataset: {unknown(one.dataset, catalog.load('datasets'))}, or folder")
        for index, one in enumerate(self.backbones):
            check(f"backbones[{index}].checkpoint", one.checkpoint, own)
            for key in ("sparsify", "upstream_seed"):
                if getattr(one, key) is not None and one.checkpoint not in own:
                    raise ValueError(
                        f"backbones[{index}].{key}: goes with a checkpoint under upstream, which trains it"
                    )
            if one.sparsify and one.sparsify.algorithm == "lth":
                epochs, rewound = self.trained(one.checkpoint).recipe.epochs, one.sparsify.settings()["rewind_epoch"]
                if rewound >= epochs:
                    raise ValueError(
                        f"backbones[{index}].sparsify.rewind_epoch: {rewound}; expected less than the epochs of its "
                        f"upstream training, {epochs}"
                    )
            if one.checkpoint in own and self.verification.upstream_top1 is None:
                raise ValueError("verification.upstream_top1: the key is missing: upstream trains networks to verify")
        for name in set(own) - {one.checkpoint for one in self.backbones}:
            raise ValueError(f"upstream: no backbone has the checkpoint {name}; expected one")
        return self

    @model_validator(mode="after")
    def _backbones_differ(self) -> "Study":
        seen: dict[tuple, str] = {}
        for one in self.backbones:
            compression = one.compression and {"scope": "global"} | one.compression.model_dump(exclude_none=True)
            made = (one.checkpoint, str(one.training()), str(compression), one.control)
            if made in seen:
                raise ValueError(
                    f"backbones: {seen[made]} and {one.name} are the same network; expected different ones"
                )
            seen[made] = one.name
        return self

    @model_validator(mode="after")
    def _datasets_fit(self) -> "Study":
        known = catalog.load("datasets")
        bordered = next((one.name for one in self.backbones if not self.is_clip(one)), None)
        if bordered and self.protocol is None:
            raise ValueError(f"protocol: the key is missing: it is the recipe of {bordered}")
        for index, dataset in enumerate(self.datasets):
            if not dataset.own and dataset.name not in known:
                raise ValueError(f"datasets[{index}].name: {unknown(dataset.name, known)}, or folder or npz")
            if dataset.own and dataset.name in known:
                raise ValueError(f"datasets[{index}].name: {dataset.name!r} is of the catalog; expected another")
            if bordered and dataset.image_size is None:
                raise ValueError(
                    f"datasets[{index}].image_size: the key is missing: {bordered} is prompted by a border around it"
                )
            if bordered and dataset.image_size >= self.protocol.canvas:
                raise ValueError(
                    f"datasets[{index}].image_size: {dataset.image_size} leaves no border on the canvas; "
                    f"expected less than protocol.canvas, {self.protocol.canvas}"
                )
        return self

    @model_validator(mode="after")
    def _clip_fits(self) -> "Study":
        for index, one in enumerate(self.backbones):
            where = f"backbones[{index}]"
            if not self.methods_of(one):
                what, others = ("a CLIP", "rlm, flm, ilm, lp or zs") if self.is_clip(one) else ("no CLIP", "another")
                raise ValueError(
                    f"{where}: {one.name} is {what}, and methods has {self.methods[0]}; expected {others}"
                )
            if not self.is_clip(one):
                continue
            if self.clip is None:
                raise ValueError(f"clip: the key is missing: {one.name} is a CLIP, whose recipe and texts it states")
            canvas = catalog.checkpoint(one.checkpoint)["canvas"]
            if 2 * self.clip.border > canvas:
                raise ValueError(
                    f"clip.border: {self.clip.border} on either side is more than the {canvas} pixels of {one.name}"
                )
        return self

    @model_validator(mode="after")
    def _trainings_are_long_enough(self) -> "Study":
        known = catalog.load("datasets")
        for index, one in enumerate(self.upstream):
            counts = known[one.dataset]["counts"] if one.dataset else None
            if counts and one.recipe.batch_size > counts["train"]:
                raise ValueError(
                    f"upstream[{index}].recipe.batch_size: {one.recipe.batch_size}; expected at most the "
                    f"{counts['train']} training images of {one.dataset}"
                )
        for index, one in enumerate(self.backbones):
            trained = self.trained(one.checkpoint)
            counts = known[trained.dataset]["counts"] if trained and trained.dataset else None
            if one.sparsify and counts:
                steps = trained.recipe.epochs * (counts["train"] // trained.recipe.batch_size)
                try:
                    upstream.check_schedule(one.sparsify.settings(), steps)
                except ValueError as error:
                    raise ValueError(f"backbones[{index}].sparsify: {error}") from None
        return self

    @model_validator(mode="after")
    def _classes_suffice(self) -> "Study":
        known = catalog.load("datasets")
        for one in self.backbones:
            trained = self.trained(one.checkpoint)
            source = known[trained.dataset]["classes"] if trained and trained.dataset else None
            for index, dataset in enumerate(self.datasets):
                target = None if dataset.own else known[dataset.name]["classes"]
                if source and target and len(target) > len(source) and set(self.methods) & set(PROMPTING):
                    raise ValueError(
                        f"datasets[{index}].name: {dataset.name} has {len(target)} classes, more than the "
                        f"{len(source)} of {one.checkpoint}; label mapping gives each a class of its own"
                    )
        return self

    @model_validator(mode="after")
    def _recipes(self) -> "Study":
        for method, recipe in (("lp", "probe"), ("ft", "finetune")):
            if method in self.methods and getattr(self, recipe) is None:
                raise ValueError(f"{recipe}: the key is missing: methods has {method}, whose recipe it is")
        for index, one in enumerate(self.backbones):
            if "ft" in self.methods_of(one) and one.compression and one.compression.bits:
                raise ValueError(f"backbones[{index}].compression: ft, of methods, would undo the quantisation")
        return self

    @model_validator(mode="after")
    def _references(self) -> "Study":
        names, datasets = ([one.name for one in part] for part in (self.backbones, self.datasets))
        for index, one in enumerate(self.backbones):
            if one.dense and one.dense not in names:
                raise ValueError(f"backbones[{index}].dense: {unknown(one.dense, names)}")
        for index, one in enumerate(self.expectations):
            for key, allowed in (("backbone", names), ("dataset", datasets)):
                if getattr(one, key) not in allowed:
                    raise ValueError(f"expectations[{index}].{key}: {unknown(getattr(one, key), allowed)}")
        for key, allowed in (("backbones", names), ("datasets", datasets)):
            for index, name in enumerate(getattr(self.figures, key) or []):
                if name not in allowed:
                    raise ValueError(f"figures.{key}[{index}]: {unknown(name, allowed)}")
        for name in self.figures.labels:
            if name not in (allowed := [*names, *datasets, *METHODS]):
                raise ValueError(f"figures.labels: {unknown(name, allowed)}")
        used = {name for one in self.backbones if (name := self.published_checkpoint(one.checkpoint))}
        used |= {one.name for one in self.datasets if not one.own} | set(self.upstream_datasets())
        for name in self.paths:
            if name not in used:
                raise ValueError(f"paths: {unknown(name, sorted(used))}")
        return self

    def backbone(self, name: str) -> Backbone:
        """Return a backbone by name."""
        return next(backbone for backbone in self.backbones if backbone.name == name)

    def dataset(self, name: str) -> TargetDataset:
        """Return a dataset by name."""
        return next(dataset for dataset in self.datasets if dataset.name == name)

    def is_clip(self, backbone: Backbone) -> bool:
        """Return whether a backbone is a CLIP, prompted by the recipe `clip` and read through texts."""
        return catalog.is_clip(backbone.checkpoint)

    def methods_of(self, backbone: Backbone) -> list[str]:
        """Return the study's methods that there are for a backbone: zs for CLIP alone, ft for all others."""
        other = "ft" if self.is_clip(backbone) else "zs"
        return [method for method in self.methods if method != other]

    def trained(self, checkpoint: str) -> Upstream | None:
        """Return how a checkpoint is trained, None of one that is published."""
        return next((one for one in self.upstream if one.name == checkpoint), None)

    def published_checkpoint(self, name: str) -> str | None:
        """Return the published checkpoint that one is, or is trained from; None where it is trained from scratch."""
        trained = self.trained(name)
        return trained.checkpoint if trained else name

    def upstream_datasets(self) -> list[str]:
        """Return the datasets of the catalog that networks are trained on upstream."""
        return list(dict.fromkeys(one.dataset for one in self.upstream if one.dataset))

    def checkpoint(self, name: str) -> dict:
        """Return a checkpoint of the catalog, with the user's own files where the study has paths; of one that the
        study trains an entry of the same keys."""
        if trained := self.trained(name):
            start = catalog.checkpoint(trained.checkpoint) if trained.checkpoint else {}
            return catalog.DEFAULTS | {
                "title": f"{name}, trained by this study",
                "architecture": start.get("architecture", trained.architecture),
                "files": {},
                "upstream_top1": None,  # measured: its manifest has it
                "gmacs": start.get("gmacs"),
            }
        return self._with_own_files(name, catalog.checkpoint(name))

    def published(self, name: str) -> dict:
        """Return a dataset of the catalog, with the user's own files where the study has paths."""
        return self._with_own_files(name, catalog.load("datasets")[name])

    def own_files(self, name: str) -> list[str]:
        """Return the user's own files for a checkpoint or dataset of the catalog, as absolute paths."""
        paths = self.paths.get(name, {})
        return [_absolute(path) for path in ([paths] if isinstance(paths, str) else paths.values())]

    def _with_own_files(self, name: str, entry: dict) -> dict:
        if name not in self.paths:
            return entry
        files, paths = entry["files"], self.paths[name]
        if isinstance(paths, str):
            paths = dict.fromkeys(files, paths)
            if len(files) > 1:
                raise StudyError(f"paths.{name}: it has the files {', '.join(files)}; expected a path for each")
        if unexpected := sorted(paths.keys() - files.keys()):
            raise StudyError(f"paths.{name}.{unexpected[0]}: the key {unknown(unexpected[0], files)}")
        own = {key: files[key] | {"sources": [{"path": _absolute(path)}]} for key, path in paths.items()}
        missing = [key for key, file in (files | own).items() if "sources" not in file]
        if missing:
            raise StudyError(f"paths.{name}: no path for {', '.join(missing)}")
        # here, as Snakemake goes on with old results where an input is missing
        if absent := [path for path in self.own_files(name) if not Path(path).is_file()]:
            raise StudyError(f"paths.{name}: there is no file {absent[0]}")
        if braced := [path for path in self.own_files(name) if set("{}") & set(path)]:
            raise StudyError(f"paths.{name}: {braced[0]} has a brace, a wildcard of Snakemake; expected none")
        return {key: value for key, value in entry.items() if key != "unavailable"} | {"files": files | own}

    def dense_of(self, backbone: Backbone) -> str | None:
        """Return the name of the dense backbone that one is compared with, None where the study has none."""
        if backbone.dense:
            return backbone.dense
        trained = self.trained(backbone.checkpoint)
        checkpoint = (None if trained else catalog.checkpoint(backbone.checkpoint)["dense"]) or backbone.checkpoint
        _, seed = backbone.training()
        dense = (
            one.name
            for one in self.backbones
            if one.checkpoint == checkpoint
            and not (one.compression or one.control)
            and one.training() == (None, seed)
        )
        return next(dense, None)

    def stated(self, backbone: Backbone) -> dict:
        """Return what is known of a backbone before it is made: `checkpoint`, `compression` ("none", or as tables
        name it), `control`, `sparsity_declared` (None where it is not) and `dense` (see `dense_of`)."""
        entry, made, sparsify = self.checkpoint(backbone.checkpoint), backbone.compression, backbone.sparsify
        if sparsify:
            entry |= {"compression": sparsify.algorithm, "sparsity": sparsify.sparsity}
        settings = made.model_dump() if made else {}
        random = backbone.control == "random_init"
        names = [entry["compression"]] if entry["compression"] != "none" and not random else []
        sparsity = 0.0 if random else entry["sparsity"]
        return {
            "checkpoint": backbone.checkpoint,
            "compression": "+".join(names + ([compression.label(settings)] if made else [])) or "none",
            "control": backbone.control,
            "sparsity_declared": compression.sparsity(settings, sparsity) if made else sparsity,
            "dense": self.dense_of(backbone),
        }

    def recipe(self, name: str, dataset: str, backbone: str) -> dict:
        """Return the recipe `protocol`, `probe` or `finetune` as it is for a dataset and a backbone: for CLIP that of
        `clip` stands for `protocol`."""
        one = self.dataset(dataset)
        own = {"batch_size": one.batch_size, "test_batch_size": one.test_batch_size}
        own = {key: value for key, value in own.items() if value}
        if name != "protocol":
            return getattr(self, name).model_dump() | own
        if not self.is_clip(self.backbone(backbone)):
            return self.protocol.model_dump() | own | {"image_size": one.image_size}
        entry = catalog.checkpoint(self.backbone(backbone).checkpoint)
        told = {"canvas": entry["canvas"], "interpolation": entry["preprocessing"]["interpolation"]}
        return self.clip.model_dump(exclude={"templates"}) | own | told

    def sizes(self, dataset: str, backbone: Backbone) -> dict[str, str]:
        """Return the sizes, in the words of `prepare.sized`, of the images of a dataset for `train`, `probe` and
        `finetune` on a backbone, of those that it has methods for.

        On CLIP an image fills the canvas. Images that are smaller squares as published are kept at their own size,
        and enlarged where they are used: at 336 pixels CIFAR-10 would be 20 GB.
        """
        native = catalog.load("datasets").get(dataset, {}).get("native_size")
        canvas, methods = self.canvas(backbone), self.methods_of(backbone)
        if self.is_clip(backbone):
            told = catalog.checkpoint(backbone.checkpoint)["preprocessing"]
            small = native is not None and native <= canvas
            size = str(native) if small else f"{canvas}-{told['resize']}-{told['interpolation']}"
            sizes = {"train": size, "probe": size}
        else:
            image_size = self.dataset(dataset).image_size
            sizes = {"train": str(image_size), "probe": str(canvas), "finetune": str(finetuning_size(canvas))}
        return {job: size for job, size in sizes.items() if set(methods) & set(JOBS[job])}

    def canvas(self, backbone: Backbone) -> int:
        """Return the side of a backbone's input, in pixels."""
        return catalog.checkpoint(backbone.checkpoint)["canvas"] if self.is_clip(backbone) else self.protocol.canvas


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def load_study(config: dict, file: str) -> Study:
    """Check a study's config. Raises StudyError, a line for each thing that is wrong; `file` is named in it."""
    return checked(Study, config, file)


def checked(model: type[Checked], value: object, file: str) -> Checked:
    """Return a value as a model. Raises StudyError, a line for each thing that is wrong; `file` is named in it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [f"{file}: {_explain(model, problem)}" for problem in error.errors()]
        raise StudyError("\n".join(lines)) from None


def _explain(root: type[BaseModel], problem: dict) -> str:
    # a key of a mapping that is itself at fault ends in pydantic's "[key]"
    location = [part for part in problem["loc"] if part != "[key]"]
    names = [part if isinstance(part, int) or part.isprintable() else ascii(part) for part in location]
    where = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        fields = _model_at(root, location[:-1]).model_fields
        return f"{where}: the key {unknown(location[-1], fields)}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{where}: {problem['input']!r} is not allowed: expected a mapping of keys to values"
    if problem["type"] == "missing":
        return f"{where}: the key is missing"
    if problem["type"] != "value_error":
        return f"{where}: {problem['input']!r} is not allowed: {message[0].lower()}{message[1:]}"
    return f"{where}: {message}" if where else message


def _model_at(model: type[BaseModel], location: list) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            candidates = [model.model_fields[part].annotation]
            while candidates:
                candidate = candidates.pop()
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
                    break
                candidates += getattr(candidate, "__args__", ())
    return model


if __name__ == "__main__":
    print(json.dumps(Study.model_json_schema(), indent=1))
