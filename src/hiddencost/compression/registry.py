"""Compressions and controls: each with all that a study, the tables and the figures ask of it.

A new one is a class here (or in a file of its own) and a line in `COMPRESSIONS` or `CONTROLS`. The Snakefile reads
this file, so what needs PyTorch is imported where it is called.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hiddencost.messages import describe_unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiddencost.networks.family import Family
    from hiddencost.networks.layers import Weight

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of compression, as tables and figures know it."""

    kind: str  # one name for all its settings: what figures are grouped by
    heading: str | None = None  # what figures write, where it is not what tables do
    quantises: bool = field(default=False, kw_only=True)  # rounds weights; the others set weights to zero
    shows_sparsity: bool = field(default=True, kw_only=True)  # figures write the sparsity beside it

    @property
    def title(self) -> str:
        """What figures write for all of the kind together."""
        return self.heading or self.kind

    def in_figures(self, label: str) -> str:
        """Return what figures write for one that tables call by this label."""
        return self.heading or label

    def has_label(self, label: str) -> bool:
        """Return whether a label, as tables write it, is of this kind."""
        return label.split("-")[0] == self.kind


@dataclass(frozen=True, kw_only=True)
class OneShotCompression(Kind, ABC):
    """A compression made here: one-shot, without retraining. As it stands it prunes to a `sparsity`."""

    description: str  # for the schema of a study
    required: tuple[str, ...] = ("sparsity",)  # of the settings, fields of `study.parts.Compression`
    defaults: Mapping[str, Any] = field(default_factory=dict)  # the settings that need not be given

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

    def reached(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        """Return the weights, by key, that it prunes, and that must have masks: none, where it quantises."""
        return family.prunable_weights(network)

    @abstractmethod
    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        """Compress a network in place; settings: complete. Zeros stay zeros.

        Returns the masks of the weights that it has pruned: bool by key, True where kept. Raises ValueError where the
        network cannot be compressed so.
        """

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        """Return a line for each layer of a network that does not keep to the settings."""
        return []


class Unstructured(OneShotCompression):
    """Single weights, wherever they are: of all layers together, of each, or by layer size (`scope`)."""

    def label(self, settings: Settings) -> str:
        scope = settings.get("scope") or self.defaults["scope"]
        return self.kind if scope == self.defaults["scope"] else f"{self.kind}-{scope}"

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        return prune.prune_unstructured(
            self.reached(network, family, settings), settings["algorithm"], settings["sparsity"], settings["scope"]
        )

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        every = self.reached(network, family, settings)
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

    def reached(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        """Return the weights whose inputs are whole groups of `m`."""
        every = super().reached(network, family, settings)
        return {key: weight for key, weight in every.items() if weight.tensor.shape[1] % settings["m"] == 0}

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        return prune.prune_nm(self.reached(network, family, settings), settings["n"], settings["m"])

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        return prune.nm_violations(self.reached(network, family, settings), settings["n"], settings["m"])


class Channel(OneShotCompression):
    """The filters of smallest norm."""

    def apply(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Tensor"]:
        from hiddencost.compression import prune

        return prune.prune_channels(self.reached(network, family, settings), settings["sparsity"])

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import prune

        return prune.channel_violations(self.reached(network, family, settings), settings["sparsity"])


class Quantised(OneShotCompression):
    """No weight is removed, all are rounded."""

    def label(self, settings: Settings) -> str:
        return f"int{settings['bits']}"

    def has_label(self, label: str) -> bool:
        return bool(re.fullmatch(r"int\d", label))

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        return before

    def reached(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
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
    "magnitude": Unstructured("magnitude", description="removes the smallest weights", defaults=GLOBAL),
    "random": Unstructured("random", "random pruning", description="any weights", defaults=GLOBAL),
    "nm": NM(
        "nm",
        "N:M",
        description="all but the n largest of each m in a row",
        required=("n", "m"),
        shows_sparsity=False,
    ),
    "channel": Channel("channel", description="the filters of smallest norm"),
    "quantise": Quantised(
        "quantised", description="none, but rounds all to `bits`", required=("bits",), quantises=True
    ),
}

# published networks, and those that a study trains itself
PUBLISHED: dict[str, Kind] = {
    "acdc": Kind("acdc", "AC/DC"),
    "rigl": Kind("rigl", "RigL"),
    "gmp": Kind("gmp", "GMP"),
    "lth": Kind("lth", "LT"),
    "upop": Kind("upop", "UPop"),
}


def kinds() -> dict[str, Kind]:
    """Return all kinds of compression, published or made here, by `kind`."""
    return {entry.kind: entry for entry in (*PUBLISHED.values(), *COMPRESSIONS.values())}


def applied(compression: str) -> list[Kind]:
    """Return what a network was compressed by, in order, of the column `compression` of tables: none of "none", two
    of "acdc+int8". Raises ValueError for a label of no kind."""
    return [entry_of(label) for label in compression.split("+") if label != "none"]


def last_applied(compression: str) -> Kind:
    """Return what a network was compressed by last, by which figures group it (see `applied`)."""
    return entry_of(compression.split("+")[-1])


def entry_of(label: str) -> Kind:
    """Return the entry of a single compression, by its label. Raises ValueError where there is none."""
    found = next((kind for kind in kinds().values() if kind.has_label(label)), None)
    if found is None:
        raise ValueError(f"compression {describe_unknown_name(label, kinds())}")
    return found


@dataclass(frozen=True)
class Control(ABC):
    """A network that keeps the architecture of a checkpoint, and not what it has learned."""

    title: str  # what figures write
    description: str  # for the schema of a study
    keeps_weights: bool  # those of the checkpoint, and so its sparsity, its masks and its compression
    exempt: bool = True  # it need not know the photos of the gate

    def sparsity(self, before: float | None) -> float | None:
        """Return the share of zeros that it states; before: that of the checkpoint, None if unknown."""
        return before if self.keeps_weights else 0.0

    @abstractmethod
    def apply(
        self, network: "nn.Module", masks: dict[str, "Tensor"], architecture: str
    ) -> tuple["nn.Module", dict[str, "Tensor"]]:
        """Return the control of a network, changed in place or not, and its masks (bool by key, True where kept)."""


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
    kept = before != "none" and (control is None or CONTROLS[control].keeps_weights)
    labels = [before] if kept else []
    labels += [COMPRESSIONS[settings["algorithm"]].label(settings)] if settings else []
    return "+".join(labels) or "none"
