# One job trains a pack: all runs of one (backbone, dataset, seed).

PACK = {job: f"{RESULTS}/{table}" for job, table in layout.PACK.items()}
FEATURES = f"{RESULTS}/{layout.FEATURES}"
TEXTS = f"{RESULTS}/{layout.TEXTS}"
NAMES = f"{RESULTS}/{layout.NAMES}"


# The source classes of a network that has texts: each template with each class of a dataset, through its text tower, once.
rule embed_texts:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=of_job(training.class_names),
    output:
        TEXTS,
    log:
        f"{RESULTS}/logs/embed_texts/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_texts/{{backbone}}/{{dataset}}.tsv"
    wildcard_constraints:
        backbone=any_of(training.with_texts(CALL)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=amount(resources.network_memory),
        runtime=amount(resources.texts_runtime),
    params:
        **params_of(training.embed_texts, "templates"),
        code=code("embed_texts"),
    message:
        "Embedding the texts of {wildcards.dataset} for {wildcards.backbone}; progress in {log}"
    script:
        "../scripts/embed_texts.py"


# How alike the names of a dataset's classes are to those of ImageNet, for the methods that map by names.
rule embed_names:
    input:
        network=of_job(training.text_encoder),
        dataset=of_job(training.names_to_read),
    output:
        NAMES,
    log:
        f"{RESULTS}/logs/embed_names/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_names/{{dataset}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.names_memory),
        runtime=amount(resources.names_runtime),
    params:
        **params_of(training.embed_names, "left_out"),
        code=code("embed_names"),
    message:
        "Comparing the names of the classes of {wildcards.dataset} with those of ImageNet"
    script:
        "../scripts/embed_names.py"


rule train:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=of_job(training.images_to_prompt),
        split=SPLIT,
        texts=of_job(training.texts),
        names=of_job(training.names),
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
        mem_mb=amount(resources.train_memory),
        runtime=amount(resources.train_runtime),
    params:
        **params_of(training.train, *training.params("train")),
    message:
        "Training prompts on {wildcards.backbone} for {wildcards.dataset}, seed {wildcards.seed}; progress in {log}"
    script:
        "../scripts/train.py"


rule extract_features:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=of_job(training.images_to_probe),
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
        mem_mb=amount(resources.features_memory),
        runtime=amount(resources.features_runtime),
    params:
        code=code("extract_features"),
    message:
        "Extracting the features of {wildcards.backbone} on {wildcards.dataset}"
    script:
        "../scripts/extract_features.py"


rule probe:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=of_job(training.images_to_probe),
        split=SPLIT,
        features=FEATURES,
        texts=of_job(training.texts_to_try),
    output:
        PACK["probe"],
    log:
        f"{RESULTS}/logs/probe/{{backbone}}/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe/{{backbone}}/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.probe_memory),
        runtime=amount(resources.probe_runtime),
    params:
        **params_of(training.probe, *training.params("probe")),
    message:
        "Linear probes on {wildcards.backbone} for {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/probe.py"


rule finetune:
    input:
        backbone=STUDY_BACKBONE,
        verification=VERIFICATION,
        dataset=of_job(training.images_to_crop),
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
        mem_mb=amount(resources.finetune_memory),
        runtime=amount(resources.finetune_runtime),
    params:
        **params_of(training.finetune, *training.params("finetune")),
    message:
        "Fine-tuning {wildcards.backbone} on {wildcards.dataset}, seed {wildcards.seed}; progress in {log}"
    script:
        "../scripts/finetune.py"
