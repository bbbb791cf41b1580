"""What a study can ask of its networks and finished runs beyond their accuracy, by name. Nothing is trained for any
of it.

What computes each is in `results.analyses`, as it needs PyTorch and pandas, and the Snakefile reads this module.
"""

# and what each is, for the schema of a study
ANALYSES = {
    "latency": "how long each network takes for an image, on the device of its job, and the bytes of its weights",
}
