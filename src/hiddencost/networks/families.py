"""The families of networks, by name.

A study asks by a checkpoint's name (`family_of_checkpoint`), without making its entry of the catalog; a job by the
architecture in a backbone's manifest (`family_of`).
"""

from __future__ import annotations

from hiddencost import catalog
from hiddencost.messages import describe_unknown_name
from hiddencost.networks.clip.family import Clip
from hiddencost.networks.convolutional import Convolutional
from hiddencost.networks.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Convolutional(title="a convolutional network", pruned_layers="all convolutions", photos="ImageNet photos"),
        Clip(title="a CLIP", pruned_layers="all towers' layers", photos="ImageNet photos, among their classes"),
    )
}


def family_of(architecture: str) -> Family:
    """Return the family of an architecture, by what its name begins with. Raises ValueError where there is none."""
    prefix = architecture[: architecture.find("/") + 1]
    family = next((family for family in FAMILIES.values() if prefix in family.prefixes), None)
    if family is None:
        allowed = [known for family in FAMILIES.values() for known in family.prefixes if known]
        raise ValueError(
            f"architecture {architecture!r}: what it begins with, {describe_unknown_name(prefix, allowed)}"
        )
    return family


def family_of_checkpoint(checkpoint: str) -> Family:
    """Return the family of a checkpoint of the catalog, or of one that a study trains, by its name.

    Raises ValueError where the catalog's entry has an architecture of no family.
    """
    return family_of(catalog.architecture(checkpoint))
