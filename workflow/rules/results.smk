# From packs to tables, figures and the report.

RUNS_TABLE = f"{OUTPUT}/tables/runs.parquet"
BINS_TABLE = f"{OUTPUT}/tables/bins.parquet"
TABLES = {
    "runs": RUNS_TABLE,
    "bins": BINS_TABLE,
    "summary": f"{OUTPUT}/tables/summary.csv",
    "mappings": f"{OUTPUT}/tables/mappings.parquet",
    "remapped": f"{OUTPUT}/tables/remapped.parquet",
    "prompts": f"{OUTPUT}/tables/prompts.npz",
    "examples": f"{OUTPUT}/tables/examples.npz",
    "upstream": f"{OUTPUT}/tables/upstream.csv",
    "matched": f"{OUTPUT}/tables/matched.csv",
}
REPORT = f"{OUTPUT}/report.html"
PAGE = sha256_text(
    "".join((ROOT / f"workflow/report/report.{part}").read_text() for part in ("html.j2", "css", "js"))
)
BACKBONES = {one.name: study.stated(one) for one in study.backbones}
FIGURES = listed_figures()
PARTIAL = config.get("partial", False)
try:
    CLAIMS = [[name, claim.model_dump()] for name, claim in claims.load().items()]
except StudyError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    figure="|".join(map(re.escape, FIGURES)),


# A partial call takes the packs that are there without asking for any, so that it trains nothing.
rule collect:
    input:
        [] if PARTIAL else [packs(job) for job in PACK],
    output:
        runs_csv=f"{OUTPUT}/tables/runs.csv",
        runs=RUNS_TABLE,
        summary=TABLES["summary"],
        bins=BINS_TABLE,
        expectations=f"{OUTPUT}/tables/expectations.csv",
    log:
        f"{OUTPUT}/logs/collect.log",
    benchmark:
        f"{OUTPUT}/benchmarks/collect.tsv"
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
                "methods": {one.name: study.methods_of(one) for one in study.backbones},
                "backbones": BACKBONES,
                "left_out": LEFT_OUT,
                "expectations": [one.model_dump() for one in study.expectations],
                "so_far": packs_so_far() if PARTIAL else None,
            }
        ),
        code=code("collect"),
    message:
        "Collecting the runs into tables"
    script:
        "../scripts/collect.py"


rule claims:
    input:
        RUNS_TABLE,
    output:
        f"{OUTPUT}/tables/claims.csv",
    log:
        f"{OUTPUT}/logs/claims.log",
    benchmark:
        f"{OUTPUT}/benchmarks/claims.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({"claims": CLAIMS}),
        code=code("claims"),
    message:
        "Putting the claims to the test"
    script:
        "../scripts/claims.py"


rule tables:
    input:
        RUNS_TABLE,
    output:
        expand(f"{OUTPUT}/tables/{{metric}}.{{format}}", metric=["accuracy", "ece"], format=["csv", "md", "tex"]),
    log:
        f"{OUTPUT}/logs/tables.log",
    benchmark:
        f"{OUTPUT}/benchmarks/tables.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({}),
        code=code("tables"),
    message:
        "Setting the tables of accuracy and calibration"
    script:
        "../scripts/tables.py"


# The ledger's entries are named by the table; what else is read of the study is asked for where something may be made.
rule learned:
    input:
        runs=RUNS_TABLE,
        told=[] if PARTIAL else learned_inputs(),
    output:
        **{name: TABLES[name] for name in ("mappings", "remapped", "prompts", "examples", "upstream")},
    log:
        f"{OUTPUT}/logs/learned.log",
    benchmark:
        f"{OUTPUT}/benchmarks/learned.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant(
            {
                "ledger": f"{RESULTS}/ledger",
                "prepared": {
                    one.name: f"resources/datasets/{one.name}/{sizes_of(one.name)[0]}" for one in study.datasets
                },
                "groups": groups_of_prompts(),
                "backbones": {one.name: known_upstream(one) for one in study.backbones},
            }
        ),
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
        TABLES["matched"],
    log:
        f"{OUTPUT}/logs/matched.log",
    benchmark:
        f"{OUTPUT}/benchmarks/matched.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant({}),
        code=code("matched"),
    message:
        "Setting downstream against upstream losses"
    script:
        "../scripts/matched.py"


rule figure:
    input:
        unpack(figure_tables),
    output:
        [f"{OUTPUT}/figures/{{figure}}.{format}" for format in ("png", *study.figures.formats)],
    log:
        f"{OUTPUT}/logs/figure/{{figure}}.log",
    benchmark:
        f"{OUTPUT}/benchmarks/figure/{{figure}}.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    params:
        settings=figure_settings,
        code=figure_code,
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
        bins=BINS_TABLE,
        summary=TABLES["summary"],
        expectations=rules.collect.output.expectations,
        claims=rules.claims.output[0],
        upstream=TABLES["upstream"],
        matched=TABLES["matched"],
        typeset=rules.tables.output,
        figures=rules.figures.input,
    output:
        REPORT,
    log:
        f"{OUTPUT}/logs/report.log",
    benchmark:
        f"{OUTPUT}/benchmarks/report.tsv"
    conda:
        "../../envs/hiddencost.yaml"
    resources:
        mem_mb=1000,
        runtime=short_runtime,
    params:
        settings=constant(
            {
                "study": study.model_dump_json(exclude_none=True),
                "sizes": {one.name: sizes_of(one.name) for one in study.datasets},
                "classes": class_counts(),
                "captions": [[name, FIGURE_KINDS[figure.kind].caption] for name, figure in FIGURES.items()],
                "results": RESULTS,  # where verifications and logs are, of a partial report, too
                "page": PAGE,
            }
        ),
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
        rules.fetch_photos.output if any(not study.trained(one.checkpoint) for one in study.backbones) else [],
        [
            FETCHED[kind].format(name)
            for kind, entries in (("checkpoints", PUBLISHED), ("datasets", DATASETS))
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
