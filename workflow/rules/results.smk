# From packs to tables, figures and the report.

RUNS_TABLE = f"{RESULTS}/tables/runs.parquet"
BINS_TABLE = f"{RESULTS}/tables/bins.parquet"
REPORT = f"{RESULTS}/report.html"
FIGURES = ["accuracy", "heatmap", "reliability"]
CAPTIONS = sha256_text("".join(path.read_text() for path in sorted((ROOT / "workflow/report").glob("*.rst"))))
BACKBONES = {one.name: description(one) for one in study.backbones}


rule collect:
    input:
        [expand(PACK[job], **TO_RUN, seed=GRID["seed"]) for job in PACK if methods_of(job)],
    output:
        runs_csv=f"{RESULTS}/tables/runs.csv",
        runs=RUNS_TABLE,
        summary=report(
            f"{RESULTS}/tables/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        bins=BINS_TABLE,
        expectations=f"{RESULTS}/tables/expectations.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant(
            {
                "study": study.study,
                "grid": GRID,
                "backbones": BACKBONES,
                "left_out": LEFT_OUT,
                "expectations": [one.model_dump() for one in study.expectations],
            }
        ),
        code=code("collect"),
    message:
        "Collecting the runs into tables"
    script:
        "../scripts/collect.py"


rule figure:
    input:
        runs=RUNS_TABLE,
        bins=BINS_TABLE,
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{figure}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant(
            study.figures.model_dump()
            | {
                "title": study.study,
                "classes": {name: entry["classes"] and len(entry["classes"]) for name, entry in DATASETS.items()},
            }
        ),
        code=code("figure"),
    message:
        "Drawing figure {wildcards.figure}"
    script:
        "../scripts/figure.py"


rule figures:
    input:
        expand(rules.figure.output, figure=FIGURES),


rule report:
    input:
        rules.figures.input,
        rules.collect.output.summary,
    output:
        REPORT,
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({"captions": CAPTIONS}),
        code=code("report"),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"


# It fails if a run of the grid has no result, so that the exit status tells; figures and report are made all the same.
rule conclude:
    input:
        RUNS_TABLE,
    output:
        f"{RESULTS}/conclusion.txt",
    log:
        f"{RESULTS}/logs/conclude.log",
    benchmark:
        f"{RESULTS}/benchmarks/conclude.tsv"
    retries: 0  # of a profile: a run without a result is not one that another try would give
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({"report": REPORT}),
        code=code("conclude"),
    message:
        "Checking that every run of the study has a result"
    script:
        "../scripts/conclude.py"


# The downloads alone: for a machine with a network, before others compute without one.
rule fetch:
    input:
        rules.fetch_photos.output,
        [
            FETCHED[kind].format(name)
            for kind, entries in (("checkpoints", CHECKPOINTS), ("datasets", DATASETS))
            for name, entry in sorted(entries.items())
            if entry["files"] and not entry.get("unavailable")
        ],
    log:
        "resources/logs/fetch.log",
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    message:
        "Checking that every download is there"
    script:
        "../scripts/check_downloads.py"
