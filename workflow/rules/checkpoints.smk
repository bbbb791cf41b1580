# From published files to verified backbones.

BACKBONE = ["weights.safetensors", "masks.safetensors", "manifest.json"]
CHECKPOINT_BACKBONE = expand("resources/backbones/{{checkpoint}}/{file}", file=BACKBONE)
STUDY_BACKBONE = expand(f"{RESULTS}/backbones/{{{{backbone}}}}/{{file}}", file=BACKBONE)
VERIFICATION = f"{RESULTS}/backbones/{{backbone}}/verification.json"


# A download that fails is a result: the file says why, and the jobs behind it go on without.
rule fetch_checkpoint:
    input:
        own_checkpoint_files,
    output:
        FETCHED["checkpoints"].format("{checkpoint}"),
    log:
        "resources/logs/fetch_checkpoint/{checkpoint}.log",
    benchmark:
        "resources/benchmarks/fetch_checkpoint/{checkpoint}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=checkpoint_source,
        code=code("fetch"),
    message:
        "Fetching checkpoint {wildcards.checkpoint}"
    script:
        "../scripts/fetch.py"


rule fetch_photos:
    output:
        FETCHED["photos"].format(PHOTOS),
    log:
        "resources/logs/fetch_photos.log",
    benchmark:
        "resources/benchmarks/fetch_photos.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=photos_source,
        code=code("fetch"),
    message:
        "Fetching the ImageNet photos of the verification gate"
    script:
        "../scripts/fetch.py"


rule import_checkpoint:
    input:
        rules.fetch_checkpoint.output,
    output:
        CHECKPOINT_BACKBONE,
    log:
        "resources/logs/import_checkpoint/{checkpoint}.log",
    benchmark:
        "resources/benchmarks/import_checkpoint/{checkpoint}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=network_memory,
        runtime=short_runtime,
    params:
        settings=checkpoint_layout,
        code=code("import_checkpoint"),
    message:
        "Importing checkpoint {wildcards.checkpoint}, every key accounted for"
    script:
        "../scripts/import_checkpoint.py"


rule compress:
    input:
        source_of,
    output:
        STUDY_BACKBONE,
    log:
        f"{RESULTS}/logs/compress/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compress/{{backbone}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=network_memory,
        runtime=short_runtime,
    params:
        settings=compression_of,
        code=code("compress"),
    message:
        "Making backbone {wildcards.backbone}"
    script:
        "../scripts/compress.py"


rule verify_backbone:
    input:
        backbone=STUDY_BACKBONE,
        photos=FETCHED["photos"].format(PHOTOS),
    output:
        VERIFICATION,
    log:
        f"{RESULTS}/logs/verify_backbone/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/verify_backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone=any_of(one.name for one in study.backbones if not study.trained(one.checkpoint)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=network_memory,
        runtime=short_runtime,
    params:
        settings=constant(
            verification_of("photos_top1")
            | {"photos": entry_part(catalog.load("photos")[PHOTOS], "member_pattern", "count", "resize", "crop")}
        ),
        code=code("verify_backbone"),
    message:
        "Verifying backbone {wildcards.backbone}: sparsity, masks, photos"
    script:
        "../scripts/verify_backbone.py"
