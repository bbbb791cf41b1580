"""Compressions made here, in one shot: their settings, what a study states of them, how they are applied and checked.

The Snakefile reads this file, so what needs PyTorch is imported where it is called.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hiddencost.compression.kinds import CompressionKind

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
        calibrated: whether it looks at images: `apply` has them as `images`, of the settings' `calibration`.
    """

    description: str
    required: tuple[str, ...] = ("sparsity",)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    calibrated: ClassVar[bool] = False

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


def check_groups(settings: Settings) -> None:
    """Raise ValueError where `n` of each `m` weights are all of them."""
    if settings["n"] >= settings["m"]:
        raise ValueError(f"n is {settings['n']}; expected less than m, {settings['m']}")


def in_groups(weights: dict[str, "Weight"], m: int) -> dict[str, "Weight"]:
    """Return the weights, of some by key, whose inputs are whole groups of m."""
    return {key: weight for key, weight in weights.items() if weight.tensor.shape[1] % m == 0}


class NM(OneShotCompression):
    """N of each M neighbours among the inputs are kept."""

    def check_settings(self, settings: Settings) -> None:
        check_groups(settings)

    def label(self, settings: Settings) -> str:
        return f"{settings['n']}:{settings['m']}"

    def has_label(self, label: str) -> bool:
        return bool(re.fullmatch(r"\d+:\d+", label))

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        return 1 - settings["n"] / settings["m"]

    def pruned_weights(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        return in_groups(super().pruned_weights(network, family, settings), settings["m"])

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


@dataclass(frozen=True, kw_only=True)
class Calibrated(OneShotCompression):
    """Single weights or n:m, by what the layers are given on calibration images: see `calibrated`.

    Attributes:
        method: which weights: a name of `compression.calibrated.METHODS`.
    """

    method: str
    required: tuple[str, ...] = ("calibration",)
    defaults: Mapping[str, Any] = field(
        default_factory=lambda: {"sparsity": None, "n": None, "m": None, "samples": 128, "seed": 0}
    )
    calibrated: ClassVar[bool] = True

    def check_settings(self, settings: Settings) -> None:
        if {"sparsity", "n", "m"} & settings.keys() not in ({"sparsity"}, {"n", "m"}):
            raise ValueError(f"{self.kind} needs either sparsity, or n and m")
        if "n" in settings:
            check_groups(settings)

    def label(self, settings: Settings) -> str:
        return f"{self.kind}-{settings['n']}:{settings['m']}" if settings.get("n") else self.kind

    def in_figures(self, label: str) -> str:
        return label.replace(self.kind, self.title).replace("-", " ")

    def sparsity(self, settings: Settings, before: float | None) -> float | None:
        return 1 - settings["n"] / settings["m"] if settings.get("n") else settings["sparsity"]

    def pruned_weights(self, network: "nn.Module", family: "Family", settings: Settings) -> dict[str, "Weight"]:
        every = super().pruned_weights(network, family, settings)
        return in_groups(every, settings["m"]) if settings.get("n") else every

    def apply(
        self, network: "nn.Module", family: "Family", settings: Settings, images: "Tensor | None" = None
    ) -> dict[str, "Tensor"]:
        """See `OneShotCompression`; images: to calibrate on, normalised [N, 3, S, S]."""
        from hiddencost.compression import calibrated

        assert images is not None, "it is calibrated"
        every = self.pruned_weights(network, family, settings)
        return calibrated.prune_in_order(family.image_encoder(network), every, images, self.method, settings)

    def check(self, network: "nn.Module", family: "Family", settings: Settings) -> list[str]:
        from hiddencost.compression import calibrated, prune

        every = self.pruned_weights(network, family, settings)
        if settings.get("n"):
            return prune.nm_violations(every, settings["n"], settings["m"])
        return calibrated.violations(every, self.method, settings["sparsity"])
