"""Packs: the runs of one (backbone, dataset, seed), each trained once and kept in the ledger.

A run is trained where the ledger does not hold it, and scored anew, from what the ledger holds, where other code has
scored it.
"""

import logging
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Tensor

from hiddencost.datasets import prepared
from hiddencost.datasets.splits import take_shots
from hiddencost.files import canonical, read_json, sha256_text
from hiddencost.machine import device_name
from hiddencost.methods.registry import METHODS
from hiddencost.networks.manifest import Manifest
from hiddencost.runs import ledger, not_run, packfile
from hiddencost.runs.ledger import Result
from hiddencost.runs.metrics import batch_columns, digests, evaluate
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.study.recipes import recipe_of_run

log = logging.getLogger(__name__)
OF_SCORES = "test_batch_size"  # of a recipe, and of a result
VERSIONS = ("torch", "torchvision", "timm")


class Asked(NamedTuple):
    """A run to train.

    Attributes:
        method: its name.
        images: the indices of those that it is trained on.
        batch_size: of its recipe.
    """

    method: str
    images: list[int]
    batch_size: int


Runs = dict[str, Asked]  # by identity


class TrainedRun(NamedTuple):
    """A run as it comes from its training.

    Attributes:
        run: its identity.
        learned: the tensors to keep.
        training: how it was trained, see `timing`.
        logits: of the test set over the target classes, [N, K]; None of one that diverged.
        diverged: where its loss ceased to be finite.
    """

    run: str
    learned: dict[str, Tensor]
    training: dict[str, Any]
    logits: Tensor | None
    diverged: str | None = None


class Job(Protocol):
    """What trains the runs of a pack, and computes again what they say of the test set."""

    def train(self, dataset: prepared.Dataset, runs: Runs) -> Iterator[TrainedRun]:
        """Train runs, and yield each as it is finished, in any order."""

    def predict(
        self, dataset: prepared.Dataset, runs: Runs, learned: Iterator[tuple[str, dict[str, Tensor]]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the test logits of finished runs, of what the ledger holds of each."""


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
    job: Job,
    of_method: dict[str, dict[str, str]] | None = None,
    **determines: str | None,
) -> None:
    """Train the runs of a pack that the ledger does not hold yet, and write the rows of all.

    Args:
        inputs: the pack's files.
        request: what its table must hold.
        output: the table, parquet, a row a run.
        job: trains and predicts; it is called only if a run has to be trained, or scored anew.
        of_method: what else determines the runs of a method, by method.
        determines: what else determines all of them, beyond request, backbone, dataset and chosen images. The ledger
            keeps both beside a run's result.
    """
    dataset = prepared.load(inputs.dataset)
    further = {method: {**determines, **(of_method or {}).get(method, {})} for method, _ in request.runs}
    rows, runs = _asked_for(inputs, request, dataset, further)
    with _alone(Path(output)):
        results = {run: ledger.find(request.ledger, run) for run in runs}
        missing = {run: runs[run] for run, result in results.items() if result is None}
        if missing:
            _tell_of_older_runs(request, missing, Path(output))
            log.info(
                *("%d of %d runs to train, %d are in the ledger", len(missing), len(runs), len(runs) - len(missing)),
                extra={"events": packfile.events(request)},  # see `logs.write_scalars`
            )
            _train(job, dataset, missing, request, further)
        otherwise = {run for run, one in results.items() if one and one.scores and not _scored_so(one, request)}
        if otherwise:
            log.info("%d runs were scored otherwise: they are scored anew, and not trained", len(otherwise))
            _score_anew(job, dataset, {run: runs[run] for run in runs if run in otherwise}, request)
        rows = [row | ledger.read(request.ledger, row["run"])[1].row() for row in rows]
        packfile.write(rows, request, Path(output))
    log.info("%s: %d runs, %d of them trained now", output, len(rows), len(missing))


def _asked_for(
    inputs: PackInputs, request: PackRequest, dataset: prepared.Dataset, further: dict[str, dict[str, str | None]]
) -> tuple[list[dict], Runs]:
    """Return the rows of a pack, without results, and its runs: budgets that choose the same images are one run."""
    manifest = Manifest.read(inputs.backbone)
    permutations = read_json(inputs.split)["permutations"]
    common = not_run.common(inputs, request) | {"n_test": len(dataset.test_labels)}
    rows: list[dict] = []
    runs: Runs = {}
    for method, shots in request.runs:
        chosen = take_shots(permutations, shots) if METHODS[method].trains else []
        run = identity(manifest, dataset.digest, chosen, method, shots, request, **further[method])
        rows.append(common | {"method": method, "shots": str(shots), "n_train": len(chosen), "run": run})
        runs[run] = Asked(method, chosen, recipe_of_run(request.recipe, shots)["batch_size"])
    return rows, runs


def _tell_of_older_runs(request: PackRequest, missing: Runs, table: Path) -> None:
    """Say in the log, in one line, what older versions of the code have trained of a pack.

    Args:
        request: the pack's.
        missing: its runs that are to be trained.
        table: as it was before. Only where other code wrote it, a ledger of an older layout holds runs of the pack.
    """
    older = sum(ledger.trained_by_other_code(request.ledger, run) for run in missing)
    stored = packfile.stored_request(table)
    rewritten = table.exists() and (stored is None or stored.code != request.code)
    if older:
        log.warning("%d runs were trained by another version of the code: they are trained anew", older)
    elif rewritten and ledger.older_entries(request.ledger):
        log.warning(
            "%s was begun by an older version of the code: what it holds in %s does not count, and %d runs are "
            "trained anew, or for the first time",
            request.ledger,
            Path(request.ledger, "??"),
            len(missing),
        )


def _train(
    job: Job,
    dataset: prepared.Dataset,
    missing: Runs,
    request: PackRequest,
    further: dict[str, dict[str, str | None]],
) -> None:
    labels = torch.tensor(dataset.test_labels)
    for done, trained in enumerate(job.train(dataset, missing), 1):
        method, chosen, _ = missing[trained.run]
        training = trained.training | further[method]
        if trained.logits is None:
            result = Result(status="diverged", reason=trained.diverged, training=training)
        else:
            result = scored(training, trained.logits, labels, request)
        ledger.record(request.ledger, trained.run, trained.learned, result)
        log.info(
            *("%d of %d: %s, %d images: %s", done, len(missing), method, len(chosen), result.summary()),
            extra={"finished": (method, len(chosen), result.scores)},
        )


def _scored_so(result: Result, request: PackRequest) -> bool:
    """Say whether a result was scored by the metrics, and for the batch size of the test, that a request states."""
    asked = _asked_of_scores(request)
    return result.model_dump(include=set(asked)) == asked


def _asked_of_scores(request: PackRequest) -> dict[str, Any]:
    return {"metrics": request.metrics, OF_SCORES: request.recipe[OF_SCORES]}


def _score_anew(job: Job, dataset: prepared.Dataset, runs: Runs, request: PackRequest) -> None:
    """Score finished runs by the metrics of today. What unchanged code has scored before stays: the logits are
    computed again, and another device rounds otherwise."""
    labels = torch.tensor(dataset.test_labels)
    stored = ((run, ledger.read(request.ledger, run)[0]) for run in runs)
    for run, logits in job.predict(dataset, runs, stored):
        learned, before = ledger.read(request.ledger, run)
        is_same_batch = before.test_batch_size == request.recipe[OF_SCORES]
        valid = {one: code for one, code in before.scored_by.items() if is_same_batch or one not in batch_columns()}
        after = scored(before.training, logits, labels, request)
        if after.status != before.status:
            log.warning("%s: another device does not give it finite logits: its scores stay as they are", run)
            # with what was asked, so that it is not asked again and again
            after = before.model_copy(update=_asked_of_scores(request) | {"scored_by": valid})
        same = {column: before.scores[column] for column, _ in after.scored_by.items() & valid.items()}
        ledger.record(request.ledger, run, learned, after.model_copy(update={"scores": after.scores | same}))


def identity(
    manifest: Manifest,
    dataset: str,
    images: list[int],
    method: str,
    shots: int | str,
    request: PackRequest,
    **determines: str | None,
) -> str:
    """Return a run's identity in the ledger.

    Of the recipe the batch size of the test is no part: it is of scores alone.

    Args:
        manifest: the backbone's.
        dataset: the digest of the prepared dataset.
        images: indices of those chosen.
        method: its name.
        shots: its budget, by which batch sizes of the recipe may differ.
        request: of its pack, with the recipe and the digest of the code.
        determines: what else determines it, see `complete`.
    """
    preprocessing = manifest.preprocessing
    outputs = [manifest.weights_sha256, manifest.architecture, preprocessing.mean, preprocessing.std]
    return ledger.entry_name(
        backbone=sha256_text(canonical(outputs)),
        dataset=dataset,
        images=images,
        method=method,
        recipe={key: value for key, value in recipe_of_run(request.recipe, shots).items() if key != OF_SCORES},
        seed=request.seed,
        code=canonical([request.code, request.methods.get(method)]),
        **determines,
    )


def scored(training: dict[str, Any], logits: Tensor, labels: Tensor, request: PackRequest) -> Result:
    """Return the result of a run: its metrics, or "diverged" where a test logit is not finite.

    Args:
        training: how it was trained.
        logits: over the target classes, [N, K].
        labels: int64 [N].
        request: the pack's, whose recipe has the batch size of the test.
    """
    if not logits.isfinite().all():
        return Result(status="diverged", reason="a test logit is not finite", training=training)
    scores = evaluate(logits, labels, request.recipe[OF_SCORES])
    return Result(status="ok", training=training, scores=scores, scored_by=digests(), **_asked_of_scores(request))


def timing(seconds: float, images: int, device: torch.device, precision: str) -> dict:
    """Return how long a run took to train, and on what: columns of the table.

    Args:
        seconds: of a pack's time, the run's share.
        images: the number it was trained on, epoch by epoch.
        device: that it was trained on.
        precision: fp32 or bf16.
    """
    return {
        "train_seconds": seconds,
        "images_per_second": images / seconds,
        "device": device_name(device),
        "precision": precision,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
    }
