"""The figures of a study. Each kind is an entry of `registry.FIGURES` and a module that draws it.

In come the tables of `results` and the study's `figures` settings; out goes a Matplotlib figure, which `draw.draw`
writes as PNG, PDF or SVG. Figures read tables alone: another colour redraws and trains nothing. A figure stands on
the code of its own kind and on `style`, which all share. The workflow can ask `registry`, which is light.
"""
