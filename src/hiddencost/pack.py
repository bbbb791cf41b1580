"""Packs: the runs of one (backbone, dataset, seed), each trained once and kept in the ledger."""

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiddencost import datasets, ledger, packfile
from hiddencost.files import canonical, read_json, sha256_text
from hiddencost.metrics import evaluate
from hiddencost.splits import take_shots

log = logging.getLogger(__name__)

VERSIONS = ("torch", "torchvision", "timm")


@dataclass
class PackInputs:
    """The files of a pack: folders of the backbone and the dataset, verification.json and the split."""

    backbone: Path
    verification: Path
    dataset: Path
    split: Path

    @classmethod
    def of(cls, files: Any) -> "PackInputs":
        """Take them from named input files: a list of files stands for the folder that they are in."""
        names = [field.name for field in fields(cls)]
        values = {name: getattr(files, name) for name in names}
        return cls(**{n: Path(v) if isinstance(v, str) else Path(v[0]).parent for n, v in values.items()})


# Trains and scores one run on the chosen images: (method, indices) -> (tensors to keep, result)
Train = Callable[[str, list[int]], tuple[dict[str, Tensor], dict]]


def complete(
    inputs: PackInputs,
    request: dict,
    output: str | Path,
    prepare: Callable[[datasets.Dataset], Train],
    **determines: str,
) -> None:
    """Train the runs of a pack that the ledger does not hold yet, and write the rows of all.

    request: `study`, `backbone`, `dataset`, `seed`, `recipe`, `runs` ([method, shots] pairs), `ledger` (its folder)
    and `code` (the digest of the code that trains). prepare: loads what the runs share, called only if one has to be
    trained. determines: what else determines the results, beyond request, backbone, dataset and chosen images.
    The output is a parquet table, a row a run. A backbone that failed its gate is not trained: its rows say so.
    """
    manifest = read_json(inputs.backbone / "manifest.json")
    verification = read_json(inputs.verification)
    dataset = datasets.load(inputs.dataset)
    permutations = read_json(inputs.split)["permutations"]
    common = {
        "study": request["study"],
        "checkpoint": manifest["checkpoint"],
        "backbone": request["backbone"],
        "compression": manifest["compression"],
        "control": manifest["control"],
        "sparsity_declared": verification["sparsity_declared"],
        "sparsity_measured": verification["sparsity_measured"],
        "dataset": request["dataset"],
        "seed": request["seed"],
        "n_test": len(dataset.test_labels),
    }
    network = _backbone_digest(manifest)
    train: Train | None = None
    rows, trained = [], 0
    for number, (method, shots) in enumerate(request["runs"], 1):
        chosen = take_shots(permutations, shots)
        row = common | {"method": method, "shots": str(shots), "n_train": len(chosen)}
        if not verification["passed"]:
            reason = "the backbone failed its verification: " + "; ".join(verification["reasons"])
            rows.append(row | {"status": "not run", "reason": reason})
            continue
        run = ledger.identity(
            backbone=network,
            dataset=dataset.digest,
            images=chosen,
            method=method,
            recipe=request["recipe"],
            seed=request["seed"],
            code=request["code"],
            **determines,
        )
        result = ledger.find(request["ledger"], run)
        if result is None:
            train = train or prepare(dataset)
            tensors, result = train(method, chosen)
            ledger.record(request["ledger"], run, tensors, result)
            trained += 1
            log.info("run %d of %d, %s %s shots: %s", number, len(request["runs"]), method, shots, _summary(result))
        rows.append(row | {"run": run} | result)
    packfile.write(rows, request, Path(output))
    log.info("%s: %d runs, %d of them trained now, the others found in the ledger", output, len(rows), trained)


def _backbone_digest(manifest: dict) -> str:
    """SHA-256 over what of a backbone determines its outputs."""
    preprocessing = manifest["preprocessing"]
    determines = [manifest["weights_sha256"], manifest["architecture"], preprocessing["mean"], preprocessing["std"]]
    return sha256_text(canonical(determines))


def score(logits: Tensor, labels: Tensor, test_batch_size: int) -> dict:
    """Return a run's metrics (see `metrics.evaluate`) and status, "diverged" where a test logit is not finite."""
    if not logits.isfinite().all():
        return {"status": "diverged", "reason": "a test logit is not finite"}
    metrics = evaluate(logits, labels, test_batch_size)
    return {"status": "ok", "ece_published_batch_size": test_batch_size, **metrics}


def timing(start: float, images: int, device: torch.device, precision: str) -> dict:
    """Return how long a run took to train, and on what: `images` is the number it was trained on, epoch by epoch."""
    seconds = time.perf_counter() - start
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "train_seconds": seconds,
        "images_per_second": images / seconds,
        "device": name,
        "precision": precision,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
    }


def _summary(result: dict) -> str:
    if result["status"] != "ok":
        return f"{result['status']}: {result['reason']}"
    return f"accuracy {result['accuracy']:.3f}, ECE {result['ece']:.3f}, {result['train_seconds']:.1f} s"
