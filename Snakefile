# The workflow, for `snakemake` in this folder: workflow/Snakefile.
include: "workflow/Snakefile"


workflow.default_target = rules.all.rule.name  # which Snakemake forgets of what is included
