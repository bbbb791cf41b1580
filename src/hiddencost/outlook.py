"""What a study asks of people and machines, before anything runs: runs, what is left out, downloads, disk, time."""

import json
from itertools import product
from pathlib import Path
from statistics import mean

from hiddencost import cost
from hiddencost.prepare import sized
from hiddencost.protocol import PROMPTING
from hiddencost.study import Study

# matrix products of a present-day GPU in bf16 (training) and fp32 (mapping, test): assumptions, for a number of hours
GPU_TFLOPS = {"training": 400, "mapping and test": 50}


def describe(
    study: Study,
    checkpoints: dict,
    datasets: dict,
    left_out: dict[str, dict],
    packs: list[Path],
    trainings: dict[str, float],
    bench: Path,
) -> str:
    """Return the outlook of a study as a table in text.

    checkpoints, datasets: their catalog entries by name; left_out: the reasons by name, of `backbone` and `dataset`;
    packs: the tables of those to make; trainings: the GFLOP of
    each upstream training, by its folder; bench: throughput.json of
    `make bench`, whose rate the estimate of time takes.
    """
    backbones = [one for one in study.backbones if one.name not in left_out["backbone"]]
    targets = [one for one in study.datasets if one.name not in left_out["dataset"]]
    budgets = len(study.shots) * len(study.seeds)
    cells = {one.name: len(study.methods_of(one)) * budgets for one in study.backbones}  # on one dataset
    total = sum(cells.values()) * len(study.datasets)
    to_run = sum(cells[one.name] for one in backbones) * len(targets)
    there = sum(pack.exists() for pack in packs)
    apart = sum(cells.values()) < len(study.backbones) * len(study.methods) * budgets
    lines = [
        f"Study {study.study}: {total:,} runs = {len(study.backbones)} backbones x {len(study.datasets)} datasets x "
        f"{len(study.methods)} methods x {len(study.shots)} budgets x {len(study.seeds)} seeds"
        + (", less what CLIP alone has (zs) or has not (ft)" if apart else ""),
        f"  to run     {to_run:,} runs in {len(packs):,} packs, of which {there:,} are there",
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
        + _time(study, backbones, targets, checkpoints, datasets, bench),
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
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
    prompts = sum(method in PROMPTING for method in study.methods) * len(study.shots) * len(study.seeds)
    prompts *= len(targets) * sum(3 * study.canvas(one) ** 2 * 4 for one in backbones)
    parts = f"datasets {_size(arrays)}, networks {_size(networks)}, prompts {_size(prompts)}"
    return f"about {_size(arrays + networks + prompts)}, beside the downloads: {parts}"


def _time(study: Study, backbones: list, targets: list, checkpoints: dict, datasets: dict, bench: Path) -> str:
    steps = [record for record in json.loads(bench.read_text()) if record["what"] == "training step, an image"]
    matrix = mean(one["gflops_matrix"] for one in steps)
    seconds, gpu = 0.0, 0.0
    for backbone, target in product(backbones, targets):
        network, dataset = checkpoints[backbone.checkpoint], datasets[target.name]
        pack = cost.pack_gflop(study, backbone, study.methods, network, dataset)
        work = {kind: gflop * len(study.seeds) for kind, gflop in pack.items()}
        if {"lp", "zs"} & set(study.methods_of(backbone)):
            work["mapping and test"] += cost.features_gflop(study, backbone, network, dataset)
        image = study.canvas(backbone) if study.is_clip(backbone) else target.image_size  # on CLIP nothing is shared
        nearest = min(abs(record["image"] - image) for record in steps)
        near = [record for record in steps if abs(record["image"] - image) == nearest]
        rate = mean(one["gflop_whole_canvases"] / one["engine_ms"] * 1e3 for one in near)  # GFLOP/s, as if whole
        seconds += sum(work.values()) / rate
        gpu += sum(work[kind] / rate * matrix / (GPU_TFLOPS[kind] * 1e3) for kind in work)
    device = steps[0]["device"]
    text = f"about {_hours(seconds)} of computing on {device}, whose throughput `make bench` measured"
    if "threads" in device:  # a CPU
        bf16, fp32 = GPU_TFLOPS.values()
        rates = f"{bf16} TFLOP/s in bf16 and {fp32} in fp32"
        text += (
            f";\n             {_hours(gpu)} of a GPU where matrix products run at {rates},\n"
            "             if the engine reaches the same share of those rates (assumed, not measured)"
        )
    return text
