"""A study: one YAML file, which states a grid of runs and their recipes.

In comes the config as `yaml_file.read` gives it; `load.load_study` checks it part by part (`parts`, `recipes`) and as
a whole (`checks`), and names file, key, value and what is expected where it is wrong. Out goes a `Study`, which
answers what can be asked before anything is made: entries of the catalog with the user's own files, recipes, sizes,
the dense counterpart of a backbone.
"""
