"""Inputs and settings of the rules in results.smk: from packs to tables, figures and the report."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache

from hiddencost import catalog
from hiddencost.catalog.entries import CheckpointEntry, DatasetEntry
from hiddencost.compression.registry import last_applied
from hiddencost.digest import code_digest, module_file
from hiddencost.figures.registry import FIGURES, figures_of_study
from hiddencost.files import canonical, sha256_text
from hiddencost.jobs import datasets, layout, places
from hiddencost.jobs.analyses import asked
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import axes, left_out, methods_of, pack_table, packs, to_run
from hiddencost.jobs.training import packs_so_far, texts
from hiddencost.methods.registry import METHODS
from hiddencost.prompting import prompts
from hiddencost.results import claims as stated_claims
from hiddencost.results.gallery import COMPRESSED, StudyFigure, describe_backbones, names_in_role
from hiddencost.runs.metrics import METRICS
from hiddencost.study.parts import Backbone, Figures

UNSTYLED = {"datasets", "backbones", "formats"}  # of the study's `figures`: what is shown and made
# the params of a figure
CONTENT = tuple(f"figure.{field.name}" for field in fields(StudyFigure))
STYLE = tuple(f"style.{name}" for name in Figures.model_fields if name not in UNSTYLED)


def packs_to_collect(call: Call) -> list[str]:
    """Return the tables of all packs; of a partial call none, which takes what there is and asks for nothing."""
    if call.partial:
        return []
    return [pack_table(call, job, pack) for job in layout.PACK for pack in packs(call, job)]


@cache
def stated_backbones(call: Call) -> dict[str, dict]:
    """Return what is known of each backbone before it is made, by its name."""
    return {one.name: call.study.declared(one, call.checkpoints[one.checkpoint]) for one in call.study.backbones}


@cache
def figures(call: Call) -> dict[str, StudyFigure]:
    """Return the study's figures by name, each with what it shows: of the backbones and datasets that it selects."""
    study, stated, select = call.study, stated_backbones(call), call.study.figures
    backbones = {name: stated[name] for name in select.backbones or stated}
    names = select.datasets or axes(study)["dataset"]
    known = checkpoint_labels(call)
    methods, shots = select.methods or study.methods, select.shots or study.shots
    return figures_of_study(backbones, names, methods, select.labels, known, asked(call), len(shots))


def checkpoint_labels(call: Call) -> dict[str, str]:
    """Return what checkpoints are called, by name, of those that have a label."""
    labels = {one.checkpoint: call.checkpoints[one.checkpoint].label for one in call.study.backbones}
    return {name: label for name, label in labels.items() if label}


def labels(call: Call) -> dict[str, str]:
    """Return what datasets, and what the study labels, are called where it is not by their names."""
    known = {name: entry.label for name, entry in call.datasets.items() if entry.label}
    return known | call.study.figures.labels


def collect(call: Call) -> dict:
    """Return what the tables of runs depend on beside the packs: the fields of `tables.CollectedStudy`."""
    return {
        "study": call.study.study,
        "grid": axes(call.study),
        "methods": {backbone.name: call.study.methods_of(backbone) for backbone in call.study.backbones},
        "backbones": stated_backbones(call),
        "left_out": left_out(call),
        "expectations": [expectation.model_dump() for expectation in call.study.expectations],
        "splits": call.path(layout.SPLIT, dataset="{dataset}", seed="{seed}"),
        "test_labels": {
            one.name: f"{datasets.first_prepared(call, one.name)}/test_labels.npy" for one in call.study.datasets
        },
        "so_far": packs_so_far(call) if call.partial else None,
    }


def claims(call: Call) -> dict:
    """Return the claims that need no analysis, or one of the study's, as pairs (the order is theirs, and a mapping as
    a param has none), the paper's study, which the cells of each are held against, and the names of checkpoints of
    which the study has files of its own (`own`), or networks of another study (`made`)."""
    given = sorted(call.study.paths.keys() & catalog.checkpoints().keys())
    made = [name for name in given if call.study.made_network(name)]
    known = stated_claims.of_study(call.study.claims, call.file, call.study.analysis)
    tested = {name: one for name, one in known.items() if one.analysis in (None, *asked(call))}
    return {
        "claims": [[name, claim.model_dump()] for name, claim in tested.items()],
        "paper": catalog.load("paper"),
        "own": [name for name in given if name not in made],
        "made": made,
    }


def printed_metrics() -> list[str]:
    """Return the names of the metrics that have tables for print."""
    return [name for name, metric in METRICS.items() if metric.paired]


def learned_inputs(call: Call) -> list[str]:
    """Return the reports of what is prepared and verified, which name arrays and weights by their hashes, and texts:
    what `learned` reads of them. None of a partial call, which makes nothing for its tables."""
    if call.partial:
        return []
    names = to_run(call)
    reports = [f"{datasets.first_prepared(call, name)}/dataset.json" for name in names["dataset"]]
    prompted = [name for name in names["backbone"] if methods_of(call.study, "train", name)]
    embedded = [file for name in prompted for dataset in names["dataset"] for file in texts(call, name, dataset)]
    return reports + [call.path(layout.VERIFICATION, backbone=name) for name in names["backbone"]] + embedded


def learned(call: Call) -> dict:
    """Return what is read of the study's runs, and where."""
    return {
        "ledger": call.path(layout.LEDGER),
        "prepared": {dataset.name: datasets.first_prepared(call, dataset.name) for dataset in call.study.datasets},
        "groups": _groups_of_prompts(call),
        "backbones": {backbone.name: _known_upstream(call, backbone) for backbone in call.study.backbones},
    }


def _groups_of_prompts(call: Call) -> list:
    """Return the networks of each figure of prompts, with what decides whose prompts are shown: not what they are
    called."""
    groups = [figure.backbones for figure in figures(call).values() if "prompts" in FIGURES[figure.kind].tables]
    keys = ("role", "sparsity", "quantised")
    return [[[name, {key: asdict(shown)[key] for key in keys}] for name, shown in group.items()] for group in groups]


def _known_upstream(call: Call, backbone: Backbone) -> dict:
    """Return where to read what a backbone reaches upstream: as published, where it is as published, or as its
    manifest tells, where the study has trained it (with the names of its classes), and the photos of its
    verification."""
    study, entry = call.study, call.checkpoints[backbone.checkpoint]
    as_it_was, has_texts = not backbone.compression and not backbone.control, study.family(backbone).has_texts
    prompt, preprocessing = study.prompt_settings(backbone), entry.preprocessing
    if prompt:
        scaling = preprocessing and [preprocessing.mean, preprocessing.std]
        prompt |= {"scaling": scaling, "code": prompts.digest(prompt["shape"])}
    folder = call.path(layout.BACKBONE, backbone=backbone.name)
    return {
        "top1": entry.upstream_top1 if as_it_was else None,
        "as_trained": as_it_was,
        "manifest": f"{folder}/manifest.json" if study.upstream_network(backbone.checkpoint) else None,
        "texts": call.path(layout.TEXTS, backbone=backbone.name, dataset="{dataset}") if has_texts else None,
        "prompt": prompt,
        "verification": call.path(layout.VERIFICATION, backbone=backbone.name),
    }


def figure_tables(call: Call, figure: str) -> dict[str, str]:
    """Return the tables that a figure is drawn from, by name."""
    return {name: f"{call.output}/{layout.TABLES[name]}" for name in FIGURES[figures(call)[figure].kind].tables}


def figure_code(call: Call, figure: str) -> dict:
    """Return the digest of a figure's code: of what all figures share, and of what draws its own kind."""
    module = module_file(FIGURES[figures(call)[figure].kind].module)
    return {"code": sha256_text(canonical([code(call.root, "figure"), code_digest(module)]))}


def figure(call: Call, figure: str) -> dict:
    """Return what a figure shows, and how it looks."""
    shown, study = figures(call)[figure], call.study
    style = study.figures.model_dump(exclude=UNSTYLED)
    style |= {"title": study.figures.title or study.study, "labels": labels(call)}
    style |= {"methods": study.figures.methods or study.methods, "metric": shown_metric(study.figures.metric)}
    return {"figure": shown.to_json(), "style": style}


def shown_metric(name: str) -> dict:
    """Return what figures know of a metric: its `name`, `label`, `unit`, and the `sign` that makes its difference,
    dense minus backbone, a cost."""
    metric = METRICS[name]
    label = metric.label.removeprefix("Test ")
    words = {"label": label[0].lower() + label[1:], "unit": metric.unit}
    return {"name": name, **words, "sign": 1 if metric.higher_is_better else -1}


def report(call: Call) -> dict:
    """Return what the report shows beside the tables."""
    parts = (call.root / f"workflow/report/report.{part}" for part in ("html.j2", "css", "js"))
    return {
        "study": call.study.model_dump_json(exclude_none=True),
        "prepared": datasets.all_prepared(call),
        "labels": _names_of_backbones(call) | labels(call),
        "captions": [[name, _heading(call, one), _caption(call, one)] for name, one in figures(call).items()],
        "results": call.results,  # where verifications and logs are, of a partial report, too
        "page": sha256_text("".join(part.read_text("utf-8") for part in parts)),
    }


def _names_of_backbones(call: Call) -> dict[str, str]:
    """Return what the report calls the backbones, which stand together in it, as figures of all of them do."""
    shown = describe_backbones(stated_backbones(call), None, {}, checkpoint_labels(call))
    return {name: one.label for name, one in shown.items() if name not in METHODS}


def _caption(call: Call, figure: StudyFigure) -> str:
    """Return what a figure's reader is told, in the study's metric and style."""
    select = call.study.figures
    text = FIGURES[figure.kind].caption.replace("{metric}", shown_metric(select.metric)["label"])
    return text.replace("{dark}", " (here white)" if select.style == "dark" else "")


def _heading(call: Call, figure: StudyFigure) -> str:
    """Return what the report calls a figure: its kind, its network, how that is compressed, and the datasets and
    methods of a page of several."""
    label = shown_metric(call.study.figures.metric)["label"]
    kind = FIGURES[figure.kind]
    title = (kind.title or figure.kind).replace("{Metric}", label[0].upper() + label[1:])
    named = {name: method.label for name, method in METHODS.items()} | labels(call)
    if kind.of_all:
        return title
    stated = [stated_backbones(call)[name] for name in names_in_role(figure.backbones, COMPRESSED)]
    parts = [figure.title, *dict.fromkeys(last_applied(one["compression"]).title for one in stated)]
    some = len(figure.datasets) < len(call.study.figures.datasets or call.study.datasets)
    for names in ([figure.datasets] if some else []) + ([figure.methods] if figure.methods else []):
        ends = dict.fromkeys(named.get(name, name) for name in (names[0], names[-1]))
        parts.append(" to ".join(ends))
    told = ", ".join(part for part in parts if part)
    return title + (f": {told}" if told else "")


def downloads_to_fetch(call: Call) -> list[str]:
    """Return the reports of all downloads of the study."""
    of_kind: dict[str, Mapping[str, CheckpointEntry | DatasetEntry]]
    of_kind = {"checkpoints": call.published, "datasets": call.datasets}
    return [
        places.fetched(call, kind, name)
        for kind, entries in of_kind.items()
        for name, entry in sorted(entries.items())
        if entry.files and not entry.unavailable
    ]
