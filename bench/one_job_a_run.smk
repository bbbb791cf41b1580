# The grid of a study at one job a run, to hold the packs against (scale.py): the rule that trains has method and shots
# as wildcards too, and is as lean as it can be. It runs the workflow's script on the workflow's files. The rules around
# it have the workflow's inputs and outputs, and neither settings, digests, logs nor anything to do.
import os
import re
import sys
from functools import cache, partial
from pathlib import Path

ROOT = Path(workflow.basedir).parent
sys.path.insert(0, str(ROOT / "src"))
os.environ.update(PYTHONPATH=str(ROOT / "src"))

from hiddencost.jobs import layout, training, values
from hiddencost.jobs.call import Call
from hiddencost.study.load import load_study

study = load_study(config, "the study")
CALL = Call(study)
config["jobs_per_gpu"] = study.jobs_per_gpu  # the script reads it
RESULTS = f"results/{study.study}"
FETCHED = "resources/{kind}/{name}/fetched.json"
STUDY_BACKBONE = [f"{RESULTS}/{layout.BACKBONE}/{file}" for file in layout.NETWORK_FILES]
VERIFICATION = f"{RESULTS}/{layout.VERIFICATION}"
SPLIT = f"{RESULTS}/{layout.SPLIT}"
RUN = "{backbone}/{dataset}/{method}/{shots}/seed{seed}"


wildcard_constraints:
    backbone="|".join(re.escape(one.name) for one in study.backbones),
    dataset="|".join(re.escape(one.name) for one in study.datasets),
    method="|".join(study.methods),
    shots=r"\d+|full",
    size=r"\d+",
    seed=r"\d+",


def imported_of(wildcards):
    return layout.imported(study.backbone(wildcards.backbone).checkpoint)


def dataset_at_image_size(wildcards):
    return layout.prepared(wildcards.dataset, study.dataset(wildcards.dataset).image_size)


@cache
def pack_request(backbone, dataset, seed):
    return training.wanted(CALL, "train", backbone, dataset, seed)


def request(wildcards):
    """What the script is asked for: a pack of one run."""
    shots = wildcards.shots if wildcards.shots == "full" else int(wildcards.shots)
    pack = pack_request(wildcards.backbone, wildcards.dataset, int(wildcards.seed))
    asked = pack.asking(((wildcards.method, shots),))
    return values.texts(asked.model_dump(mode="json"), training.params("train"))


def param(name, wildcards):
    return request(wildcards)[name]


rule conclude:
    input:
        expand(f"{RESULTS}/{{table}}", table=["figures/accuracy.png", "tables/runs.parquet"]),


rule fetch:
    output:
        FETCHED,
    shell:
        "touch {output}"


rule import_checkpoint:
    input:
        expand(FETCHED, kind="checkpoints", name="{checkpoint}"),
    output:
        layout.imported("{checkpoint}"),
    shell:
        "touch {output}"


rule compress:
    input:
        imported_of,
    output:
        STUDY_BACKBONE,
    shell:
        "touch {output}"


rule verify_backbone:
    input:
        STUDY_BACKBONE,
        expand(FETCHED, kind="photos", name="imagenet20"),
    output:
        VERIFICATION,
    shell:
        "touch {output}"


rule prepare_dataset:
    input:
        expand(FETCHED, kind="raw", name="{dataset}"),
    output:
        layout.prepared("{dataset}", "{size}"),
    shell:
        "touch {output}"


rule draw_splits:
    input:
        dataset_at_image_size,
    output:
        SPLIT,
    shell:
        "touch {output}"


rule train_one:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_at_image_size,
        split=SPLIT,
        texts=[],
        names=[],
    output:
        f"{RESULTS}/one_job_a_run/{RUN}.parquet",
    log:
        f"{RESULTS}/logs/one_job_a_run/{RUN}.log",
    benchmark:
        f"{RESULTS}/benchmarks/one_job_a_run/{RUN}.tsv"
    resources:
        mem_mb=4000,
    params:
        **{name: partial(param, name) for name in training.params("train")},
    script:
        "../workflow/scripts/train.py"


rule collect:
    input:
        expand(
            rules.train_one.output,
            backbone=[one.name for one in study.backbones],
            dataset=[one.name for one in study.datasets],
            method=study.methods,
            shots=study.shots,
            seed=study.seeds,
        ),
    output:
        f"{RESULTS}/tables/runs.parquet",
    shell:
        "touch {output}"


rule figure:
    input:
        rules.collect.output,
    output:
        f"{RESULTS}/figures/accuracy.png",
    shell:
        "touch {output}"
