"""What the rules ask of a machine or a scheduler: memory (MB) and time (minutes) of a job's `attempt`."""

import math
from pathlib import Path

from hiddencost.catalog.entries import DatasetEntry, NetworkEntry
from hiddencost.datasets.prepare import sized
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.jobs import analyses, analysis_cost, checkpoints, cost, datasets
from hiddencost.jobs.call import Call
from hiddencost.jobs.grid import to_run
from hiddencost.jobs.upstream import arithmetic, gflop
from hiddencost.messages import StudyError
from hiddencost.methods.registry import run_by
from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.networks.convolutional import IMAGENET_CLASSES
from hiddencost.study.recipes import PUBLISHED_TEMPLATES

CALLS = 7  # of a network, at least, that are timed, and before


def count_arithmetic(call: Call) -> None:
    """Complete the entries of `call.checkpoints` with the multiply-adds of networks that are made to be counted:
    those that a study trains, and published ones that are not left out and whose entry states none.

    It takes seconds, and imports PyTorch, where a study has such. Raises StudyError where there is no such network.
    """
    for name in sorted(call.study.published_checkpoints(map(call.study.backbone, to_run(call)["backbone"]))):
        entry = call.published[name]
        if entry.gmacs is None:
            try:
                gmacs, parameters = count_multiply_adds(entry.architecture)
            except ValueError as error:
                raise StudyError(f"{call.file}: checkpoint {name}: {error}") from None
            counted = {"gmacs": gmacs, "weights_mb": 4 * parameters / 1e6}
            call.checkpoints[name] = entry.model_copy(update=counted)
    for trained in call.study.upstream:
        try:
            gmacs, _ = arithmetic(call, trained.name)
        except ValueError as error:
            raise StudyError(f"{call.file}: upstream {trained.name}: {error}") from None
        counted = {"gmacs": gmacs * (224 / trained.image_size) ** 2}
        call.checkpoints[trained.name] = call.checkpoints[trained.name].model_copy(update=counted)


def _network(call: Call, backbone: str) -> NetworkEntry:
    return call.checkpoints[call.study.backbone(backbone).checkpoint]


def _pack(call: Call, backbone: str, dataset: str) -> tuple[NetworkEntry, DatasetEntry]:
    """Return the entries of a pack's network and dataset, without gaps."""
    folder = Path(datasets.first_prepared(call, dataset))
    is_there = call.study.dataset(dataset).is_users and (folder / "dataset.json").exists()
    prepared = PreparedReport.read(folder) if is_there else None
    return cost.fill_gaps(_network(call, backbone), call.datasets[dataset], prepared)


def short_runtime(call: Call, attempt: int) -> int:
    """Return the time of a job that computes little."""
    return cost.minutes(0, attempt)


def import_memory(call: Call, checkpoint: str, attempt: int) -> int:
    """Return the memory to import a checkpoint."""
    return cost.network_mb(call.checkpoints[checkpoint]) * attempt


def network_memory(call: Call, backbone: str, attempt: int) -> int:
    """Return the memory to verify a network that is trained here, or to embed texts by it."""
    return cost.network_mb(_network(call, backbone)) * attempt


def compress_memory(call: Call, backbone: str, attempt: int) -> int:
    """Return the memory to compress a network."""
    return cost.compress_mb(call.study, call.study.backbone(backbone), _network(call, backbone)) * attempt


def compress_runtime(call: Call, backbone: str, attempt: int) -> int:
    """Return the time to compress a network, with the images that it is calibrated on, if it is."""
    settings = call.study.backbone(backbone)
    images, side = cost.calibration_samples(settings), call.study.canvas(settings)
    return cost.minutes(cost.answer_seconds(cost.CALIBRATION * images, _network(call, backbone), side), attempt)


def _dense(call: Call, backbone: str) -> str | None:
    """Return the name of the dense backbone that the gate holds one's answers against, if there is one."""
    has_one = checkpoints.dense_network(call, backbone)
    return call.study.dense_of(call.study.backbone(backbone)) if has_one else None


def verify_memory(call: Call, backbone: str, attempt: int) -> int:
    """Return the memory to verify a published network, beside the dense one that it is held against."""
    dense = _dense(call, backbone)
    return cost.network_mb(_network(call, backbone), _network(call, dense) if dense else None) * attempt


def verify_runtime(call: Call, backbone: str, attempt: int) -> int:
    """Return the time to verify a published network, on photos of 224 pixels, or of its own side."""
    count, dense = call.study.photos_entry().count, _dense(call, backbone)
    looked = min(count, cost.LOOKED)
    looks = [(backbone, count + (cost.LOOKS - 1) * looked), *([(dense, looked)] if dense else [])]
    sides = [max(224, call.study.canvas(call.study.backbone(name))) for name, _ in looks]
    seconds = [
        cost.answer_seconds(images, _network(call, name), side)
        for (name, images), side in zip(looks, sides, strict=True)
    ]
    return cost.minutes(sum(seconds), attempt)


def verify_trained_runtime(call: Call, backbone: str, attempt: int) -> int:
    """Return the time to verify a network that is trained here, on images as it was trained with."""
    side = call.study.trained_here(call.study.backbone(backbone).checkpoint).image_size
    return cost.minutes(cost.answer_seconds(cost.TEST_IMAGES, _network(call, backbone), side), attempt)


def shift_memory(call: Call, backbone: str, dataset: str, device: str, attempt: int) -> int:
    """Return the memory of a backbone's runs on corrupted test images on a device, "cpu" or "gpu"."""
    settings, pack = call.study.backbone(backbone), _pack(call, backbone, dataset)
    sizes = call.study.sizes(dataset, settings)
    prompted = [cost.train_mb(call.study, settings, *pack, sizes["train"], device)] if "train" in sizes else []
    return max([*prompted, cost.features_mb(call.study, settings, *pack, device)]) * attempt


def shift_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time of a backbone's runs on corrupted test images."""
    native, (_, entry) = call.datasets[dataset].native_size, _pack(call, backbone, dataset)
    sides = [sized(native or size)[0] for size in analyses.shifted_images(call, backbone, dataset)]
    return _analysis_runtime(
        call, "shift", backbone, dataset, attempt, analysis_cost.corrupt_seconds(call.study, entry, sides)
    )


def latency_memory(call: Call, backbone: str, device: str, attempt: int) -> int:
    """Return the memory to measure how fast a network runs on a device, "cpu" or "gpu"."""
    work = cost.FORWARD * cost.relative_area(call.study, call.study.backbone(backbone)) if device == "cpu" else 0
    return math.ceil(cost.PROCESS[device] + cost.COPIES * cost.weights_mb(_network(call, backbone)) + work) * attempt


def latency_runtime(call: Call, backbone: str, attempt: int) -> int:
    """Return the time to measure how fast a network runs, and the dense one in turn with it, in the fewest calls of
    the largest batch."""
    images = CALLS * 64  # in the larger of its batches
    seconds = (
        cost.answer_seconds(images, _network(call, name), call.study.canvas(call.study.backbone(name)))
        for name in (backbone, analyses.measured_beside(call, backbone))
        if name
    )
    return cost.minutes(sum(seconds), attempt)


def prepare_runtime(call: Call, dataset: str, attempt: int) -> int:
    """Return the time to prepare a dataset."""
    return cost.minutes(cost.prepare_seconds(call.datasets[dataset]), attempt)


def prepare_memory(call: Call, dataset: str, attempt: int) -> int:
    """Return the memory to prepare a dataset."""
    return cost.prepare_mb(call.datasets[dataset]) * attempt


def texts_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time to embed the texts of a dataset."""
    network, entry = _pack(call, backbone, dataset)
    templates = call.study.templates(call.study.backbone(backbone))
    count = PUBLISHED_TEMPLATES if templates == "published" else len(templates)
    return cost.minutes(cost.texts_seconds(count * len(entry.classes or ()), network), attempt)


def names_memory(call: Call, attempt: int) -> int:
    """Return the memory to compare the names of classes."""
    return cost.names_mb(call.checkpoints[call.study.text_encoder]) * attempt


def names_runtime(call: Call, dataset: str, attempt: int) -> int:
    """Return the time to compare the names of a dataset's classes with ImageNet's, on one core."""
    entry, count = call.checkpoints[call.study.text_encoder], len(call.datasets[dataset].classes or ())
    return cost.minutes(cost.names_seconds(IMAGENET_CLASSES + count, entry), attempt)


def _training_runtime(call: Call, job: str, backbone: str, dataset: str, attempt: int) -> int:
    pack = *_pack(call, backbone, dataset), call.study.dataset(dataset).batch_size
    seconds = cost.train_seconds(call.study, call.study.backbone(backbone), run_by(job), *pack)
    return cost.minutes(seconds, attempt)


def train_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time of a pack of prompting."""
    return _training_runtime(call, "train", backbone, dataset, attempt)


def train_memory(call: Call, backbone: str, dataset: str, device: str, attempt: int) -> int:
    """Return the memory of a pack of prompting on a device, "cpu" or "gpu"."""
    settings = call.study.backbone(backbone)
    size = call.study.sizes(dataset, settings)["train"]
    return cost.train_mb(call.study, settings, *_pack(call, backbone, dataset), size, device) * attempt


def finetune_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time of a pack of fine-tuning."""
    return _training_runtime(call, "finetune", backbone, dataset, attempt)


def finetune_memory(call: Call, backbone: str, dataset: str, device: str, attempt: int) -> int:
    """Return the memory of a pack of fine-tuning."""
    batch_size = call.study.recipe("finetune", dataset, backbone)["batch_size"]
    settings = call.study.backbone(backbone)
    return cost.finetune_mb(call.study, settings, *_pack(call, backbone, dataset), batch_size, device) * attempt


def features_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time to extract the features of a dataset."""
    pack = _pack(call, backbone, dataset)
    return cost.minutes(cost.features_seconds(call.study, call.study.backbone(backbone), *pack), attempt)


def features_memory(call: Call, backbone: str, dataset: str, device: str, attempt: int) -> int:
    """Return the memory to extract the features of a dataset."""
    pack = _pack(call, backbone, dataset)
    return cost.features_mb(call.study, call.study.backbone(backbone), *pack, device) * attempt


def comparing_runtime(call: Call, analysis: str, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time to evaluate a network beside its dense one."""
    return _analysis_runtime(call, analysis, backbone, dataset, attempt)


def _analysis_runtime(
    call: Call, analysis: str, backbone: str, dataset: str, attempt: int, further: float = 0
) -> int:
    """further: seconds beside the network's."""
    pack = *_pack(call, backbone, dataset), call.study.dataset(dataset).batch_size
    gflop = analysis_cost.ANALYSIS_GFLOP[analysis](call.study, call.study.backbone(backbone), *pack)
    return cost.minutes(gflop / cost.GPU_RATE + further, attempt)


def comparing_memory(call: Call, backbone: str, dataset: str, device: str, attempt: int) -> int:
    """Return the memory to evaluate a network beside its dense one."""
    settings, pack = call.study.backbone(backbone), _pack(call, backbone, dataset)
    dense = call.study.dense_of(settings)
    beside = _network(call, dense) if dense else pack[0]
    return cost.pair_mb(call.study, settings, *pack, beside, device) * attempt


def probe_runtime(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the time of a pack of linear probes."""
    return cost.minutes(cost.probe_seconds(call.study, _pack(call, backbone, dataset)[1]), attempt)


def probe_memory(call: Call, backbone: str, dataset: str, attempt: int) -> int:
    """Return the memory of a pack of linear probes."""
    return cost.probe_mb(_pack(call, backbone, dataset)[1]) * attempt


def upstream_threads(device: str) -> int:
    """Return the threads of an upstream training: on a GPU, of those that read its images."""
    return cost.READERS if device == "gpu" else 1


def upstream_memory(call: Call, upstream: str, device: str, attempt: int) -> int:
    """Return the memory of an upstream training."""
    trained, (_, parameters) = call.study.trained_here(upstream), arithmetic(call, upstream)
    return cost.upstream_mb(parameters, trained.recipe.batch_size, trained.image_size, device) * attempt


def upstream_runtime(call: Call, upstream: str, attempt: int) -> int:
    """Return the time of an upstream training: a day at most."""
    return cost.upstream_minutes(gflop(call, upstream), attempt)
