# Networks that the study trains itself, dense or sparsified, where nobody publishes them.

TRAINED = f"{RESULTS}/{layout.TRAINED}"
UPSTREAM = [network.name for network in CALL.study.upstream]


wildcard_constraints:
    upstream=any_of(UPSTREAM),
    sparsifier=any_of(upstream.sparsifiers(CALL)),
    sparsity=r"0(\.\d+)?",
    upstream_seed=r"\d+",
    rewind_epoch=r"\d+",


# Dense, or made sparse by GMP, AC/DC, RigL or a round of lottery tickets, which starts from the round before.
rule sparsify:
    input:
        images=in_time(upstream.upstream_images),
        start=of_job(upstream.start),
        ticket=of_job(upstream.ticket),
        rewind=of_job(upstream.rewind_point),
    output:
        [f"{TRAINED}/{file}" for file in layout.NETWORK_FILES],
    log:
        f"{RESULTS}/logs/sparsify/{{upstream}}/{{sparsifier}}/{{sparsity}}/seed{{upstream_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sparsify/{{upstream}}/{{sparsifier}}/{{sparsity}}/seed{{upstream_seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    threads: reading_threads
    resources:
        gpu=gpu,
        mem_mb=amount(resources.upstream_memory),
        runtime=amount(resources.upstream_runtime),
    params:
        **params_of(upstream.sparsify, *upstream.TRAINING),
        code=code("sparsify"),
    message:
        "Training {wildcards.upstream} upstream: {wildcards.sparsifier}, sparsity {wildcards.sparsity}; progress in {log}"
    script:
        "../scripts/sparsify.py"


# The dense training again, up to the epoch to which lottery tickets are rewound: a new one retrains nothing else.
rule rewind_point:
    input:
        images=in_time(upstream.upstream_images),
        start=of_job(upstream.start),
    output:
        f"{RESULTS}/{layout.REWIND}",
    log:
        f"{RESULTS}/logs/rewind_point/{{upstream}}/epoch{{rewind_epoch}}/seed{{upstream_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/rewind_point/{{upstream}}/epoch{{rewind_epoch}}/seed{{upstream_seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    threads: reading_threads
    resources:
        gpu=gpu,
        mem_mb=amount(resources.upstream_memory),
        runtime=amount(resources.upstream_runtime),
    params:
        **params_of(upstream.rewind, *upstream.REWINDING),
        code=code("sparsify"),
    message:
        "Training {wildcards.upstream} up to epoch {wildcards.rewind_epoch}, to rewind to"
    script:
        "../scripts/sparsify.py"


# As verify_backbone does, but on upstream test images instead of ImageNet photos.
rule verify_trained:
    input:
        backbone=STUDY_BACKBONE,
        images=of_job(upstream.images_to_verify),
    output:
        VERIFICATION,
    log:
        f"{RESULTS}/logs/verify_trained/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/verify_trained/{{backbone}}.tsv"
    wildcard_constraints:
        backbone=any_of(checkpoints.trained_backbones(CALL)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=amount(resources.network_memory),
        runtime=amount(resources.verify_trained_runtime),
    params:
        **params_of(checkpoints.verify_trained, *checkpoints.VERIFIED_TRAINED),
        code=code("verify_trained"),
    message:
        "Verifying backbone {wildcards.backbone}: sparsity, masks, upstream test images"
    script:
        "../scripts/verify_trained.py"
