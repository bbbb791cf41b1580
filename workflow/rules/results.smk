# From packs to tables, figures and the report.

TABLES = {name: f"{OUTPUT}/{table}" for name, table in layout.TABLES.items()}
RUNS_TABLE = TABLES["runs"]
REPORT = f"{OUTPUT}/report.html"
FIGURES = results.figures(CALL)


wildcard_constraints:
    figure=any_of(FIGURES),


# A partial call takes the packs that are there without asking for any, so that it trains nothing.
rule collect:
    input:
        results.packs_to_collect(CALL),
    output:
        runs_csv=f"{OUTPUT}/tables/runs.csv",
        runs=RUNS_TABLE,
        summary=table(TABLES["summary"], "means, deviations and paired differences"),
        bins=TABLES["bins"],
        expectations=f"{OUTPUT}/tables/expectations.csv",
    log:
        f"{OUTPUT}/logs/collect.log",
    benchmark:
        f"{OUTPUT}/benchmarks/collect.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(
            results.collect,
            *(
                "study",
                "grid",
                "methods",
                "backbones",
                "left_out",
                "expectations",
                "splits",
                "test_labels",
                "so_far",
            ),
        ),
        code=code("collect"),
    message:
        "Collecting the runs into tables"
    script:
        "../scripts/collect.py"


rule claims:
    input:
        **analyses.claimed_tables(CALL),
        runs=RUNS_TABLE,
    output:
        table(f"{OUTPUT}/tables/claims.csv", "claims, and what the runs say of them"),
    log:
        f"{OUTPUT}/logs/claims.log",
    benchmark:
        f"{OUTPUT}/benchmarks/claims.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(results.claims, "claims", "paper", "own", "made"),
        code=code("claims"),
    message:
        "Putting the claims to the test"
    script:
        "../scripts/claims.py"


rule tables:
    input:
        RUNS_TABLE,
    output:
        expand(
            f"{OUTPUT}/tables/{{table}}.{{format}}",
            table=["means", *results.printed_metrics()],
            format=["csv", "md", "tex"],
        ),
    log:
        f"{OUTPUT}/logs/tables.log",
    benchmark:
        f"{OUTPUT}/benchmarks/tables.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        code=code("tables"),
    message:
        "Setting the tables for print"
    script:
        "../scripts/tables.py"


# The ledger's entries are named by the table; what else is read of the study is asked for where something may be made.
rule learned:
    input:
        runs=RUNS_TABLE,
        reports=results.learned_inputs(CALL),
    output:
        **{name: TABLES[name] for name in ("mappings", "remapped", "prompts", "examples", "upstream")},
    log:
        f"{OUTPUT}/logs/learned.log",
    benchmark:
        f"{OUTPUT}/benchmarks/learned.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(results.learned, "ledger", "prepared", "groups", "backbones"),
        code=code("learned"),
    message:
        "Reading what the runs learned"
    script:
        "../scripts/learned.py"


rule matched:
    input:
        runs=RUNS_TABLE,
        upstream=TABLES["upstream"],
    output:
        table(TABLES["matched"], "cost at matched upstream accuracy"),
    log:
        f"{OUTPUT}/logs/matched.log",
    benchmark:
        f"{OUTPUT}/benchmarks/matched.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        code=code("matched"),
    message:
        "Setting downstream against upstream losses"
    script:
        "../scripts/matched.py"


rule figure:
    input:
        unpack(of_job(results.figure_tables)),
    output:
        report(
            f"{OUTPUT}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=heading,
        ),
        [f"{OUTPUT}/figures/{{figure}}.{format}" for format in CALL.study.figures.formats],
    log:
        f"{OUTPUT}/logs/figure/{{figure}}.log",
    benchmark:
        f"{OUTPUT}/benchmarks/figure/{{figure}}.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    params:
        **params_of(results.figure, *results.CONTENT, *results.STYLE),
        **params_of(results.figure_code, "code"),
    message:
        "Drawing figure {wildcards.figure}"
    script:
        "../scripts/figure.py"


rule figures:
    input:
        expand(rules.figure.output, figure=FIGURES),


# Verifications, manifests, benchmarks and logs are read as far as they are there, without being asked for: what they
# say of a result has reached the tables.
rule report:
    input:
        runs=RUNS_TABLE,
        bins=TABLES["bins"],
        summary=TABLES["summary"],
        means=TABLES["means"],
        expectations=rules.collect.output.expectations,
        claims=rules.claims.output[0],
        upstream=TABLES["upstream"],
        matched=TABLES["matched"],
        # each file once: Snakemake takes one that stands twice for a change of the inputs, at each call
        typeset=[table for table in rules.tables.output if table != TABLES["means"]],
        analysed=analyses.all_tables(CALL),
        figures=rules.figures.input,
    output:
        REPORT,
    log:
        f"{OUTPUT}/logs/report.log",
    benchmark:
        f"{OUTPUT}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        **params_of(results.report, "study", "prepared", "labels", "captions", "results", "page"),
        code=code("report"),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"


# It fails if a run of the grid has no result, so that the exit status tells; figures and report are made all the same.
rule conclude:
    input:
        runs=RUNS_TABLE,
        claims=rules.claims.output[0],
    output:
        f"{OUTPUT}/conclusion.txt",
    log:
        f"{OUTPUT}/logs/conclude.log",
    benchmark:
        f"{OUTPUT}/benchmarks/conclude.tsv"
    retries: 0  # of a profile: a run without a result is not one that another try would give
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    params:
        report=values.text("report", REPORT),
        code=code("conclude"),
    message:
        "Checking that every run of the study has a result"
    script:
        "../scripts/conclude.py"


# The downloads alone: for a machine with a network, before others compute without one.
rule fetch:
    input:
        rules.fetch_photos.output if checkpoints.published_backbones(CALL) else [],
        results.downloads_to_fetch(CALL),
    log:
        "resources/logs/fetch.log",
    localrule: True
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=amount(resources.short_runtime),
    message:
        "Checking that every download is there"
    script:
        "../scripts/check_downloads.py"
