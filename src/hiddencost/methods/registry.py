"""The methods of adapting a network to a task, by name."""

PROMPTING = ("rlm", "flm", "ilm")
JOBS = {"train": PROMPTING, "probe": ("lp", "zs"), "finetune": ("ft",)}  # what runs which methods
METHODS = (*PROMPTING, "lp", "ft", "zs")
