# hiddencost: what compressing a pretrained vision network costs when it is adapted by visual prompting.
#
#   snakemake                                   the quickstart study, config.yaml
#   snakemake --configfile studies/NAME.yaml    another one
from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/requests.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/checkpoints.smk"
include: "workflow/rules/upstream.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/analyses.smk"


# where a scheduler runs the others: what needs the network, or is short
localrules:
    all,
    fetch,
    fetch_checkpoint,
    fetch_photos,
    fetch_dataset,
    draw_splits,
    collect,
    claims,
    tables,
    learned,
    matched,
    figure,
    figures,
    report,
    conclude,


rule all:
    default_target: True
    input:
        rules.conclude.output,
        rules.tables.output,
        rules.report.output,


onstart:
    end_with_the_terminal()
    begin_in_order()


onsuccess:
    print(ending.success(CALL, is_whole(), planned_files()))


onerror:
    print(ending.failure(CALL, CONCLUDED_BEFORE))
