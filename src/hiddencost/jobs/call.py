"""A call of the workflow: the study, what the call was told beside it, and the entries of all that it names."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiddencost import yaml_file
from hiddencost.catalog.entries import UNCOMPRESSED, CheckpointEntry, DatasetEntry, NetworkEntry, PhotosEntry
from hiddencost.compression.registry import applied
from hiddencost.datasets.own import user_entry
from hiddencost.digest import APART, code_digest
from hiddencost.files import is_away
from hiddencost.jobs import own_files
from hiddencost.jobs.own_networks import own_entry
from hiddencost.jobs.seen import seen
from hiddencost.messages import StudyError, one_line
from hiddencost.methods.registry import METHODS
from hiddencost.networks.convolutional import IMAGENET_CLASSES
from hiddencost.networks.families import family_of_checkpoint
from hiddencost.sources import LOCK, first_uses
from hiddencost.study import upstream, upstream_images
from hiddencost.study.load import load_study, refuse_studies
from hiddencost.study.made import FILES, made_entry
from hiddencost.study.own import OwnNetwork
from hiddencost.study.parts import TargetDataset
from hiddencost.study.study import Study

log = logging.getLogger(__name__)
# of a call, not of the study, as "snakemake --config offline=true", and what each is without
SWITCHES = "offline", "retry", "partial", "tensorboard"
FLAGS = dict.fromkeys(SWITCHES, ("true", "false")) | {"check": ("full", "changed")}


@dataclass(frozen=True, eq=False)  # as it is, a key of caches
class Call:
    """A study and how it was called.

    Args:
        study: what is to be made.
        file: its name, for messages.
        command: the call that makes all of it, for messages.
        root: the folder of this checkout.
        offline: whether files that are not here are left out.
        retry: whether downloads that have failed are tried again.
        partial: whether the study is shown as far as it is, and nothing of it is made.
        tensorboard: whether jobs that train write events for TensorBoard, see `logs.write_scalars`.
        check: whether all that files hold is read again, also where their size and times are as they were.
        is_job: whether it is made for a job, which takes what the plan has found of the user's own files.
    """

    study: Study
    file: str = "config.yaml"
    command: str = "snakemake"
    root: Path = Path(__file__).parents[3]
    offline: bool = False
    retry: bool = False
    partial: bool = False
    tensorboard: bool = False
    check: bool = False
    is_job: bool = False

    @property
    def results(self) -> str:
        """The folder of what the study makes."""
        return f"results/{self.study.study}"

    @property
    def output(self) -> str:
        """The folder of this call's tables, figures and report: a partial call's are apart, as the study may run."""
        return f"{self.results}/partial" if self.partial else self.results

    def path(self, pattern: str, **wildcards: Any) -> str:
        """Return a product of the study; pattern: of `layout`."""
        return f"{self.results}/{pattern.format(**wildcards)}"

    @cached_property
    def published(self) -> dict[str, CheckpointEntry]:
        """The catalog's entries of the checkpoints that backbones are, or are trained from."""
        names = self.study.published_checkpoints(self.study.backbones)
        return {name: self._published_entry(name) for name in sorted(names)}

    def _published_entry(self, name: str) -> CheckpointEntry:
        """Return the entry of a checkpoint, of another study's network where one stands for it and is there, or of a
        network of the user's own."""
        if own := self.study.own_checkpoint(name):
            return self._own_network(name, own)
        entry, folder = self.study.published_entry(name), self.study.made_network(name)
        if not folder:
            return entry
        try:
            asked, look = ["made", name, folder], partial(made_entry, entry, folder)
            # written last: other files of the folder stay when a network is made anew
            manifest = f"{folder}/{FILES['manifest']}"
            return self._seen(f"paths.{name}", manifest, asked, CheckpointEntry, look)
        except FileNotFoundError:
            why = entry.unavailable or f"no study has made the network {one_line(folder)} yet"
            return entry.model_copy(update={"unavailable": why})
        except ValueError as error:
            raise ValueError(f"paths.{name}: {error}") from None

    def _own_network(self, name: str, own: OwnNetwork) -> CheckpointEntry:
        where = f"backbones[{[one.checkpoint for one in self.study.backbones].index(name)}].checkpoint"
        file, asked = os.path.abspath(os.path.expanduser(own.file)), own.model_dump(exclude={"file"})
        try:
            look = partial(own_entry, name, own, self.check)
            return self._seen(where, file, ["network", file, asked], CheckpointEntry, look)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    @cached_property
    def checkpoints(self) -> dict[str, NetworkEntry]:
        """The published ones, and entries for those that the study trains."""
        return self.published | {each.name: self.study.checkpoint_entry(each.name) for each in self.study.upstream}

    @cached_property
    def targets(self) -> dict[str, DatasetEntry]:
        """The entries of the target datasets, the user's own among them."""
        return {
            each.name: self._own_entry(each) if each.is_users else self.study.dataset_entry(each.name)
            for each in self.study.datasets
        }

    def _own_entry(self, dataset: TargetDataset) -> DatasetEntry:
        """Return the entry of the user's own images."""
        given = (dataset.name, dataset.folder, dataset.npz, dataset.test_share, dataset.classes)
        own, look = dataset.folder or dataset.npz or "", partial(user_entry, *given, self.check)
        return self._seen(f"dataset {dataset.name}", own, given, DatasetEntry, look)

    def _seen(self, what: str, own: str, asked: Any, kind: Any, look: Callable[[], Any]) -> Any:
        """Return what is found of files of the user's own, see `seen.seen`."""
        told = vars(self).setdefault("_told", set())
        return seen(what, os.path.expanduser(own), asked, kind, look, self.is_job, told)

    @cached_property
    def images_gone(self) -> dict[str, str]:
        """Where images of the user's own should be and are not, by the dataset's name: their disk may be away."""
        paths = {each.name: os.path.expanduser(each.folder or each.npz or "") for each in self.study.datasets}
        return {name: path for name, path in paths.items() if path and is_away(path)}

    @cached_property
    def datasets(self) -> dict[str, DatasetEntry]:
        """The entries of all datasets: of the targets, and of those that networks are trained on upstream, or
        compressed by."""
        others = [*self.study.upstream_datasets(), *(name for name, _ in self.study.calibrations())]
        return {name: self.study.dataset_entry(name) for name in others if name not in self.targets} | self.targets

    @cached_property
    def own_contents(self) -> dict[str, str]:
        """What files of the user's own hold, by their paths: see `contents.digest`. Of photos it may be a folder."""
        entries: list[tuple[str, CheckpointEntry | DatasetEntry | PhotosEntry]]
        photos = self.study.verification.photos, self.study.photos_entry()
        entries = [*self.published.items(), *self.datasets.items(), photos]
        own = {path: one for one in entries for file in one[1].files.values() for path in file.own_paths}
        return {path: self._own_content(name, path, entry) for path, (name, entry) in own.items()}

    def _own_content(self, name: str, path: str, entry: CheckpointEntry | DatasetEntry | PhotosEntry) -> str:
        what = f"paths.{name}" if name in self.study.paths else f"backbone {name}"

        def look() -> str:
            try:
                return own_files.content(path, entry, self.check)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from None

        return self._seen(what, path, ["paths", path], str, look)

    @cached_property
    def upstream_folders(self) -> dict[str, dict]:
        """The user's own images by the network that the study trains on them."""
        return self._of_upstream_folders("upstream", dict[str, Any], upstream.folder_entry)

    @cached_property
    def upstream_counts(self) -> dict[str, int]:
        """How many training images those are, by the network: as they are counted for plans, no result of them."""
        return self._of_upstream_folders("upstream images", int, upstream_images.count_images)

    def _of_upstream_folders(self, asked: str, kind: Any, look: Callable[[str, str], Any]) -> dict[str, Any]:
        own = {network.name: network.folder for network in self.study.upstream if network.folder}
        absolute = {name: os.path.abspath(os.path.expanduser(folder)) for name, folder in own.items()}
        return {
            name: self._seen(f"upstream {name}", folder, [asked, absolute[name]], kind, partial(look, name, folder))
            for name, folder in own.items()
        }


def read_config(files: Sequence[Path], told: Mapping[str, Any], words: Iterable[str] = ()) -> dict[str, Any]:
    """Return the config of a call, read anew: Snakemake's reader takes the last of two keys, and 1e-3 for a text.

    Args:
        files: of the study, of which a later one adds to the earlier: mappings key by key.
        told: what the command line says beside them, by `--config`: keys of a study, and flags of the call.
        words: of the command line, of which no other is a study.

    Raises:
        StudyError: one line, where a file is no YAML, or has a flag of the call, or a word is a study.
    """
    if files:
        refuse_studies(words, files)
    config: dict[str, Any] = {}
    for path in files:
        name = os.path.relpath(path)
        stated = yaml_file.read(path, name)
        for flag in set(FLAGS) & stated.keys():
            raise StudyError(
                f"{name}: {flag}: it is of a call, not of a study; expected --config {flag}={FLAGS[flag][0]} instead"
            )
        config = _merged(config, stated)
    return _merged(config, {key: one if isinstance(one, str) else yaml_file.typed(one) for key, one in told.items()})


def stated_in(files: str, told: Mapping[str, Any]) -> str:
    """Return what messages call a config: its files, and the keys that the command line states."""
    return ", ".join([files, *(f"--config {key}" for key in told if key not in FLAGS)])


def _merged(config: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with another's keys over it: mappings key by key, as Snakemake does."""
    both = {key: (config[key], value) for key, value in further.items() if key in config}
    inner = {key: _merged(*pair) for key, pair in both.items() if all(isinstance(one, Mapping) for one in pair)}
    return {**config, **further, **inner}


def read_call(config: Mapping[str, Any], file: str, command: str, is_job: bool = False) -> Call:
    """Return the call of a config, as Snakemake has it: the study's, with flags of the call among its keys.

    is_job: see `Call`; beside the study nothing is checked again for one. Raises StudyError, a line for each fault.
    """
    flags: dict[str, Any] = {}
    for name, (yes, no) in FLAGS.items():
        value = str(config.get(name, no)).lower()  # Snakemake gives text
        if value not in (yes, no):
            raise StudyError(f"--config {name}={config[name]}: expected {name}={yes} or {name}={no}")
        flags[name] = value == yes
    try:
        first_uses(LOCK)
    except ValueError as error:
        raise StudyError(error) from None
    study = load_study({key: value for key, value in config.items() if key not in FLAGS}, file)
    flags["check"] &= not is_job
    call = Call(study, file, command, is_job=is_job, **flags)
    if is_job:
        return call
    if call.tensorboard and find_spec("tensorboard") is None:
        raise StudyError("--config tensorboard=true: it is not installed; expected pip install tensorboard before")
    try:
        _ = call.checkpoints, call.datasets, call.upstream_folders, call.upstream_counts, call.own_contents
        _check_compressions(call)
        _check_compared(call)
        _check_samples(call)
        _check_class_names(call)
        _warn_of_heads(call)
    except ValueError as error:
        raise StudyError(f"{file}: {error}") from None
    return call


def _check_compressions(call: Call) -> None:
    """Raise ValueError where figures would not know how a checkpoint was compressed."""
    for name, entry in call.checkpoints.items():
        try:
            applied(entry.compression)
        except ValueError as error:
            raise ValueError(f"checkpoint {name}: {error}") from None


def _check_compared(call: Call) -> None:
    """Raise ValueError where a network of one's own is pruned, and nothing says what it is compared with."""
    for index, backbone in enumerate(call.study.backbones):
        entry = call.checkpoints[backbone.checkpoint]
        as_it_is = backbone.own and not (backbone.compression or backbone.control or backbone.dense)
        if as_it_is and entry.compression != UNCOMPRESSED:
            raise ValueError(
                f"backbones[{index}].dense: the key is missing: {entry.sparsity:.1%} of the weights of "
                f"{backbone.name} are 0; expected the name of the dense backbone that it is compared with"
            )


def _check_samples(call: Call) -> None:
    """Raise ValueError where a compression looks at more images than there are."""
    for index, backbone in enumerate(call.study.backbones):
        stated = backbone.compression.settings() if backbone.compression else {}
        name = stated.get("calibration")
        counts = call.datasets[name].counts if name else None
        if counts and stated["samples"] > counts.train:
            raise ValueError(
                f"backbones[{index}].compression.samples: {stated['samples']}; expected at most the {counts.train} "
                f"training images of {name}"
            )


def _warn_of_heads(call: Call) -> None:
    """Warn where published weights are trained on over other classes than their own, as part of ImageNet is."""
    for network in call.study.upstream:
        classes = call.upstream_folders.get(network.name, {}).get("classes", ())
        if network.checkpoint and classes and len(classes) != IMAGENET_CLASSES:
            log.warning(
                "%s: upstream %s: %s/train has %s classes; the head of %s is over ImageNet's %s, and a new one is "
                "trained in its place: no study takes such a network for a published one",
                *(call.file, network.name, one_line(network.folder or ""), f"{len(classes):,}", network.checkpoint),
                f"{IMAGENET_CLASSES:,}",
            )


def _check_class_names(call: Call) -> None:
    """Raise ValueError where a network that reads the names of classes cannot tell a dataset's."""
    study = call.study
    # as a linear probe does not read them
    readers = {
        study.family(backbone)
        for backbone in study.backbones
        if any(METHODS[name].prompts or not METHODS[name].trains for name in study.methods_of(backbone))
    }
    readers |= {family_of_checkpoint(study.text_encoder) for one in study.backbones if study.reads_names(one)}
    for family in (reader for reader in readers if reader.has_texts):
        for index, dataset in enumerate(study.datasets):
            try:
                given = not dataset.is_users or dataset.classes is not None
                family.check_class_names(call.targets[dataset.name].classes, given)
            except ValueError as error:
                raise ValueError(f"datasets[{index}]: {dataset.name}: {error}") from None


@cache
def code(root: Path, script: str) -> str:
    """Return the digest of a rule's script and of all project code that it stands on: an edit of it runs it again."""
    return code_digest(root / "workflow" / "scripts" / f"{script}.py", apart=APART.get(script, frozenset()))
