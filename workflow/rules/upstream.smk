# Networks that the study trains itself, dense or sparsified, where nobody publishes them.

TRAINED = f"{RESULTS}/upstream/{{upstream}}/{{sparsifier}}/{{sparsity}}/seed{{upstream_seed}}"
REWIND = f"{RESULTS}/upstream/{{upstream}}/rewind/epoch{{rewind_epoch}}/seed{{upstream_seed}}.state"
SPARSIFIERS = {upstream.label(settings): settings for settings, _ in (one.training() for one in study.backbones)} | {
    "dense": None
}


wildcard_constraints:
    upstream=any_of(one.name for one in study.upstream),
    sparsifier=any_of(SPARSIFIERS),
    sparsity=r"0(\.\d+)?",
    upstream_seed=r"\d+",
    rewind_epoch=r"\d+",


# Dense, or made sparse by GMP, AC/DC, RigL or a round of lottery tickets, which starts from the round before.
rule sparsify:
    input:
        images=upstream_images,
        start=upstream_start,
        ticket=ticket,
        rewind=rewound,
    output:
        expand(f"{TRAINED}/{{file}}", file=BACKBONE, allow_missing=True),
    log:
        f"{RESULTS}/logs/sparsify/{{upstream}}/{{sparsifier}}/{{sparsity}}/seed{{upstream_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sparsify/{{upstream}}/{{sparsifier}}/{{sparsity}}/seed{{upstream_seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    threads: upstream_threads
    resources:
        gpu=gpu,
        mem_mb=upstream_memory,
        runtime=upstream_runtime,
    params:
        settings=sparsify_settings,
        code=code("sparsify"),
    message:
        "Training {wildcards.upstream} upstream: {wildcards.sparsifier}, sparsity {wildcards.sparsity}; progress in {log}"
    script:
        "../scripts/sparsify.py"


# The dense training again, up to the epoch to which lottery tickets are rewound: a new one retrains nothing else.
rule rewind_point:
    input:
        images=upstream_images,
        start=upstream_start,
    output:
        REWIND,
    log:
        f"{RESULTS}/logs/rewind_point/{{upstream}}/epoch{{rewind_epoch}}/seed{{upstream_seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/rewind_point/{{upstream}}/epoch{{rewind_epoch}}/seed{{upstream_seed}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    threads: upstream_threads
    resources:
        gpu=gpu,
        mem_mb=upstream_memory,
        runtime=upstream_runtime,
    params:
        settings=rewind_settings,
        code=code("sparsify"),
    message:
        "Training {wildcards.upstream} up to epoch {wildcards.rewind_epoch}, to rewind to"
    script:
        "../scripts/sparsify.py"


# As verify_backbone does, but on upstream test images instead of ImageNet photos.
rule verify_trained:
    input:
        backbone=STUDY_BACKBONE,
        images=upstream_of_backbone,
    output:
        VERIFICATION,
    log:
        f"{RESULTS}/logs/verify_trained/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/verify_trained/{{backbone}}.tsv"
    wildcard_constraints:
        backbone=any_of(one.name for one in study.backbones if study.trained(one.checkpoint)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=network_memory,
        runtime=short_runtime,
    params:
        settings=constant(verification_of("upstream_top1")),
        code=code("verify_trained"),
    message:
        "Verifying backbone {wildcards.backbone}: sparsity, masks, upstream test images"
    script:
        "../scripts/verify_trained.py"
