"""Time the engine against the published loop, side by side, and write bench/results/throughput.{json,md}.

python bench/throughput.py                                        # all, some 15 minutes on 2 cores
python bench/throughput.py --networks resnet18 --images 32
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import published
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.allocator import ENVIRONMENT
from hiddencost.backbone import for_inference
from hiddencost.compress import random_network
from hiddencost.engine import Chunk, Plan, PromptedNetwork, train_prompts
from hiddencost.files import atomic
from hiddencost.pack import device_name
from hiddencost.plan import choose
from hiddencost.protocol import RunProtocol

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = ("mobilenet_v2", "resnet18", "resnet50")
SIZES = (32, 128)
CLASSES = 10
METHODS = ("rlm", "flm", "ilm")
SHOTS = (1, 10)
EPOCHS, TEST_IMAGES = 100, 10_000  # of the paper's runs on CIFAR-10; a pack's time is put together from its parts'
PEAK = 4096  # side of the matrices whose product gives the device's rate
MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def batch_size(network: str) -> int:
    """The published 128 images on a GPU; what fits 16 GB of memory on a CPU."""
    return 128 if DEVICE.type == "cuda" else {"resnet50": 32}.get(network, 64)


def noise(count: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % CLASSES


def seconds(work) -> float:
    """Return how long something takes."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Baseline:
    """The published loop on one network and image size."""

    def __init__(self, network: str, size: int):
        self.network = random_network(network).requires_grad_(False).to(DEVICE)
        self.prompt = published.Prompt(size, MEAN, STD).to(DEVICE)
        self.adam = torch.optim.Adam(self.prompt.parameters(), lr=0.01)
        self.mapping = torch.arange(CLASSES, device=DEVICE)
        self.size, self.batch = size, batch_size(network)

    def loader(self, count: int) -> DataLoader:
        return DataLoader(published.Images(*noise(count, self.size)), batch_size=self.batch, shuffle=True)

    def epoch(self, count: int) -> float:
        loader = self.loader(count)
        return seconds(lambda: published.train_epoch(self.network, self.prompt, self.adam, self.mapping, loader))

    def mapping_pass(self, count: int) -> float:
        loader = self.loader(count)
        return seconds(lambda: published.map_labels(self.network, self.prompt, CLASSES, loader))

    def test(self, count: int) -> float:
        loader = self.loader(count)
        return seconds(lambda: published.test(self.network, self.prompt, self.mapping, loader))


class Engine:
    """The engine on one network and image size, as a job of the workflow runs it."""

    def __init__(self, network: str, size: int, plan: Plan | None = None):
        self.protocol = RunProtocol(
            **{"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": batch_size(network)},
            **{"shuffle": True, "test_batch_size": 128, "canvas": published.CANVAS, "image_size": size},
            **{"mapping_interval": 1, "precision": "auto"},
        )
        folded = for_inference(random_network(network), DEVICE)
        arguments = folded, MEAN.to(DEVICE), STD.to(DEVICE), self.protocol
        if plan is None:
            with TemporaryDirectory() as folder:
                plan = choose(*arguments, folder)
        self.prompted = PromptedNetwork(*arguments, plan)
        self.size = size

    def epochs(self, methods: tuple[str, ...], count: int, epochs: int) -> float:
        """Return the least time of an epoch after the first, for runs of each method on the same images."""
        images, labels = (part.to(DEVICE) for part in noise(count, self.size))
        protocol = self.protocol.model_copy(update={"epochs": epochs})
        times: list[float] = []
        trained = 0

        def progress(number: int) -> None:
            nonlocal trained
            trained += number
            if trained % (count * len(methods)) == 0:
                seconds(lambda: None)
                times.append(time.perf_counter())

        runs = [(method, range(count)) for method in methods]
        list(train_prompts(self.prompted, images, labels, CLASSES, runs, 0, protocol, progress))
        return min(stop - start for start, stop in itertools.pairwise(times))

    def test(self, count: int) -> float:
        images = noise(count, self.size)[0].to(DEVICE)
        return seconds(lambda: self.prompted.test_logits(images, self.prompted.new_prompt()))

    def chunk(self, count: int) -> Chunk:
        images, labels = noise(count, self.size)
        weights, runs = torch.full((count,), 1 / count), torch.zeros_like(labels)
        prompts = self.prompted.new_prompt()[None]
        tensors = images, labels, weights, runs, torch.arange(CLASSES)[None], prompts
        return Chunk(*(tensor.to(DEVICE) for tensor in tensors))


@cache
def peak_rate(dtype: torch.dtype) -> float:
    """Return the device's rate at a large product of matrices, in FLOP/s."""
    matrix = torch.randn(PEAK, PEAK, device=DEVICE).to(dtype)
    with torch.inference_mode():
        return 2 * PEAK**3 / min(seconds(lambda: matrix @ matrix) for _ in range(4))


def peak_memory() -> float:
    """Return the most memory that this process has used so far, in GB: the device's, or its own on a CPU (Linux)."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def measure_baseline(network: str, size: int) -> dict:
    """Time the parts of the published loop, in seconds: each twice, the lesser counts."""

    def least(work) -> float:
        return min(work() for _ in range(2))

    before = peak_memory()
    baseline, count = Baseline(network, size), batch_size(network)
    baseline.epoch(count)
    times = {"memory": peak_memory() - before, "step": least(lambda: baseline.epoch(count)) / count}
    times["test"] = least(lambda: baseline.test(count)) / count
    times["ilm"] = least(lambda: baseline.mapping_pass(count)) / count + times["step"]
    for shots in SHOTS:
        images = shots * CLASSES
        times[f"epoch of {images}"] = least(lambda images=images: baseline.epoch(images))
        times[f"mapping of {images}"] = least(lambda images=images: baseline.mapping_pass(images))
    return times


def measure_engine(network: str, size: int) -> dict:
    """Time the parts of the engine, in seconds, and count its arithmetic."""
    before = peak_memory()
    engine, count = Engine(network, size), batch_size(network)
    prompted = engine.prompted
    times = {"step": engine.epochs(("rlm",), count, 4) / count}
    times |= {"memory": peak_memory() - before, "precision": prompted.precision}
    times["test"] = min(engine.test(4 * count) for _ in range(2)) / (4 * count)
    times["ilm"] = engine.epochs(("ilm",), count, 4) / count
    for shots in SHOTS:
        images = shots * CLASSES
        times[f"epoch of {images}"] = engine.epochs(METHODS, images, 4)
    chunk = engine.chunk(prompted.plan.chunk)
    for name, plan in (("flop", Plan(prompted.plan.cover)), ("flop_whole", Plan())):
        with FlopCounterMode(display=False) as counter:
            Engine(network, size, plan).prompted.gradients(chunk)
        times[name] = counter.get_total_flops() / len(chunk.images)
    times["matrix_rate"] = peak_rate(torch.bfloat16 if prompted.precision == "bf16" else torch.float32)
    times["plan"] = (
        "whole canvases" if prompted.plan.cover is None else f"border once up to {prompted.sharing_ends()}"
    )
    return times


def in_process(side: str, network: str, size: int, environment: dict[str, str]) -> dict:
    """Measure one side in a process of its own, with settings of the allocator of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    command = [sys.executable, __file__, "--side", side, "--networks", network, "--images", str(size)]
    done = subprocess.run(command, env=kept | environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(network: str, size: int) -> list[dict]:
    """Measure one network at one image size. Returns the records."""
    baseline = in_process("baseline", network, size, {})
    tuned = in_process("baseline", network, size, ENVIRONMENT)
    engine = in_process("engine", network, size, ENVIRONMENT)
    records: list[dict] = []

    def tell(what: str, published_loop: float, ours: float) -> None:
        place = {"network": network, "image": size, "canvas": published.CANVAS, "what": what}
        times = {"baseline_ms": published_loop * 1e3, "engine_ms": ours * 1e3, "ratio": published_loop / ours}
        records.append(place | times | {"device": machine(), "precision": engine["precision"]})
        row = "{network:13} {image:4} {what:52} {baseline_ms:14,.1f} {engine_ms:12,.1f} {ratio:7.1f}x"
        print(row.format(**records[-1]), flush=True)

    tell("training step, an image", baseline["step"], engine["step"])
    rate = engine["flop"] / engine["step"]
    records[0] |= {
        "baseline_memory_gb": baseline["memory"],
        "engine_memory_gb": engine["memory"],
        "gflop_whole_canvases": engine["flop_whole"] / 1e9,
        "gflop_engine": engine["flop"] / 1e9,
        "gflops_engine": rate / 1e9,
        "gflops_matrix": engine["matrix_rate"] / 1e9,
        "share_of_matrix_rate": rate / engine["matrix_rate"],
        "plan": engine["plan"],
    }
    tell("the same, the engine's allocator settings in both", tuned["step"], engine["step"])
    tell("ILM epoch with its mapping pass, an image", baseline["ilm"], engine["ilm"])
    tell("test, an image", baseline["test"], engine["test"])
    for shots in SHOTS:
        images = shots * CLASSES
        tests = TEST_IMAGES * len(METHODS)
        # flm maps once, ilm at each epoch; the engine's first mapping pass, of flm and ilm, is one
        trained = len(METHODS) * EPOCHS * baseline[f"epoch of {images}"]
        trained += (1 + EPOCHS) * baseline[f"mapping of {images}"]
        pack = EPOCHS * engine[f"epoch of {images}"] + (images + tests) * engine["test"]
        name = f"{shots}-shot pack of {CLASSES} classes"
        tell(name, trained + EPOCHS * tests * baseline["test"], pack)
        tell(f"{name}, testing once in both", trained + tests * baseline["test"], pack)
    return records


@cache
def machine() -> str:
    if DEVICE.type == "cuda":
        return f"{device_name(DEVICE)}, torch {torch.__version__}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(": ", 1)[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {torch.get_num_threads()} cores, {capability}, torch {torch.__version__}"


def table(records: list[dict]) -> str:
    """Return the records as Markdown tables."""
    lines = [f"Measured on {records[0]['device']}; canvas {published.CANVAS}, {records[0]['precision']}.", ""]
    lines += ["| network | image | what | published loop, ms | engine, ms | ratio |", "|---|---|---|---|---|---|"]
    row = "| {network} | {image} | {what} | {baseline_ms:,.1f} | {engine_ms:,.1f} | {ratio:.1f}x |"
    lines += [row.format(**entry) for entry in records]
    head = "| network | image | GFLOP an image on whole canvases | computed | GFLOP/s | of the matrix rate "
    lines += ["", "The training step's arithmetic and peak memory:", ""]
    lines += [head + "| published loop, GB | engine, GB | plan |", "|---" * 9 + "|"]
    row = "| {network} | {image} | {gflop_whole_canvases:.2f} | {gflop_engine:.2f} | {gflops_engine:,.0f} "
    row += "| {share_of_matrix_rate:.0%} | {baseline_memory_gb:.1f} | {engine_memory_gb:.1f} | {plan} |"
    lines += [row.format(**entry) for entry in records if "plan" in entry]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--images", nargs="+", type=int, default=SIZES)
    parser.add_argument("--side", choices=["baseline", "engine"], help=argparse.SUPPRESS)  # in_process calls it
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.networks, arguments.images))
    if arguments.side:
        measure = measure_baseline if arguments.side == "baseline" else measure_engine
        print(json.dumps(measure(*cases[0])))
        return
    print(f"{machine()}\n{'':70}{'published, ms':>15} {'engine, ms':>12}   ratio", flush=True)
    records = [record for case in cases for record in compare(*case)]
    text = table(records)
    for suffix, content in (("json", json.dumps(records, indent=1) + "\n"), ("md", text)):
        with atomic(RESULTS / f"throughput.{suffix}") as temporary:
            temporary.write_text(content)
    print(f"\n{text}\n{RESULTS / 'throughput.json'} and throughput.md written")


if __name__ == "__main__":
    main()
