# The study, checked before anything else, and what the rules share.

import atexit
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# jobs run the package of this checkout, in any environment
sys.path.insert(0, str(ROOT / "src"))
os.environ.update(PYTHONPATH=str(ROOT / "src"))

from hiddencost import catalog, machine
from hiddencost.datasets.prepare import user_entry
from hiddencost.datasets.prepared import ARRAYS
from hiddencost.digest import code_digest
from hiddencost.figures.registry import FIGURES as FIGURE_KINDS
from hiddencost.figures.registry import figures_of_study
from hiddencost.files import canonical, read_json, sha256_text
from hiddencost.jobs import outlook
from hiddencost.messages import StudyError
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of
from hiddencost.networks.formats.registry import READERS
from hiddencost.results import claims
from hiddencost.runs import metrics, packfile
from hiddencost.study import upstream
from hiddencost.study.recipes import PUBLISHED_TEMPLATES
from hiddencost.study.load import load_study

for variable, value in machine.ENVIRONMENT.items():
    os.environ.setdefault(variable, value)

STUDY_FILE = ", ".join(os.path.relpath(file) for file in workflow.overwrite_configfiles or ["config.yaml"])
COMMAND = "snakemake" + (f" --configfile {STUDY_FILE}" if workflow.overwrite_configfiles else "")
CALL = ("offline", "retry", "partial")  # of a call, not of the study: snakemake --config offline=true
for key in config.keys() & set(CALL):
    if (told := str(config[key]).lower()) not in ("true", "false"):  # Snakemake gives text
        raise WorkflowError(f"--config {key}={config[key]}: expected {key}=true or {key}=false")
    config[key] = told == "true"
try:
    study = load_study({key: value for key, value in config.items() if key not in CALL}, STUDY_FILE)
except StudyError as error:
    raise WorkflowError(str(error)) from None
try:
    PUBLISHED = {
        name: study.checkpoint(name)
        for name in {study.published_checkpoint(one.checkpoint) for one in study.backbones} - {None}
    }
    CHECKPOINTS = PUBLISHED | {one.name: study.checkpoint(one.name) for one in study.upstream}
    TARGETS = {
        one.name: user_entry(one.name, one.folder, one.npz, one.test_share) if one.own else study.published(one.name)
        for one in study.datasets
    }
    DATASETS = TARGETS | {name: study.published(name) for name in study.upstream_datasets()}
    UPSTREAM_FOLDERS = {one.name: upstream.folder_entry(one.name, one.folder) for one in study.upstream if one.folder}
except ValueError as error:
    raise WorkflowError(f"{STUDY_FILE}: {error}") from None

RESULTS = f"results/{study.study}"
# a call that shows a study so far keeps what it makes apart: the study may be running
OUTPUT = f"{RESULTS}/partial" if config.get("partial") else RESULTS
for folder in (Path(RESULTS), Path("resources")):
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (os.access(there, os.W_OK) or workflow.output_settings.dryrun):
        raise WorkflowError(f"{folder}: {there.absolute()} cannot be written to; expected a folder that can")

CONCLUDED = Path(OUTPUT, "logs/conclude.log")
# what this call writes has another time stamp: clocks are not compared, as a file server has its own
CONCLUDED_BEFORE = CONCLUDED.exists() and CONCLUDED.stat().st_mtime_ns
(PHOTOS,) = catalog.load("photos")
FETCHED = {
    "checkpoints": "resources/checkpoints/{}/fetched.json",
    "datasets": "resources/raw/{}/fetched.json",
    "photos": "resources/photos/{}/fetched.json",
}


def any_of(names):
    """A wildcard's constraint to be one of some names; of none, to be nothing that a path can have."""
    return "|".join(map(re.escape, names)) or "(?!)"


CLIPS = [one.name for one in study.backbones if study.is_clip(one)]


wildcard_constraints:
    checkpoint=any_of(PUBLISHED),
    backbone=any_of(backbone.name for backbone in study.backbones),
    dataset=any_of(DATASETS),
    size=r"\d+(-[a-z]+-[a-z]+)?",
    seed=r"\d+",


def asked(entry):
    """What a download is asked for, as its report tells it: files with their sources, and whether from here alone."""
    return sha256_text(canonical([entry["files"], bool(config.get("offline"))]))


def report_of(kind, name):
    """The report of an earlier download."""
    fetched = Path(FETCHED[kind].format(name))
    return {"failed": None, "attempt": 0} | (read_json(fetched) if fetched.exists() else {})


def is_retried(earlier, entry):
    """Whether a download that has failed is tried again: when told to, or when something else is asked."""
    return bool(earlier["failed"]) and bool(config.get("retry") or earlier["asked"] != asked(entry))


def left_out(kind, name, entry):
    """Why nothing can be made of a checkpoint or dataset: it is not public, or its download has failed. None if it can.

    Its runs are rows without a result. A download that fails while the workflow runs is carried to them by files.
    """
    earlier, folder = report_of(kind, name), Path(FETCHED[kind].format(name)).parent
    if earlier["failed"] and not is_retried(earlier, entry):
        return f"{earlier['failed']} (to try again: {COMMAND} --config retry=true; or give files of your own: paths)"
    if config.get("offline"):
        for file in entry["files"].values():
            ours = any("path" in source for source in file.get("sources", []))
            if not ours and not Path(folder, file["name"]).exists():
                return f"offline, and {folder / file['name']} is not there"
    return entry.get("unavailable")


def backbone_left_out(backbone):
    """Why a backbone is left out: of its checkpoint, or of what this is trained from and on; None if it is not."""
    published, trained = study.published_checkpoint(backbone.checkpoint), study.trained(backbone.checkpoint)
    if published and (why := left_out("checkpoints", published, PUBLISHED[published])):
        return why
    if trained and trained.dataset:
        return left_out("datasets", trained.dataset, DATASETS[trained.dataset])
    return None


LEFT_OUT = {
    "backbone": {one.name: why for one in study.backbones if (why := backbone_left_out(one))},
    "dataset": {name: why for name, entry in TARGETS.items() if (why := left_out("datasets", name, entry))},
}
GRID = {
    "backbone": [backbone.name for backbone in study.backbones],
    "dataset": [dataset.name for dataset in study.datasets],
    "method": study.methods,
    "shots": study.shots,
    "seed": study.seeds,
}
# what there is to run
TO_RUN = {axis: [name for name in GRID[axis] if name not in LEFT_OUT[axis]] for axis in ("backbone", "dataset")}


def code(script):
    """Digest of a script and of all project code that it imports; among a rule's params, an edit of it is a reason to
    run again."""
    return code_digest(ROOT / "workflow" / "scripts" / f"{script}.py")


def entry_part(entry, *keys):
    """What a rule depends on of a catalog entry, which also holds titles, licences and citations."""
    return {key: entry[key] for key in keys}


def constant(settings):
    """Settings without wildcards, as the function that Snakemake needs to leave the braces of JSON alone."""
    return lambda wildcards: canonical(settings)


def methods_of(job, backbone):
    """The study's methods that `train`, `probe` or `finetune` runs of a backbone, by its name."""
    return [method for method in study.methods_of(study.backbone(backbone)) if METHODS[method].job == job]


def packs(job):
    """The packs of a kind that there are to make."""
    names = [name for name in TO_RUN["backbone"] if methods_of(job, name)]
    return expand(PACK[job], backbone=names, dataset=TO_RUN["dataset"], seed=GRID["seed"])


def end_with_the_terminal():
    """Let a closed terminal end the call in good order."""
    # SIGHUP would kill Snakemake and leave its lock, SIGTERM does not; nohup has SIGHUP ignored, and so it stays
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


def incompletion():
    """What to tell at the end of a call that failed: why runs have no result, where that was all."""
    for folder in (RESULTS, "resources"):  # the log of a job is lost with the space for it
        if Path(folder).exists() and shutil.disk_usage(folder).free < 1 << 20:
            return f"The disk of {folder} is full. Make space: the next call goes on where this one ended."
    if CONCLUDED.exists() and CONCLUDED.stat().st_mtime_ns != CONCLUDED_BEFORE:
        return CONCLUDED.read_text()
    return (
        f"Study {study.study} is not complete. Logs: {RESULTS}/logs/ and resources/logs/.\n"
        "The next call goes on where this one ended."
    )


def conclusion():
    """What to tell at the end of a call that succeeded."""
    text, table = Path(OUTPUT, "conclusion.txt"), Path(OUTPUT, "tables/runs.parquet")
    if text.exists() and text.stat().st_mtime >= table.stat().st_mtime:
        return text.read_text()
    return f"What was asked for is made. Whether study {study.study} is complete, `{COMMAND}` tells."


# Backbones: inputs and params of rules/checkpoints.smk
def checksums(entry):
    """What a download depends on: not its sources, as another one gives the same bytes, but for the user's own files."""
    keys = ("name", "size", "sha256", "sha256_prefix", "md5")
    own = {
        key: [one["path"] for one in file.get("sources", []) if "path" in one] for key, file in entry["files"].items()
    }
    return {key: {k: file[k] for k in keys if k in file} | {"own": own[key]} for key, file in entry["files"].items()}


def download(kind, name, entry):
    """The settings of a download: what it depends on and, as a job runs again when they change, how often it has been
    tried."""
    earlier = report_of(kind, name)
    return canonical({"files": checksums(entry), "attempt": earlier["attempt"] + is_retried(earlier, entry)})


def photos_source(wildcards):
    return download("photos", PHOTOS, catalog.load("photos")[PHOTOS])


def own_checkpoint_files(wildcards):
    here()  # in time: see there
    return study.own_files(wildcards.checkpoint)


def own_dataset_files(wildcards):
    return study.own_files(wildcards.dataset)


def checkpoint_source(wildcards):
    return download("checkpoints", wildcards.checkpoint, CHECKPOINTS[wildcards.checkpoint])


def layout_of(checkpoint):
    """What an imported checkpoint depends on, or a network that the study trains."""
    if trained := study.trained(checkpoint):
        start = layout_of(trained.checkpoint) if trained.checkpoint else None
        return canonical({"trained": trained.model_dump(), "start": start})
    keys = (
        "architecture",
        "format",
        "preprocessing",
        "stem",
        "upstream_top1",
        "compression",
        "sparsity",
        "sparsity_over",
    )
    entry = CHECKPOINTS[checkpoint]
    # the code that reads it: of its own format alone
    read_by = {"reader": code_digest(READERS[entry["format"]].file)}
    return canonical(entry_part(entry, *keys) | {"files": checksums(entry)} | read_by)


def checkpoint_layout(wildcards):
    return layout_of(wildcards.checkpoint)


def source_of(wildcards):
    """The network that a backbone is made of: as imported, or as the study has trained it."""
    backbone = study.backbone(wildcards.backbone)
    if not study.trained(backbone.checkpoint):
        return [f"resources/backbones/{backbone.checkpoint}/{file}" for file in BACKBONE]
    return trained_files(backbone.checkpoint, *backbone.training())


def verification_of(images):
    """What the gate asks of a network: `sparsity_tolerance`, and what it should know of some images."""
    return study.verification.model_dump(include={"sparsity_tolerance", images})


def compression_of(wildcards):
    backbone = study.backbone(wildcards.backbone)
    compression = backbone.compression and backbone.compression.model_dump(exclude_none=True)
    return canonical({"compression": compression, "control": backbone.control})


# Datasets: inputs and params of rules/datasets.smk
def dataset_source(wildcards):
    return download("datasets", wildcards.dataset, DATASETS[wildcards.dataset])


def dataset_files(wildcards):
    here()
    return FETCHED["datasets"].format(wildcards.dataset) if DATASETS[wildcards.dataset]["files"] else []


def dataset_layout(wildcards):
    entry = DATASETS[wildcards.dataset]
    untold = ("title", "licence", "citation", "read_from", "image_size", "split", "files", "unavailable")
    files = {"files": checksums(entry)} if entry["files"] else {}
    return canonical({key: value for key, value in entry.items() if key not in untold} | files)


def prepared(dataset, size):
    return expand("resources/datasets/{dataset}/{size}/{file}", dataset=dataset, size=size, file=PREPARED)


def sizes_of(dataset):
    """All sizes at which the study has a dataset prepared, that of its splits first."""
    others_first = sorted(study.backbones, key=study.is_clip)
    return list(dict.fromkeys(size for one in others_first for size in study.sizes(dataset, one).values()))


def dataset_for(job, wildcards):
    return prepared(wildcards.dataset, study.sizes(wildcards.dataset, study.backbone(wildcards.backbone))[job])


def dataset_to_split(wildcards):
    """A dataset at any size: splits are drawn by its labels."""
    return prepared(wildcards.dataset, sizes_of(wildcards.dataset)[0])


def dataset_to_prompt(wildcards):
    return dataset_for("train", wildcards)


def dataset_to_probe(wildcards):
    return dataset_for("probe", wildcards)


def dataset_to_crop(wildcards):
    return dataset_for("finetune", wildcards)


def class_names(wildcards):
    """The report of a prepared dataset, which names its classes."""
    (size,) = set(study.sizes(wildcards.dataset, study.backbone(wildcards.backbone)).values())
    return f"resources/datasets/{wildcards.dataset}/{size}/dataset.json"


# CLIP: inputs and params of embed_texts, and of what reads it
def embed_settings(wildcards):
    return canonical({"templates": study.clip.templates})


def texts_of(wildcards):
    """The texts of a CLIP, which are its source classes: of other backbones none."""
    return TEXTS.format(**wildcards) if wildcards.backbone in CLIPS else []


def texts_to_try(wildcards):
    """The texts of a CLIP for its zero-shot classifier, where it is asked for."""
    probes = methods_of("probe", wildcards.backbone)
    return texts_of(wildcards) if any(not METHODS[method].trains for method in probes) else []


# Upstream training: inputs and params of rules/upstream.smk
def trained_files(name, settings, seed):
    """The files of a network that the study trains; settings: of its sparsifier, or None."""
    level = f"{upstream.as_level(settings['sparsity']) if settings else 0:g}"
    folder = TRAINED.format(upstream=name, sparsifier=upstream.label(settings), sparsity=level, upstream_seed=seed)
    return [f"{folder}/{file}" for file in BACKBONE]


def sparsifier_of(wildcards):
    """The settings of a sparsifier, by what its folder is called and the sparsity."""
    return SPARSIFIERS[wildcards.sparsifier] and {
        **SPARSIFIERS[wildcards.sparsifier],
        "sparsity": float(wildcards.sparsity),
    }


def upstream_data(name):
    """What a network is trained on, as `hiddencost.upstream.data.load` takes it."""
    trained = study.trained(name)
    if trained.folder:
        return UPSTREAM_FOLDERS[name]
    return {"arrays": f"resources/datasets/{trained.dataset}/{trained.image_size}"}


def upstream_arrays(name):
    trained = study.trained(name)
    return prepared(trained.dataset, trained.image_size) if trained.dataset else []


def upstream_images(wildcards):
    here()
    return upstream_arrays(wildcards.upstream)


def upstream_of_backbone(wildcards):
    made = study.trained(study.backbone(wildcards.backbone).checkpoint)
    return upstream_arrays(made.name) if made else []


def upstream_start(wildcards):
    """The published weights that a training starts from."""
    start = study.trained(wildcards.upstream).checkpoint
    return [f"resources/backbones/{start}/{file}" for file in BACKBONE] if start else []


def lottery_of(wildcards):
    """The settings of a round of lottery tickets, None of any other training."""
    settings = sparsifier_of(wildcards)
    return settings if settings and settings["algorithm"] == "lth" else None


def ticket(wildcards):
    """The network whose weights a lottery ticket is drawn from: of the round before, in the first the dense one."""
    if not (settings := lottery_of(wildcards)):
        return []
    rounds = upstream.lottery_levels(settings["sparsity"], settings["share"])
    before = settings | {"sparsity": rounds[-2]} if len(rounds) > 1 else None
    return trained_files(wildcards.upstream, before, wildcards.upstream_seed)


def rewound(wildcards):
    """The state that a lottery ticket is rewound to."""
    if not (settings := lottery_of(wildcards)):
        return []
    axes = {"upstream": wildcards.upstream, "upstream_seed": wildcards.upstream_seed}
    return REWIND.format(rewind_epoch=settings["rewind_epoch"], **axes)


def upstream_job(wildcards):
    """The settings of a training, for `hiddencost.upstream.training`."""
    trained = study.trained(wildcards.upstream)
    return {
        "checkpoint": trained.name,
        "architecture": trained.architecture,
        "start": f"resources/backbones/{trained.checkpoint}" if trained.checkpoint else None,
        "data": upstream_data(trained.name),
        "image_size": trained.image_size,
        "recipe": trained.recipe.model_dump(),
        "seed": int(wildcards.upstream_seed),
    }


def sparsify_settings(wildcards):
    return canonical(upstream_job(wildcards) | {"sparsify": sparsifier_of(wildcards)})


def rewind_settings(wildcards):
    return canonical(upstream_job(wildcards) | {"sparsify": None, "until": int(wildcards.rewind_epoch)})


# Packs: inputs and params of rules/training.smk
def origin(wildcards):
    """Digest of the settings and the code that make a pack's inputs."""
    backbone = study.backbone(wildcards.backbone)
    settings = [layout_of(backbone.checkpoint), compression_of(wildcards), dataset_layout(wildcards)]
    jobs = ["compress", "prepare_dataset", "draw_splits", "extract_features"]
    if study.is_clip(backbone):
        settings.append(study.clip.templates)
        jobs.append("embed_texts")
    if study.trained(backbone.checkpoint):
        settings += [verification_of("upstream_top1"), *backbone.training()]
        jobs += ["sparsify", "verify_trained"]
    else:
        settings.append(verification_of("photos_top1"))
        jobs += ["import_checkpoint", "verify_backbone"]
    return sha256_text(canonical(settings + [code(job) for job in jobs]))


def request(job, recipe, wildcards):
    """The runs that a pack's table must hold, and what they stand on."""
    axes = {"backbone": wildcards.backbone, "dataset": wildcards.dataset, "seed": wildcards.seed}
    wanted = packfile.PackRequest(
        study=study.study,
        **axes,
        recipe=recipe,
        canvas=study.canvas(study.backbone(wildcards.backbone)),
        size=str(study.sizes(wildcards.dataset, study.backbone(wildcards.backbone))[job]),
        runs=[(method, shots) for method in methods_of(job, wildcards.backbone) for shots in study.shots],
        methods={name: METHODS[name].digest() for name in methods_of(job, wildcards.backbone)},
        ledger=f"{RESULTS}/ledger",
        code=code(job),
        metrics=metrics.digest(),
        origin=origin(wildcards),
    )
    return packfile.settled(wanted, packfile.stored_request(Path(PACK[job].format(**axes)))).to_json()


def train_request(wildcards):
    return request("train", study.recipe("protocol", wildcards.dataset, wildcards.backbone), wildcards)


def probe_request(wildcards):
    return request("probe", study.recipe("probe", wildcards.dataset, wildcards.backbone), wildcards)


def finetune_request(wildcards):
    recipe = study.recipe("finetune", wildcards.dataset, wildcards.backbone) | {"canvas": study.protocol.canvas}
    return request("finetune", recipe, wildcards)


# Results: inputs and params of rules/results.smk
def packs_so_far():
    """The packs that are there, and are of this study's recipes, code and origin, with their time stamps."""
    asked_of = {"train": train_request, "probe": probe_request, "finetune": finetune_request}
    found = {}
    for job in PACK:
        for backbone, dataset, seed in product(*TO_RUN.values(), GRID["seed"]):
            if not methods_of(job, backbone):
                continue
            pack = SimpleNamespace(backbone=backbone, dataset=dataset, seed=seed)
            path = Path(PACK[job].format(**vars(pack)))
            stored, wanted = packfile.stored_request(path), packfile.PackRequest.from_json(asked_of[job](pack))
            if stored and stored.stands_on_the_same(wanted):
                found[str(path)] = path.stat().st_mtime_ns
    return found


def listed_figures():
    """The study's figures by name, each with what it shows: of the backbones and datasets that it selects."""
    select = study.figures
    backbones = {name: BACKBONES[name] for name in select.backbones or BACKBONES}
    return figures_of_study(backbones, select.datasets or GRID["dataset"], study.methods, select.labels)


def kind_of_figure(wildcards):
    return FIGURE_KINDS[FIGURES[wildcards.figure].kind]


def figure_tables(wildcards):
    return {name: TABLES[name] for name in kind_of_figure(wildcards).tables}


def figure_code(wildcards):
    """The code of a figure: what all figures share, and what draws its own kind."""
    return sha256_text(canonical([code("figure"), code_digest(find_spec(kind_of_figure(wildcards).module).origin)]))


def figure_settings(wildcards):
    shown = FIGURES[wildcards.figure]
    style = study.figures.model_dump(exclude={"datasets", "backbones", "formats"})
    style |= {"title": study.figures.title or study.study, "methods": study.methods}
    style["classes"] = {name: class_counts()[name] for name in shown.datasets}
    return canonical({"figure": shown.to_json(), "style": style})


def learned_inputs():
    """Class names and photos: reports of what is prepared and verified, which name arrays and weights by their hashes."""
    reports = [f"resources/datasets/{name}/{sizes_of(name)[0]}/dataset.json" for name in TO_RUN["dataset"]]
    clips = [name for name in CLIPS if name in TO_RUN["backbone"] and methods_of("train", name)]
    texts = expand(TEXTS, backbone=clips, dataset=TO_RUN["dataset"])
    return reports + expand(VERIFICATION, backbone=TO_RUN["backbone"]) + texts


def groups_of_prompts():
    """The networks of each figure of prompts, with what decides whose prompts are shown: not what they are called."""
    groups = [figure.backbones for figure in FIGURES.values() if "prompts" in FIGURE_KINDS[figure.kind].tables]
    keys = ("role", "sparsity", "quantised")
    return [[[name, entry_part(asdict(shown), *keys)] for name, shown in group.items()] for group in groups]


def class_counts():
    """The number of classes of each dataset, None where the data alone tell it."""
    return {name: entry["classes"] and len(entry["classes"]) for name, entry in DATASETS.items()}


def known_upstream(backbone):
    """Where to read what a backbone reaches upstream: as published, where it is as published, or as its manifest tells,
    where the study has trained it (with the names of its classes), and the photos of its verification."""
    as_it_was = not backbone.compression and not backbone.control
    prompt = study.prompt_settings(backbone)
    is_clip, preprocessing = study.is_clip(backbone), CHECKPOINTS[backbone.checkpoint].get("preprocessing")
    manifest = f"{RESULTS}/backbones/{backbone.name}/manifest.json"
    return {
        "top1": CHECKPOINTS[backbone.checkpoint]["upstream_top1"] if as_it_was else None,
        "as_trained": as_it_was,
        "manifest": manifest if study.trained(backbone.checkpoint) else None,
        "texts": TEXTS.replace("{backbone}", backbone.name) if is_clip else None,
        "prompt": prompt and prompt | {"std": preprocessing and preprocessing["std"]},
        "verification": VERIFICATION.format(backbone=backbone.name),
    }


# What a dry run ends with
def trainings():
    """The networks that the study trains and has not left out, those of the rounds of lottery tickets too: the folder
    of each, with the GFLOP of its training."""
    found = {}
    for one in study.backbones:
        trained = study.trained(one.checkpoint)
        if not trained or one.name in LEFT_OUT["backbone"]:
            continue
        settings, seed = one.training()
        wanted = [settings]
        if settings and settings["algorithm"] == "lth":
            levels = upstream.lottery_levels(settings["sparsity"], settings["share"])
            wanted = [None, *(settings | {"sparsity": level} for level in levels)]
        for each in wanted:
            found[str(Path(trained_files(trained.name, each, seed)[0]).parent)] = upstream_gflop(trained.name)
    return found


def print_outlook():
    if workflow.dryrun:
        wanted = {job: [Path(path) for path in packs(job)] for job in PACK}
        bench = ROOT / "bench/results/throughput.json"
        capacity = len(gpus()), workflow.resource_settings.nodes
        print(outlook.describe(study, CHECKPOINTS, DATASETS, LEFT_OUT, wanted, trainings(), bench, *capacity))


if workflow.is_main_process:
    atexit.register(print_outlook)
