"""Time the engine against the published loop, side by side, and write bench/results/throughput.{json,md}.

python bench/throughput.py                                        # all, more than 20 minutes on 2 cores
python bench/throughput.py --networks resnet18 --images 32
"""

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from logging.handlers import BufferingHandler
from pathlib import Path
from tempfile import TemporaryDirectory

import published
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.compression.controls import random_network
from hiddencost.files import atomic
from hiddencost.machine import device_name
from hiddencost.memory import ENVIRONMENT
from hiddencost.networks.inference import for_inference
from hiddencost.prompting.chunk import Chunk, stacked
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.plan import fit_to_device
from hiddencost.prompting.train import train_prompts
from hiddencost.study.recipes import RunProtocol

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = ("mobilenet_v2", "resnet18", "resnet50")
SIZES = (32, 128)
CLASSES = 10
METHODS = ("rlm", "flm", "ilm")
SIX = (*METHODS, "blm", "blm+", "fm")  # with those of label mappings beyond the paper
SHOTS = (1, 10)
EPOCHS, TEST_IMAGES = 100, 10_000  # of the paper's runs on CIFAR-10; a pack's time is put together from its parts'
PEAK = {"cpu": 4096, "cuda": 8192}  # side of the matrices whose product gives the device's rate
ROUNDS = {"cpu": 4, "cuda": 8}  # epochs of a measurement of the engine: a CUDA graph is captured at its third sight
BATCHES = 4, 36  # of a short and of a long pass of the published loop on a GPU
MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def publish(name: str, records: list | dict, text: str) -> None:
    """Write a benchmark's records to results/{name}.json and its table to results/{name}.md, and show the table."""
    for suffix, content in (("json", json.dumps(records, indent=1) + "\n"), ("md", text)):
        with atomic(RESULTS / f"{name}.{suffix}") as temporary:
            temporary.write_text(content)
    print(f"\n{text}\n{RESULTS / f'{name}.json'} and {name}.md written")


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


def least(work: Callable[[], float]) -> float:
    """Return the least time of three."""
    return min(work() for _ in range(3))


def an_image(work: Callable[[int], float], batch: int) -> float:
    """Return the seconds that an image takes in a long pass; work: from a number of images to the time of a pass.

    On a GPU by the difference of a long pass and a short one, so that the start of the loader's workers, which is
    once an epoch, is left out.
    """
    if DEVICE.type == "cpu":
        return least(partial(work, batch)) / batch
    few, many = (least(partial(work, batches * batch)) for batches in BATCHES)
    return (many - few) / (BATCHES[1] - BATCHES[0]) / batch


class Baseline:
    """The published loop on one network and image size."""

    def __init__(self, network: str, size: int):
        self.network = random_network(network).requires_grad_(False).to(DEVICE)
        self.prompt = published.Prompt(size, MEAN, STD).to(DEVICE)
        self.adam = torch.optim.Adam(self.prompt.parameters(), lr=0.01)
        self.scaler = published.scaler(DEVICE)
        self.mapping = torch.arange(CLASSES, device=DEVICE)
        self.size, self.batch = size, batch_size(network)

    def loader(self, count: int) -> DataLoader:
        return published.loader(*noise(count, self.size), self.batch, DEVICE)

    def epoch(self, count: int) -> float:
        trained = self.network, self.prompt, self.adam, self.scaler, self.mapping, self.loader(count)
        return seconds(lambda: published.train_epoch(*trained))

    def test(self, count: int) -> float:
        loader = self.loader(count)
        return seconds(lambda: published.test(self.network, self.prompt, self.mapping, loader))


def runs(methods: Iterable[str], count: int) -> list[tuple[str, Sequence[int]]]:
    """Return runs of each method on the same images, as train_prompts takes them.

    ILM has them in another order than FLM: so it is computed, as in all epochs but the first few of a real run. So
    has BLM+: to a random network noise is of one class, and of that alone BLM and BLM+ make the same mapping.
    """
    return [(method, range(count)[:: -1 if method in {"ilm", "blm+"} else 1]) for method in methods]


class Engine:
    """The engine on one network and image size, as a job of the workflow runs it."""

    def __init__(self, network: str, size: int, plan: Plan | Path):
        self.protocol = RunProtocol(
            **{"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": batch_size(network)},
            **{"shuffle": True, "test_batch_size": 128, "canvas": published.CANVAS, "image_size": size},
            **{"mapping_interval": 1, "precision": "auto"},
        )
        folded = for_inference(random_network(network), DEVICE)
        frozen = FrozenNetwork(folded, MEAN.to(DEVICE), STD.to(DEVICE), self.protocol)
        if isinstance(plan, Plan):
            self.prompted = PromptedNetwork(*frozen, plan)
        else:
            self.prompted = fit_to_device(frozen, plan, 8 * 2**30)
        self.size = size

    def epochs(self, methods: tuple[str, ...], count: int) -> float:
        """Return the least time of an epoch after the first, for runs of each method on the same images."""
        images, labels = (part.to(DEVICE) for part in noise(count, self.size))
        protocol = self.protocol.model_copy(update={"epochs": ROUNDS[DEVICE.type]})
        times: list[float] = []
        trained = 0

        def progress(number: int) -> None:
            nonlocal trained
            trained += number
            # what is told before the first step is no epoch: the first one has no mapping pass of its own
            if trained and trained % (count * len(methods)) == 0:
                seconds(lambda: None)
                times.append(time.perf_counter())

        list(train_prompts(self.prompted, images, labels, CLASSES, runs(methods, count), 0, protocol, progress))
        return min(stop - start for start, stop in itertools.pairwise(times))

    def test(self, count: int) -> float:
        images = noise(count, self.size)[0].to(DEVICE)
        return seconds(lambda: self.prompted.test_logits(images, self.prompted.new_prompt()))

    def chunk(self, count: int) -> Chunk:
        images, labels = noise(count, self.size)
        weights, runs = torch.full((count,), 1 / count), torch.zeros_like(labels)
        tensors = images, labels, weights, runs, torch.arange(CLASSES)[None]
        return Chunk(*(tensor.to(DEVICE) for tensor in tensors), stacked([self.prompted.new_prompt()]))


@cache
def peak_rate(dtype: torch.dtype) -> float:
    """Return the device's rate at a large product of matrices, in FLOP/s."""
    side = PEAK[DEVICE.type]
    matrix = torch.randn(side, side, device=DEVICE).to(dtype)

    def product() -> float:
        if DEVICE.type == "cpu":
            return seconds(lambda: matrix @ matrix)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        matrix @ matrix
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    with torch.inference_mode():
        return 2 * side**3 / min(product() for _ in range(4))


def peak_memory() -> float:
    """Return the most memory that this process has used so far, in GB: the device's, or its own on a CPU (Linux)."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def measure_published(network: str, size: int, plans: Path) -> dict:
    """Time the published loop's parts, in seconds; all else is made of them: a step and a test, an image of a long
    pass, and an epoch and a pass over the images of a few shots."""
    before = peak_memory()
    baseline, count = Baseline(network, size), batch_size(network)
    with published.settings():
        baseline.epoch(count)
        times = {"memory": peak_memory() - before, "precision": published.precision(DEVICE)}
        times |= {"step": an_image(baseline.epoch, count), "test": an_image(baseline.test, count)}
        for images in (shots * CLASSES for shots in SHOTS):
            times[f"epoch of {images}"] = least(partial(baseline.epoch, images))
            times[f"pass of {images}"] = least(partial(baseline.test, images))
    return times


def plan_engine(network: str, size: int, plans: Path) -> dict:
    """Choose the engine's plan, in a process of its own, as it takes memory. Returns what the plan has refused."""
    warnings = BufferingHandler(1000)
    warnings.setLevel(logging.WARNING)
    logging.getLogger("hiddencost.prompting").addHandler(warnings)
    Engine(network, size, plans)
    return {"refused": [record.getMessage() for record in warnings.buffer]}


def measure_engine(network: str, size: int, plans: Path) -> dict:
    """Time the engine, in seconds, and count its arithmetic."""
    before = peak_memory()
    engine, count = Engine(network, size, plans), batch_size(network)
    prompted = engine.prompted
    times = {"step": engine.epochs(("rlm",), count) / count}
    times |= {"memory": peak_memory() - before, "precision": prompted.precision}
    times["test"] = least(lambda: engine.test(4 * count)) / (4 * count)
    times["ilm"] = engine.epochs(("ilm",), count) / count
    for images in (shots * CLASSES for shots in SHOTS):
        times[f"epoch of {images}"] = engine.epochs(METHODS, images)
        times[f"epoch of {images}, six"] = engine.epochs(SIX, images)
    chunk = engine.chunk(min(count, prompted.plan.chunk))
    for name, plan in (("flop", Plan(prompted.plan.cover)), ("flop_whole", Plan())):
        with FlopCounterMode(display=False) as counter:
            Engine(network, size, plan).prompted.gradients(chunk)
        times[name] = counter.get_total_flops() / len(chunk.images)
    times["matrix_rate"] = peak_rate(torch.bfloat16 if prompted.precision == "bf16" else torch.float32)
    plan = "whole canvases" if prompted.plan.cover is None else f"border once up to {prompted.sharing_ends()}"
    return times | {"plan": plan + ", CUDA graphs" * prompted.plan.graphs}


SIDES = {"published": measure_published, "plan": plan_engine, "engine": measure_engine}


def in_process(side: str, network: str, size: int, plans: str, environment: dict[str, str]) -> dict:
    """Measure one side in a process of its own, with the allocator's settings of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    command = [sys.executable, __file__, "--networks", network, "--images", str(size), "--side", side, plans]
    done = subprocess.run(command, env=kept | environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(network: str, size: int) -> list[dict]:
    """Measure one network at one image size. Returns the records."""
    with TemporaryDirectory() as plans:
        loop = in_process("published", network, size, plans, {})
        tuned = in_process("published", network, size, plans, ENVIRONMENT)
        planned = in_process("plan", network, size, plans, ENVIRONMENT)
        engine = in_process("engine", network, size, plans, ENVIRONMENT)
    records: list[dict] = []

    def tell(what: str, published_loop: Callable[[dict], float], ours: float) -> None:
        place = {"network": network, "image": size, "canvas": published.CANVAS, "what": what}
        times = {"baseline_ms": published_loop(loop) * 1e3, "engine_ms": ours * 1e3}
        ratios = {"ratio": published_loop(loop) / ours, "ratio_same_allocator": published_loop(tuned) / ours}
        precisions = {"precision": engine["precision"], "baseline_precision": loop["precision"]}
        records.append(place | times | ratios | {"device": machine()} | precisions)
        row = "{network:13} {image:4} {what:46} {baseline_ms:14,.1f} {engine_ms:12,.1f} {ratio:7.1f}x"
        print((row + " {ratio_same_allocator:7.1f}x").format(**records[-1]), flush=True)

    tell("training step, an image", lambda side: side["step"], engine["step"])
    rate = engine["flop"] / engine["step"]
    records[0] |= {
        "baseline_memory_gb": loop["memory"],
        "engine_memory_gb": engine["memory"],
        "gflop_whole_canvases": engine["flop_whole"] / 1e9,
        "gflop_engine": engine["flop"] / 1e9,
        "gflops_engine": rate / 1e9,
        "gflops_matrix": engine["matrix_rate"] / 1e9,
        "share_of_matrix_rate": rate / engine["matrix_rate"],
        "plan": engine["plan"],
        "refused": planned["refused"],
    }
    tell("ILM epoch with its mapping pass, an image", lambda side: side["step"] + side["test"], engine["ilm"])
    tell("test, an image", lambda side: side["test"], engine["test"])
    for shots in SHOTS:
        images = shots * CLASSES
        tests = TEST_IMAGES * len(METHODS)

        def one_by_one(side: dict, passes: int, images: int = images, tests: int = tests) -> float:
            # flm maps once, ilm at each epoch
            epochs = len(METHODS) * EPOCHS * side[f"epoch of {images}"] + (1 + EPOCHS) * side[f"pass of {images}"]
            return epochs + passes * tests * side["test"]

        pack = EPOCHS * engine[f"epoch of {images}"] + (images + tests) * engine["test"]
        larger = EPOCHS * engine[f"epoch of {images}, six"] + (2 * images + TEST_IMAGES * len(SIX)) * engine["test"]
        records[0][f"six of three, {shots} shots"] = larger / pack
        name = f"{shots}-shot pack of {CLASSES} classes"
        tell(f"{name}, a test in the end", partial(one_by_one, passes=1), pack)
        tell(f"{name}, a test an epoch", partial(one_by_one, passes=EPOCHS), pack)
    return records


def machine() -> str:
    """Return the device and torch's version."""
    return f"{device_name(DEVICE)}, torch {torch.__version__}"


def table(records: list[dict]) -> str:
    """Return the records as Markdown tables."""
    line = "Measured on {device}; canvas {canvas}, engine {precision}, published loop {baseline_precision}."
    lines = [line.format(**records[0]), ""]
    lines += ["| network | image | what | published loop | engine | ratio | with its allocator settings in both |"]
    lines += ["|---" * 7 + "|"]
    row = "| {network} | {image} | {what} | {} | {} | {ratio:.1f}x | {ratio_same_allocator:.1f}x |"
    lines += [row.format(_time(one["baseline_ms"]), _time(one["engine_ms"]), **one) for one in records]
    head = "| network | image | GFLOP an image on whole canvases | computed | GFLOP/s | of the matrix rate "
    lines += ["", "The training step's arithmetic and peak memory:", ""]
    lines += [head + "| published loop, GB | engine, GB | plan | refused |", "|---" * 10 + "|"]
    row = "| {network} | {image} | {gflop_whole_canvases:.2f} | {gflop_engine:.2f} | {gflops_engine:,.0f} "
    row += "| {share_of_matrix_rate:.0%} | {baseline_memory_gb:.1f} | {engine_memory_gb:.1f} | {plan} | {} |"
    with_plan = [entry for entry in records if "plan" in entry]
    lines += [row.format("; ".join(entry["refused"]) or "nothing", **entry) for entry in with_plan]
    head = [
        f"| network | image | {' | '.join(f'{shots} shots' for shots in SHOTS)} |",
        "|---" * (2 + len(SHOTS)) + "|",
    ]
    ratios = [[entry.get(f"six of three, {shots} shots") for shots in SHOTS] for entry in with_plan]
    rows = [
        f"| {entry['network']} | {entry['image']} | {' | '.join(f'{ratio:.2f}x' for ratio in of_entry)} |"
        for entry, of_entry in zip(with_plan, ratios, strict=True)
        if None not in of_entry
    ]
    if rows:
        lines += ["", f"The time of a pack of {', '.join(SIX)} against that of the first three:", "", *head, *rows]
    return "\n".join(lines) + "\n"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 1e5 else f"{milliseconds / 3.6e6:.2f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--images", nargs="+", type=int, default=SIZES)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)  # in_process calls it
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.networks, arguments.images))
    if arguments.side:
        side, plans = arguments.side
        print(json.dumps(SIDES[side](*cases[0], Path(plans))))
        return
    print(f"{machine()}\n{'':64}{'published, ms':>15} {'engine, ms':>12}   ratio  same allocator", flush=True)
    records = [record for case in cases for record in compare(*case)]
    text = table(records)
    publish("throughput", records, text)


if __name__ == "__main__":
    main()
