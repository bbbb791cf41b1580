"""Inputs and settings of the rules in training.smk: the packs, and what each is asked for."""

from functools import cache
from pathlib import Path
from typing import Any

from hiddencost.digest import APART, code_digest
from hiddencost.files import canonical, sha256_text
from hiddencost.jobs import checkpoints, datasets, layout, places, upstream, values
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import methods_of, pack_table, packs, why_no_names
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.prompting import prompts
from hiddencost.runs import metrics, not_run, packfile
from hiddencost.runs.packfile import PackRequest
from hiddencost.study.parts import Backbone
from hiddencost.study.protocols import RUN_PROTOCOLS
from hiddencost.study.recipes import Recipe, RunFineTuning
from hiddencost.study.study import Study

ABSENT = "are not there"
LOST = "have runs that the ledger does not hold any more: these are trained again"


def params(job: str) -> list[str]:
    """Return the names of a pack's params, by the kind of its job: of its request, the recipe's values one each."""
    recipes = {"train": RUN_PROTOCOLS.values(), "probe": [Recipe], "finetune": [RunFineTuning]}[job]
    of_recipe = dict.fromkeys(f"recipe.{name}" for recipe in recipes for name in recipe.model_fields)
    return [*(name for name in PackRequest.model_fields if name != "recipe"), *of_recipe]


def _images(call: Call, job: str, backbone: str, dataset: str) -> list[str]:
    return places.prepared(call, dataset, call.study.sizes(dataset, call.study.backbone(backbone))[job])


def images_to_prompt(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the files of a dataset at the size of prompting on a backbone."""
    return _images(call, "train", backbone, dataset)


def images_to_probe(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the files of a dataset at the size of a backbone's features."""
    return _images(call, "probe", backbone, dataset)


def images_to_crop(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the files of a dataset at the size of fine-tuning a backbone."""
    return _images(call, "finetune", backbone, dataset)


def class_names(call: Call, backbone: str, dataset: str) -> str:
    """Return the report of a prepared dataset, which names its classes, at the one size that a network with texts
    sees."""
    (size,) = set(call.study.sizes(dataset, call.study.backbone(backbone)).values())
    return f"{places.prepared_folder(call, dataset, size)}/dataset.json"


def embed_texts(call: Call, backbone: str) -> dict:
    """Return what the texts of a backbone depend on."""
    return {"templates": call.study.templates(call.study.backbone(backbone))}


def texts(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the texts that are a backbone's source classes; none where it has other source classes."""
    if not call.study.family(call.study.backbone(backbone)).has_texts:
        return []
    return [call.path(layout.TEXTS, backbone=backbone, dataset=dataset)]


def texts_to_try(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the texts of a backbone for its zero-shot classifier, where the study has such a method."""
    probes = methods_of(call.study, "probe", backbone)
    return texts(call, backbone, dataset) if any(not METHODS[name].trains for name in probes) else []


def names(call: Call, backbone: str, dataset: str) -> list[str]:
    """Return the file of how alike the names of classes are, where a method of a backbone maps by them, else none."""
    is_read = call.study.reads_names(call.study.backbone(backbone))
    return [call.path(layout.NAMES, dataset=dataset)] if is_read else []


def text_encoder(call: Call) -> list[str]:
    """Return the files of the imported CLIP that reads the names of classes; none where it is left out."""
    return [] if why_no_names(call) else places.imported(call, call.study.text_encoder)


def names_to_read(call: Call, dataset: str) -> str:
    """Return the report of a prepared dataset, which names its classes."""
    return f"{datasets.first_prepared(call, dataset)}/dataset.json"


def embed_names(call: Call) -> dict:
    """Return why nothing reads the names of classes, None where something does."""
    return {"left_out": why_no_names(call)}


@cache
def origin(call: Call, backbone: str, dataset: str) -> str:
    """Return the digest of the settings and the code that make a pack's inputs."""
    study, settings = call.study, call.study.backbone(backbone)
    of: list[Any] = [_network(call, settings.checkpoint), checkpoints.compress(call, backbone)]
    of.append(datasets.prepare_dataset(call, dataset))
    if calibration := study.calibration(settings):
        of.append(datasets.prepare_dataset(call, calibration[0]))
    scripts = ["compress", "prepare_dataset", "draw_splits", "extract_features"]
    if study.family(settings).has_texts:
        of.append(study.templates(settings))
        scripts.append("embed_texts")
    if study.upstream_network(settings.checkpoint):
        of += [checkpoints.verify_trained(call), *settings.training()]
        scripts += ["sparsify", "verify_trained"]
    else:
        of.append(checkpoints.verify_backbone(call))
        scripts += ["import_checkpoint", "verify_backbone"]
    of.append(code_digest(not_run.__file__, apart=APART["train"] - {not_run.__name__}))
    return sha256_text(canonical(of + [code(call.root, script) for script in scripts]))


@cache
def origin_of_names(call: Call) -> str:
    """Return the digest of the settings and the code that make what methods read of the names of classes, beside
    `origin`, which has the data set's."""
    left_out = embed_names(call)
    encoder = None if left_out["left_out"] else checkpoints.import_checkpoint(call, call.study.text_encoder)
    return sha256_text(
        canonical([left_out, encoder, *(code(call.root, script) for script in ("import_checkpoint", "embed_names"))])
    )


def _network(call: Call, checkpoint: str) -> dict:
    """Return what an imported checkpoint depends on, or a network that the study trains."""
    if trained := call.study.upstream_network(checkpoint):
        start = _network(call, trained.checkpoint) if trained.checkpoint else None
        own = upstream.network_code(call.checkpoints[checkpoint].architecture)
        return {"trained": trained.model_dump(), "start": start} | own
    return checkpoints.import_checkpoint(call, checkpoint)


def _training_code(call: Call, job: str, backbone: Backbone) -> str:
    """Return the digest of the code that trains: of the job's, and of the own shape of a run that prompts."""
    of_job = code(call.root, job)
    if job != "train":
        return of_job
    return sha256_text(canonical([of_job, prompts.digest(call.study.shape(backbone))]))


def method_digest(study: Study, name: str) -> str:
    """Return the digest of how a method maps labels: of its code and, where it reads names, of what reads them."""
    method = METHODS[name]
    return sha256_text(canonical([method.digest(), study.text_encoder])) if method.reads_names else method.digest()


def wanted(call: Call, job: str, backbone: str, dataset: str, seed: int | str) -> PackRequest:
    """Return the request of a pack as the study states it: the runs of its table, and what they stand on."""
    study, settings = call.study, call.study.backbone(backbone)
    recipe = study.recipe(JOBS[job].recipe, dataset, backbone)
    return PackRequest(
        study=study.study,
        backbone=backbone,
        dataset=dataset,
        seed=seed,
        recipe=recipe | ({"canvas": study.canvas(settings)} if JOBS[job].crops else {}),
        canvas=study.canvas(settings),
        images=dataset if places.home(call, "datasets", dataset) == layout.SHARED else "",
        size=study.sizes(dataset, settings)[job],
        runs=[(method, shots) for method in methods_of(study, job, backbone) for shots in study.shots],
        methods={name: method_digest(study, name) for name in methods_of(study, job, backbone)},
        ledger=call.path(layout.LEDGER),
        code=_training_code(call, job, settings),
        metrics=metrics.digest(),
        origin=origin(call, backbone, dataset),
        names={name: origin_of_names(call) for name in methods_of(study, job, backbone) if METHODS[name].reads_names},
    )


def request(call: Call, job: str, backbone: str, dataset: str, seed: int | str) -> PackRequest:
    """Return what a pack's job is asked for: see `packfile.settled`."""
    table = pack_table(call, job, {"backbone": backbone, "dataset": dataset, "seed": seed})
    study_wants = wanted(call, job, backbone, dataset, seed)
    return packfile.settled(study_wants, packfile.stored_request(Path(table)))


def train(call: Call, backbone: str, dataset: str, seed: str) -> dict:
    """Return what is asked for of a pack of prompting."""
    return request(call, "train", backbone, dataset, seed).model_dump(mode="json")


def probe(call: Call, backbone: str, dataset: str, seed: str) -> dict:
    """Return what is asked for of a pack of linear probes and zero-shot classifiers."""
    return request(call, "probe", backbone, dataset, seed).model_dump(mode="json")


def finetune(call: Call, backbone: str, dataset: str, seed: str) -> dict:
    """Return what is asked for of a pack of fine-tuning."""
    return request(call, "finetune", backbone, dataset, seed).model_dump(mode="json")


def why_made(call: Call, job: str, pack: dict, is_planned: bool) -> str | None:
    """Return why a pack is to be made, None where its table is up to date.

    Args:
        call: the call.
        job: the kind of job that makes it.
        pack: its `backbone`, `dataset` and `seed`.
        is_planned: whether Snakemake is going to make it, which knows of inputs that have changed.
    """
    stored = packfile.stored_request(Path(pack_table(call, job, pack)))
    if stored is None:
        return ABSENT
    study_wants = wanted(call, job, **pack)
    if why := packfile.why_stale(stored, study_wants):
        return why
    if has_lost_runs(call, pack_table(call, job, pack)):
        return LOST
    if packfile.settled(study_wants, stored) != stored:
        return "do not hold what the study asks for: the runs that are not in the ledger are trained"
    return "are made again, as their inputs are" if is_planned else None


@cache
def _finished_runs(call: Call) -> set[str]:
    return packfile.finished_runs(call.path(layout.LEDGER))


@cache
def _pack_tables(call: Call) -> dict[str, str]:
    """Return the kinds of the jobs of packs by their tables."""
    return {pack_table(call, job, pack): job for job in layout.PACK for pack in packs(call, job)}


def answers(call: Call, product: str, asked: list[str]) -> bool:
    """Return whether a product answers what its job was asked for, as params: of a pack, whose table says itself what
    it answers."""
    if (job := _pack_tables(call).get(product)) is None:
        return True
    if (request := packfile.stored_request(Path(product))) is None:
        return False
    return set(asked) == set(values.texts(request.model_dump(mode="json"), params(job)).values())


def has_lost_runs(call: Call, product: str) -> bool:
    """Return whether a product is a pack's table with runs that the ledger holds no longer, as someone deleted it."""
    return product in _pack_tables(call) and not packfile.runs_of(Path(product)) <= _finished_runs(call)


def packs_so_far(call: Call) -> dict[str, int]:
    """Return the tables of packs that are on disk and of this study's recipes, code and origin, with their time
    stamps."""
    tables = {}
    for job in layout.PACK:
        for pack in packs(call, job):
            table = Path(pack_table(call, job, pack))
            stored = packfile.stored_request(table)
            if stored and stored.stands_on_the_same(wanted(call, job, **pack)):
                tables[str(table)] = table.stat().st_mtime_ns
    return tables


def with_texts(call: Call) -> list[str]:
    """Return the names of the backbones whose source classes are texts."""
    return [backbone.name for backbone in call.study.backbones if call.study.family(backbone).has_texts]
