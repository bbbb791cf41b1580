"""The constants of the outside world: where checkpoints, datasets and photos come from, and what they are."""

from difflib import get_close_matches
from functools import lru_cache
from importlib import resources

import yaml

from hiddencost.catalog.libraries import open_clip_entry, timm_entry

# what an entry of checkpoints.yaml need not say
DEFAULTS = {
    "compression": "none",
    "sparsity": 0.0,
    "sparsity_over": "convolutions",
    "dense": None,
    "unavailable": None,
}
# what the names of checkpoints begin with whose entries are made from a library's own, and their architectures' names
ARCHITECTURES = {"timm-": "timm/", "openclip-": "clip/"}
ANY = "timm-NAME, or openclip-NAME.TAG"


@lru_cache
def load(name: str) -> dict:
    """Return catalog/{name}.yaml (`checkpoints`, `datasets`, `photos`) as {entry name: entry}."""
    text = resources.files(__name__).joinpath(f"{name}.yaml").read_text()
    return yaml.load(text, Loader=yaml.CSafeLoader)  # quicker than safe_load: every job and every plan read them


@lru_cache
def checkpoint(name: str) -> dict:
    """Return a checkpoint's entry, with the defaults of what it does not say.

    timm-NAME is a pretrained model of timm, openclip-NAME.TAG a pretrained CLIP of open_clip, in small letters; their
    entries are made from the library's own. Raises ValueError, with the names that are near, if there is none of that
    name.
    """
    if name.startswith("timm-"):
        return DEFAULTS | timm_entry(name.removeprefix("timm-"))
    if name.startswith("openclip-"):
        return DEFAULTS | open_clip_entry(name.removeprefix("openclip-"))
    entries = load("checkpoints")
    if name not in entries:
        near = get_close_matches(name, entries)
        raise ValueError(f"checkpoint {name!r} is unknown; near it: {', '.join(near) or 'nothing'}; or {ANY}")
    return DEFAULTS | entries[name]


def architecture(name: str) -> str:
    """Return a checkpoint's architecture, without making its entry: of a library's model what the name of its
    architecture begins with; "" where there is no checkpoint of that name."""
    for library, of_library in ARCHITECTURES.items():
        if name.startswith(library):
            return of_library
    return load("checkpoints").get(name, {}).get("architecture", "")
