"""How a network is run on a device: chosen once, on a GPU by a short measurement, and kept for the next job."""

import logging
import math
from dataclasses import asdict
from pathlib import Path

import torch

from hiddencost.digest import code_digest
from hiddencost.files import canonical, read_json, sha256_text, write_json
from hiddencost.machine import device_name, free_memory
from hiddencost.memory import WORK
from hiddencost.prompting.described import describe_way
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.measure import Measurements, Way, best_way, measure

log = logging.getLogger(__name__)
MOST_IMAGES = {"cpu": 64, "cuda": 512}  # at a time: more are no faster
# For what a forward pass keeps for the backward pass, which needs as much again:
MEMORY = 0.4  # of what is free on a GPU, ...
LEAST = 0.45  # ... of a CPU job's memory, where it has less than it asks for


def fit_to_device(
    frozen: FrozenNetwork, folder: str | Path, memory: int, images_a_run: float = 10
) -> PromptedNetwork:
    """Return a network that runs as suits it best on its device, and say in the log how and why.

    On a GPU that is the fastest way, on a CPU that of least arithmetic. It is measured once for each architecture,
    prompt (its shape, the canvas and its other settings), precision and device.

    Args:
        frozen: the network and its protocol.
        folder: where the measurements are kept.
        memory: the job's, in bytes. On a CPU so many images go through the network at a time as `memory.WORK` holds,
            or this memory, if that is less: results should not depend on what happens to be free, on the dataset or
            on the attempt. A GPU is asked what is free.
        images_a_run: how many images of a run a step takes, on average: the measurement with the nearest number
            decides.
    """
    measurements = _measurements(frozen, Path(folder))
    nearest = min(measurements.measured, key=lambda images: abs(math.log(images / images_a_run)))
    ways = measurements.measured[nearest]
    way = best_way(ways)
    side, canvas = frozen.prompt.shown_side, frozen.prompt.canvas
    case = f"images of {side} on {canvas} pixels, {frozen.precision}, {device_name(frozen.device)}"
    log.info("%s: %s", case, describe_way(frozen, ways, way))
    plan = Plan(
        cover=way.cover,
        chunk=_images_at_a_time(frozen, way, memory),
        graphs=way.graphs,
        fused=way.fused,
        in_float32=tuple(measurements.in_float32),
        forward_ms=measurements.forward_ms,
    )
    return PromptedNetwork(*frozen, plan)


def _measurements(frozen: FrozenNetwork, folder: Path) -> Measurements:
    """Return how the network runs: as an earlier job has measured it, or measured now."""
    shapes = [(name, list(parameter.shape)) for name, parameter in frozen.network.named_parameters()]
    key = {
        "network": sha256_text(str(frozen.network) + str(shapes)),
        "prompt": {"shape": frozen.protocol.prompt} | asdict(frozen.prompt),
        "precision": frozen.precision,
        "device": device_name(frozen.device),
        "torch": torch.__version__,
        "code": code_digest(Path(__file__)),
    }
    path = folder / f"{sha256_text(canonical(key))[:16]}.json"
    if not path.exists():
        measurements = measure(frozen)
        if not path.exists():  # else another job was quicker, and goes on by its own
            write_json(path, {"key": key} | measurements.model_dump(mode="json"))
    return Measurements.model_validate(read_json(path))


def _images_at_a_time(frozen: FrozenNetwork, way: Way, memory: int) -> int:
    """Return how many images go through the network at a time for a gradient."""
    if frozen.device.type == "cpu":
        room = min(WORK * 1e6 / 2 * (frozen.prompt.canvas / 224) ** 2, LEAST * memory)
    else:
        room = MEMORY * free_memory()
    fitting = max(1, min(int(room / way.bytes), MOST_IMAGES[frozen.device.type]))
    # a power of two, so that small changes of the free memory do not change the rounding of sums
    return 2 ** (fitting.bit_length() - 1)
