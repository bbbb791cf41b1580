"""A study: the grid of runs, their recipes, and what can be asked of it before anything is made."""

import os
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from hiddencost import catalog
from hiddencost.catalog.entries import CheckpointEntry, DatasetEntry, NetworkEntry, PhotosEntry, TrainedEntry
from hiddencost.catalog.libraries import preset
from hiddencost.compression import registry
from hiddencost.messages import Record, StudyError, describe_unknown_name, refuse_duplicates
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.networks.convolutional import IMAGENET_SIDE
from hiddencost.networks.families import family_of, family_of_checkpoint
from hiddencost.networks.family import Family
from hiddencost.study.analyses import ANALYSES, Shift
from hiddencost.study.names import CLOSED, Name, TextEncoder
from hiddencost.study.own import OwnNetwork, UserFiles, name_own
from hiddencost.study.parts import (
    AnalysisName,
    Backbone,
    Expectation,
    Figures,
    MethodName,
    Seed,
    Shots,
    TargetDataset,
    Upstream,
    ascending,
)
from hiddencost.study.protocols import RUN_PROTOCOLS, shape_of_run
from hiddencost.study.recipes import ClipProtocol, FineTuning, Recipe, finetuning_size
from hiddencost.study.shapes import SHAPES
from hiddencost.study.stated import NATIVE, StudyProtocol
from hiddencost.study.verification import Verification

Entry = TypeVar("Entry", CheckpointEntry, DatasetEntry, PhotosEntry)


class Study(Record):
    """The grid of runs, and the recipes."""

    study: Name = Field(description="name of the study: its results are in results/{study}/")
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(refuse_duplicates)] = Field(examples=[[0, 1, 2]])
    shots: Annotated[
        list[Shots], Field(min_length=1), AfterValidator(refuse_duplicates), AfterValidator(ascending)
    ] = Field(description="images per class, or full")
    methods: Annotated[list[MethodName], Field(min_length=1), AfterValidator(refuse_duplicates)]
    upstream: Annotated[list[Upstream], AfterValidator(refuse_duplicates)] = Field(
        default_factory=list,
        description="networks that the study trains itself, for `checkpoint` of backbones to name",
    )
    backbones: Annotated[
        list[Backbone], Field(min_length=1), AfterValidator(refuse_duplicates), AfterValidator(name_own)
    ]
    datasets: Annotated[list[TargetDataset], Field(min_length=1), AfterValidator(refuse_duplicates)]
    paths: dict[Name, UserFiles] = Field(
        default_factory=dict,
        json_schema_extra=CLOSED,
        description="files of your own for checkpoints, datasets and photos of the catalog, above all of those that "
        "cannot be downloaded: a path, or a path for each of its files, of photos also that of a folder of them; or "
        "{network: results/STUDY/backbones/NAME}, a network that another study has made, left out as long as it is "
        "not there",
    )
    protocol: StudyProtocol | None = Field(
        None, description="the recipe of visual prompting, and the canvas of all methods, but on CLIP"
    )
    text_encoder: TextEncoder = "openclip-vit-b-32.openai"
    clip: ClipProtocol | None = Field(None, description="the recipe of visual prompting on CLIP, and its texts")
    probe: Recipe | None = Field(None, description="of the linear probe (lp); zs reads its test_batch_size")
    finetune: FineTuning | None = Field(None, description="of fine-tuning (ft)")
    verification: Verification
    jobs_per_gpu: Literal[1, 2, 3, 4, 6, 12] = Field(
        1,
        description="training jobs that share a GPU of a workstation; results depend on it by rounding alone",
    )
    expectations: list[Expectation] = Field(
        default_factory=list, description="published accuracies, set beside ours in tables/expectations.csv"
    )
    analysis: Annotated[list[AnalysisName], AfterValidator(refuse_duplicates)] = Field(
        default_factory=list,
        description="what is asked of networks and finished runs beyond their accuracy, without training: "
        + "; ".join(f"{name}: {description}" for name, description in ANALYSES.items()),
    )
    claims: dict[Name, dict[str, Any]] = Field(
        default_factory=dict,
        json_schema_extra=CLOSED,
        description="claims of your own, put to the test beside those of the catalog, in its words "
        "(src/hiddencost/catalog/claims.yaml): text, source, measure, cells, left, right, more_than, ...",
    )
    shift: Shift = Field(Shift(), description="the corrupted test images of the analysis shift")
    figures: Figures = Figures()

    def backbone(self, name: str) -> Backbone:
        """Return a backbone by name."""
        return next(backbone for backbone in self.backbones if backbone.name == name)

    def dataset(self, name: str) -> TargetDataset:
        """Return a dataset by name."""
        return next(dataset for dataset in self.datasets if dataset.name == name)

    def family(self, backbone: Backbone) -> Family:
        """Return the family of a backbone's network."""
        return family_of(backbone.own.architecture) if backbone.own else family_of_checkpoint(backbone.checkpoint)

    def own_checkpoint(self, name: str) -> OwnNetwork | None:
        """Return the network of one's own that a checkpoint is, None of another."""
        return next((one.own for one in self.backbones if one.checkpoint == name), None)

    def prompting_recipe(self, backbone: Backbone) -> StudyProtocol | ClipProtocol:
        """Return the recipe of visual prompting on a backbone. Raises ValueError where the study has none."""
        family = self.family(backbone)
        if (recipe := getattr(self, family.recipe)) is None:
            raise ValueError(
                f"{family.recipe}: the key is missing: it is the recipe of {backbone.name}, {family.title}"
            )
        return recipe

    def templates(self, backbone: Backbone) -> list[str] | str:
        """Return the templates of a backbone whose source classes are texts."""
        return getattr(self, self.family(backbone).recipe).templates

    def methods_of(self, backbone: Backbone, among: Iterable[str] = ()) -> list[str]:
        """Return the methods of the study, or among some, that serve a backbone's family of networks and classes."""
        family, is_imagenet = self.family(backbone).name, not self.upstream_network(backbone.checkpoint)
        return [name for name in among or self.methods if METHODS[name].serves(family, is_imagenet)]

    def reads_names(self, backbone: Backbone) -> bool:
        """Say whether a method of a backbone maps by the names of classes."""
        return any(METHODS[name].reads_names for name in self.methods_of(backbone))

    def upstream_network(self, checkpoint: str) -> Upstream | None:
        """Return how a checkpoint is trained, None of one that is published."""
        return next((one for one in self.upstream if one.name == checkpoint), None)

    def trained_here(self, name: str) -> Upstream:
        """Return a network that the study trains, by name."""
        return next(network for network in self.upstream if network.name == name)

    def published_checkpoint(self, name: str) -> str | None:
        """Return the published checkpoint that one is, or is trained from; None where it is trained from scratch."""
        trained = self.upstream_network(name)
        return trained.checkpoint if trained else name

    def published_checkpoints(self, backbones: Iterable[Backbone]) -> set[str]:
        """Return the published checkpoints of backbones, those that they are trained from, and what reads names."""
        backbones = list(backbones)
        names = {self.published_checkpoint(backbone.checkpoint) for backbone in backbones}
        names |= {self.text_encoder for backbone in backbones if self.reads_names(backbone)}
        return {name for name in names if name}

    def upstream_datasets(self) -> list[str]:
        """Return the datasets of the catalog that networks are trained on upstream."""
        return list(dict.fromkeys(one.dataset for one in self.upstream if one.dataset))

    def calibration(self, backbone: Backbone) -> tuple[str, str] | None:
        """Return the dataset that a backbone's compression looks at, and the size of its images, in the words of
        `prepare.sized`: that of features. None where it looks at none."""
        dataset = backbone.compression.calibration if backbone.compression else None
        if dataset is None:
            return None
        canvas = self.canvas(backbone)
        return dataset, self.family(backbone).prepared_sizes(backbone.checkpoint, None, canvas, None)["probe"]

    def calibrations(self) -> list[tuple[str, str]]:
        """Return the datasets, with the sizes of their images, that compressions look at."""
        return list(dict.fromkeys(each for one in self.backbones if (each := self.calibration(one))))

    def checkpoint_entry(self, name: str) -> NetworkEntry:
        """Return a checkpoint of the catalog, with the user's own files where the study has paths, or what is known
        of one that the study trains."""
        if network := self.upstream_network(name):
            start = catalog.checkpoint(network.checkpoint) if network.checkpoint else None
            architecture = start.architecture if start else network.architecture
            assert architecture, "a network from scratch has an architecture"
            return TrainedEntry(
                title=f"{name}, trained by this study",
                architecture=architecture,
                gmacs=start.gmacs if start else None,
            )
        return self.published_entry(name)

    def published_entry(self, name: str) -> CheckpointEntry:
        """Return a checkpoint of the catalog, with the user's own files where the study has paths; see
        `Call.published` where it has a network's folder."""
        entry = catalog.checkpoint(name)
        return entry if self.made_network(name) else self._with_user_files(name, entry)

    def made_network(self, name: str) -> str | None:
        """Return the folder of a network of another study that stands for a published checkpoint, None where there is
        none: `paths` has it under `network`."""
        paths = self.paths.get(name)
        return _absolute(paths["network"]) if isinstance(paths, dict) and paths.keys() == {"network"} else None

    def dataset_entry(self, name: str) -> DatasetEntry:
        """Return a dataset of the catalog, with the user's own files where the study has paths."""
        return self._with_user_files(name, catalog.datasets()[name])

    def photos_entry(self) -> PhotosEntry:
        """Return the photos of the catalog that networks are shown, with the user's own where the study has paths."""
        return self._with_user_files(self.verification.photos, catalog.photos()[self.verification.photos])

    def _with_user_files(self, name: str, entry: Entry) -> Entry:
        """Return an entry with the user's own files, whether they are there or not: see `Call.own_contents`."""
        if name not in self.paths:
            return entry
        files, paths = entry.files, self.paths[name]
        if isinstance(paths, str):
            paths = dict.fromkeys(files, paths)
            if len(files) > 1:
                raise StudyError(f"paths.{name}: it has the files {', '.join(files)}; expected a path for each")
        if unexpected := sorted(paths.keys() - files.keys()):
            raise StudyError(f"paths.{name}.{unexpected[0]}: the key {describe_unknown_name(unexpected[0], files)}")
        given = {key: files[key].from_paths([_absolute(path)]) for key, path in paths.items()}
        missing = [key for key, file in (files | given).items() if not file.sources]
        if missing:
            raise StudyError(f"paths.{name}: no path for {', '.join(missing)}")
        return entry.model_copy(update={"unavailable": None, "files": files | given})

    def dense_of(self, backbone: Backbone) -> str | None:
        """Return the name of the dense backbone that one is compared with, None where the study has none."""
        return backbone.dense or self._dense_of_its_kind(backbone)

    def recipe_dense_of(self, backbone: Backbone) -> str | None:
        """Return the name of the dense backbone that was trained by the same recipe as one (its checkpoint without
        compression, or that which the catalog names), None where the study has none. Networks of another study have
        such a one of that study alone."""
        name = self._dense_of_its_kind(backbone)
        if name and self._origin(self.backbone(name).checkpoint) == self._origin(backbone.checkpoint):
            return name
        return None

    def _origin(self, checkpoint: str) -> str | None:
        """Return where the networks are of the other study that has made a checkpoint, None of one that is
        published."""
        folder = self.made_network(checkpoint)
        return os.path.dirname(folder) if folder else None

    def _dense_of_its_kind(self, backbone: Backbone) -> str | None:
        is_users = backbone.own or self.upstream_network(backbone.checkpoint)
        checkpoint = (None if is_users else catalog.checkpoint(backbone.checkpoint).dense) or backbone.checkpoint
        _, seed = backbone.training()
        dense = (
            one.name
            for one in self.backbones
            if one.checkpoint == checkpoint
            and not (one.compression or one.control or (one.own and one.dense))  # of one's own, it is pruned
            and one.training() == (None, seed)
        )
        return next(dense, None)

    def declared(self, backbone: Backbone, entry: NetworkEntry | None = None) -> dict:
        """Return what is known of a backbone before it is made: `checkpoint`, `compression` ("none", or as tables
        name it), `control`, `sparsity_declared` (None where it is not), `dense` (see `dense_of`), `recipe_dense` (see
        `recipe_dense_of`), `network`, the name of the first backbone that is made alike, but for the upstream seed,
        and this seed (None of one that the study does not train).

        entry: of its checkpoint, as `Call.checkpoints` has it; None: `checkpoint_entry`, which knows nothing of
        networks of other studies."""
        entry = entry or self.checkpoint_entry(backbone.checkpoint)
        made, sparsify = backbone.compression, backbone.sparsify
        if sparsify:
            entry = entry.model_copy(update={"compression": sparsify.algorithm, "sparsity": sparsify.sparsity})
        settings, control = made.settings() if made else None, backbone.control
        return {
            "checkpoint": backbone.checkpoint,
            "compression": registry.label(entry.compression, settings, control),
            "control": control,
            "sparsity_declared": registry.sparsity(entry.sparsity, settings, control),
            "dense": self.dense_of(backbone),
            "recipe_dense": self.recipe_dense_of(backbone),
            "network": next(other.name for other in self.backbones if _made_as(other) == _made_as(backbone)),
            "upstream_seed": backbone.training()[1] if self.upstream_network(backbone.checkpoint) else None,
        }

    def recipe(self, name: str, dataset: str, backbone: str) -> dict:
        """Return the recipe `protocol`, `probe` or `finetune` as it is for a dataset and a backbone: for CLIP that of
        `clip` stands for `protocol`."""
        one = self.dataset(dataset)
        checkpoint, family = self.backbone(backbone).checkpoint, self.family(self.backbone(backbone))
        prompts = any(job.prompts for job in JOBS.values() if job.recipe == name)
        key = family.recipe if prompts else name
        own = {"batch_size": one.batch_size, "test_batch_size": one.test_batch_size_of(key)}
        own = {key: value for key, value in own.items() if value}
        stated = getattr(self, key).model_dump(exclude={"templates", "prompt"}, exclude_none=True)
        if prompts:
            own |= {"canvas": self.canvas(self.backbone(backbone)), **family.run_settings(checkpoint, one.image_size)}
            own |= self._stated_prompt(self.backbone(backbone))
            if self._fills(self.backbone(backbone)):
                del own["image_size"]
        return stated | own

    def prompt_settings(self, backbone: Backbone) -> dict | None:
        """Return the shape of prompts on a backbone, with those of its settings that are the same on all datasets.

        None, where the study has no recipe for it.
        """
        family = self.family(backbone)
        recipe = getattr(self, family.recipe)
        if recipe is None:
            return None
        stated = recipe.model_dump() | family.run_settings(backbone.checkpoint, None) | self._stated_prompt(backbone)
        shape = self.shape(backbone)
        return {"shape": shape, **{key: stated[key] for key in RUN_PROTOCOLS[shape].prompt_settings}}

    def shape(self, backbone: Backbone) -> str:
        """Return the shape of prompts on a backbone, of `prompting.prompts.PROMPTS`."""
        return shape_of_run(self._stated_prompt(backbone), self.family(backbone).prompt)

    def _stated_prompt(self, backbone: Backbone) -> dict:
        """Return the shape that the study states for a backbone in place of its family's, and its settings."""
        stated = getattr(getattr(self, self.family(backbone).recipe), "prompt", None)
        return stated.settings() if stated else {}

    def _fills(self, backbone: Backbone) -> bool:
        """Say whether the study states a shape for a backbone whose images fill the canvas."""
        stated = self._stated_prompt(backbone)
        return bool(stated) and SHAPES[stated["shape"]].fills

    def sizes(self, dataset: str, backbone: Backbone) -> dict[str, str]:
        """Return the sizes, in the words of `prepare.sized`, of the images of a dataset for `train`, `probe` and
        `finetune` on a backbone, of those that it has methods for; see `Family.prepared_sizes`."""
        known = catalog.datasets().get(dataset)
        native = known.native_size if known else None
        canvas, jobs = self.canvas(backbone), {METHODS[name].job for name in self.methods_of(backbone)}
        image_size = self.dataset(dataset).image_size
        sizes = self.family(backbone).prepared_sizes(backbone.checkpoint, image_size, canvas, native)
        if self._fills(backbone):
            sizes["train"] = str(native if native is not None and native <= canvas else canvas)
        sizes["finetune"] = str(finetuning_size(canvas))
        return {job: size for job, size in sizes.items() if job in jobs}

    def canvas(self, backbone: Backbone) -> int:
        """Return the side of a backbone's input, in pixels."""
        stated, trained = self.protocol.canvas if self.protocol else None, self.upstream_network(backbone.checkpoint)
        if stated == NATIVE and trained:
            return trained.image_size
        if stated == NATIVE and backbone.own:
            return preset(backbone.own.architecture).canvas or IMAGENET_SIDE
        return self.family(backbone).canvas(backbone.checkpoint, stated)


def _made_as(backbone: Backbone) -> tuple:
    return backbone.checkpoint, backbone.training()[0], backbone.compression, backbone.control


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
