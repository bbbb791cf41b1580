"""Intervals, held against SciPy's tests and against draws whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hiddencost.results.intervals import band_reach, paired_interval, pooled_freedom, t_quantile


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_interval_of_paired_differences_is_that_of_the_paired_t_test(confidence):
    differences = [0.11, 0.03, 0.14, 0.02]
    mean, std, count = (pd.Series([value]) for value in (np.mean(differences), np.std(differences, ddof=1), 4))
    ends = [end.item() for end in paired_interval(mean, std, count, confidence)]
    assert ends == pytest.approx(list(stats.ttest_1samp(differences, 0).confidence_interval(confidence)))


def test_there_is_no_interval_of_one_difference_nor_of_equal_ones():
    low, high = paired_interval(pd.Series([0.1, 0.1, 0.1]), pd.Series([np.nan, 0.0, 1e-12]), pd.Series([1, 3, 3]))
    assert low.isna().all()
    assert high.isna().all()


def test_a_band_is_the_interval_of_the_mean_and_of_two_seeds_their_span():
    values = np.array([0.2, 0.5, 0.9])
    half = values.std(ddof=1) * band_reach(pd.Series([3])).item()
    interval = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert [values.mean() - half, values.mean() + half] == pytest.approx(list(interval))
    two = values[:2]
    assert two.std(ddof=1) * band_reach(pd.Series([2])).item() == pytest.approx(np.ptp(two) / 2)


def test_degrees_of_freedom_pool_as_in_welchs_test():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.5, 3.0, 3.5, 9.0, 1.0])
    freedom = pooled_freedom((values.var(ddof=1) / len(values), len(values) - 1) for values in (a, b))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert freedom == pytest.approx(welch.df)
    width = t_quantile(freedom) * np.sqrt(a.var(ddof=1) / 3 + b.var(ddof=1) / 5)
    ends = [a.mean() - b.mean() - width, a.mean() - b.mean() + width]
    assert ends == pytest.approx(list(welch.confidence_interval()))
