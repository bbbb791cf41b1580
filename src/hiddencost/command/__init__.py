"""The command `hiddencost`: a thin way to call the workflow, and to use what it has made.

In come the words of a command line. `run`, `plan` and `figures` become a call of `snakemake`, which does the same
when it is typed; `new`, `status` and `predict` need no workflow: they write a study, read how far one is, and
classify images with what a run has learned. No other package knows of this one.
"""
