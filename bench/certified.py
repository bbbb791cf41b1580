"""Do TF32 and bf16 change first classes and test metrics, and does certification undo it? On real images.

    python bench/certified.py
    python bench/certified.py --images 300    # 9 minutes on one core that was shared

Takes MobileNetV2 through the workflow, where it is not there yet, and the test images of the repository's part of
CIFAR-10, and writes bench/results/certified.{json,md}. On a GPU the precisions are its own, and are timed. A CPU has
no TF32, and often no bf16: there the rounding is emulated, and the times would tell nothing.
"""

import argparse
import copy
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from throughput import DEVICE, least, machine, publish, seconds
from torch import Tensor, nn

from hiddencost import catalog
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.readers.registry import READERS
from hiddencost.methods.mapping import count_predictions, greedy_mapping
from hiddencost.networks import backbones, inference
from hiddencost.networks.layers import head_name
from hiddencost.prompting import certify
from hiddencost.prompting.certify import Tally
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.precision import resolve_precision
from hiddencost.runs.metrics import evaluate
from hiddencost.study.recipes import RunProtocol

ROOT = Path(__file__).parents[1]
BACKBONE = Path("resources/backbones/mobilenetv2")
CANVAS, SIZES, CLASSES = 224, (32, 128), 10
PROMPTS = {"grey": 0.0, "noise": 1.0}  # their standard deviation, as of a prompt before training and after
LEAST, MOST = 2 * certify.SAMPLE, 500  # images
LOWER = ("tf32", "bf16")
METRICS = ("accuracy", "ece", "nll", "brier")
LIMIT = 1e-4  # what ECE, NLL and Brier may move by
CHEAP = 0.01  # what the lower precision is said to cost of fp32, so that it is taken
REPEATED = 16  # times the images in a pass that is timed


def network() -> tuple[nn.Module, Tensor, Tensor]:
    """Return the real MobileNetV2 as the engine uses it, and mean and standard deviation of its input."""
    if not (ROOT / BACKBONE / "manifest.json").exists():
        subprocess.run([sys.executable, "-m", "snakemake", BACKBONE / "manifest.json"], cwd=ROOT, check=True)
    plain, _, manifest = backbones.load(ROOT / BACKBONE)
    return inference.for_inference(plain, DEVICE), *backbones.normalisation(manifest.preprocessing, DEVICE)


def test_images(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images of the test part, uint8 [N, 3, size, size], on the device, and labels, int64 [N]."""
    entry, parts = catalog.datasets()["cifar10-part"], ("train", "test")
    files = {part: ROOT / entry.files[part].sources[0].path for part in parts}
    images = list(READERS["cifar_binary"]("cifar10-part", {}, files, ROOT).test.images)[:count]
    pictures = torch.from_numpy(np.stack([pixels(image, size) for image, _ in images]))
    return pictures.to(DEVICE), torch.tensor([label for _, label in images])


def to_tf32(x: Tensor) -> Tensor:
    """Return float32 with 10 of its 23 bits of mantissa, rounded to the nearest as a GPU does."""
    return ((x.view(torch.int32) + 0x1000) & -0x2000).view(x.dtype)


def emulated(network: nn.Module, precision: str) -> tuple[nn.Module, Plan, str]:
    """Return a network, its plan and the name of a precision in which a CPU rounds as `precision` does: operands of
    products, and in bf16 results, are rounded, and sums are of float32."""
    copied = copy.deepcopy(network)
    products = {name: module for name, module in copied.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    if precision == "tf32":
        for module in products.values():
            module.weight.copy_(to_tf32(module.weight))
            module.register_forward_pre_hook(lambda _, inputs: (to_tf32(inputs[0]),))
        return copied, Plan(), "fp32"
    products.pop(head_name(copied))
    for module in products.values():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())
    return copied, Plan(in_float32=tuple(products)), "bf16"


@torch.inference_mode()
def source_logits(prompted: PromptedNetwork, precision: str, images: Tensor, prompt: Tensor) -> Tensor:
    """Return the source logits, [N, source classes], of images under a prompt."""
    runs = torch.zeros(len(images), dtype=torch.int64, device=DEVICE)

    def compute(some: slice, _: slice) -> Tensor:
        return prompted.logits(images[some], {"prompt": prompt[None]}, runs[some], precision)

    return torch.cat([logits for logits, _, _ in prompted.in_chunks([len(images)], compute, gradient=False)])


def ways(size: int) -> tuple[dict[str, Callable], Callable[[Plan], PromptedNetwork]]:
    """Return, by precision, the way from images and a prompt to source logits; and that from a plan to a network."""
    folded, *constants = network()
    protocol = RunProtocol(
        **{"epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 64, "shuffle": True},
        **{"test_batch_size": 128, "canvas": CANVAS, "image_size": size, "mapping_interval": 1, "precision": "bf16"},
    )

    def prompted(plan: Plan, some: nn.Module = folded) -> PromptedNetwork:
        return PromptedNetwork(some, *constants, protocol, plan)

    def way(precision: str) -> Callable[[Tensor, Tensor], Tensor]:
        real = ["fp32", *(LOWER if DEVICE.type == "cuda" else [resolve_precision("auto", DEVICE)])]
        if precision in real:
            return partial(source_logits, prompted(Plan()), precision)
        rounding, plan, name = emulated(folded, precision)
        return partial(source_logits, prompted(plan, rounding), name)

    return {precision: way(precision) for precision in ("fp32", *LOWER)}, prompted


def compare(full: Tensor, rounded: Tensor, labels: Tensor, precision: str) -> dict:
    """Return what a lower precision's source logits, [N, source classes], change of first classes, what certification
    makes of them, and by how much they move the metrics of logits that are mapped by frequency, in fp32."""
    logits, tally = {"fp32": full, precision: rounded}, Tally()

    def read(numbers: Tensor, rows_of: Callable[..., Tensor], columns: Sequence[Tensor] = ()) -> Tensor:
        return rows_of(lambda which: logits[which][numbers], *columns)

    classes = certify.first_classes(read, len(full), {"fp32": 1.0, precision: CHEAP}, tally)
    first = full.argmax(1)
    mapping = greedy_mapping(count_predictions(first, labels, full.shape[1], CLASSES))
    before, after = (evaluate(some[:, mapping], labels, 128) for some in (full, rounded))
    return {
        "precision": precision,
        "images": len(full),
        "changed": (rounded.argmax(1) != first).sum().item(),
        "sampled": len(range(0, len(full), len(full) // certify.SAMPLE)),  # by which the bound is measured
        "in_full": tally.in_full,  # those included
        "violations": tally.violations,
        "wrong": (classes != first).sum().item(),
        "moved": {metric: after[metric] - before[metric] for metric in METRICS},
    }


def times(of: dict[str, Callable], prompted: Callable, images: Tensor, prompt: Tensor, precision: str) -> dict:
    """Return the milliseconds that first classes of an image take on a GPU in fp32, in a lower precision, and
    certified in it."""
    many = images.repeat(REPEATED, 1, 1, 1)

    def milliseconds(work: Callable[[], object]) -> float:
        return least(partial(seconds, work)) * 1e3 / len(many)

    def first_classes(which: str) -> Tensor:
        return of[which](many, prompt).argmax(1).cpu()

    found = {which: milliseconds(partial(first_classes, which)) for which in ("fp32", precision)}
    certified = prompted(Plan(forward_ms=found))
    taken = milliseconds(lambda: certified.predict(many, [torch.arange(len(many))], {"prompt": prompt[None]}))
    return {"fp32_ms": found["fp32"], "lower_ms": found[precision], "certified_ms": taken}


def text(records: list[dict]) -> str:
    """Return the records as Markdown, and the decision on test metrics."""
    on_gpu = DEVICE.type == "cuda"
    lines = [f"MobileNetV2, {records[0]['images']} test images, canvas {CANVAS}; measured on {machine()}."]
    if not on_gpu:
        lines += ["Rounding that this CPU lacks is emulated, whose speed tells nothing: no times."]
    lines += ["", "| image | prompt | precision | first class changed | in full | the sample aside | violations "]
    lines[-1] += "| wrong, certified "
    lines[-1] += "".join(f"| {metric} moved " for metric in METRICS)
    lines[-1] += "| ms an image: fp32 | lower | certified |" if on_gpu else "|"
    lines += ["|---" * lines[-1].count(" | ") + "|---|"]
    for one in records:
        row = "| {image} | {prompt} | {precision} | {changed} | {in_full} | {:.0%} | {violations} | {wrong} "
        row = row.format((one["in_full"] - one["sampled"]) / (one["images"] - one["sampled"]), **one)
        row += "".join(f"| {one['moved'][metric]:+.1e} " for metric in METRICS)
        row += "| {fp32_ms:.3f} | {lower_ms:.3f} | {certified_ms:.3f} |".format(**one) if on_gpu else "|"
        lines.append(row)
    lines += [""]
    for precision in LOWER:
        moved = [one["moved"] for one in records if one["precision"] == precision]
        most = {metric: max(abs(one[metric]) for one in moved) for metric in METRICS[1:]}
        decision = "stay in fp32" if max(most.values()) >= LIMIT else f"may be computed in {precision}"
        figures = ", ".join(f"{metric} by {value:.1e}" for metric, value in most.items())
        lines.append(f"- {precision} moves {figures} at most: test metrics {decision} (limit {LIMIT:.0e}).")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=MOST, help=f"how many of the test images, {LEAST} to {MOST}")
    count = parser.parse_args().images
    if not LEAST <= count <= MOST:
        raise SystemExit(f"--images: {count} is not in {LEAST}..{MOST}")
    records = []
    for size, (name, deviation) in itertools.product(SIZES, PROMPTS.items()):
        of, prompted = ways(size)
        images, labels = test_images(size, count)
        noise = torch.randn(3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(0))
        prompt = (deviation * noise).to(DEVICE)
        full = of["fp32"](images, prompt).cpu()
        for precision in LOWER:
            record = {"image": size, "prompt": name} | compare(
                full, of[precision](images, prompt).cpu(), labels, precision
            )
            if DEVICE.type == "cuda":
                record |= times(of, prompted, images, prompt, precision)
            print(record, flush=True)
            records.append(record)
    publish("certified", {"device": machine(), "records": records}, text(records))


if __name__ == "__main__":
    main()
