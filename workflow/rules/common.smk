# The study, checked before anything else, and what the rules share.

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# jobs run the package of this checkout, in any environment
sys.path.insert(0, str(ROOT / "src"))
os.environ.update(PYTHONPATH=str(ROOT / "src"))

from hiddencost import allocator, catalog, packfile
from hiddencost.datasets import ARRAYS
from hiddencost.files import canonical, code_digest, sha256_text
from hiddencost.study import StudyError, load_study

for variable, value in allocator.ENVIRONMENT.items():
    os.environ.setdefault(variable, value)

STUDY_FILE = ", ".join(os.path.relpath(file) for file in workflow.overwrite_configfiles or ["config.yaml"])
try:
    study = load_study(config, STUDY_FILE)
except StudyError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{study.study}"
CHECKPOINTS = catalog.load("checkpoints")
DATASETS = catalog.load("datasets")
PHOTOS = catalog.load("photos")["imagenet20"]


wildcard_constraints:
    checkpoint="|".join(map(re.escape, CHECKPOINTS)),
    backbone="|".join(re.escape(backbone.name) for backbone in study.backbones),
    dataset="|".join(map(re.escape, DATASETS)),
    size=r"\d+",
    seed=r"\d+",


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


def methods_of(job):
    """The study's methods that `train` or `probe` runs."""
    return study.prompting if job == "train" else [method for method in study.methods if method == "lp"]


def conclusion():
    """What to tell at the end of a call that succeeded."""
    text, table = Path(RESULTS, "conclusion.txt"), Path(RESULTS, "tables/runs.parquet")
    if text.exists() and text.stat().st_mtime >= table.stat().st_mtime:
        return text.read_text()
    return f"What was asked for is made; study {study.study} is not complete."


# Backbones: inputs and params of rules/checkpoints.smk
def checkpoint_source(wildcards):
    # not the sources: another one gives the same bytes
    return canonical({"name": wildcards.checkpoint, "sha256": CHECKPOINTS[wildcards.checkpoint]["sha256"]})


def checkpoint_file(wildcards):
    return f"resources/checkpoints/{wildcards.checkpoint}/{CHECKPOINTS[wildcards.checkpoint]['file']}"


def layout_of(checkpoint):
    keys = ("architecture", "format", "preprocessing", "stem", "upstream_top1", "sha256")
    return canonical(entry_part(CHECKPOINTS[checkpoint], *keys))


def checkpoint_layout(wildcards):
    return layout_of(wildcards.checkpoint)


def imported_of(wildcards):
    folder = f"resources/backbones/{study.backbone(wildcards.backbone).checkpoint}"
    return [f"{folder}/{file}" for file in BACKBONE]


def compression_of(wildcards):
    backbone = study.backbone(wildcards.backbone)
    return canonical(backbone.model_dump(include={"compression", "control"}))


# Datasets: inputs and params of rules/datasets.smk
def dataset_layout(wildcards):
    return canonical(entry_part(DATASETS[wildcards.dataset], "reader", "files", "classes", "counts"))


def prepared(dataset, size):
    return expand("resources/datasets/{dataset}/{size}/{file}", dataset=dataset, size=size, file=PREPARED)


def dataset_at_image_size(wildcards):
    return prepared(wildcards.dataset, study.image_size(wildcards.dataset))


def dataset_at_canvas_size(wildcards):
    return prepared(wildcards.dataset, study.protocol.canvas)


# Packs: inputs and params of rules/training.smk
def upstream(wildcards):
    """Digest of the settings and the code that make a pack's inputs."""
    layout = layout_of(study.backbone(wildcards.backbone).checkpoint)
    settings = [layout, compression_of(wildcards), dataset_layout(wildcards), study.verification.model_dump()]
    jobs = ("import_checkpoint", "compress", "verify_backbone", "prepare_dataset", "draw_splits", "extract_features")
    return sha256_text(canonical(settings + [code(job) for job in jobs]))


def request(job, recipe, wildcards):
    """The runs that a pack's table must hold, and their recipe.

    What is asked for is what the study wants, unless the table on disk holds all of that and more, of the same recipe,
    code and origin: then it is what the table holds, so that a value taken out of the study does not make it stale.
    """
    wanted = {
        "study": study.study,
        "backbone": wildcards.backbone,
        "dataset": wildcards.dataset,
        "seed": int(wildcards.seed),
        "recipe": recipe,
        "runs": [[method, shots] for method in methods_of(job) for shots in study.shots],
        "ledger": f"{RESULTS}/ledger",
        "code": code(job),
        "upstream": upstream(wildcards),
    }
    stored = packfile.stored_request(Path(PACK[job].format(**dict(wildcards.items()))))
    if (
        stored
        and stored | {"runs": wanted["runs"]} == wanted
        and all(run in stored["runs"] for run in wanted["runs"])
    ):
        return canonical(stored)
    return canonical(wanted)


def train_request(wildcards):
    recipe = study.protocol.model_dump() | {"image_size": study.image_size(wildcards.dataset)}
    return request("train", recipe, wildcards)


def probe_request(wildcards):
    return request("probe", study.probe.model_dump(), wildcards)
