# One job trains a pack: all runs of one (backbone, dataset, seed).

PACK = {
    "train": f"{RESULTS}/runs/{{backbone}}/{{dataset}}/seed{{seed}}.parquet",
    "probe": f"{RESULTS}/probes/{{backbone}}/{{dataset}}/seed{{seed}}.parquet",
    "finetune": f"{RESULTS}/finetuned/{{backbone}}/{{dataset}}/seed{{seed}}.parquet",
}
FEATURES = f"{RESULTS}/features/{{backbone}}/{{dataset}}.safetensors"
TEXTS = f"{RESULTS}/texts/{{backbone}}/{{dataset}}.safetensors"


# The source classes of a CLIP: each template with each class of a dataset, through its text tower, once.
rule embed_texts:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=class_names,
    output:
        TEXTS,
    log:
        f"{RESULTS}/logs/embed_texts/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_texts/{{backbone}}/{{dataset}}.tsv"
    wildcard_constraints:
        backbone=any_of(CLIPS),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=network_memory,
        runtime=texts_runtime,
    params:
        settings=embed_settings,
        code=code("embed_texts"),
    message:
        "Embedding the texts of {wildcards.dataset} for {wildcards.backbone}; progress in {log}"
    script:
        "../scripts/embed_texts.py"


rule train:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_to_prompt,
        split=SPLIT,
        texts=texts_of,
    output:
        PACK["train"],
    log:
        f"{RESULTS}/logs/train/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=train_memory,
        runtime=train_runtime,
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
        dataset=dataset_to_probe,
    output:
        FEATURES,
    log:
        f"{RESULTS}/logs/extract_features/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract_features/{{backbone}}/{{dataset}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=features_memory,
        runtime=features_runtime,
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
        dataset=dataset_to_probe,
        split=SPLIT,
        features=FEATURES,
        texts=texts_to_try,
    output:
        PACK["probe"],
    log:
        f"{RESULTS}/logs/probe/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=probe_memory,
        runtime=probe_runtime,
    params:
        settings=probe_request,
    message:
        "Linear probes on {wildcards.backbone} for {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/probe.py"


rule finetune:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=dataset_to_crop,
        split=SPLIT,
    output:
        PACK["finetune"],
    log:
        f"{RESULTS}/logs/finetune/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/finetune/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=finetune_memory,
        runtime=finetune_runtime,
    params:
        settings=finetune_request,
    message:
        "Fine-tuning {wildcards.backbone} on {wildcards.dataset}, seed {wildcards.seed}; progress in {log}"
    script:
        "../scripts/finetune.py"
