"""What the parts of a study must be to each other. Each check raises ValueError, which names key, value and what is
expected."""

from collections.abc import Collection

from hiddencost import catalog
from hiddencost.catalog.libraries import LIBRARIES
from hiddencost.compression.registry import kinds
from hiddencost.messages import describe_absent_name, describe_unknown_name
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of, family_of_checkpoint
from hiddencost.study.recipes import DEFAULT
from hiddencost.study.sparsifiers import SPARSIFIERS
from hiddencost.study.study import Study

# beyond these a plan would count for hours, and no memory is enough
LARGEST = {
    **{"epochs": 100_000, "steps": 10_000_000, "mapping_interval": 100_000, "interval": 1_000_000_000},
    **{"batch_size": 1_000_000, "test_batch_size": 1_000_000, "canvas": 4096, "image_size": 4096, "m": 4096},
}


def check_sizes(study: Study) -> None:
    """No number is larger than any that can be computed."""
    pending: list[tuple[str, object]] = [("", study.model_dump(exclude_none=True))]
    for where, value in pending:
        if isinstance(value, list):
            pending += [(f"{where}[{index}]", one) for index, one in enumerate(value)]
        if isinstance(value, dict):
            for key, one in value.items():
                place = f"{where}.{key}".removeprefix(".")
                # by shots, or by recipe, sizes stand one level deeper
                largest = LARGEST.get(key) or LARGEST.get(where.rpartition(".")[2])
                if isinstance(one, int) and largest and one > largest:
                    raise ValueError(f"{place}: {one}; expected {largest:,} at most")
                pending.append((place, one))


def check_upstream_networks(study: Study) -> None:
    """Networks that the study trains have names of their own, and start from what there is."""
    checkpoints, datasets = catalog.checkpoints(), catalog.datasets()
    for index, network in enumerate(study.upstream):
        where = f"upstream[{index}]"
        if network.name in checkpoints or network.name.startswith(tuple(LIBRARIES)):
            raise ValueError(f"{where}.name: {network.name!r} is of the catalog; expected another")
        if network.checkpoint:
            _check_checkpoint(f"{where}.checkpoint", network.checkpoint, others=())
            family = family_of_checkpoint(network.checkpoint)
            if not family.trained_upstream:
                raise ValueError(
                    f"{where}.checkpoint: {network.checkpoint} is {family.title}, which is not trained upstream"
                )
        if network.dataset and network.dataset not in datasets:
            raise ValueError(f"{where}.dataset: {describe_unknown_name(network.dataset, datasets)}, or folder")


def check_own_networks(study: Study) -> None:
    """Networks of one's own have names of their own, and a head over classes."""
    taken = {*catalog.checkpoints(), *(network.name for network in study.upstream)}
    for index, backbone in enumerate(study.backbones):
        if not backbone.own:
            continue
        name = backbone.checkpoint
        if name in taken or name.startswith(tuple(LIBRARIES)):
            raise ValueError(
                f"backbones[{index}].name: {name!r} is a checkpoint of the catalog or of upstream, and this is a "
                "file of your own; expected another name"
            )
        try:
            family = family_of(backbone.own.architecture)
        except ValueError as error:
            raise ValueError(f"backbones[{index}].checkpoint.{error}") from None
        if family.has_texts:
            raise ValueError(
                f"backbones[{index}].checkpoint.architecture: {backbone.own.architecture} is {family.title}; "
                "expected a network with a head over ImageNet-1k's classes: of torchvision, timm/NAME, or our own"
            )


def check_checkpoints(study: Study) -> None:
    """Each backbone has a checkpoint that there is, and each network that the study trains has a backbone."""
    trained_here = [network.name for network in study.upstream]
    own = {backbone.checkpoint for backbone in study.backbones if backbone.own}
    for index, backbone in enumerate(study.backbones):
        where = f"backbones[{index}]"
        _check_checkpoint(f"{where}.checkpoint", backbone.checkpoint, [*trained_here, *sorted(own)])
        for key in ("sparsify", "upstream_seed"):
            if getattr(backbone, key) is not None and backbone.checkpoint not in trained_here:
                raise ValueError(f"{where}.{key}: goes with a checkpoint under upstream, which trains it")
        if backbone.sparsify:
            epochs = study.trained_here(backbone.checkpoint).recipe.epochs
            rewind_epoch = SPARSIFIERS[backbone.sparsify.algorithm].rewind_epoch(backbone.sparsify.settings())
            if rewind_epoch is not None and rewind_epoch >= epochs:
                raise ValueError(
                    f"{where}.sparsify.rewind_epoch: {rewind_epoch}; expected less than the epochs of its upstream "
                    f"training, {epochs}"
                )
        if backbone.checkpoint in trained_here and study.verification.upstream_top1 is None:
            raise ValueError("verification.upstream_top1: the key is missing: upstream trains networks to verify")
    for name in set(trained_here) - {backbone.checkpoint for backbone in study.backbones}:
        raise ValueError(f"upstream: no backbone has the checkpoint {name}; expected one")


def _check_checkpoint(where: str, name: str, others: Collection[str]) -> None:
    published = catalog.checkpoints()
    if not name.startswith(tuple(LIBRARIES)) and name not in (*published, *others):
        told = ", ".join([*others, f"the names in {catalog.LIST}"])
        raise ValueError(f"{where}: {describe_unknown_name(name, [*others, *published], told)}, or {catalog.ANY}")


def check_backbones_differ(study: Study) -> None:
    """No two backbones are the same network."""
    names: dict[tuple, str] = {}
    for backbone in study.backbones:
        settings = backbone.compression and backbone.compression.settings()
        network = (backbone.checkpoint, str(backbone.training()), str(settings), backbone.control)
        if network in names:
            raise ValueError(
                f"backbones: {names[network]} and {backbone.name} are the same network; expected different ones"
            )
        names[network] = backbone.name


def check_calibrations(study: Study) -> None:
    """What a compression looks at is a dataset of the study or the catalog, and reaches all layers that it prunes."""
    known = {*(dataset.name for dataset in study.datasets), *catalog.datasets()}
    for index, backbone in enumerate(study.backbones):
        if not (calibration := backbone.compression and backbone.compression.calibration):
            continue
        where, family = f"backbones[{index}].compression", study.family(backbone)
        if family.has_texts:
            raise ValueError(
                f"{where}: {backbone.compression.algorithm} looks at images, and half of {family.title} reads texts; "
                "expected another algorithm"
            )
        if calibration not in known:
            raise ValueError(f"{where}.calibration: {describe_unknown_name(calibration, sorted(known))}")


def check_datasets(study: Study) -> None:
    """Each dataset is of the catalog or the user's own."""
    known = catalog.datasets()
    for index, dataset in enumerate(study.datasets):
        where = f"datasets[{index}]"
        if not dataset.is_users and dataset.name not in known:
            raise ValueError(f"{where}.name: {describe_unknown_name(dataset.name, known)}, or folder or npz")
        if dataset.is_users and dataset.name in known:
            raise ValueError(f"{where}.name: {dataset.name!r} is of the catalog; expected another")


def check_methods(study: Study) -> None:
    """Each backbone has a method that there is for it."""
    for index, backbone in enumerate(study.backbones):
        if not study.methods_of(backbone):
            family = study.family(backbone)
            serving = study.methods_of(backbone, METHODS)
            raise ValueError(
                f"backbones[{index}]: {backbone.name} is {family.title}, and methods has {study.methods[0]}; "
                f"expected one of {', '.join(serving)}"
            )


def check_text_encoder(study: Study) -> None:
    """What reads the names of classes is a CLIP that there is."""
    _check_checkpoint("text_encoder", study.text_encoder, others=())
    if not (family := family_of_checkpoint(study.text_encoder)).has_texts:
        name = study.text_encoder
        raise ValueError(f"text_encoder: {name} is {family.title}, which reads no texts; expected a CLIP")


def check_prompts(study: Study) -> None:
    """Each backbone has the recipe of its prompts, which fit on its canvas."""
    image_sizes = [dataset.image_size for dataset in study.datasets]
    for backbone in study.backbones:
        recipe = study.prompting_recipe(backbone)
        recipe.check_prompts(backbone.name, study.canvas(backbone), image_sizes)


def check_batch_sizes(study: Study) -> None:
    """Batch sizes by shots are of shots that the study has."""
    sizes = study.protocol.batch_size if study.protocol else 1
    for shots in () if isinstance(sizes, int) else sizes:
        if shots not in (*map(str, study.shots), DEFAULT):
            known = ", ".join(map(str, study.shots))
            raise ValueError(f"protocol.batch_size.{shots}: the study has no such shots; expected one of {known}")


def check_upstream_lengths(study: Study) -> None:
    """Upstream training has a batch at least, and steps enough for its sparsifiers."""
    known = catalog.datasets()
    for index, network in enumerate(study.upstream):
        counts = known[network.dataset].counts if network.dataset else None
        if counts and network.recipe.batch_size > counts.train:
            raise ValueError(
                f"upstream[{index}].recipe.batch_size: {network.recipe.batch_size}; expected at most the "
                f"{counts.train} training images of {network.dataset}"
            )
    for index, backbone in enumerate(study.backbones):
        trained = study.upstream_network(backbone.checkpoint)
        counts = known[trained.dataset].counts if trained and trained.dataset else None
        if backbone.sparsify and trained and counts:
            steps = trained.recipe.epochs * (counts.train // trained.recipe.batch_size)
            try:
                SPARSIFIERS[backbone.sparsify.algorithm].check_steps(backbone.sparsify.settings(), steps)
            except ValueError as error:
                raise ValueError(f"backbones[{index}].sparsify: {error}") from None


def check_class_counts(study: Study) -> None:
    """A network that is trained here has a class for each class of a dataset that it is prompted for."""
    known = catalog.datasets()
    if not any(METHODS[name].prompts for name in study.methods):
        return
    for backbone in study.backbones:
        network = study.upstream_network(backbone.checkpoint)
        source = known[network.dataset].classes if network and network.dataset else None
        for index, dataset in enumerate(study.datasets):
            target = None if dataset.is_users else known[dataset.name].classes
            if source and target and len(target) > len(source):
                raise ValueError(
                    f"datasets[{index}].name: {dataset.name} has {len(target)} classes, more than the "
                    f"{len(source)} of {backbone.checkpoint}; label mapping gives each a class of its own"
                )


def check_recipes(study: Study) -> None:
    """Each method has its recipe, and fine-tuning a network whose weights may change."""
    for method in study.methods:
        recipe = METHODS[method].recipe
        if not METHODS[method].prompts and getattr(study, recipe) is None:
            why = "whose recipe it is" if METHODS[method].trains else "which takes its test_batch_size"
            raise ValueError(f"{recipe}: the key is missing: methods has {method}, {why}")
    for index, backbone in enumerate(study.backbones):
        published = catalog.checkpoints().get(backbone.checkpoint)
        known = kinds().get(published.compression) if published else None
        before = known is not None and known.quantises
        here = backbone.compression is not None and backbone.compression.entry.quantises
        trained = [method for method in study.methods_of(backbone) if METHODS[method].changes_weights]
        key = f"backbones[{index}]." + ("compression" if here else "checkpoint")
        if (before or here) and trained:
            raise ValueError(f"{key}: {trained[0]}, of methods, would undo the quantisation")
        if before and backbone.compression:
            raise ValueError(f"{key}: {backbone.checkpoint} is quantised already; expected it as it is published")


def check_references(study: Study) -> None:
    """What names a backbone, a dataset or a checkpoint names one of the study."""
    backbones = [backbone.name for backbone in study.backbones]
    datasets = [dataset.name for dataset in study.datasets]
    references = [
        *(
            (f"backbones[{index}].dense", one.dense, backbones)
            for index, one in enumerate(study.backbones)
            if one.dense
        ),
        *(
            (f"expectations[{index}].{key}", getattr(expectation, key), allowed)
            for index, expectation in enumerate(study.expectations)
            for key, allowed in (
                *(("backbone", backbones), ("dataset", datasets)),
                *(("method", study.methods), ("shots", study.shots)),
            )
        ),
        *(
            (f"figures.{key}[{index}]", name, allowed)
            for key, allowed in (
                *(("backbones", backbones), ("datasets", datasets)),
                *(("methods", study.methods), ("shots", study.shots)),
            )
            for index, name in enumerate(getattr(study.figures, key) or [])
        ),
        *(("figures.labels", name, [*backbones, *datasets, *METHODS]) for name in study.figures.labels),
        *(("figures.colours", name, [*backbones, *METHODS]) for name in study.figures.colours),
        *(("paths", name, sorted(_published_names(study))) for name in study.paths),
    ]
    for where, name, allowed in references:
        if name not in allowed:
            raise ValueError(f"{where}: {describe_absent_name(name, allowed)}")


def check_expectations(study: Study) -> None:
    """Published accuracies are of methods that serve their backbones, and in per cent: not all at most 1, and none at
    most 1 that would be below chance."""
    all_are_shares = all(expectation.accuracy <= 1 for expectation in study.expectations)
    for index, expectation in enumerate(study.expectations):
        if expectation.method not in (served := study.methods_of(study.backbone(expectation.backbone))):
            raise ValueError(
                f"expectations[{index}].method: {expectation.method} is not run on {expectation.backbone}; expected "
                f"one of {', '.join(served)}"
            )
        known = catalog.datasets().get(expectation.dataset)  # of the user's own images nobody knows yet
        chance = 100 / len(known.classes) if known and known.classes else 0
        if 0 < expectation.accuracy <= 1 and (all_are_shares or expectation.accuracy < chance):
            raise ValueError(
                f"expectations[{index}].accuracy: {expectation.accuracy:g}; expected per cent, and no share of 1 "
                f"({100 * expectation.accuracy:g}, where it is one)"
            )


def _published_names(study: Study) -> set[str]:
    """Return the checkpoints, datasets and photos of the catalog that a study uses."""
    checkpoints = study.published_checkpoints(one for one in study.backbones if not one.own)
    return (
        checkpoints
        | {dataset.name for dataset in study.datasets if not dataset.is_users}
        | set(study.upstream_datasets())
        | {name for name, _ in study.calibrations() if name in catalog.datasets()}
        | {study.verification.photos}
    )


CHECKS = (
    check_sizes,
    check_upstream_networks,
    check_own_networks,
    check_checkpoints,
    check_backbones_differ,
    check_calibrations,
    check_datasets,
    check_methods,
    check_text_encoder,
    check_prompts,
    check_batch_sizes,
    check_upstream_lengths,
    check_class_counts,
    check_recipes,
    check_references,
    check_expectations,
)
