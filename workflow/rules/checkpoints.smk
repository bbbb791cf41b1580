# From published files to verified backbones.

config |= {"own_paths": downloads.own_paths(CALL)}  # for the scripts, as `offline` is
FETCHED_PHOTOS = places.fetched(CALL, "photos", CALL.study.verification.photos)
HOME_OF_PHOTOS = places.home(CALL, "photos", CALL.study.verification.photos)
STUDY_BACKBONE = [f"{RESULTS}/{layout.BACKBONE}/{file}" for file in layout.NETWORK_FILES]
VERIFICATION = f"{RESULTS}/{layout.VERIFICATION}"


# A download that fails is a result: the file says why, and the jobs behind it go on without.
rule fetch_checkpoint:
    output:
        layout.FETCHED["checkpoints"].format(home="{home}", name="{checkpoint}"),
    log:
        "{home}/logs/fetch_checkpoint/{checkpoint}.log",
    benchmark:
        "{home}/benchmarks/fetch_checkpoint/{checkpoint}.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(checkpoints.fetch_checkpoint, *checkpoints.DOWNLOAD),
        code=code("fetch"),
    message:
        "Fetching checkpoint {wildcards.checkpoint}"
    script:
        "../scripts/fetch.py"


rule fetch_photos:
    output:
        FETCHED_PHOTOS,
    log:
        f"{HOME_OF_PHOTOS}/logs/fetch_photos.log",
    benchmark:
        f"{HOME_OF_PHOTOS}/benchmarks/fetch_photos.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(checkpoints.fetch_photos, *checkpoints.DOWNLOAD),
        code=code("fetch"),
    message:
        "Fetching the ImageNet photos of the verification gate"
    script:
        "../scripts/fetch.py"


rule import_checkpoint:
    input:
        in_time(checkpoints.fetched_checkpoint),
    output:
        layout.imported("{checkpoint}", "{home}"),
    log:
        "{home}/logs/import_checkpoint/{checkpoint}.log",
    benchmark:
        "{home}/benchmarks/import_checkpoint/{checkpoint}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.import_memory),
        runtime=amount(resources.short_runtime),
    params:
        **params_of(checkpoints.import_checkpoint, *checkpoints.IMPORTED),
        code=code("import_checkpoint"),
    message:
        "Importing checkpoint {wildcards.checkpoint}, every key accounted for"
    script:
        "../scripts/import_checkpoint.py"


rule compress:
    input:
        network=of_job(checkpoints.source_network),
        images=of_job(checkpoints.calibration_images),
    output:
        STUDY_BACKBONE,
    log:
        f"{RESULTS}/logs/compress/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compress/{{backbone}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.compress_memory),
        runtime=amount(resources.compress_runtime),
    params:
        **params_of(checkpoints.compress, *checkpoints.COMPRESSED),
        code=code("compress"),
    message:
        "Making backbone {wildcards.backbone}"
    script:
        "../scripts/compress.py"


rule verify_backbone:
    input:
        backbone=STUDY_BACKBONE,
        photos=FETCHED_PHOTOS,
        dense=of_job(checkpoints.dense_network),
    output:
        VERIFICATION,
    log:
        f"{RESULTS}/logs/verify_backbone/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/verify_backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone=any_of(checkpoints.published_backbones(CALL)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.verify_memory),
        runtime=amount(resources.verify_runtime),
    params:
        **params_of(checkpoints.verify_backbone, *checkpoints.VERIFIED),
        code=code("verify_backbone"),
    message:
        "Verifying backbone {wildcards.backbone}: sparsity, masks, photos"
    script:
        "../scripts/verify_backbone.py"
