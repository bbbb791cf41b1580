# From packs to tables, figures and the report.

RUNS_TABLE = f"{RESULTS}/tables/runs.parquet"
BINS_TABLE = f"{RESULTS}/tables/bins.parquet"
REPORT = f"{RESULTS}/report.html"
FIGURES = ["accuracy", "heatmap", "reliability"]
CAPTIONS = sha256_text("".join(path.read_text() for path in sorted((ROOT / "workflow/report").glob("*.rst"))))
GRID = {
    "backbone": [backbone.name for backbone in study.backbones],
    "dataset": [dataset.name for dataset in study.datasets],
    "method": study.methods,
    "shots": study.shots,
    "seed": study.seeds,
}


rule collect:
    input:
        [
            expand(PACK[job], backbone=GRID["backbone"], dataset=GRID["dataset"], seed=GRID["seed"])
            for job in PACK
            if methods_of(job)
        ],
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
    log:
        f"{RESULTS}/logs/collect.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=constant(GRID),
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
    params:
        settings=constant(
            study.figures.model_dump()
            | {
                "title": study.study,
                "classes": {name: len(DATASETS[name]["classes"]) for name in GRID["dataset"]},
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
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=constant({"report": REPORT}),
        code=code("conclude"),
    message:
        "Checking that every run of the study has a result"
    script:
        "../scripts/conclude.py"
