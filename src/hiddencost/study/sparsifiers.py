"""The algorithms that make a network sparse while it is trained upstream: what a study says of each, by name.

The classes that hold the masks in training are in `upstream.registry`, as they need PyTorch and the Snakefile reads
this module. A new algorithm is such a class and its line there, an entry here, and its settings among the fields of
`study.parts.Sparsify`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, pairwise, takewhile
from typing import Any

from hiddencost.files import canonical, sha256_text

Settings = Mapping[str, Any]  # `algorithm`, `sparsity`, and those of the algorithm


@dataclass(frozen=True, kw_only=True)
class Sparsifier:
    """An algorithm. As it stands it is one training, with any settings, of any length.

    Attributes:
        description: for the schema of a study.
        defaults: its settings beside the sparsity, with what they are where a study does not say.
        pruned: the weights that it prunes, by the name of their group (`Family.sparsity_groups`).
    """

    description: str
    defaults: Mapping[str, Any]
    pruned: str

    def sparsity_over(self, settings: Settings) -> str:
        """Return the name of the group of weights that it prunes, of which the sparsity is declared."""
        return self.pruned

    def check_settings(self, settings: Settings) -> None:
        """Raise ValueError where settings, each of which is allowed, do not go together."""

    def check_steps(self, settings: Settings, steps: int) -> None:
        """Raise ValueError where a training of so many steps is too short for its settings."""

    def trainings(self, settings: Settings) -> list[Settings | None]:
        """Return the settings of all trainings that one stands on, in order, itself the last; None of a dense one."""
        return [settings]

    def rewind_epoch(self, settings: Settings) -> int | None:
        """Return the epoch of the dense training to whose weights it is rewound, None where it is not."""
        return None


class GradualPruning(Sparsifier):
    """Weights go from `begin` to `end`, each `interval` steps."""

    def check_settings(self, settings: Settings) -> None:
        if settings["begin"] >= settings["end"]:
            raise ValueError(f"begin is {settings['begin']}; expected less than end, {settings['end']}")

    def check_steps(self, settings: Settings, steps: int) -> None:
        begin, end = (round(settings[key] * steps) for key in ("begin", "end"))
        if settings["interval"] > end - begin:
            raise ValueError(
                f"gmp: interval is {settings['interval']} steps; expected at most {end - begin}, the steps from "
                f"begin to end of {steps}"
            )


class AlternatingPhases(Sparsifier):
    """Compressed and dense phases alternate, see `sparse_phases`."""

    def check_settings(self, settings: Settings) -> None:
        if settings["warm_up"] + 2 * settings["phase"] + settings["fine_tuning"] > 1 + 1e-9:
            raise ValueError(
                "warm_up, two phases and fine_tuning are more than the whole training; expected at most 1"
            )

    def check_steps(self, settings: Settings, steps: int) -> None:
        sparse_phases(steps, *(settings[key] for key in self.defaults))


class RiggedLottery(Sparsifier):
    """Connections are dropped and grown each `interval` steps, until `end`."""

    def sparsity_over(self, settings: Settings) -> str:
        return f"{self.pruned}_without_stem" if settings["distribution"] == "uniform" else self.pruned

    def check_steps(self, settings: Settings, steps: int) -> None:
        end = round(settings["end"] * steps)
        if settings["interval"] >= end:
            raise ValueError(
                f"rigl: interval is {settings['interval']} steps; expected less than {end}, where the last "
                f"change of {steps} steps may be"
            )


class LotteryTicket(Sparsifier):
    """Rounds of trainings: each draws a ticket from the network of the round before, the first from the dense one."""

    def trainings(self, settings: Settings) -> list[Settings | None]:
        levels = lottery_levels(settings["sparsity"], settings["share"])
        return [None, *({**settings, "sparsity": level} for level in levels)]

    def rewind_epoch(self, settings: Settings) -> int | None:
        return settings["rewind_epoch"]


# sources of the defaults: see the classes that are named
SPARSIFIERS: dict[str, Sparsifier] = {
    "gmp": GradualPruning(
        description="gradual magnitude pruning",
        defaults={"begin": 0.2, "end": 0.75, "interval": 100},
        pruned="convolutions_without_stem",
    ),
    "acdc": AlternatingPhases(
        description="alternating compressed and decompressed training",
        defaults={"warm_up": 0.1, "phase": 0.05, "fine_tuning": 0.15},
        pruned="convolutions_and_classifier",
    ),
    "rigl": RiggedLottery(
        description="sparse from the start, small weights dropped and grown by gradient",
        defaults={"distribution": "erk", "drop": 0.3, "end": 0.75, "interval": 100},
        pruned="convolutions_and_classifier",
    ),
    "lth": LotteryTicket(
        description="lottery tickets, by iterative magnitude pruning with rewinding, a training a round",
        defaults={"share": 0.2, "rewind_epoch": 1},
        pruned="convolutions_without_stem",
    ),
}


def with_defaults(sparsify: Settings) -> dict[str, Any]:
    """Return the settings of a sparsifier with what a study does not say (or None)."""
    given = {key: value for key, value in sparsify.items() if value is not None}
    return {**SPARSIFIERS[given["algorithm"]].defaults, **given}


def folder_name(sparsify: Settings | None) -> str:
    """Return what the folder of a sparsifier is called: its algorithm, with a hash of settings that are not the
    defaults; "dense" where there is none."""
    if sparsify is None:
        return "dense"
    settings = with_defaults(sparsify)
    algorithm = settings["algorithm"]
    defaults = SPARSIFIERS[algorithm].defaults
    changed = {key: settings[key] for key, value in defaults.items() if settings[key] != value}
    return f"{algorithm}-{sha256_text(canonical(changed))[:8]}" if changed else algorithm


def lottery_levels(sparsity: float, share: float) -> list[float]:
    """Return the sparsity after each round of iterative pruning: 1 - (1 - share)^r, until `sparsity`, which ends it.

    Each round prunes the same share of what is left (Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019,
    section 2); the last one less, so that the declared sparsity is met. The levels before one are its own levels.
    """
    levels = (rounded_sparsity(1 - (1 - share) ** number) for number in count(1))
    last = rounded_sparsity(sparsity)
    return [*takewhile(lambda level: level < last, levels), last]


def rounded_sparsity(sparsity: float) -> float:
    """Return a sparsity to the digits that its folder has: a ten-thousandth of a per cent."""
    return round(sparsity, 6)


def sparse_phases(steps: int, warm_up: float, phase: float, fine_tuning: float) -> list[tuple[int, int]]:
    """Return AC/DC's compressed phases, as steps after which each begins and ends.

    After a dense warm-up, compressed and dense phases of one length alternate, as many pairs as fit; what is left
    before the final, compressed fine-tuning is dense, too. The defaults (`SPARSIFIERS`) are the published schedule of
    ResNet-50: of 100 epochs, compressed are 10 to 15, 20 to 25, ..., 70 to 75 and 85 to 100 (Peste et al., AC/DC,
    NeurIPS 2021, section 5; github.com/IST-DASLab/ACDC, configs/neurips/iht_imagenet_resnet50_insta_cosinelr_*.yaml).

    Args:
        steps: of the whole training.
        warm_up, phase, fine_tuning: shares of it.

    Raises:
        ValueError: where the training is too short for them.
    """
    pairs = math.floor(round((1 - fine_tuning - warm_up) / (2 * phase), 6))
    starts = [warm_up + 2 * phase * number for number in range(pairs)]
    phases = [(round(start * steps), round((start + phase) * steps)) for start in starts]
    phases.append((round((1 - fine_tuning) * steps), steps))
    bounds = [step for each in phases for step in each]
    if bounds[0] < 1 or any(later <= before for before, later in pairwise(bounds)):
        raise ValueError(
            f"acdc: {steps} steps are too few for {len(phases)} compressed phases, dense ones between them"
        )
    return phases
