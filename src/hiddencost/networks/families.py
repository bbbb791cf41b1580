"""The families of networks, by name.

A study asks by a checkpoint's name (`family_of_checkpoint`), without making its entry of the catalog; a job by the
architecture in a backbone's manifest (`family_of`), or by the network itself (`family_of_network`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiddencost import catalog
from hiddencost.networks.clip.family import Clip
from hiddencost.networks.convolutional import Convolutional
from hiddencost.networks.family import Family

if TYPE_CHECKING:
    from torch import nn

FAMILIES: dict[str, Family] = {family.name: family for family in (Convolutional(), Clip())}


def family_of(architecture: str) -> Family:
    """Return the family of an architecture: the one whose prefix is the longest that it begins with."""
    fitting = (family for family in FAMILIES.values() if architecture.startswith(family.architectures))
    return max(fitting, key=lambda family: len(family.architectures))


def family_of_network(network: nn.Module) -> Family:
    """Return the family of a network as it was built: the last one in FAMILIES that it can be of."""
    return next(family for family in reversed(FAMILIES.values()) if family.has_network(network))


def family_of_checkpoint(checkpoint: str) -> Family:
    """Return the family of a checkpoint of the catalog, or of one that a study trains, by its name."""
    return family_of(catalog.architecture(checkpoint))
