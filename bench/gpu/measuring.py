"""What the stages share: records, clocks, networks and images."""

import gc
import itertools
import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import open_clip
import torch
from stages import ROOT, Stage
from throughput import CLASSES, DEVICE, MEAN, STD
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hiddencost import catalog
from hiddencost.compression.controls import random_network
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.readers.registry import READERS
from hiddencost.networks import backbones
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.prompting.chunk import Chunk
from hiddencost.study.recipes import RunProtocol

CHECKPOINT = ROOT / "resources/checkpoints/mobilenetv2/fetched.json"  # of a quickstart that was run, or not there
TINY = "mobilenet_v3_small"  # a network for dry runs

Case = dict[str, object]  # what is measured, or what was found: JSON values by name


def each(stage: Stage, cases: Iterable[Case], least: float, measure: Callable[..., Iterator[Case]]) -> None:
    """Measure cases one after another, and keep what each finds.

    A case that fails, or for which less than `least` seconds are left, is a record, too, and does not stop the next.
    """
    for case in cases:
        if stage.left() < least * (not stage.dry):
            stage.tell(**case, skipped="no time left")
            continue
        start = time.monotonic()
        try:
            for found in measure(**case):
                stage.tell(**case, **found)
            stage.tell(**case, done=time.monotonic() - start)
        except Exception as error:  # whatever it is, the other cases are worth having
            traceback.print_exc()
            stage.tell(**case, failed=f"{type(error).__name__}: {error}"[:500])
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def milliseconds(work: Callable[[], object], rounds: int = 5, inner: int = 3) -> float:
    """Return the median time of some work, after it was done twice: on a GPU its device's own."""
    work(), work()
    return sorted(_milliseconds(work, inner) for _ in range(rounds))[rounds // 2]


def _milliseconds(work: Callable[[], object], inner: int) -> float:
    if DEVICE.type == "cpu":
        start = time.perf_counter()
        for _ in range(inner):
            work()
        return (time.perf_counter() - start) * 1e3 / inner
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(inner):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / inner


def kernels(work: Callable[[], object]) -> int | None:
    """Return how many kernels, copies and fills some work is on a GPU; None on a CPU."""
    if DEVICE.type == "cpu":
        return None
    work()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiled.events())


def peak_megabytes(work: Callable[[], object]) -> float | None:
    """Return how much more memory than before some work takes on a GPU; None on a CPU."""
    if DEVICE.type == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference as a part of the expected's own."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return ((found - expected).norm() / expected.norm()).item()


def protocol(image_size: int, canvas: int = 224, precision: str = "auto", **more: object) -> RunProtocol:
    """Return the published recipe at a size."""
    told = {"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 128, "shuffle": True}
    told |= {"test_batch_size": 128, "mapping_interval": 1, "precision": precision}
    return RunProtocol(**told | {"canvas": canvas, "image_size": image_size} | more)


@cache
def mobilenet() -> tuple[nn.Module, str]:
    """Return MobileNetV2 with the published weights, where a quickstart has fetched them, else with random ones; and
    which it is."""
    if not CHECKPOINT.exists():
        return random_network("mobilenet_v2"), "random weights"
    with TemporaryDirectory() as folder:
        import_checkpoint("mobilenetv2", catalog.checkpoint("mobilenetv2"), CHECKPOINT, folder)
        return backbones.load(folder)[0], "published weights"


def cifar(part: str, shots: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the first images of each class of the repository's part of CIFAR-10, uint8 [10 shots, 3, size, size],
    class by class, and their labels, int64. part: train (25 a class) or test (50 a class)."""
    entry = catalog.datasets()["cifar10-part"]
    files = {name: ROOT / entry.files[name].sources[0].path for name in ("train", "test")}
    images = list(getattr(READERS["cifar_binary"]("cifar10-part", {}, files, ROOT), part).images)
    chosen = [one for label in range(CLASSES) for one in [pair for pair in images if pair[1] == label][:shots]]
    pictures = np.stack([pixels(image, size) for image, _ in chosen])
    return torch.from_numpy(pictures), torch.tensor([label for _, label in chosen])


def chunk(runs: int, each: int, size: int, canvas: int = 224, device: torch.device = DEVICE) -> Chunk:
    """Return noise images of several runs under noise prompts."""
    noise, count = torch.Generator().manual_seed(1), runs * each
    tensors = (
        torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=noise),
        torch.arange(count) % CLASSES,
        torch.full((count,), 1 / each),
        torch.arange(runs).repeat_interleave(each),
        torch.arange(CLASSES).expand(runs, -1),
    )
    prompts = torch.randn(runs, 3, canvas, canvas, generator=noise)
    return Chunk(*(tensor.to(device) for tensor in tensors), {"prompt": prompts.to(device)})


def normalisation(device: torch.device = DEVICE, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and standard deviation, [3, 1, 1] each."""
    return MEAN.to(device, dtype), STD.to(device, dtype)


def product(**values: Iterable) -> list[Case]:
    """Return all combinations of named values."""
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


def tiny_clip(folder: Path) -> str:
    """Tell open_clip of a tiny configuration for dry runs, by a file in a folder, and return its name."""
    vision = {"image_size": 96, "layers": 2, "width": 128, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny.json")
    return "tiny"
