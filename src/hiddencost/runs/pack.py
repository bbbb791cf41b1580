"""Packs: the runs of one (backbone, dataset, seed), each trained once and kept in the ledger."""

import logging
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Tensor

from hiddencost.datasets import prepared
from hiddencost.datasets.splits import take_shots
from hiddencost.files import canonical, read_json, sha256_text
from hiddencost.machine import device_name
from hiddencost.methods.registry import METHODS
from hiddencost.runs import ledger, packfile
from hiddencost.runs.metrics import evaluate
from hiddencost.runs.packfile import PackInputs, PackRequest

log = logging.getLogger(__name__)
VERSIONS = ("torch", "torchvision", "timm")
# Trains and scores runs, given by identity as their methods and the indices of their images. Yields, as they finish,
# the identity of a run, the tensors to keep, and its result.
Runs = dict[str, tuple[str, list[int]]]
Train = Callable[[prepared.Dataset, Runs], Iterator[tuple[str, dict[str, Tensor], dict]]]


def _alone(output: Path) -> AcquireReturnProxy:
    """Wait until no other process works on a pack, as a job may outlive the Snakemake that started it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(f".{output.stem}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("another process works on %s: waiting until it ends", output)
        return lock.acquire(poll_interval=1)


def complete(
    inputs: PackInputs,
    request: PackRequest,
    output: str | Path,
    train: Train,
    of_method: dict[str, dict[str, str]] | None = None,
    **determines: str,
) -> None:
    """Train the runs of a pack that the ledger does not hold yet, and write the rows of all.

    request: `study`, `backbone`, `dataset`, `seed`, `recipe`, `runs` ([method, shots] pairs), `ledger` (its folder)
    and `code` (the digest of the code that trains). train: called once, if a run has to be trained; each is recorded
    as it finishes. determines, and of_method by method: what else determines the results, beyond request, backbone,
    dataset and chosen images. The ledger keeps that beside each run's result. The output is a parquet table, a row a
    run.
    """
    dataset = prepared.load(inputs.dataset)
    manifest = read_json(inputs.backbone / "manifest.json")
    permutations = read_json(inputs.split)["permutations"]
    common = packfile.common(inputs, request) | {"n_test": len(dataset.test_labels)}
    rows: list[dict] = []
    further = {method: determines | (of_method or {}).get(method, {}) for method, _ in request.runs}
    wanted: Runs = {}  # by identity: budgets that choose the same images are one run
    for method, shots in request.runs:
        chosen = take_shots(permutations, shots) if METHODS[method].trains else []
        row = common | {"method": method, "shots": str(shots), "n_train": len(chosen)}
        run = identity(manifest, dataset.digest, chosen, method, request, **further[method])
        rows.append(row | {"run": run})
        wanted[run] = method, chosen
    with _alone(Path(output)):
        missing = {run: one for run, one in wanted.items() if ledger.find(request.ledger, run) is None}
        if missing:
            others = "" if len(missing) == len(wanted) else ", the others are in the ledger"
            log.info("%d of %d runs to train%s", len(missing), len(wanted), others)
            for done, (run, tensors, result) in enumerate(train(dataset, missing), 1):
                method, chosen = missing[run]
                ledger.record(request.ledger, run, tensors, result | further[method])
                log.info("%d of %d: %s, %d images: %s", done, len(missing), method, len(chosen), _summary(result))
        rows = [row | ledger.find(request.ledger, row["run"]) for row in rows]
        packfile.write(rows, request, Path(output))
    log.info("%s: %d runs, %d of them trained now", output, len(rows), len(missing))


def identity(
    manifest: dict, dataset: str, images: list[int], method: str, request: PackRequest, **determines: str
) -> str:
    """Return a run's identity in the ledger.

    manifest: the backbone's; dataset: its digest; images: the indices of those chosen; request, determines: see
    `complete`.
    """
    preprocessing = manifest["preprocessing"]
    outputs = [manifest["weights_sha256"], manifest["architecture"], preprocessing["mean"], preprocessing["std"]]
    return ledger.identity(
        backbone=sha256_text(canonical(outputs)),
        dataset=dataset,
        images=images,
        method=[method, request.methods.get(method)],
        recipe=request.recipe,
        seed=request.seed,
        code=request.code,
        **determines,
    )


def score(logits: Tensor, labels: Tensor, test_batch_size: int) -> dict:
    """Return a run's metrics (see `metrics.evaluate`) and status, "diverged" where a test logit is not finite."""
    if not logits.isfinite().all():
        return {"status": "diverged", "reason": "a test logit is not finite"}
    metrics = evaluate(logits, labels, test_batch_size)
    return {"status": "ok", "ece_published_batch_size": test_batch_size, **metrics}


def timing(seconds: float, images: int, device: torch.device, precision: str) -> dict:
    """Return how long a run took to train, and on what.

    seconds: of a pack's time, the run's share; images: the number it was trained on, epoch by epoch.
    """
    return {
        "train_seconds": seconds,
        "images_per_second": images / seconds,
        "device": device_name(device),
        "precision": precision,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
    }


def _summary(result: dict) -> str:
    if result["status"] != "ok":
        return f"{result['status']}: {result['reason']}"
    return f"accuracy {result['accuracy']:.3f}, ECE {result['ece']:.3f}, {result['train_seconds']:.1f} s"
