"""Intervals by Student's t: of paired differences over seeds, and of means over seeds crossed with other samples."""

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtrit

CONFIDENCE = 0.95
ROUNDING = 1e-9  # shares, or points, that differ by less are the same: a test image is a far larger step
# what the skewness of few values is multiplied by, as it understates theirs (bench/coverage.py); 1 of three
SKEW = 1.5
CROSSED_SKEW = 2.0  # the same of crossed samples, whose variance is less by what both count (bench/coverage.py)
PASSES = 200  # of an additive fit; it ends with the first that moves nothing
Numbers = TypeVar("Numbers", float, pd.Series, np.ndarray)


def t_quantile(freedom: Numbers, confidence: float = CONFIDENCE) -> Numbers:
    """Return how many standard errors a two-sided interval reaches to either side.

    Args:
        freedom: degrees of freedom, above 0.
        confidence: its level, 0 to 1.
    """
    return stdtrit(freedom, (1 + confidence) / 2)


def moved_out(quantile: Numbers, skewness: Numbers) -> Numbers:
    """Return how many standard errors an interval reaches to one side, moved out where a tail lies there.

    The term is that of the Cornish-Fisher expansion of the t statistic (Johnson, Journal of the American Statistical
    Association 73, 1978; Hall, The Bootstrap and Edgeworth Expansion, 1992, section 2.6). It is never moved in.

    Args:
        quantile: of Student's t, how far it reaches without.
        skewness: of the estimate of the mean, signed so that above 0 the tail is on this side.
    """
    return quantile + np.maximum(skewness, 0) / 6 * (1 + 2 * quantile**2)


def moved_back(reach: Numbers, skewness: Numbers) -> Numbers:
    """Return the quantile of which `moved_out` is `reach`: by it a test decides as the interval does."""
    sixth = np.maximum(skewness, 0) / 6
    return 2 * (reach - sixth) / (1 + np.sqrt(1 + 8 * sixth * np.maximum(reach - sixth, 0)))


def skewness_of_mean(skew: Any, count: Any) -> Any:
    """Return the skewness of the mean of few values: theirs (k3 / s^3), made larger (see `SKEW`); 0 of one or two."""
    return np.where(count > 2, np.minimum(SKEW, (count - 1) / 2) * skew / np.sqrt(count), 0.0)


def paired_interval(
    mean: pd.Series, std: pd.Series, count: pd.Series, skew: pd.Series | float = 0.0
) -> tuple[pd.Series, pd.Series]:
    """Return the 95 % interval of the mean of paired differences, by Student's t, moved out where they are skewed.

    It speaks for other seeds, on the same test images. It is empty where there are fewer than 2, and where all are
    the same, as a small test set can make them: what has no spread says nothing of how far other seeds would lie.

    Args:
        mean, std, count: of the differences, a value a cell; std with n - 1.
        skew: their skewness, as pandas gives it; 0 for the t interval as it is.

    Returns:
        Its lower and its upper ends, NaN where it is empty.
    """
    quantile, skewness = t_quantile((count - 1).where((count > 1) & (std > ROUNDING))), skewness_of_mean(skew, count)
    error = std / np.sqrt(count)
    return mean - moved_out(quantile, -skewness) * error, mean + moved_out(quantile, skewness) * error


def band_reach(seeds: pd.Series) -> pd.Series:
    """Return how far a figure's band over so many seeds reaches to either side of their mean, in standard deviations
    (n - 1): over three or more the half width of the 95 % interval of the mean; over two to each of them."""
    width = t_quantile(seeds.clip(lower=3) - 1) / np.sqrt(seeds.clip(lower=3))
    return width.where(seeds > 2, np.sqrt(0.5))


def pooled_freedom(parts: Iterable[tuple[Any, int]]) -> Any:
    """Return the degrees of freedom of a sum of variances (Satterthwaite, Biometrics Bulletin 2, 1946).

    Args:
        parts: each variance, or an array of each, and its own degrees of freedom.
    """
    parts = list(parts)
    squares = sum(variance**2 / freedom for variance, freedom in parts)
    return sum(variance for variance, _ in parts) ** 2 / squares


def crossed_interval(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of the mean of each table whose axes are samples, crossed with one another.

    A value is the sum of a constant, of what each value of an axis adds (a dataset; a seed, which may move all
    datasets alike), and of a rest. The variance of the mean is the sum, over the axes, of the variance of the means
    along each. This counts the rest once for each axis, so it is taken off again but for once, as Cameron, Gelbach
    and Miller do (Journal of Business & Economic Statistics 29, 2011); no less is left than along one axis. Its
    degrees of freedom are Satterthwaite's of the sum, or, where all that is counted again could be taken off, of what
    is left, but no fewer than the shortest axis has. Of one axis it is the t interval, before the correction below.

    Of skewed effects a t interval fails on the side of the longer tail: there it is moved out (`moved_out`), of
    crossed samples further (`CROSSED_SKEW`). An axis of two values tells no skewness: then nothing is taken off, and
    it is moved as of one sample. How often it covers: bench/results/coverage.md.

    Args:
        tables: [tables, ...], a table of any number of axes, each of two values at least; nothing is missing.

    Returns:
        Their lower and their upper ends, NaN of a table whose values are all the same.
    """
    axes, numbers = tuple(range(1, tables.ndim)), tables.shape[1:]
    told = len(axes) > 1 and min(numbers) > 2
    mean = tables.mean(axes, keepdims=True)
    parts, third, rest = [], 0.0, tables - mean
    for axis, number in zip(axes, numbers, strict=True):
        from_mean = tables.mean(tuple(other for other in axes if other != axis), keepdims=True) - mean
        rest = rest - from_mean
        parts.append(((from_mean**2).sum(axes) / (number - 1) / number, number - 1))
        if number > 2:  # two values have no skewness; this is k3, unbiased as the variance is, of their mean
            cubes = (from_mean**3).sum(axes) / ((number - 1) * (number - 2) * number)
            third += (CROSSED_SKEW if told else min(SKEW, (number - 1) / 2)) * cubes
    variance = sum(part for part, _ in parts)
    variance = np.where(np.sqrt(variance) > ROUNDING, variance, np.nan)
    freedom = pooled_freedom((part + 0 * variance, freedom) for part, freedom in parts)
    if told:
        values = rest[0].size
        again = (len(axes) - 1) * (rest**2).sum(axes) / (values - 1 - sum(freedom for _, freedom in parts)) / values
        least, left = np.max([part for part, _ in parts], axis=0), variance - again
        of_left = np.maximum(freedom * (left / variance) ** 2, min(numbers) - 1)
        variance, freedom = np.maximum(left, least), np.where(left > least, of_left, freedom)
    quantile = t_quantile(freedom)
    error, skewness, mean = np.sqrt(variance), third / variance**1.5, mean.reshape(len(tables))
    return mean - moved_out(quantile, -skewness) * error, mean + moved_out(quantile, skewness) * error


def filled(table: np.ndarray) -> np.ndarray:
    """Return a table with what is missing (NaN) as the additive fit to the rest gives it (Yates, Empire Journal of
    Experimental Agriculture 1, 1933); a value of an axis of which nothing is known stays missing."""
    known = ~np.isnan(table)
    if known.all():
        return table
    fit, counts = np.zeros(table.shape), []
    for axis in range(table.ndim):
        others = tuple(other for other in range(table.ndim) if other != axis)
        counts.append((others, known.sum(others, keepdims=True)))
    for _ in range(PASSES):
        moved = 0.0
        for others, count in counts:
            effect = np.where(known, table - fit, 0).sum(others, keepdims=True) / np.maximum(count, 1)
            fit, moved = fit + effect, max(moved, abs(effect).max())
        if moved < ROUNDING:
            break
    for _, count in counts:
        fit = np.where(count > 0, fit, np.nan)
    return np.where(known, table, fit)
