"""What a study asks of people and machines, before anything runs: runs, what is left out, downloads, disk, time."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

from hiddencost.datasets.prepare import sized
from hiddencost.jobs import cost
from hiddencost.methods.registry import METHODS, run_by
from hiddencost.study.study import Study

# matrix products of a present-day GPU in bf16 (training) and fp32 (mapping, test): assumptions, for a number of hours
GPU_TFLOPS = {"training": 400, "mapping and test": 50}
PLANS = Path("resources/plans")  # where jobs keep how fast they run a network


class Rates(BaseModel):
    """How fast a device runs a network: what hiddencost.prompting.plan keeps under `rates`."""

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


class Job(NamedTuple):
    """The arithmetic of a job, in GFLOP as if canvases were computed whole, and of which kind it is."""

    training: float
    forward: float  # mapping, test, features
    trained_image: float  # GFLOP, forward and backward
    share: float  # the image's side, of the canvas's
    precision: str


def describe(
    study: Study,
    checkpoints: dict,
    datasets: dict,
    left_out: dict[str, dict],
    packs: dict[str, list[Path]],
    trainings: dict[str, float],
    bench: Path,
    gpus: int,
    at_a_time: int | None,
) -> str:
    """Return the outlook of a study as a table in text.

    checkpoints, datasets: their catalog entries by name; left_out: the reasons by name, of `backbone` and `dataset`;
    packs: the tables to make, .../BACKBONE/DATASET/seedN.parquet, by kind of job; trainings: the GFLOP of each
    upstream training, by its folder; bench: throughput.json of `make bench`, whose rates stand in for those that no
    job has measured; gpus: how many there are here; at_a_time: how many jobs a scheduler gets, None without one.
    """
    backbones = [one for one in study.backbones if one.name not in left_out["backbone"]]
    targets = [one for one in study.datasets if one.name not in left_out["dataset"]]
    budgets = len(study.shots) * len(study.seeds)
    cells = {one.name: len(study.methods_of(one)) * budgets for one in study.backbones}  # on one dataset
    total = sum(cells.values()) * len(study.datasets)
    to_run = sum(cells[one.name] for one in backbones) * len(targets)
    tables = [table for paths in packs.values() for table in paths]
    there = sum(table.exists() for table in tables)
    apart = sum(cells.values()) < len(study.backbones) * len(study.methods) * budgets
    lines = [
        f"Study {study.study}: {total:,} runs = {len(study.backbones)} backbones x {len(study.datasets)} datasets x "
        f"{len(study.methods)} methods x {len(study.shots)} budgets x {len(study.seeds)} seeds"
        + (", less those of methods that are not there for a backbone" if apart else ""),
        f"  to run     {to_run:,} runs in {len(tables):,} packs, of which {there:,} are there",
        f"  left out   {total - to_run:,} runs",
    ]
    for axis in ("backbone", "dataset"):
        reasons = left_out[axis]
        for reason in dict.fromkeys(reasons.values()):
            names = [name for name in reasons if reasons[name] == reason]
            of_backbones = sum(cells[name] for name in names) * len(study.datasets) if axis == "backbone" else 0
            count = of_backbones or sum(cells.values()) * len(names)
            lines.append(f"    {', '.join(names)} ({count:,} runs): {reason}")
    alone = [one.name for one in study.backbones if not study.dense_of(one)]
    if alone:
        lines.append(f"  no dense   {', '.join(alone)}: the study has no network to compare them with")
    if trainings:
        left = [gflop for folder, gflop in trainings.items() if not Path(folder, "manifest.json").exists()]
        hours = _hours(sum(left) / cost.GPU_RATE)
        lines.append(
            f"  upstream   {len(trainings)} trainings, of which {len(trainings) - len(left)} are there; the others: "
            f"{sum(left) / 1e6:,.3g} PFLOP,\n"
            f"             {hours} of a GPU that trains at {cost.GPU_RATE / 1e3:g} TFLOP/s (assumed)"
        )
    used = {name for one in backbones if (name := study.published_checkpoint(one.checkpoint))}
    used = {name: checkpoints[name] for name in sorted(used)}
    images = {one.name: datasets[one.name] for one in targets}
    images |= {name: datasets[name] for name in study.upstream_datasets() if trainings}
    lines += [
        "  downloads  " + _downloads(used, images),
        "  disk       " + _disk(study, backbones, targets, checkpoints, datasets),
        "  time       "
        + ("beside upstream training " if trainings else "")
        + ";\n             ".join(_times(jobs_left(study, checkpoints, datasets, packs), bench, gpus, at_a_time)),
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{math.ceil(seconds / 60)} min"
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"


def _downloads(checkpoints: dict, datasets: dict) -> str:
    files = [
        file
        for entries, folder in ((checkpoints, "checkpoints"), (datasets, "raw"))
        for name, entry in entries.items()
        for file in entry["files"].values()
        if not Path("resources", folder, name, file["name"]).exists()
        and not any("path" in source for source in file["sources"])
    ]
    unknown = sum("size" not in file for file in files)
    text = f"{_size(sum(file.get('size', 0) for file in files))} in {len(files)} files that are not here yet"
    return text + (f", {unknown} of unknown size not counted" if unknown else "")


def _counts(entry: dict) -> dict:
    return entry["counts"] or {"train": 0, "test": 0}  # of the user's own: known when prepared


def _disk(study: Study, backbones: list, targets: list, checkpoints: dict, datasets: dict) -> str:
    arrays = sum(
        sum(_counts(datasets[one.name]).values()) * 3 * sized(size)[0] ** 2
        for one in targets
        for size in {size for backbone in backbones for size in study.sizes(one.name, backbone).values()}
    )
    weights = {
        name: max((file.get("size", 1e6 * entry.get("weights_mb", 0)) for file in entry["files"].values()), default=0)
        for name, entry in checkpoints.items()
    }
    used = {one.checkpoint for one in backbones}
    networks = sum(weights[name] for name in used) + sum(weights[one.checkpoint] for one in backbones)
    prompts = sum(METHODS[name].prompts for name in study.methods) * len(study.shots) * len(study.seeds)
    prompts *= len(targets) * sum(3 * study.canvas(one) ** 2 * 4 for one in backbones)
    parts = f"datasets {_size(arrays)}, networks {_size(networks)}, prompts {_size(prompts)}"
    return f"about {_size(arrays + networks + prompts)}, beside the downloads: {parts}"


def jobs_left(study: Study, checkpoints: dict, datasets: dict, packs: dict[str, list[Path]]) -> list[Job]:
    """Return the jobs that compute much: for the packs that are not there, and the features of their probes.

    A job whose arithmetic is not known, as the catalog counts neither that of the network nor the dataset's images,
    is none of them. packs: see `describe`.
    """
    jobs, featured = [], set()
    for kind, tables in packs.items():
        for table in tables:
            if table.exists():
                continue
            backbone, target = study.backbone(table.parts[-3]), study.dataset(table.parts[-2])
            network, dataset = checkpoints[backbone.checkpoint], datasets[target.name]
            family, canvas = study.family(backbone), study.canvas(backbone)
            gflop = cost.pack_gflop(study, backbone, run_by(kind), network, dataset)
            share = family.prompted_side(target.image_size, canvas) / canvas if kind == "train" else 1.0
            if kind == "probe":
                if (backbone.name, target.name) in featured:
                    continue
                featured.add((backbone.name, target.name))
                gflop["mapping and test"] = cost.features_gflop(study, backbone, network, dataset)
            if sum(gflop.values()):
                image = 2 * cost.image_gflop(study, backbone, network)
                precision = study.prompting_recipe(backbone).precision
                jobs.append(Job(gflop["training"], gflop["mapping and test"], image, share, precision))
    return jobs


def measured_rates(folder: Path) -> list[Rates]:
    """Return the rates in the plans of a folder, newest first; files without, of older versions, are left out."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: -path.stat().st_mtime):
        try:
            found.append(PlanFile.model_validate_json(path.read_bytes()).rates)
        except ValidationError:
            continue
    return found


def bench_rates(bench: Path) -> tuple[list[Rates], list[Rates]]:
    """Return the rates that `make bench` has measured, in the file `bench`, and those that a GPU would reach whose
    matrix products run at GPU_TFLOPS, if the engine reached the same share of them."""
    here, assumed = [], []
    records = json.loads(bench.read_text())
    tests = {(one["network"], one["image"]): one["engine_ms"] for one in records if one["what"] == "test, an image"}
    for record in records:
        if record["what"] != "training step, an image":
            continue
        rates = Rates(
            device=record["device"],
            kind="cpu" if "threads" in record["device"] else "cuda",
            canvas=record["canvas"],
            image_size=record["image"],
            precision=record["precision"],
            gflop=record["gflop_whole_canvases"],
            training_ms=record["engine_ms"],
            forward_ms=tests[record["network"], record["image"]],
        )
        here.append(rates)
        faster = {kind: tflops * 1e3 / record["gflops_matrix"] for kind, tflops in GPU_TFLOPS.items()}
        times = {
            "training_ms": rates.training_ms / faster["training"],
            "forward_ms": rates.forward_ms / faster["mapping and test"],
        }
        assumed.append(rates.model_copy(update=times | {"kind": "cuda"}))
    return here, assumed


def seconds(job: Job, rates: Sequence[Rates]) -> float:
    """Return how long a job takes at the rates of one device: those of the network most like its own in the image's
    share of the canvas and in arithmetic, and of its precision, if there are such."""
    precision = job.precision
    if precision == "auto":
        precision = "bf16" if any(one.precision == "bf16" for one in rates) else "fp32"
    alike = [one for one in rates if one.precision == precision] or rates

    def distance(one: Rates) -> float:
        return abs(one.image_size / one.canvas - job.share) + abs(math.log(one.gflop / job.trained_image))

    nearest = min(alike, key=distance)
    trained_images, passed_images = job.training / nearest.gflop, job.forward / (nearest.gflop / 2)
    return (trained_images * nearest.training_ms + passed_images * nearest.forward_ms) / 1e3


def spread(times: list[float], count: int) -> float:
    """Return how long jobs of such times take, so many at a time, at least: a job is not divided."""
    return max(sum(times) / count, max(times))


def _times(jobs: list[Job], bench: Path, gpus: int, at_a_time: int | None) -> list[str]:
    """Return a line for each device: those that jobs have measured, and what is assumed where none has a GPU."""
    if not jobs:
        return ["none: no job is left whose arithmetic is known"]
    measured = measured_rates(PLANS)
    here, assumed = bench_rates(bench)
    lines = []
    for device in dict.fromkeys(one.device for one in measured):
        rates = [one for one in measured if one.device == device]
        lines.append(f"{_line(jobs, rates, device, gpus, at_a_time)}, as measured by jobs ({PLANS})")
    if not measured:
        lines.append(f"{_line(jobs, here, here[0].device, gpus, at_a_time)}, as the committed bench/results tell")
    if all(one.kind == "cpu" for one in measured or here):
        bf16, fp32 = GPU_TFLOPS.values()
        told = _line(jobs, assumed, f"GPU of {bf16} TFLOP/s in bf16 and {fp32} in fp32", gpus, at_a_time)
        why = "assumed: no job has measured a GPU yet; the part of these rates that is reached is the CPU's"
        lines.append(f"{told},\n             {why}")
    return lines


def _line(jobs: list[Job], rates: list[Rates], device: str, gpus: int, at_a_time: int | None) -> str:
    times = [seconds(job, rates) for job in jobs]
    one, several = "one " if rates[0].kind == "cuda" else "", ""
    if at_a_time:
        together = min(at_a_time, len(times))
        several = f", {_hours(spread(times, together))} with {together} jobs at a time"
    elif rates[0].kind == "cuda":
        several = "".join(f", {_hours(spread(times, count))} on {count}" for count in sorted({gpus, 8} - {0, 1}))
    return f"about {_hours(sum(times))} on {one}{device}{several} (the longest job: {_hours(max(times))})"
