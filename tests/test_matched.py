import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hiddencost.results.matched import matched

# upstream top-1 of each network, and what it loses downstream by flm and ilm, in points
NETWORKS = {
    "gmp80": ("gmp", 89.5, 3.0, 1.0),
    "gmp90": ("gmp", 88.0, 5.0, 2.0),
    "gmp95": ("gmp", 84.0, 12.0, 3.0),
    "acdc80": ("acdc", 90.2, 1.0, 0.0),
    "acdc95": ("acdc", 87.0, 6.5, 0.5),
}


def row(backbone, compression, method, seed, accuracy, control=None):
    row = {"backbone": backbone, "dense": "dense", "dataset": "one", "method": method, "shots": "1", "seed": seed}
    row["recipe_dense"] = "dense"
    status = "not run" if accuracy is None else "ok"
    return row | {"compression": compression, "control": control, "accuracy": accuracy, "status": status}


def study(networks=NETWORKS, spread=0.01):
    """Made-up runs of two seeds, which differ by `spread`, and what the networks reach upstream."""
    rows, top1 = [], {"dense": 90.0, "random": 10.0}
    for seed in (0, 1):
        for place, method in enumerate(("flm", "ilm")):
            dense = 0.6 + spread * seed
            rows.append(row("dense", "none", method, seed, dense))
            rows.append(row("random", "none", method, seed, 0.1, "random_init"))
            for name, (kind, reached, *lost) in networks.items():
                rows.append(row(name, kind, method, seed, dense - lost[place] / 100))
                top1[name] = reached
    return pd.DataFrame(rows), pd.DataFrame({"backbone": list(top1), "top1": list(top1.values())})


def least_squares(x, y):
    """Intercept, slope, and the standard error of the intercept, written out."""
    design = np.stack([np.ones(len(x)), x], 1)
    (intercept, slope), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ [intercept, slope]
    error = np.sqrt(residual @ residual / (len(x) - 2) * np.linalg.inv(design.T @ design)[0, 0])
    return intercept, slope, error


def test_the_line_of_least_squares_is_read_where_nothing_is_lost_upstream():
    runs, upstream = study()
    # in the second seed all networks seem two points worse: so the one dense run they share was better
    runs.loc[(runs["seed"] == 1) & (runs["backbone"] == "dense"), "accuracy"] += 0.02
    found = matched(runs, upstream).set_index(["method", "compression"])
    x = np.array([90 - reached for _, reached, *_ in NETWORKS.values()])
    for place, method in enumerate(("flm", "ilm")):
        y = np.array([lost[place] for _, _, *lost in NETWORKS.values()]) + 1
        intercept, slope, error = least_squares(x, y)
        variances, freedoms = np.array([error**2, 2 / 2]), np.array([3, 1])  # intercepts two points apart
        freedom = variances.sum() ** 2 / (variances**2 / freedoms).sum()
        width = stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum())
        one = found.loc[(method, "all")]
        told = one[["cost_at_matched", "low", "high", "slope"]].astype(float)
        assert told.tolist() == pytest.approx([intercept, intercept - width, intercept + width, slope])
        assert (one["networks"], one["seeds"], one["cells"]) == (5, 2, 2)
        assert (one["upstream_lost_least"], one["upstream_lost_most"]) == (pytest.approx(-0.2), 6.0)


def test_a_single_seed_has_a_line_and_no_interval():
    runs, upstream = study()
    found = matched(runs[runs["seed"] == 0], upstream).query("compression == 'all'")
    assert np.isfinite(found["cost_at_matched"]).all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_networks_within_a_point_upstream_are_told_apart():
    one = matched(*study()).set_index(["method", "compression"]).loc[("flm", "all")]
    assert one["close"] == 2  # gmp80 and acdc80
    assert one["close_cost"] == pytest.approx(2.0)


def test_each_kind_of_compression_has_a_row_and_too_few_networks_no_line():
    found = matched(*study()).set_index(["method", "compression"])
    assert list(found.loc["flm"].index) == ["all", "gmp", "acdc"]
    assert found.loc[("flm", "gmp"), "networks"] == 3
    assert np.isfinite(found.loc[("flm", "gmp"), "cost_at_matched"])
    assert found.loc[("flm", "acdc"), "networks"] == 2
    assert np.isnan(found.loc[("flm", "acdc"), "cost_at_matched"])


def test_one_kind_alone_is_all():
    gmp = {name: one for name, one in NETWORKS.items() if one[0] == "gmp"}
    assert matched(*study(gmp))["compression"].tolist() == ["all", "all"]


def test_controls_and_networks_of_which_nothing_is_known_upstream_do_not_count():
    runs, upstream = study()
    upstream.loc[upstream["backbone"] == "gmp95", "top1"] = np.nan
    found = matched(runs, upstream)
    assert found.query("compression == 'all'")["networks"].tolist() == [4, 4]
    upstream["top1"] = np.nan
    assert matched(runs, upstream).empty


def test_networks_that_lost_the_same_upstream_have_no_line():
    found = matched(*study({name: ("gmp", 88.0, *lost) for name, (_, _, *lost) in NETWORKS.items()}))
    assert found["cost_at_matched"].isna().all()
    assert found["close"].tolist() == [0, 0]


def test_a_study_without_results_has_an_empty_table():
    runs, upstream = study()
    found = matched(runs.assign(status="not run", accuracy=None), upstream)
    assert found.empty
    assert "cost_at_matched" in found


def test_networks_are_compared_over_the_cells_that_all_of_them_have():
    runs, upstream = study()
    hard = runs.assign(dataset="hard", accuracy=runs["accuracy"] - 0.19 * (runs["backbone"] != "dense"))
    missing = (hard["backbone"] == "gmp80") & (hard["method"] == "flm")
    both = pd.concat(
        [runs, hard.assign(accuracy=hard["accuracy"].mask(missing), status=np.where(missing, "diverged", "ok"))]
    )
    found = matched(both, upstream).query("compression == 'all'").set_index("method")
    alone = matched(runs, upstream).query("compression == 'all'").set_index("method")
    assert found["cells"].to_dict() == {"flm": 2, "ilm": 4}
    assert found.loc["flm", "cost_at_matched"] == pytest.approx(alone.loc["flm", "cost_at_matched"])
    assert found.loc["ilm", "cost_at_matched"] == pytest.approx(alone.loc["ilm", "cost_at_matched"] + 9.5)


def test_a_network_that_was_not_run_is_none_of_those_compared():
    """It emptied the table of its dense network, of which it has a published accuracy."""
    runs, upstream = study()
    absent = study(NETWORKS | {"rigl90": ("rigl", 88.0, 0.0, 0.0)})[0].query("backbone == 'rigl90'")
    both = pd.concat([runs, absent.assign(accuracy=np.nan, status="not run")])
    reached = pd.concat([upstream, pd.DataFrame({"backbone": ["rigl90"], "top1": [88.0]})])
    pd.testing.assert_frame_equal(matched(both, reached), matched(runs, upstream))
    # by one method alone
    both.loc[(both["backbone"] == "rigl90") & (both["method"] == "ilm"), ["accuracy", "status"]] = 0.5, "ok"
    found = matched(both, reached).query("compression == 'all'").set_index("method")
    assert found["networks"].to_dict() == {"flm": 5, "ilm": 6}
