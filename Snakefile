# The workflow, for `snakemake` in this folder: workflow/Snakefile.
include: "workflow/Snakefile"


# Snakemake forgets that of what is included; of a workflow that has this one as a module, its own stays
workflow.default_target = workflow.default_target or rules.all.rule.name
