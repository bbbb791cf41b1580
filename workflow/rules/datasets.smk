# From a dataset's files to arrays, and to the images of each budget.

PREPARED = [*ARRAYS, "dataset.json"]
SPLIT = f"{RESULTS}/splits/{{dataset}}/seed{{seed}}.json"


rule fetch_dataset:
    input:
        own_dataset_files,
    output:
        FETCHED["datasets"].format("{dataset}"),
    log:
        "resources/logs/fetch_dataset/{dataset}.log",
    benchmark:
        "resources/benchmarks/fetch_dataset/{dataset}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=dataset_source,
        code=code("fetch"),
    message:
        "Fetching dataset {wildcards.dataset}"
    script:
        "../scripts/fetch.py"


rule prepare_dataset:
    input:
        dataset_files,
    output:
        expand("resources/datasets/{{dataset}}/{{size}}/{file}", file=PREPARED),
    log:
        "resources/logs/prepare_dataset/{dataset}/{size}.log",
    benchmark:
        "resources/benchmarks/prepare_dataset/{dataset}/{size}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=prepare_memory,
        runtime=prepare_runtime,
    params:
        settings=dataset_layout,
        code=code("prepare_dataset"),
    message:
        "Preparing dataset {wildcards.dataset} at {wildcards.size} pixels"
    script:
        "../scripts/prepare_dataset.py"


rule draw_splits:
    input:
        dataset_to_split,
    output:
        SPLIT,
    log:
        f"{RESULTS}/logs/draw_splits/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_splits/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({}),
        code=code("draw_splits"),
    message:
        "Drawing the splits of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/draw_splits.py"
