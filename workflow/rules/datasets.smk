# From a dataset's files to arrays, and to the images of each budget.

PREPARED = [*ARRAYS, "dataset.json"]
SPLIT = f"{RESULTS}/splits/{{dataset}}/seed{{seed}}.json"


# The files of a dataset that the repository carries are no `input`: a git checkout moves their time stamps.
# Their sha256 is among the params, and is checked.
rule prepare_dataset:
    output:
        expand("resources/datasets/{{dataset}}/{{size}}/{file}", file=PREPARED),
    log:
        "resources/logs/prepare_dataset/{dataset}/{size}.log",
    benchmark:
        "resources/benchmarks/prepare_dataset/{dataset}/{size}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=dataset_layout,
        code=code("prepare_dataset"),
    message:
        "Preparing dataset {wildcards.dataset} at {wildcards.size} pixels"
    script:
        "../scripts/prepare_dataset.py"


rule draw_splits:
    input:
        dataset_at_image_size,
    output:
        SPLIT,
    log:
        f"{RESULTS}/logs/draw_splits/{{dataset}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_splits/{{dataset}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=constant({}),
        code=code("draw_splits"),
    message:
        "Drawing the splits of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/draw_splits.py"
