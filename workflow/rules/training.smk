# One job trains a pack: all runs of one (backbone, dataset, seed).

PACK = {
    "train": f"{RESULTS}/runs/{{backbone}}/{{dataset}}/seed{{seed}}.parquet",
    "probe": f"{RESULTS}/probes/{{backbone}}/{{dataset}}/seed{{seed}}.parquet",
}
FEATURES = f"{RESULTS}/features/{{backbone}}/{{dataset}}.safetensors"


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


rule train:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_at_image_size,
        split=SPLIT,
    output:
        PACK["train"],
    log:
        f"{RESULTS}/logs/train/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=train_request,
    message:
        "Training prompts on {wildcards.backbone} for {wildcards.dataset}, seed {wildcards.seed}; progress in {log}"
    script:
        "../scripts/train.py"


rule extract_features:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_at_canvas_size,
    output:
        FEATURES,
    log:
        f"{RESULTS}/logs/extract_features/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract_features/{{backbone}}/{{dataset}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=constant({}),
        code=code("extract_features"),
    message:
        "Extracting the features of {wildcards.backbone} on {wildcards.dataset}"
    script:
        "../scripts/extract_features.py"


rule probe:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_at_canvas_size,
        split=SPLIT,
        features=FEATURES,
    output:
        PACK["probe"],
    log:
        f"{RESULTS}/logs/probe/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=probe_request,
    message:
        "Linear probes on {wildcards.backbone} for {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/probe.py"
