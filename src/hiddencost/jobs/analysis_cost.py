"""What the jobs of analyses cost: arithmetic in GFLOP, and the seconds of what no GPU does; see `cost`."""

from collections.abc import Callable, Iterable

from hiddencost.catalog.entries import DatasetEntry, NetworkEntry
from hiddencost.jobs.cost import distinct_shots, image_gflop
from hiddencost.methods.registry import METHODS
from hiddencost.study.parts import Backbone
from hiddencost.study.study import Study

GRADIENT_IMAGES = 1000  # of the test set at most, of `why`: `runs.measured.GRADIENT_IMAGES`
# Seconds of a core: to resize an image, and to corrupt one of 224 pixels, a mean of the six corruptions
RESIZE, CORRUPT = 0.002, 0.015


def _prompting_runs(study: Study, backbone: Backbone, dataset: DatasetEntry, batch_size: int | None) -> int:
    """Return how many prompting runs of a backbone on a dataset are runs of their own, see `distinct_shots`."""
    methods = [name for name in study.methods_of(backbone) if METHODS[name].prompts]
    shots = distinct_shots(study.shots, dataset, study.prompting_recipe(backbone), batch_size) if methods else []
    return len(methods) * len(shots) * len(study.seeds)


def _test_images(dataset: DatasetEntry) -> int:
    return dataset.counts.test if dataset.counts else 0


def corrupted_images(study: Study, dataset: DatasetEntry) -> int:
    """Return how many images the corruptions of a study make of a dataset's test images."""
    return len(study.shift.corruptions) * len(study.shift.severities) * _test_images(dataset)


def shift_gflop(
    study: Study,
    backbone: Backbone,
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    batch_size: int | None = None,
) -> float:
    """Return the GFLOP of the runs of a backbone on corrupted test images: of those that prompt one by one, of others
    the features alone. batch_size: the dataset's own."""
    probed = any(METHODS[name].probes for name in study.methods_of(backbone))
    passes = _prompting_runs(study, backbone, dataset, batch_size) + probed
    return passes * corrupted_images(study, dataset) * image_gflop(study, backbone, checkpoint)


def why_gflop(
    study: Study,
    backbone: Backbone,
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    batch_size: int | None = None,
) -> float:
    """Return the GFLOP of the measures of a network and the dense one: the features once, and of each run the answers
    and, on some images, a gradient, which is three forward passes. batch_size: the dataset's own."""
    images, runs = _test_images(dataset), _prompting_runs(study, backbone, dataset, batch_size)
    passes = images + runs * (images + 3 * min(GRADIENT_IMAGES, images))
    return 2 * bool(runs) * passes * image_gflop(study, backbone, checkpoint)


def split_gflop(
    study: Study,
    backbone: Backbone,
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    batch_size: int | None = None,
) -> float:
    """Return the GFLOP of the parts of a cost: of each run both networks under both prompts. batch_size: the
    dataset's own."""
    passes = 2 * 2 * _prompting_runs(study, backbone, dataset, batch_size) * _test_images(dataset)
    return passes * image_gflop(study, backbone, checkpoint)


# of a job of an analysis that computes much
ANALYSIS_GFLOP: dict[str, Callable[..., float]] = {"shift": shift_gflop, "why": why_gflop, "split": split_gflop}


def corrupt_seconds(study: Study, dataset: DatasetEntry, sides: Iterable[int]) -> float:
    """Return how long corrupting a dataset's test images may take on one core, at each of some sides, in pixels."""
    return sum(corrupted_images(study, dataset) * (RESIZE + CORRUPT * (side / 224) ** 2) for side in sides)
