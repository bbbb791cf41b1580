# From a dataset's files to arrays, and to the images of each budget.

SPLIT = f"{RESULTS}/{layout.SPLIT}"


rule fetch_dataset:
    output:
        layout.FETCHED["datasets"].format(home="{home}", name="{dataset}"),
    log:
        "{home}/logs/fetch_dataset/{dataset}.log",
    benchmark:
        "{home}/benchmarks/fetch_dataset/{dataset}.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(datasets.fetch_dataset, *checkpoints.DOWNLOAD),
        code=code("fetch"),
    message:
        "Fetching dataset {wildcards.dataset}"
    script:
        "../scripts/fetch.py"


rule prepare_dataset:
    input:
        in_time(datasets.fetched_dataset),
    output:
        layout.prepared("{dataset}", "{size}", "{home}"),
    log:
        "{home}/logs/prepare_dataset/{dataset}/{size}.log",
    benchmark:
        "{home}/benchmarks/prepare_dataset/{dataset}/{size}.tsv"
    wildcard_constraints:
        dataset=any_of(PREPARED_HERE),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.prepare_memory),
        runtime=amount(resources.prepare_runtime),
    params:
        **params_of(datasets.prepare_dataset, *datasets.PREPARED_KEYS),
        # behind the options; another path alone is no reason to run: Snakemake has it so of params that are told the output
        path=lambda wildcards, output: datasets.own_path(CALL, wildcards.dataset),
        code=code("prepare_dataset"),
    message:
        "Preparing dataset {wildcards.dataset} at {wildcards.size} pixels"
    script:
        "../scripts/prepare_dataset.py"


rule draw_splits:
    input:
        of_job(datasets.images_to_split),
    output:
        SPLIT,
    log:
        f"{RESULTS}/logs/draw_splits/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_splits/{{dataset}}/seed{{seed}}.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        code=code("draw_splits"),
    message:
        "Drawing the splits of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/draw_splits.py"
