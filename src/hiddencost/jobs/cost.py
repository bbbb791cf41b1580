"""What a study's jobs cost: arithmetic in GFLOP, minutes, and memory in MB."""

import math
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from pathlib import Path

import psutil

from hiddencost.catalog.entries import Counts, DatasetEntry, NetworkEntry
from hiddencost.datasets.prepare import sized
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.files import read_json
from hiddencost.memory import WORK
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.study.parts import Backbone
from hiddencost.study.recipes import ByEpochs, Protocol
from hiddencost.study.study import Study

# What is assumed of a network or dataset that the catalog does not describe: about ResNet-50's, and CIFAR-10's
GMACS = 4.1
WEIGHTS = 100  # MB
DOWNLOAD = 500  # MB
COUNTS = Counts(train=50_000, test=10_000)
CLASSES = 100
FEATURES = 2048  # of an image, float32
# For the time that a scheduler is asked for. A job that is killed is tried again with twice the time: one that trains
# goes on from its last finished run, others begin anew. One that asks for too much may wait for days.
START = 10  # minutes: reading files from a network, importing PyTorch, measuring how a network runs fastest
GPU_RATE = 5_000  # GFLOP/s: a third of the fp32 peak of a V100, an old GPU by now
CPU_RATE = 25  # GFLOP/s of one core: a third of the fp32 peak of one with AVX2 at 2.4 GHz
PROBE_RATE = 5_000  # images/s on one core
RESIZE_RATE = 100  # images/s on one core
# Memory in MB. A process with PyTorch; with CUDA it maps its libraries and pins buffers.
PROCESS = {"cpu": 1000, "gpu": 4000}
FORWARD = 2000  # the same without gradients
IMAGE = 120  # a training image on a canvas of 224, of ResNet-50 in training mode
OWN_IMAGE = 2148  # the largest of the user's own that is read, see datasets.readers.image
READERS, READER = 4, 600  # worker processes that read images for a GPU, and what each takes
DAY = 24 * 60  # minutes: what upstream training asks for at most; it goes on from its last epoch when time is over
# What the gate shows a network: photos, as declared, in `compression.photos.VIEWS` and by NORMALISATIONS; or of those
# that a network was trained with here, `upstream.gate.IMAGES`. Of photos LOOKED at most are looked at otherwise
LOOKS, LOOKED, TEST_IMAGES = 11, 100, 1000
# Of a compression that looks at images: MB of an image on a canvas of 224, as all go through together; MB of Hessians
# and their factors; and how many passes of all images these cost, in float64
LIVE, HESSIAN, CALIBRATION = 15, 1500, 16
READ = 3  # copies of a network that answers and no more: its weights as read and as parameters, and masks
COPIES = 8  # of a network's weights: as read, as parameters, masks, a copy, gradients, Adam's two moments


def count_training_images(shots: int | str, dataset: DatasetEntry) -> int:
    """Return how many training images a budget takes of a dataset: its catalog entry."""
    train = _counts(dataset).train
    return train if shots == "full" else min(int(shots) * len(dataset.classes or ()), train)


def distinct_shots(
    shots: Iterable[int | str],
    dataset: DatasetEntry,
    recipe: ByEpochs | Protocol,
    batch_size: int | None = None,
) -> list[int | str]:
    """Return the numbers of shots, ascending, that are trainings of their own on a dataset: of those that choose all
    of its images, in batches of one size, the first, as far as the catalog says how many its largest class has.

    batch_size: the dataset's own, instead of the recipe's.
    """
    most = dataset.largest_class
    first: dict[tuple, int | str] = {}
    for number in shots:
        whole = most and (number == "full" or int(number) >= most)
        first.setdefault(("full" if whole else number, batch_size or recipe.at(number).batch_size), number)
    return list(first.values())


def _counts(dataset: DatasetEntry) -> Counts:
    assert dataset.counts is not None, "an entry whose gaps are filled, see `described`"
    return dataset.counts


def relative_area(study: Study, backbone: Backbone) -> float:
    """Return the area of a backbone's input, relative to 224 x 224 pixels: what an image costs grows with it."""
    return (study.canvas(backbone) / 224) ** 2


def image_gflop(study: Study, backbone: Backbone, checkpoint: NetworkEntry) -> float:
    """Return the GFLOP of one image's forward pass, on a whole canvas; 0 where the catalog's entry has no gmacs."""
    return 2 * (checkpoint.gmacs or 0) * relative_area(study, backbone)


def pack_gflop(
    study: Study,
    backbone: Backbone,
    methods: Collection[str],
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Return the GFLOP of the runs, by those of `methods` that there are for a backbone, of one (backbone, dataset,
    seed): "training", "mapping and test".

    As if canvases were computed whole. The linear probe and zero-shot, on features, count as nothing. checkpoint,
    dataset: catalog entries; those without gmacs or counts cost nothing. batch_size: the dataset's own.
    """
    passes = {"training": 0, "mapping and test": 0}  # of an image, forward
    family = study.family(backbone)
    for method in (METHODS[name] for name in set(methods) & set(study.methods_of(backbone))):
        if not (of_image := JOBS[method.job].passes) or not dataset.counts:
            continue
        stated = getattr(study, family.recipe if method.prompts else method.recipe)
        stated = stated.model_copy(update={"batch_size": batch_size or stated.batch_size})
        for shots in distinct_shots(study.shots, dataset, stated):
            images, recipe = count_training_images(shots, dataset), stated.at(shots)
            passes["training"] += of_image * recipe.images_on(images)
            passes["mapping and test"] += dataset.counts.test
            if method.prompts:
                begun = recipe.passes_on(images)
                passes["mapping and test"] += images * method.mapping_passes(begun, recipe.mapping_interval)
    return {kind: count * image_gflop(study, backbone, checkpoint) for kind, count in passes.items()}


def features_gflop(study: Study, backbone: Backbone, checkpoint: NetworkEntry, dataset: DatasetEntry) -> float:
    """Return the GFLOP of the features of a dataset's images; see `pack_gflop`."""
    return (dataset.counts.total if dataset.counts else 0) * image_gflop(study, backbone, checkpoint)


def texts_seconds(count: int, checkpoint: NetworkEntry) -> float:
    """Return how long so many texts of a CLIP may take on a slow GPU: each as an image of its tower at 224 pixels."""
    return count * 2 * (checkpoint.gmacs or GMACS) / GPU_RATE


def text_gmacs(architecture: str) -> float:
    """Return the multiply-adds, in billions, of a text of a CLIP: of its transformer, over all tokens of its context,
    as open_clip's configuration has it (of TinyCLIP's, which open_clip has not, as of the larger one they are of)."""
    spec = find_spec("open_clip")  # not imported: it takes seconds, and the Snakefile reads this
    assert spec is not None, "it is installed with this project"
    folder = Path(str(spec.origin)).with_name("model_configs")
    file = folder / f"{architecture.removeprefix('clip/')}.json"
    text = read_json(file if file.exists() else folder / "ViT-B-32.json")["text_cfg"]
    width, tokens = text.get("width", 512), text.get("context_length", 77)  # open_clip's defaults
    of_layer = (4 + 2 * text.get("mlp_ratio", 4)) * width**2 + 2 * tokens * width
    return text.get("layers", 12) * tokens * of_layer / 1e9


def names_seconds(count: int, checkpoint: NetworkEntry) -> float:
    """Return how long so many names of classes may take a CLIP to read, on one core."""
    return count * 2 * text_gmacs(checkpoint.architecture) / CPU_RATE


def names_mb(checkpoint: NetworkEntry) -> int:
    """Return the memory of a job in which a CLIP reads names."""
    return math.ceil(PROCESS["cpu"] + 1000 + READ * weights_mb(checkpoint))


def fill_gaps(
    checkpoint: NetworkEntry, dataset: DatasetEntry, prepared: PreparedReport | None = None
) -> tuple[NetworkEntry, DatasetEntry]:
    """Return catalog entries without gaps: what they do not say is as in `prepared`, the dataset's report where there
    is one, or assumed."""
    known = {"counts": COUNTS, "classes": [str(number) for number in range(CLASSES)]}
    if prepared:
        known = {"counts": prepared.counts, "classes": prepared.classes}
    gaps = {key: value for key, value in known.items() if getattr(dataset, key) is None}
    return checkpoint.model_copy(update={"gmacs": checkpoint.gmacs or GMACS}), dataset.model_copy(update=gaps)


def minutes(seconds: float, attempt: int) -> int:
    """Return the time to ask for, in minutes, for a job that works so long; it doubles with each attempt."""
    return math.ceil(START + seconds / 60) * 2 ** (attempt - 1)


def answer_seconds(images: int, checkpoint: NetworkEntry, side: int) -> float:
    """Return how long a network may take for so many images of a side, in pixels, on one core."""
    return images * 2 * (checkpoint.gmacs or GMACS) * (side / 224) ** 2 / CPU_RATE


def train_seconds(
    study: Study,
    backbone: Backbone,
    methods: Collection[str],
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    batch_size: int | None = None,
) -> float:
    """Return how long a pack of prompting or fine-tuning may take on a slow GPU; see `pack_gflop`."""
    return sum(pack_gflop(study, backbone, methods, checkpoint, dataset, batch_size).values()) / GPU_RATE


def features_seconds(study: Study, backbone: Backbone, checkpoint: NetworkEntry, dataset: DatasetEntry) -> float:
    """Return how long the features of a dataset may take on a slow GPU."""
    return features_gflop(study, backbone, checkpoint, dataset) / GPU_RATE


def probe_seconds(study: Study, dataset: DatasetEntry) -> float:
    """Return how long the linear probes of a pack may take on one core."""
    trained = any(METHODS[name].probes and METHODS[name].trains for name in study.methods)
    assert study.probe is not None, "the recipe of the probes, see `check_recipes`"
    images = sum(count_training_images(shots, dataset) for shots in distinct_shots(study.shots, dataset, study.probe))
    return study.probe.epochs * trained * images / PROBE_RATE


def prepare_seconds(dataset: DatasetEntry) -> float:
    """Return how long a dataset may take to prepare on one core."""
    return (dataset.counts or COUNTS).total / RESIZE_RATE


def upstream_gflop(epochs: int, images: int, gmacs: float) -> float:
    """Return the GFLOP of an upstream training: forward, backward to the features and to the weights.

    gmacs: the multiply-adds of an image at its size, in billions."""
    return 3 * 2 * gmacs * images * epochs


def upstream_minutes(gflop: float, attempt: int) -> int:
    """Return the time to ask for, in minutes, of an upstream training on a slow GPU: a day at most."""
    return min(minutes(gflop / GPU_RATE, attempt), DAY)


def upstream_mb(parameters: int, batch_size: int, size: int, device: str) -> int:
    """Return the memory of a job that trains a network of so many parameters upstream, on images of size x size."""
    work = batch_size * IMAGE * (size / 224) ** 2 if device == "cpu" else READERS * READER
    return math.ceil(PROCESS[device] + 500 + COPIES * 4 * parameters / 1e6 + work)


def weights_mb(checkpoint: NetworkEntry) -> float:
    """Return the size of a network's weights: of the largest of its files in the catalog's entry, or assumed."""
    assumed = 1e6 * (checkpoint.weights_mb or WEIGHTS)
    sizes = [file.size or assumed for file in checkpoint.files.values()]
    return max(sizes, default=WEIGHTS * 1e6) / 1e6  # no file of a network that the study trains


def training_images_mb(dataset: DatasetEntry, size: int) -> float:
    """Return the size of the training images at size x size pixels; those of the test are read in parts."""
    return _counts(dataset).train * 3 * size**2 / 1e6


def network_mb(checkpoint: NetworkEntry, dense: NetworkEntry | None = None) -> int:
    """Return the memory to import, compress or verify a network; dense: one that is held beside it."""
    beside = READ * weights_mb(dense) if dense else 0
    return math.ceil(PROCESS["cpu"] + 1000 + COPIES * weights_mb(checkpoint) + beside)


def compress_mb(study: Study, backbone: Backbone, checkpoint: NetworkEntry) -> int:
    """Return the memory to compress a network, with the images that it is calibrated on, if it is."""
    images = calibration_samples(backbone)
    seen = HESSIAN + images * LIVE * relative_area(study, backbone) if images else 0
    return math.ceil(network_mb(checkpoint) + seen)


def calibration_samples(backbone: Backbone) -> int:
    """Return how many images a backbone's compression looks at."""
    return (backbone.compression.settings().get("samples") or 0) if backbone.compression else 0


def prepare_mb(dataset: DatasetEntry) -> int:
    """Return the memory to prepare a dataset, some of which are read whole from their files, and of the user's own
    an image after another, of any size."""
    sizes = [file.size or DOWNLOAD * 1e6 for file in dataset.files.values()]
    path = dataset.options.get("path")  # of the user's own: a folder, or a file
    if path and Path(path).is_file():
        sizes.append(min(Path(path).stat().st_size, 2**30))  # larger ones are read an image at a time
    return math.ceil(500 + (OWN_IMAGE if path else 0) + 4 * sum(sizes) / 1e6)


def train_mb(
    study: Study,
    backbone: Backbone,
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    size: str,
    device: str,
) -> int:
    """Return the memory of a job that trains prompts on `device` ("cpu" or "gpu"), which keeps to it."""
    work = WORK * relative_area(study, backbone) if device == "cpu" else 0
    side, _, _ = sized(size)
    held = training_images_mb(dataset, side) + COPIES * weights_mb(checkpoint)
    return math.ceil(PROCESS[device] + held + work)


def finetune_mb(
    study: Study, backbone: Backbone, checkpoint: NetworkEntry, dataset: DatasetEntry, batch_size: int, device: str
) -> int:
    """Return the memory of a job that fine-tunes on `device`; its images are read from the disk as they come."""
    batch = min(batch_size, _counts(dataset).train)
    work = max(FORWARD, batch * IMAGE) * relative_area(study, backbone) if device == "cpu" else 0
    return math.ceil(PROCESS[device] + COPIES * weights_mb(checkpoint) + work)


def features_mb(
    study: Study, backbone: Backbone, checkpoint: NetworkEntry, dataset: DatasetEntry, device: str
) -> int:
    """Return the memory of a job that extracts features on `device`; images are read from the disk as they come."""
    work = FORWARD * relative_area(study, backbone) if device == "cpu" else 0
    return math.ceil(PROCESS[device] + _features_mb(dataset) + COPIES * weights_mb(checkpoint) + work)


def pair_mb(
    study: Study,
    backbone: Backbone,
    checkpoint: NetworkEntry,
    dataset: DatasetEntry,
    dense: NetworkEntry,
    device: str,
) -> int:
    """Return the memory of a job that evaluates a network beside the dense one on `device`."""
    work = WORK * relative_area(study, backbone) if device == "cpu" else 0
    held = 3 * _features_mb(dataset) + COPIES * (weights_mb(checkpoint) + weights_mb(dense))
    return math.ceil(PROCESS[device] + held + work)


def probe_mb(dataset: DatasetEntry) -> int:
    """Return the memory of a job that trains linear probes: all features, and the copy that a run chooses."""
    return math.ceil(PROCESS["cpu"] + 3 * _features_mb(dataset))


def _features_mb(dataset: DatasetEntry) -> float:
    return _counts(dataset).total * FEATURES * 4 / 1e6


def machine_mb() -> int:
    """Return the memory of this machine, or container, that jobs may have together: a tenth is left to others."""
    limits = [psutil.virtual_memory().total]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        limits.append(int(text))
    return int(0.9 * min(limits) / 1e6)
