"""Compressions and controls: each with all that a study, the tables and the figures ask of it.

A new one is a class here (or in a file of its own) and a line in `COMPRESSIONS` or `CONTROLS`. The Snakefile reads
this file, so what needs PyTorch is imported where it is called.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.compression.kinds import PUBLISHED, CompressionKind
from hiddencost.messages import describe_unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiddencost.networks.family import Family
    from hiddencost.networks.layers import Weight

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OneShotCompression(CompressionKind, ABC):
    """A compression that this workflow makes, without retraining. A subclass that says no more prunes to a sparsity.

    Attributes:
        description: for the schema of a study.
        required: the settings that a study must give, of the fields of `study.parts.Compression`.
        defaults: the settings that it need not give.
    """

    description: str
    required: tuple[str, ...] = ("sparsity",)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of all settings."""
        return (*self.required, *self.defaults)

    def complete(self, settings: Settings) -> dict[str, Any]:
        """Return settings without those that are None, and with the defaults of what they leave out."""
        return {**self.defaults, **{key: value for key, value in settings.items() if value is not None}}

    def check_settings(self, settings: Settings) -> None:
        """Raise ValueError where settings, each of which is allowed, do not go together."""

    def label(self, settings: Settings) -> str:
        """Return what tables call it: "magnitude", "magnitude-erk", "2:4", "channel", "int8"."""
        return self.kind

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        """Return the share of zeros that settings state; before: that of the network to compress, None if unknown."""
        return settings["sparsity"]

    def pruned_weights(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        """Return the weights that it prunes, by key: they must have masks. None, where it quantises."""
        return family.prunable_weights(network)

    @abstractmethod
    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        """Compress a network. Zeros stay zeros.

        Args:
            network: without gradients; changed in place.
            family: the network's.
            settings: as `complete` returns them, with `algorithm`.

        Returns:
            The masks of the weights that it has pruned: bool by key, True where kept.

        Raises:
            ValueError: the network cannot be compressed so.
        """

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        """Return a line for each layer of a network that does not keep to the settings; see `apply` for these."""
        return []


@dataclass(frozen=True, kw_only=True)
class Unstructured(OneShotCompression):
    """Single weights, wherever they are: of all layers together, of each, or by layer size (`scope`).

    Attributes:
        method: which weights: a class of torch.nn.utils.prune, by its name.
    """

    method: str

    def label(self, settings: Settings) -> str:
        scope = settings.get("scope") or self.defaults["scope"]
        return self.kind if scope == self.defaults["scope"] else f"{self.kind}-{scope}"

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        every = self.pruned_weights(network, family, settings)
        return prune.prune_unstructured(every, self.method, settings["sparsity"], settings["scope"])

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        every = self.pruned_weights(network, family, settings)
        return prune.unstructured_violations(every, settings["sparsity"], settings["scope"], family.pruned_layers)


class NM(OneShotCompression):
    """N of each M neighbours among the inputs are kept."""

    def check_settings(self, settings: Settings) -> None:
        if settings["n"] >= settings["m"]:
            raise ValueError(f"n is {settings['n']}; expected less than m, {settings['m']}")

    def label(self, settings: Settings) -> str:
        return f"{settings['n']}:{settings['m']}"

    def has_label(self, label: str) -> bool:
        return bool(re.fullmatch(r"\d+:\d+", label))

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        return 1 - settings["n"] / settings["m"]

    def pruned_weights(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        """Return the weights whose inputs are whole groups of `m`."""
        every = super().pruned_weights(network, family, settings)
        return {key: weight for key, weight in every.items() if weight.tensor.shape[1] % settings["m"] == 0}

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        return prune.prune_nm(self.pruned_weights(network, family, settings), settings["n"], settings["m"])

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        return prune.nm_violations(self.pruned_weights(network, family, settings), settings["n"], settings["m"])


class Channel(OneShotCompression):
    """The filters of smallest norm."""

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        return prune.prune_channels(self.pruned_weights(network, family, settings), settings["sparsity"])

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        return prune.channel_violations(self.pruned_weights(network, family, settings), settings["sparsity"])


class Quantised(OneShotCompression):
    """No weight is removed, all are rounded."""

    def label(self, settings: Settings) -> str:
        return f"int{settings['bits']}"

    def has_label(self, label: str) -> bool:
        return bool(re.fullmatch(r"int\d", label))

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        return before

    def pruned_weights(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        return {}

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression.quantise import quantise

        quantise(network, settings["bits"])
        return {}

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression.quantise import quantisation_violations

        return quantisation_violations(network, settings["bits"])


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
