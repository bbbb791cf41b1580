"""The constants of the outside world: where checkpoints, datasets and photos come from, and what they are."""

from functools import lru_cache
from importlib import resources

import yaml


@lru_cache
def load(name: str) -> dict:
    """Return catalog/{name}.yaml (`checkpoints`, `datasets`, `photos`) as {entry name: entry}."""
    return yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text())
