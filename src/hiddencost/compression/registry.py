"""Compressions and controls: each with all that a study, the tables and the figures ask of it.

A new one is a class (of a compression in `one_shot`, or in a file of its own) and a line in `COMPRESSIONS` or
`CONTROLS`. The Snakefile reads this file, so what needs PyTorch is imported where it is called.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.compression.kinds import PUBLISHED, CompressionKind
from hiddencost.compression.one_shot import (
    NM,
    Calibrated,
    Channel,
    OneShotCompression,
    Quantised,
    Settings,
    Unstructured,
)
from hiddencost.messages import describe_unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

GLOBAL = {"scope": "global"}
COMPRESSIONS: dict[str, OneShotCompression] = {
    "magnitude": Unstructured(
        "magnitude", description="removes the smallest weights", defaults=GLOBAL, method="L1Unstructured"
    ),
    "random": Unstructured(
        "random", "random pruning", description="any weights", defaults=GLOBAL, method="RandomUnstructured"
    ),
    "nm": NM(
        "nm", "N:M", description="all but the n largest of each m in a row", required=("n", "m"), shows_sparsity=False
    ),
    "channel": Channel("channel", description="the filters of smallest norm"),
    "wanda": Calibrated(
        "wanda",
        "Wanda",
        description="of each output's weights those of smallest |weight| x norm of the input, on calibration images",
        method="wanda",
    ),
    "sparsegpt": Calibrated(
        "sparsegpt",
        "SparseGPT",
        description="those that cost a layer's outputs least on calibration images, the others updated in return",
        method="sparsegpt",
    ),
    "quantise": Quantised(
        "quantised", description="none, but rounds all to `bits`", required=("bits",), quantises=True
    ),
}


def kinds() -> dict[str, CompressionKind]:
    """Return all kinds of compression, published or made here, by `kind`."""
    return {entry.kind: entry for entry in (*PUBLISHED.values(), *COMPRESSIONS.values())}


def applied(compression: str) -> list[CompressionKind]:
    """Return what a network was compressed by, in order, of the column `compression` of tables: none of "none", two
    of "acdc+int8". Raises ValueError for a label of no kind."""
    return [entry_of(label) for label in compression.split("+") if label != UNCOMPRESSED]


def last_applied(compression: str) -> CompressionKind:
    """Return what a network was compressed by last, by which figures group it (see `applied`)."""
    return entry_of(compression.split("+")[-1])


def entry_of(label: str) -> CompressionKind:
    """Return the entry of a single compression, by its label. Raises ValueError where there is none."""
    entry = next((kind for kind in kinds().values() if kind.has_label(label)), None)
    if entry is None:
        raise ValueError(f"compression {describe_unknown_name(label, kinds())}")
    return entry


@dataclass(frozen=True)
class Control(ABC):
    """A network that keeps the architecture of a checkpoint, and not what it has learned.

    Attributes:
        title: what figures write.
        description: for the schema of a study.
        keeps_weights: whether it has the values of the checkpoint's weights, and so its sparsity and compression.
        exempt: whether it need not know the images of the gate.
    """

    title: str
    description: str
    keeps_weights: bool
    exempt: bool = True

    def sparsity(self, before: float | None) -> float | None:
        """Return the share of zeros that it states; before: that of the checkpoint, None if unknown."""
        return before if self.keeps_weights else 0.0

    @abstractmethod
    def apply(
        self, network: "nn.Module", masks: dict[str, "Tensor"], architecture: str
    ) -> tuple["nn.Module", dict[str, "Tensor"]]:
        """Return the control of a network, and its masks.

        Args:
            network: of the checkpoint, without gradients; it may be changed in place.
            masks: its masks, bool by key, True where kept.
            architecture: its name, see `networks.build`.
        """


class RandomInit(Control):
    """A network that has never learned."""

    def apply(
        self, network: "nn.Module", masks: dict[str, "Tensor"], architecture: str
    ) -> tuple["nn.Module", dict[str, "Tensor"]]:
        from hiddencost.compression.controls import random_network

        return random_network(architecture), {}


class Shuffled(Control):
    """A network whose weights have lost their places."""

    def apply(
        self, network: "nn.Module", masks: dict[str, "Tensor"], architecture: str
    ) -> tuple["nn.Module", dict[str, "Tensor"]]:
        from hiddencost.compression.controls import shuffle

        return network, shuffle(network, masks)


CONTROLS: dict[str, Control] = {
    "random_init": RandomInit(
        "random init", "the checkpoint's architecture without its weights", keeps_weights=False
    ),
    "shuffled": Shuffled("shuffled", "with its weights permuted within each layer", keeps_weights=True),
}


def sparsity(before: float | None, settings: Settings | None, control: str | None) -> float | None:
    """Return the share of zeros that a network states, None if unknown; before: that of its checkpoint. See `label`
    for settings and control."""
    if control:
        return CONTROLS[control].sparsity(before)
    return COMPRESSIONS[settings["algorithm"]].sparsity(settings, before) if settings else before


def label(before: str, settings: Settings | None, control: str | None) -> str:
    """Return a network's value of the column `compression` of tables: "none", "magnitude-erk", "acdc+int8".

    Args:
        before: that of its checkpoint.
        settings: `algorithm`, of `COMPRESSIONS`, and its settings; None of a network that is not compressed here.
        control: of `CONTROLS`, or None.
    """
    kept = before != UNCOMPRESSED and (control is None or CONTROLS[control].keeps_weights)
    here = [COMPRESSIONS[settings["algorithm"]].label(settings)] if settings else []
    return "+".join(([before] if kept else []) + here) or UNCOMPRESSED
