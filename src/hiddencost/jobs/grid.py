"""The grid of a study: its axes, what is left out of them and why, and the packs that there are to make."""

from functools import cache
from itertools import product

from hiddencost import catalog
from hiddencost.jobs import downloads, layout
from hiddencost.jobs.call import Call
from hiddencost.methods.registry import METHODS
from hiddencost.networks import inputs
from hiddencost.networks.heads import heads
from hiddencost.study.parts import Backbone
from hiddencost.study.study import Study


def axes(study: Study) -> dict[str, list]:
    """Return the values of each axis, in the order of the study."""
    return {
        "backbone": [backbone.name for backbone in study.backbones],
        "dataset": [dataset.name for dataset in study.datasets],
        "method": study.methods,
        "shots": study.shots,
        "seed": study.seeds,
    }


@cache
def left_out(call: Call) -> dict[str, dict[str, str]]:
    """Return the reasons, by name, of each `backbone` and `dataset` that nothing can be made of."""
    backbones = {backbone.name: _why_backbone(call, backbone) for backbone in call.study.backbones}
    datasets = {name: downloads.why_left_out(call, "datasets", name, entry) for name, entry in call.targets.items()}
    reasons = {"backbone": backbones, "dataset": datasets}
    return {axis: {name: why for name, why in names.items() if why} for axis, names in reasons.items()}


def _why_backbone(call: Call, backbone: Backbone) -> str | None:
    """Return why a backbone is left out, None if it is not.

    Its checkpoint, or what that is trained from or on, or compressed by, is not there; its network does not take the
    study's canvas; or the network has two heads, where one of the study's methods exchanges the head.
    """
    study = call.study
    published, trained = study.published_checkpoint(backbone.checkpoint), study.upstream_network(backbone.checkpoint)
    if published and (why := downloads.why_left_out(call, "checkpoints", published, call.published[published])):
        return why
    calibration = study.calibration(backbone)
    for dataset in (trained and trained.dataset, calibration and calibration[0]):
        if dataset and (why := downloads.why_left_out(call, "datasets", dataset, call.datasets[dataset])):
            return why
    canvas, architecture = study.canvas(backbone), call.checkpoints[backbone.checkpoint].architecture
    if not trained and (why := inputs.why_not_published(architecture, canvas)):
        return why
    # those of the catalog take any other, and one that is trained on such images does, see `check.arithmetic`
    takes_it = published in catalog.checkpoints() or bool(trained and trained.image_size == canvas)
    is_its_own = bool(published and call.published[published].canvas == canvas)
    if not (takes_it or is_its_own) and (why := inputs.why_not(architecture, canvas)):
        return why
    exchanging = [name for name in study.methods_of(backbone) if not METHODS[name].prompts]
    if exchanging and (number := heads(architecture, canvas)) > 1:
        return (
            f"the network {architecture} has {number} heads, of which {' and '.join(exchanging)} would exchange one: "
            f"expected a study of it without {' and '.join(exchanging)}"
        )
    return None


@cache
def why_no_names(call: Call) -> str | None:
    """Return why nothing reads the names of classes, by which a method maps; None where something does, or no method
    asks."""
    if not any(map(call.study.reads_names, call.study.backbones)):
        return None
    name = call.study.text_encoder
    why = downloads.why_left_out(call, "checkpoints", name, call.published[name])
    return why and f"{name}: {why}"


def to_run(call: Call) -> dict[str, list[str]]:
    """Return the names of each `backbone` and `dataset` that is not left out."""
    names = axes(call.study)
    return {axis: [name for name in names[axis] if name not in left_out(call)[axis]] for axis in left_out(call)}


def methods_of(study: Study, job: str, backbone: str) -> list[str]:
    """Return the study's methods that a kind of job (`train`, `probe` or `finetune`) runs on a backbone."""
    return [method for method in study.methods_of(study.backbone(backbone)) if METHODS[method].job == job]


def packs(call: Call, job: str) -> list[dict]:
    """Return the packs of a kind of job that there are to make, each by its `backbone`, `dataset` and `seed`."""
    names = to_run(call)
    backbones = [name for name in names["backbone"] if methods_of(call.study, job, name)]
    each = product(backbones, names["dataset"], call.study.seeds)
    return [{"backbone": backbone, "dataset": dataset, "seed": seed} for backbone, dataset, seed in each]


def pack_table(call: Call, job: str, pack: dict) -> str:
    """Return the table of a pack."""
    return call.path(layout.PACK[job], **pack)
