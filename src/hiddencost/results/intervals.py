"""Intervals by Student's t: of means over seeds, of paired differences, and of sums of estimated variances."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtrit

CONFIDENCE = 0.95
ROUNDING = 1e-9  # shares, or points, that differ by less are the same: a test image is a far larger step
Numbers = TypeVar("Numbers", float, pd.Series)


def t_quantile(freedom: Numbers, confidence: float = CONFIDENCE) -> Numbers:
    """Return how many standard errors a two-sided interval reaches to either side.

    Args:
        freedom: degrees of freedom, above 0.
        confidence: its level, 0 to 1.
    """
    return stdtrit(freedom, (1 + confidence) / 2)


def paired_interval(
    mean: pd.Series, std: pd.Series, count: pd.Series, confidence: float = CONFIDENCE
) -> tuple[pd.Series, pd.Series]:
    """Return the interval of the mean of paired differences, by Student's t.

    It speaks for other seeds, on the same test images. It is empty where there are fewer than 2, and where all are
    the same, as a small test set can make them: what has no spread says nothing of how far other seeds would lie.

    Args:
        mean, std, count: of the differences, a value a cell; std with n - 1.
        confidence: its level, 0 to 1.

    Returns:
        Its lower and its upper ends, NaN where it is empty.
    """
    freedom = (count - 1).where((count > 1) & (std > ROUNDING))
    width = t_quantile(freedom, confidence) * std / np.sqrt(count)
    return mean - width, mean + width


def band_reach(seeds: pd.Series) -> pd.Series:
    """Return how far a figure's band over so many seeds reaches to either side of their mean, in standard deviations
    (n - 1): over three or more the half width of the 95 % interval of the mean; over two to each of them."""
    width = t_quantile(seeds.clip(lower=3) - 1) / np.sqrt(seeds.clip(lower=3))
    return width.where(seeds > 2, np.sqrt(0.5))


def pooled_freedom(parts: Iterable[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of variances (Satterthwaite, Biometrics Bulletin 2, 1946).

    Args:
        parts: each variance, and its own degrees of freedom.
    """
    parts = list(parts)
    return sum(variance for variance, _ in parts) ** 2 / sum(variance**2 / freedom for variance, freedom in parts)
