"""What depends on what: a study, as one call of the workflow sees it, becomes packs, files and settings of jobs.

In comes a `Call`: a study with the entries of all that it names, and the flags of the command line. Out go, for each
rule of the workflow, its input files, the settings that its jobs depend on, and the memory and time that they want;
and the outlook that a dry run ends with. A module has the name of the rules that it serves (`checkpoints`,
`datasets`, `upstream`, `training`, `results`). Nothing here runs a job, and nothing here knows Snakemake, whose rules
call these functions by name. The package is imported by the workflow alone;
of it, scripts import `values`.
"""
