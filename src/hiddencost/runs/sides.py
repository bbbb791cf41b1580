"""The two sides of a pair of networks, and the ways to put their parts together, by name."""

from itertools import product

OWN, DENSE = SIDES = ("own", "dense")  # of the compressed network, and of the dense one
PARTS = ("network", "prompt", "mapping")


def accuracy_of(network: str, prompt: str, mapping: str) -> str:
    """Return the name of the test accuracy of one side's network under a prompt and a mapping of either."""
    return f"accuracy_{network}_{prompt}_{mapping}"


SWAPS = [accuracy_of(*sides) for sides in product(SIDES, repeat=len(PARTS))]
# what these say of a run, see `results.split.split`
COST = "cost"
SPLIT = [f"part_{part}" for part in PARTS]
SPLIT += [f"{change}_{part}" for change in ("gain", "loss") for part in ("prompt", "mapping", "both")]
