"""The command `hiddencost`: a thin way to call the workflow, and to use what it has made.

In come the words of a command line. `run`, `plan` and `figures` become a call of `snakemake`, which does the same
when it is typed; `new`, `status`, `predict` and `add-checkpoint` need no workflow: they write a study, read how far
one is, classify images with what a run has learned, and look at a network of one's own.
No other package knows of this one.
"""
