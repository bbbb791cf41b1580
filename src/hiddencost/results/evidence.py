"""Evidence: in which cells a claim surely holds, or surely does not, and the verdicts that follow from it."""

import numpy as np
import pandas as pd
from scipy.special import stdtr

from hiddencost.results.claims import Claim
from hiddencost.results.intervals import CONFIDENCE, ROUNDING, moved_back, skewness_of_mean

RISK = (1 - CONFIDENCE) / 2  # as of either side of an interval


def judge_cells(claim: Claim, cells: pd.DataFrame, of_mean: str) -> tuple[str, str]:
    """Return what cells say of a claim, and how many say it.

    A cell is tested by Student's t over its seeds against each bound that a claim has, one-sided at 2.5 %, and moved
    back where they are skewed (see `p_values`): of a single cell all verdicts are that of the mean. It proves nothing
    with one seed, nor with seeds that are the same. `surely`, of one cell among k, is by Holm's procedure (1979): the
    chance of one false among all is at most 2.5 %. So is that of each verdict, or at most 5 % where two bounds can
    err: how often verdicts are false, bench/results/coverage.md has.

    - every. Supported: each cell is otherwise at no more than 2.5 % (the intersection-union test: Berger, 1982), so
      its interval's end lies where the claim holds. Contradicted: a cell is surely otherwise. Not refuted: neither,
      but the mean's interval and each cell's mean lie where the claim holds; this is no evidence for each of them.
    - some. Supported: in a cell it surely holds. Contradicted: each cell is otherwise (intersection-union).
    - most. Supported: more than half hold; contradicted: half or more are otherwise; both by Simes' test of a partial
      conjunction (Benjamini and Heller, 2008), for cells that are independent or go together.
    - order: none. Supported: a cell is surely above 0, and another surely below. Contradicted: most are of one sign,
      as above, and none is surely of the other.

    Args:
        claim: what is claimed.
        cells: a row a cell: `mean`, `std` (n - 1), `count` and `skew` of its differences over seeds, in points, as
            pandas gives them.
        of_mean: the verdict on the mean over all cells, which decides a claim of the mean.

    Returns:
        The verdict, and for a note, how many cells are otherwise.
    """
    below, above = claim.bounds
    mean, number = cells["mean"], len(cells)
    (over_lower, under_lower), (over_upper, under_upper) = (p_values(cells, bound) for bound in claim.bounds)
    holds = np.maximum(over_lower, under_upper)
    otherwise = np.minimum(under_lower, over_upper)  # where two bounds are close, both tests err
    surely_holds, surely_not = holm(holds), holm(otherwise)
    if claim.order:
        above_0, below_0 = (mean > ROUNDING).sum(), (mean < -ROUNDING).sum()
        note = f"above 0 {_counted(above_0, number, surely_holds)}; below 0 {_counted(below_0, number, surely_not)}"
        return _of_order(holds, otherwise), note
    misses = ((mean <= below + ROUNDING) | (above - ROUNDING <= mean)).sum()
    note = f"otherwise {_counted(misses, number, surely_not)}"
    if claim.of in ("some", "most"):
        note = f"holds {_counted(number - misses, number, surely_holds)}; {note}"
    match claim.of:
        case "every":
            verdict = _of_tests(max(holds) <= RISK, surely_not > 0)
            if verdict == "undecided" and not misses and of_mean == "supported":
                verdict = "not refuted"
        case "some":
            verdict = _of_tests(surely_holds > 0, max(otherwise) <= RISK)
        case "most":
            half = number // 2
            verdict = _of_tests(
                p_of_at_least(half + 1, holds) <= RISK, p_of_at_least(number - half, otherwise) <= RISK
            )
        case _:
            verdict = of_mean
    return verdict, note


def _counted(cells: int, of: int, surely: int) -> str:
    found = f"in {cells or 'none'} of {of} cell{'s' if of > 1 else ''}"
    return f"{found}, surely in {surely or 'none'}" if cells else found


def _of_order(above: np.ndarray, below: np.ndarray) -> str:
    most = len(above) // 2 + 1
    surely_above, surely_below = holm(above) > 0, holm(below) > 0
    one_sign = (p_of_at_least(most, above) <= RISK and not surely_below) or (
        p_of_at_least(most, below) <= RISK and not surely_above
    )
    return _of_tests(surely_above and surely_below, one_sign)


def _of_tests(supported: bool, contradicted: bool) -> str:
    return "supported" if supported else "contradicted" if contradicted else "undecided"


def p_values(cells: pd.DataFrame, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of each cell's mean being above a bound, and below it, by Student's t.

    They are moved back by the skewness of the cell's seeds or, where it is more to that side, by that of all cells
    together: few seeds do not show theirs. So a p-value is below 2.5 % only where the cell's 95 % interval (see
    `intervals.paired_interval`) lies above the bound, or below it, and of a single cell just there. Both are 1 where
    nothing spreads. Of a bound that is none, infinite, they are 0 and 1.
    """
    if np.isinf(bound):
        above = np.full(len(cells), float(bound > 0))
        return above, 1 - above
    mean, std, count, skew = (cells[name].to_numpy(float) for name in ("mean", "std", "count", "skew"))
    spread = (count > 1) & (std > ROUNDING)
    error = np.where(spread, std, 1) / np.sqrt(np.maximum(count, 1))
    told = spread & (count > 2)
    skewness = skewness_of_mean(
        [np.where(told, skew, 0), np.full(len(skew), _skewness_of_all(skew[told], std[told]))], count
    )
    above, below = (
        stdtr(np.maximum(count - 1, 1), -moved_back(side * (mean - bound) / error, (-side * skewness).max(0)))
        for side in (1, -1)
    )
    return np.where(spread, above, 1.0), np.where(spread, below, 1.0)


def _skewness_of_all(skew: np.ndarray, std: np.ndarray) -> float:
    """Return the skewness of all cells together: the mean of theirs, each weighted by the cube of its standard
    deviation, of which no more than twice the median counts, so that one cell does not decide for all."""
    return np.average(skew, weights=np.minimum(std, 2 * np.median(std)) ** 3) if len(std) else 0.0


def holm(p_values: np.ndarray) -> int:
    """Return how many hypotheses Holm's procedure rejects (Scandinavian Journal of Statistics 6, 1979), with a chance
    of at most 2.5 % of any false one, however they depend on one another."""
    rejected = np.sort(p_values) * np.arange(len(p_values), 0, -1) <= RISK
    return len(p_values) if rejected.all() else int(rejected.argmin())


def p_of_at_least(number: int, p_values: np.ndarray) -> float:
    """Return the p-value of at least so many of k hypotheses being false.

    Simes' form of the partial conjunction test (Benjamini and Heller, Biometrics 64, 2008), which holds for
    independent p-values and for those that go together (Sarkar, Annals of Statistics 26, 1998). Of all it is the
    largest p-value: then the intersection-union test.
    """
    ordered = np.sort(p_values)[number - 1 :]
    return float((len(ordered) / np.arange(1, len(ordered) + 1) * ordered).min())
