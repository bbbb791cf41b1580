"""What the project knows of a metric: how it is computed, shown and compared. The metrics are in metrics.py."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A number that tables, figures and report show of a run.

    Raises TypeError for a `compute` that is no plain function, such as a functools.partial.

    Attributes:
        label: what it is called in figures and report.
        title: what printed tables call it, where it is not by its label.
        compute: its value, of the `metrics.Predictions` over a test set; None where they are too few for one.
        percent: whether it is a share of 1 that is shown in %.
        unit: of what is shown, of a difference too.
        higher_is_better: whether more of it is better.
        paired: whether tables hold its difference from the dense network, paired by seed: a cost of compression.
        by_batch: whether it depends on how many images a batch of the test has.
        as_published: the name of what the paper's code computes in its place, of another scale: verdicts compare its
            sign alone.
    """

    label: str
    compute: Callable[[Any], float | None]
    percent: bool = False
    unit: str = ""
    higher_is_better: bool = False
    paired: bool = False
    by_batch: bool = False
    title: str = ""
    as_published: str = ""

    def __post_init__(self) -> None:
        if not inspect.isfunction(self.compute):
            raise TypeError(f"metric {self.label}: {self.compute!r} is no function, whose code could be in a digest")

    @property
    def factor(self) -> int:
        """What a value is multiplied by to be shown."""
        return 100 if self.percent else 1
