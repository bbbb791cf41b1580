"""Upstream training with timm: a network from scratch or from published weights, dense or with a sparsifier.

`train_backbone` does one training, from its settings to a backbone on disk, in one process or as one of several that
torchrun has started (`launch`).
"""

import logging
from pathlib import Path
from typing import NamedTuple

import torch

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.machine import device_name
from hiddencost.networks import backbones
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.precision import resolve_precision
from hiddencost.runs import interrupted
from hiddencost.study.sparsifiers import SPARSIFIERS
from hiddencost.upstream import sparsifiers
from hiddencost.upstream.data import PREPROCESSING, TrainLoader, Upstream, load
from hiddencost.upstream.job import UpstreamJob
from hiddencost.upstream.loop import train
from hiddencost.upstream.processes import Diverged, FailedAlone, Processes, failure_as_result, join_processes
from hiddencost.upstream.state import Training, first_network, prepare
from hiddencost.upstream.testing import correct_of

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


def train_backbone(job: UpstreamJob, device: torch.device, workers: int) -> None:
    """Train a network upstream and write it as a backbone, or write why that could not be.

    On the CPUs of one machine the result is a function of the job and the number of threads, to the bit; several
    processes share each batch, and as each normalises its own part, their number matters. An interrupted training
    that goes on gives what it would have given, if as many processes go on; else it starts anew. The manifest holds
    the top-1 on the upstream test images, all of them, which training never sees before.

    Args:
        job: of a training to the end.
        device: of this process where it is alone.
        workers: processes of this one that read images.

    Raises:
        RuntimeError: in a process that fails alone, of several, once it has written why.
    """
    run = join_processes(device)
    output, manifest = Path(job.output), _first_manifest(job, run)
    with failure_as_result(run, lambda reason: backbones.save_failure(output, reason, manifest)):
        begun = begin(job, run, workers)
        manifest = manifest.replace(**begun.origin)
        go_on(begun, job, run, job.recipe.epochs)
        if run.rank == 0:
            _save(begun, job, run, workers, manifest)


def _first_manifest(job: UpstreamJob, run: Processes) -> Manifest:
    """Return what the manifest says of a training before it begins, as of one that fails."""
    settings = job.sparsify
    over = SPARSIFIERS[settings["algorithm"]].sparsity_over(settings) if settings else "convolutions"
    stated = job.model_dump(include={"data", "image_size", "recipe", "sparsify", "seed"})
    return Manifest(
        checkpoint=job.checkpoint,
        architecture=job.architecture,
        preprocessing=PREPROCESSING,
        stem=None,
        upstream_top1=None,
        compression=settings["algorithm"] if settings else UNCOMPRESSED,
        sparsity_declared=settings["sparsity"] if settings else 0.0,
        sparsity_over=over,
        source_sha256={},
        upstream=stated | {"processes": run.count},
    )


def _save(begun: "Begun", job: UpstreamJob, run: Processes, workers: int, manifest: Manifest) -> None:
    """Test what was trained and write it as a backbone."""
    training, data, output = begun.training, begun.data, Path(job.output)
    final, count = (training.ema.module if training.ema else training.network), len(data.test)
    seen = job.recipe, job.image_size, manifest.preprocessing
    correct = correct_of(final, data, range(count), *seen, run.device, workers)
    state = {key: tensor.cpu() for key, tensor in final.state_dict().items()}
    # a weight that happens to be zero is none: masks and weights say the same
    masks = {key: (mask.cpu() & (state[key] != 0)) for key, mask in training.sparsifier.masks.items()}
    top1 = 100 * correct / count
    precision = resolve_precision(job.recipe.precision, run.device)
    measured = {"device": device_name(run.device), "precision": precision, "seconds": round(training.seconds, 1)}
    manifest = manifest.replace(
        upstream=(manifest.upstream or {}) | measured | {"test_images": count, "images_sha256": data.digest},
        upstream_top1=round(top1, 4),
        classes=data.classes,
        keys=len(backbones.weights_of(state)),
    )
    backbones.save(output, state, masks, manifest)
    for stale in output.glob("unfinished-*.state"):  # of other settings, too
        stale.unlink()
    log.info("%s: %.2f %% of %d upstream test images, trained in %.0f s", output, top1, count, training.seconds)


def train_rewind_point(job: UpstreamJob, device: torch.device, workers: int) -> None:
    """Train a dense network up to an early epoch and keep its state: what lottery tickets are rewound to.

    It is the state that the dense training of as many processes passes through: on the CPU to the bit.

    Args:
        job: of a dense training up to an epoch; why there is no state goes to its output, too.
        device, workers: as of `train_backbone`.
    """
    run = join_processes(device)
    with failure_as_result(run, lambda reason: interrupted.keep_states(job.output, {"failed": reason})):
        begun = begin(job, run, workers)
        assert job.until is not None, "it ends with an epoch"
        go_on(begun, job, run, job.until)
        if run.rank == 0:
            interrupted.keep_states(job.output, {"rewind": begun.training.state()})
            Path(job.unfinished).unlink(missing_ok=True)


class Begun(NamedTuple):
    """A training that has begun.

    Attributes:
        training: the network, and all that its next step depends on.
        loader: of the training images.
        data: the upstream data set.
        origin: what the network's manifest says of it, see `first_network`.
    """

    training: Training
    loader: TrainLoader
    data: Upstream
    origin: dict


def begin(job: UpstreamJob, run: Processes, workers: int) -> Begun:
    """Prepare a training; a lottery ticket is rewound.

    Raises:
        ValueError: where something that it takes has failed, is damaged, or does not go together.
    """
    data, masks = load(job.data), None
    network, origin = first_network(job, len(data.classes))
    images = data.train, job.recipe, job.image_size, origin["preprocessing"], job.seed
    loader = TrainLoader(*images, run.device, workers, run.rank, run.count)
    if job.ticket:
        assert job.sparsify is not None, "a ticket is sparse"
        trained, before, _ = backbones.load(job.ticket)
        masks = sparsifiers.next_ticket(trained, before, job.sparsify)
    training = prepare(network, job.recipe, job.sparsify, loader.steps, job.seed, run.device, masks)
    if job.ticket:
        assert job.rewind is not None, "a ticket is rewound"
        rewound = interrupted.states(job.rewind, CPU) or {"failed": "damaged; delete it, and it is made again"}
        if "failed" in rewound:
            raise ValueError(f"{job.rewind}: {rewound['failed']}")
        training.restore(rewound["rewind"], masks=False)
    return Begun(training, loader, data, origin)


def go_on(begun: Begun, job: UpstreamJob, run: Processes, until: int) -> None:
    """Train up to an epoch, from where an interrupted training of as many processes was, if there is one.

    Raises what `train` raises, and FailedAlone for what goes wrong in this process of several.
    """
    training, unfinished = begun.training, Path(job.unfinished)
    stored = interrupted.states(unfinished, CPU)
    if stored and stored["processes"] == run.count:
        training.restore(stored["training"])
        if run.rank == 0:
            log.info("going on after epoch %d of %d, where it was interrupted", training.epoch, until)

    def keep() -> None:
        if run.rank == 0:
            interrupted.keep_states(unfinished, {"training": training.state(), "processes": run.count})

    try:
        train(training, begun.loader, job.recipe, len(begun.data.classes), job.seed, run, until, keep)
    except Diverged:
        raise
    except ValueError as error:
        raise (FailedAlone if run.count > 1 else ValueError)(str(error)) from error
