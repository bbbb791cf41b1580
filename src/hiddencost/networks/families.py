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
from hiddencost.networks.transformer import Transformer

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Convolutional(title="a convolutional network", pruned_layers="all convolutions", photos="ImageNet photos"),
        Transformer(
            title="a vision transformer, or a ConvNeXt",
            pruned_layers="all linear layers of its blocks",
            photos="ImageNet photos",
        ),
        Clip(title="a CLIP", pruned_layers="all towers' layers", photos="ImageNet photos, among their classes"),
    )
}


def family_of(architecture: str) -> Family:
    """Return the family of an architecture, by what its name begins with, of several the longest. Raises ValueError
    where there is none."""
    prefix = architecture[: architecture.find("/") + 1]
    prefixes = {known: family for family in FAMILIES.values() for known in family.prefixes}
    longest = max((known for known in prefixes if architecture.startswith(known)), key=len, default=prefix)
    family = prefixes.get(longest) if longest or not prefix else None
    if family is None:
        allowed = [known for known in prefixes if known.endswith("/")]
        raise ValueError(
            f"architecture {architecture!r}: what it begins with, {describe_unknown_name(prefix, allowed)}"
        )
    return family


def family_of_checkpoint(checkpoint: str) -> Family:
    """Return the family of a checkpoint of the catalog, or of one that a study trains, by its name.

    Raises ValueError where the catalog's entry has an architecture of no family.
    """
    return family_of(catalog.architecture(checkpoint))
