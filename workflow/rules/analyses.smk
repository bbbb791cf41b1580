# What a study asks of its networks and finished runs beyond their accuracy: nothing is trained for it.

SHIFT = f"{RESULTS}/{layout.ANALYSIS[('backbone', 'dataset')]}".replace("{analysis}", "shift")
LATENCY = f"{RESULTS}/{layout.ANALYSIS[('backbone',)]}".replace("{analysis}", "latency")
COMPARED = f"{RESULTS}/{layout.ANALYSIS[('backbone', 'dataset')]}"


# The finished runs on corrupted test images.
rule shift:
    input:
        unpack(of_job(analyses.shift_inputs)),
        backbone=STUDY_BACKBONE,
    output:
        SHIFT,
    log:
        f"{RESULTS}/logs/shift/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/shift/{{backbone}}/{{dataset}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=amount(resources.shift_memory),
        runtime=amount(resources.shift_runtime),
    params:
        **params_of(analyses.shift, "corruptions", "severities", "images", "code"),
    message:
        "Corrupting the test images of {wildcards.dataset} for {wildcards.backbone}; progress in {log}"
    script:
        "../scripts/shift.py"


# Behind the jobs that train, where these run beside it: what shares a machine with it slows it.
rule latency:
    input:
        unpack(of_job(analyses.networks_to_measure)),
    output:
        LATENCY,
    log:
        f"{RESULTS}/logs/latency/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/latency/{{backbone}}.tsv"
    priority: -1
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=amount(resources.latency_memory),
        runtime=amount(resources.latency_runtime),
    params:
        **params_of(analyses.latency, "canvas", "dense_canvas"),
        code=code("latency"),
    message:
        "Measuring how fast {wildcards.backbone} runs"
    script:
        "../scripts/latency.py"


# A compressed network beside the dense one, with what the runs of both have learned, which the ledger holds.
rule compare:
    input:
        unpack(of_job(analyses.networks_to_compare)),
    output:
        COMPARED,
    log:
        f"{RESULTS}/logs/compare/{{analysis}}/{{backbone}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare/{{analysis}}/{{backbone}}/{{dataset}}.tsv"
    wildcard_constraints:
        analysis=any_of(analyses.comparing(CALL)),
        backbone=any_of(analyses.compared(CALL)),
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        gpu=gpu,
        mem_mb=amount(resources.comparing_memory),
        runtime=amount(resources.comparing_runtime),
    params:
        **params_of(analyses.compare, "function", "code"),
    message:
        "Evaluating {wildcards.backbone} beside its dense network on {wildcards.dataset}: {wildcards.analysis}"
    script:
        "../scripts/compare.py"


for ANALYSIS in analyses.asked(CALL):

    rule:
        name:
            f"tabulate_{ANALYSIS}"
        input:
            evaluated=analyses.evaluated(CALL, ANALYSIS),
            runs=TABLES["runs"],
        output:
            **analyses.tables(CALL, ANALYSIS),
        log:
            f"{OUTPUT}/logs/tabulate/{ANALYSIS}.log",
        benchmark:
            f"{OUTPUT}/benchmarks/tabulate/{ANALYSIS}.tsv"
        localrule: True
        conda:
            "../../envs/hiddencost.yaml"
        resources:
            mem_mb=1000,
            runtime=amount(resources.short_runtime),
        params:
            **{name: values.text(name, value) for name, value in analyses.tabulate(CALL, ANALYSIS).items()},
        message:
            f"Making the tables of the analysis {ANALYSIS}"
        script:
            "../scripts/tabulate.py"
