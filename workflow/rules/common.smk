# The study, checked before anything else, and what the rules share.

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# jobs run the package of this checkout, in any environment
sys.path.insert(0, str(ROOT / "src"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))

# glibc returns large freed blocks to the kernel at once; on a CPU PyTorch would page the same tensors in again each step
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "4294967296")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "4294967296")

from hiddencost import catalog, packfile
from hiddencost.datasets import ARRAYS
from hiddencost.files import canonical, code_digest, sha256_text
from hiddencost.study import StudyError, load_study

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
