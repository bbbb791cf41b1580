"""Intervals, held against SciPy's tests and against draws whose truth is known."""

import json
import runpy

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from hiddencost.results.intervals import (
    band_reach,
    crossed_interval,
    filled,
    moved_back,
    moved_out,
    paired_interval,
    pooled_freedom,
    t_quantile,
)
from hiddencost.results.pooled import pooled

coverage = runpy.run_path(str(ROOT / "bench/coverage.py"))  # a package has the name, too


def test_the_interval_of_paired_differences_is_that_of_the_paired_t_test():
    differences = [0.11, 0.03, 0.14, 0.02]
    mean, std, count = (pd.Series([value]) for value in (np.mean(differences), np.std(differences, ddof=1), 4))
    ends = [end.item() for end in paired_interval(mean, std, count)]
    assert ends == pytest.approx(list(stats.ttest_1samp(differences, 0).confidence_interval(0.95)))


@pytest.mark.parametrize("values", [[0.0, 0.1, 0.2, 0.3, 4.0], [5.0, 4.0, -3.0], [1.0, 2.0, 3.0], [1.0, 3.0]])
def test_of_skewed_differences_it_is_the_interval_of_a_claim(values):
    of = pd.Series(values)
    ends = paired_interval(*(pd.Series([getattr(of, what)()]) for what in ("mean", "std", "count", "skew")))
    assert np.concatenate(ends) == pytest.approx(np.concatenate(crossed_interval(of.to_numpy()[None])))


@pytest.mark.parametrize("skewness", [-1.0, 0.0, 0.3, 1.0])
def test_a_test_moves_back_what_the_interval_moves_out(skewness):
    quantiles = np.array([0.0, 0.5, 4.3])
    assert moved_back(moved_out(quantiles, skewness), skewness) == pytest.approx(quantiles)
    assert (np.diff(moved_back(np.linspace(-3, 3, 50), skewness)) > 0).all()


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


def test_of_one_sample_the_crossed_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    low, high = crossed_interval(values[None])
    assert (low.item(), high.item()) == pytest.approx(stats.t.interval(0.95, 3, values.mean(), stats.sem(values)))


@pytest.mark.parametrize("tail", [1, -1])
def test_of_skewed_values_it_reaches_out_on_the_side_of_the_tail_and_nowhere_in(tail):
    values = tail * np.array([0.0, 0.1, 0.2, 0.3, 4.0])
    low, high = crossed_interval(values[None])
    t_low, t_high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    quantile = stats.t.ppf(0.975, 4)
    further = 1.5 * stats.skew(values, bias=False) / 6 / np.sqrt(5) * (1 + 2 * quantile**2) * stats.sem(values)
    expected = (t_low, t_high + further) if tail > 0 else (t_low + further, t_high)
    assert (low.item(), high.item()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rest", "variance", "freedom"),
    [
        (0.5, 1 / 3 + 4 / 3 - 1 / 4, (17 / 12) ** 2 / (17 / 18)),  # of what is left
        (1.0, 4 / 3, None),  # no less than along one: the freedom of the sum
        (1.5, 4 / 3, None),
    ],
)
def test_of_crossed_samples_the_rest_counts_once_and_no_less_is_left_than_along_one(rest, variance, freedom):
    contrast = np.array([1.0, -2.0, 1.0])
    table = np.add.outer([-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]) + rest * np.outer(contrast, contrast)
    freedom = freedom or pooled_freedom([(1 / 3, 2), (4 / 3, 2)])
    (low,), (high,) = crossed_interval(table[None])
    assert high == -low == pytest.approx(t_quantile(freedom) * np.sqrt(variance))
    (low,), (high,) = crossed_interval(table[:, [0, 2]][None])  # of two values of an axis nothing is taken off
    along = table[:, [0, 2]].mean(1).var(ddof=1) / 3, table[:, [0, 2]].mean(0).var(ddof=1) / 2
    reach = t_quantile(pooled_freedom(zip(along, (2, 1), strict=True))) * np.sqrt(sum(along))
    assert min(high - table[:, [0, 2]].mean(), table[:, [0, 2]].mean() - low) == pytest.approx(reach)


def test_of_crossed_samples_the_freedom_is_no_less_than_the_shortest_has():
    contrast = np.array([1.0, -2.0, 1.0])
    table = np.add.outer([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]) + 0.55 * np.outer(contrast, contrast)
    (low,), (high,) = crossed_interval(table[None])
    left = 2 / 3 - 0.55**2
    assert left**2 / (1 / 9) < 2
    assert high == -low == pytest.approx(t_quantile(2.0) * np.sqrt(left))


def test_tables_that_do_not_differ_have_no_interval():
    low, high = crossed_interval(np.stack([np.full((3, 2), 0.1), np.arange(6.0).reshape(3, 2)]))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False]


def test_what_is_missing_is_filled_by_the_additive_fit():
    table = np.add.outer(np.add.outer([0.0, 10.0, 30.0], [0.0, 1.0]), [5.0, 7.0, 6.0])
    gaps = table.copy()
    gaps[0, 1, 2] = gaps[2, 0, 0] = np.nan
    assert filled(gaps) == pytest.approx(table, abs=1e-6)
    gaps[:, :, 1] = np.nan  # of which nothing is known
    assert np.isnan(filled(gaps)[:, :, 1]).all()
    assert filled(gaps)[:, :, [0, 2]] == pytest.approx(table[:, :, [0, 2]], abs=1e-6)


def test_pairs_have_the_interval_of_their_table():
    table = np.random.default_rng(0).gamma(1, 1, (4, 3, 3))
    axes = {"dataset": list("abcd"), "upstream_seed": range(3), "seed": range(3)}
    pairs = pd.MultiIndex.from_product(axes.values(), names=list(axes)).to_frame(index=False)
    pairs = pairs.assign(difference=table.ravel(), method="ilm", shots="1", family="f", network="n")
    pairs["backbone"] = "n" + pairs["upstream_seed"].astype(str)
    for fixed in (False, True):
        _, bounds, _ = pooled(pairs, fixed)
        (low,), (high,) = coverage["now"](table[None], fixed)
        assert bounds == pytest.approx((low, high))


@pytest.mark.parametrize("effects", ["normal", "log-normal (0.5), skewness 1.8"])
def test_intervals_hold_the_truth_as_often_as_they_say_where_seeds_are_common(effects):
    """The table of bench/results/coverage.md, in short."""
    records = coverage["coverage"](3000, {name: [3] for name in coverage["DESIGNS"]}, [effects], [0.0, 1.0])
    for record in records:
        assert 93 < record["now"] < 99, record
    shared = [record["before"] for record in records if record["common"] and "8 datasets" in record["design"]]
    assert max(shared) < 90


def test_of_other_sizes_they_do_too():
    others = {name: seeds for name, (_, seeds) in (coverage["SIZES"] | coverage["FRESH"]).items()}
    for record in coverage["coverage"](3000, others, ["normal"], [0.0, 1.0]):
        assert 93 < record["now"] < 99.5, record


def test_the_benchmarks_pages_and_the_report_tell_what_was_counted():
    found = json.loads((ROOT / "bench/results/coverage.json").read_text())
    table = (ROOT / "bench/results/coverage.md").read_text()
    assert table == coverage["text"](**found, draws=10_000)
    page, report = ((ROOT / name).read_text() for name in ("bench/README.md", "workflow/report/report.html.j2"))
    assert coverage["counted"](found["intervals"]) in " ".join(page.split())
    assert coverage["counted"](found["sizes"]) in " ".join(page.split())
    held = [round(one["now"], 1) for one in found["intervals"]]
    few = [one for one in found["intervals"] if round(one["now"], 1) < 94]
    alone, alike = (
        sorted(round(one["now"], 1) for one in few if name in one["design"])
        for name in ("one dataset", "which do not differ")
    )
    assert (len(alone), len(alike), len(few)) == (2, 3, 5)
    assert all(one["common"] and one["seeds"] == 3 for one in few if "do not differ" in one["design"])
    for said in (
        f"a simulation of {len(held)} cases",
        f"in {min(held)} to {max(held)} % of draws",
        f"less than 94 % in {len(few)} of these cases",
        f"Two, with {alone[0]} to {alone[-1]} %",
        f"Three, with {alike[0]} to {alike[-1]} %",
    ):
        assert said in report
