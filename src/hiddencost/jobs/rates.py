"""How fast devices run networks, as jobs or `make bench` have measured it, and how long jobs take at such rates."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

# matrix products of a present-day GPU in bf16 (training) and fp32 (mapping, test): assumptions, for a number of hours
GPU_TFLOPS = {"training": 400, "mapping and test": 50}
PLANS = Path("resources/plans")  # where jobs keep how fast they run a network


class Rates(BaseModel):
    """How fast a device runs a network: what `prompting.measure.Measurements` keeps as `rates`."""

    device: str
    kind: Literal["cpu", "cuda"]
    canvas: PositiveInt
    image_size: PositiveInt
    precision: Literal["fp32", "bf16"]
    gflop: PositiveFloat  # of a trained image, forward and backward to the image, on a whole canvas
    training_ms: PositiveFloat  # a trained image
    forward_ms: PositiveFloat  # an image of the mapping and test passes, all in fp32


class PlanFile(BaseModel):
    rates: Rates


class JobArithmetic(NamedTuple):
    """The arithmetic of a job, in GFLOP as if canvases were computed whole, and of which kind it is."""

    training: float
    forward: float  # mapping, test, features
    trained_image: float  # GFLOP, forward and backward
    share: float  # the image's side, of the canvas's
    precision: str


def duration(seconds: float) -> str:
    """Return a time in words, as it stands on few measurements: minutes, hours, days to two digits, years to one."""
    hours = seconds / 3600
    if hours < 1:
        return f"{math.ceil(seconds / 60)} min"
    units = ("h", 1, 100), ("days", 24, 24 * 1000), ("years", 24 * 365.25, math.inf)
    unit, in_hours, most = next(one for one in units if hours < one[2])
    if most == math.inf:
        return f"{float(f'{hours / in_hours:.0e}'):,.0f} {unit}"
    count = float(f"{hours / in_hours:.2g}")
    return f"{count:,.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"


def measured_rates(folder: Path) -> list[Rates]:
    """Return the rates in the plans of a folder, newest first; files without, of older versions, are left out."""
    measured = []
    for path in sorted(folder.glob("*.json"), key=lambda path: -path.stat().st_mtime):
        try:
            measured.append(PlanFile.model_validate_json(path.read_bytes()).rates)
        except ValidationError:
            continue
    return measured


def bench_rates(bench: Path) -> tuple[list[Rates], list[Rates]]:
    """Return the rates that `make bench` has measured, in the file `bench`, and those that a GPU would reach whose
    matrix products run at GPU_TFLOPS, if the engine reached the same share of them."""
    benched, assumed = [], []
    records = json.loads(bench.read_text())
    tests = {
        (record["network"], record["image"]): record["engine_ms"]
        for record in records
        if record["what"] == "test, an image"
    }
    for record in records:
        if record["what"] != "training step, an image":
            continue
        rates = Rates(
            device=record["device"],
            kind="cpu" if " thread" in record["device"] else "cuda",
            canvas=record["canvas"],
            image_size=record["image"],
            precision=record["precision"],
            gflop=record["gflop_whole_canvases"],
            training_ms=record["engine_ms"],
            forward_ms=tests[record["network"], record["image"]],
        )
        benched.append(rates)
        faster = {kind: tflops * 1e3 / record["gflops_matrix"] for kind, tflops in GPU_TFLOPS.items()}
        times = {
            "training_ms": rates.training_ms / faster["training"],
            "forward_ms": rates.forward_ms / faster["mapping and test"],
        }
        assumed.append(rates.model_copy(update=times | {"kind": "cuda"}))
    return benched, assumed


def seconds(work: JobArithmetic, rates: Sequence[Rates]) -> float:
    """Return how long a job takes at the rates of one device: those of the network most like its own in the image's
    share of the canvas and in arithmetic, and of its precision, if there are such."""
    precision = work.precision
    if precision == "auto":
        precision = "bf16" if any(rate.precision == "bf16" for rate in rates) else "fp32"
    alike = [rate for rate in rates if rate.precision == precision] or rates

    def distance(rate: Rates) -> float:
        return abs(rate.image_size / rate.canvas - work.share) + abs(math.log(rate.gflop / work.trained_image))

    nearest = min(alike, key=distance)
    trained_images, passed_images = work.training / nearest.gflop, work.forward / (nearest.gflop / 2)
    return (trained_images * nearest.training_ms + passed_images * nearest.forward_ms) / 1e3


def spread(times: list[float], count: int) -> float:
    """Return how long jobs of such times take, so many at a time, at least: a job is not divided."""
    return max(sum(times) / count, max(times))


def device_times(jobs: Sequence[JobArithmetic], bench: Path, gpus: int, at_a_time: int | None) -> list[str]:
    """Return the time of jobs, a line for each device: those that jobs have measured, and what is assumed where none
    has a GPU. See `outlook.describe` for bench, gpus and at_a_time."""
    if not jobs:
        return ["none: no job is left, or of none the arithmetic is known"]
    measured = measured_rates(PLANS)
    benched, assumed = bench_rates(bench)
    lines = []
    for device in dict.fromkeys(rate.device for rate in measured):
        rates = [rate for rate in measured if rate.device == device]
        lines.append(f"{_line(jobs, rates, device, gpus, at_a_time)}, as measured by jobs ({PLANS})")
    if not measured:
        line = _line(jobs, benched, benched[0].device, gpus, at_a_time)
        lines.append(f"{line}, as the committed bench/results tell of another machine")
    if all(rate.kind == "cpu" for rate in measured or benched):
        bf16, fp32 = GPU_TFLOPS.values()
        line = _line(jobs, assumed, f"GPU of {bf16} TFLOP/s in bf16 and {fp32} in fp32", gpus, at_a_time)
        why = "assumed: no job has measured a GPU yet; it reaches as much of these rates as that CPU does of its own"
        lines.append(f"{line},\n             {why}")
    return lines


def _line(jobs: Sequence[JobArithmetic], rates: list[Rates], device: str, gpus: int, at_a_time: int | None) -> str:
    times = [seconds(job, rates) for job in jobs]
    article, several = "one " if rates[0].kind == "cuda" else "", ""
    if at_a_time:
        together = min(at_a_time, len(times))
        several = f", {duration(spread(times, together))} with {together} jobs at a time"
    elif rates[0].kind == "cuda":
        several = "".join(f", {duration(spread(times, count))} on {count}" for count in sorted({gpus, 8} - {0, 1}))
    return f"about {duration(sum(times))} on {article}{device}{several} (the longest job: {duration(max(times))})"
