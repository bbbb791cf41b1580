"""How a network is run on a device: chosen by a short measurement, and kept for the next job."""

import logging
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks

from hiddencost.engine import Chunk, Plan, PromptedNetwork
from hiddencost.files import canonical, read_json, sha256_text, write_json
from hiddencost.pack import device_name
from hiddencost.protocol import RunProtocol

log = logging.getLogger(__name__)

COVERS = (0.0, 0.5, 0.75, 0.99)  # 0: the first convolution alone is shared
MOST_IMAGES = {"cpu": 64, "cuda": 512}  # at a time: more are no faster
PROBE_IMAGES = {"cpu": 16, "cuda": 128}
ROUNDS = 3
GAIN = 0.97  # what sharing must take at most of the time of whole canvases
MEMORY = 0.4  # of what is free, for what a forward pass keeps for the backward pass, which needs as much again


def choose(network: nn.Module, mean: Tensor, std: Tensor, protocol: RunProtocol, folder: str | Path) -> Plan:
    """Return the fastest plan for a network, and say in the log which it is and why.

    It is measured once for each architecture, canvas, image size, precision and device; the figures are kept in
    `folder`. The other arguments are those of PromptedNetwork.
    """
    whole = PromptedNetwork(network, mean, std, protocol, Plan())
    key = {
        "network": sha256_text(str(network) + str([(name, list(p.shape)) for name, p in network.named_parameters()])),
        "canvas": protocol.canvas,
        "image_size": protocol.image_size,
        "precision": whole.precision,
        "device": device_name(whole.device),
        "torch": torch.__version__,
    }
    path = Path(folder) / f"{sha256_text(canonical(key))[:16]}.json"
    if not path.exists():
        write_json(path, {"key": key, "measured": measure(network, mean, std, protocol)})
    whole_canvases, *shared = read_json(path)["measured"]
    quickest = min(shared, key=lambda way: way["ms"], default=whole_canvases)
    best = quickest if quickest["ms"] < GAIN * whole_canvases["ms"] else whole_canvases
    case = f"images of {protocol.image_size} on {protocol.canvas} pixels, {whole.precision}, {key['device']}"
    if shared:
        log.info(
            "%s: %s; ms a trained image: %.3g with whole canvases, %.3g with the border once up to %s",
            *(case, "whole canvases" if best is whole_canvases else "the border once"),
            *(whole_canvases["ms"], quickest["ms"], quickest["until"]),
        )
    else:
        log.info("%s: whole canvases, as torch.fx cannot walk the network", case)
    fitting = int(MEMORY * _free_memory(whole.device) / best["bytes"])
    return Plan(best["cover"], max(1, min(fitting, MOST_IMAGES[whole.device.type])), best["graphs"])


def measure(network: nn.Module, mean: Tensor, std: Tensor, protocol: RunProtocol) -> list[dict]:
    """Time a training step with whole canvases (first) and with the border shared up to several depths.

    Returns for each `cover` and `graphs` (see Plan), `until` (where sharing ends, and why), `ms` a trained image, and
    `bytes` an image that the forward pass keeps. Sharing that does not give the dense network's logits, up to
    rounding, is left out, with a warning.
    """
    device = mean.device
    chunk = _probe(mean, protocol)
    expected = None
    measured: list[dict] = []
    steps: list[PromptedNetwork] = []
    for cover in [None, *COVERS] if isinstance(network, fx.GraphModule) else [None]:
        prompted = PromptedNetwork(network, mean, std, protocol, Plan(cover))
        with torch.inference_mode():
            logits = prompted.logits(chunk.images, chunk.prompts, chunk.runs, exact=True)
        expected = logits if expected is None else expected
        error = ((logits - expected).norm() / expected.norm()).item()
        until = prompted.sharing_ends()
        if not error < 1e-3:
            log.warning("border once up to %s: not used, logits are off by %.1g of the dense network's", until, error)
        elif until not in [plan["until"] for plan in measured]:
            kept = _kept_bytes(prompted, chunk)
            if graphs := device.type == "cuda":
                prompted, graphs = _captured(network, mean, std, protocol, cover, chunk)
            measured.append({"cover": cover, "graphs": graphs, "until": until, "bytes": kept, "ms": float("inf")})
            steps.append(prompted)
    for _ in range(ROUNDS):  # side by side, so that all meet the machine in the same state
        for plan, prompted in zip(measured, steps, strict=True):
            seconds = _seconds(prompted, chunk)
            plan["ms"] = min(plan["ms"], seconds * 1e3 / len(chunk.images))
    return measured


def _probe(mean: Tensor, protocol: RunProtocol) -> Chunk:
    """Return noise images of one run under a noise prompt."""
    count, size, canvas = PROBE_IMAGES[mean.device.type], protocol.image_size, protocol.canvas
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=noise)
    prompts = torch.randn(1, 3, canvas, canvas, generator=noise, dtype=mean.dtype)
    labels, weights = torch.zeros(count, dtype=torch.int64), torch.full((count,), 1 / count, dtype=mean.dtype)
    tensors = images, labels, weights, torch.zeros_like(labels), torch.arange(2)[None], prompts
    return Chunk(*(tensor.to(mean.device) for tensor in tensors))


def _captured(
    network: nn.Module, mean: Tensor, std: Tensor, protocol: RunProtocol, cover: float | None, chunk: Chunk
) -> tuple[PromptedNetwork, bool]:
    """Return the network with its steps captured as CUDA graphs, if they can be, and whether they are."""
    prompted = PromptedNetwork(network, mean, std, protocol, Plan(cover, graphs=True))
    try:
        prompted.gradients(chunk)
    except RuntimeError as reason:
        log.warning("no CUDA graph, as the capture failed: %s", str(reason).splitlines()[0])
        return PromptedNetwork(network, mean, std, protocol, Plan(cover)), False
    return prompted, True


def _seconds(prompted: PromptedNetwork, chunk: Chunk) -> float:
    synchronise = torch.cuda.synchronize if prompted.device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    prompted.gradients(chunk)
    synchronise()
    return time.perf_counter() - start


def _kept_bytes(prompted: PromptedNetwork, chunk: Chunk) -> float:
    """Return how many bytes an image a forward pass keeps for the backward pass, weights aside."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        prompted.gradients(chunk)
    return sum(kept.values()) / len(chunk.images)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
