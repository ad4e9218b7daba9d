from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from churn.contract import SLICES, Slice
from churn.domain.metrics import (
    Interval,
    Labels,
    Probabilities,
    _RankAuc,
    calibration_curve,
    calibration_slope,
    cost_threshold,
    expected_calibration_error,
    fairness,
    lift,
    log_loss,
    paired_bootstrap,
    profit,
    relative_log_loss,
    roc_auc,
    scores,
    slice_masks,
    slice_scores,
)
from churn.params import Costs
from factory import rows

COSTS = Costs(contact=5, offer=60, value=900, save_rate=0.3, waste_rate=0.5)


def drawn(n: int = 2000, *, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Calibrated probabilities and labels that were drawn with them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 3, n)
    return rng.random(n) < p, p


def test_roc_auc_log_loss_pr_auc_and_brier_equal_sklearn() -> None:
    y, p = drawn()

    found = scores(y, p, COSTS)

    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, p), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(y, p), abs=1e-9)
    assert found["pr_auc"] == pytest.approx(sklearn_metrics.average_precision_score(y, p), abs=1e-12)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(y, p), abs=1e-12)


def test_recall_and_precision_at_the_threshold_equal_sklearn() -> None:
    y, p = drawn()
    flagged = p >= cost_threshold(COSTS)

    found = scores(y, p, COSTS)

    assert found["recall"] == pytest.approx(sklearn_metrics.recall_score(y, flagged))
    assert found["precision"] == pytest.approx(sklearn_metrics.precision_score(y, flagged))
    assert found["flagged_share"] == pytest.approx(flagged.mean())


def test_a_customer_at_the_threshold_is_flagged() -> None:
    p = np.array([cost_threshold(COSTS), 0.0])

    found = scores(np.array([True, False]), p, COSTS)

    assert (found["flagged_share"], found["recall"], found["precision"]) == (0.5, 1.0, 1.0)


def test_lift_and_profit_among_the_scores_are_those_of_the_top_tenth_and_of_the_thresholds() -> None:
    y, p = drawn()

    found = scores(y, p, COSTS)

    assert found["lift_at_10"] == lift(y, p, share=0.1)
    assert found["profit_per_customer"] == profit(y, p, 35 / 282, COSTS)
    assert found["profit_per_customer_at_half"] == profit(y, p, 0.5, COSTS) != 0


def test_precision_is_0_if_no_customer_is_flagged() -> None:
    assert scores(np.array([True, False]), np.array([0.02, 0.01]), COSTS)["precision"] == 0.0


@pytest.mark.parametrize("label", [True, False])
def test_roc_auc_of_one_class_is_nan(label: bool) -> None:
    assert np.isnan(roc_auc(np.array([label, label]), np.array([0.1, 0.9])))


def test_roc_auc_takes_a_single_churned_customer() -> None:
    assert roc_auc(np.array([True, False, False]), np.array([0.5, 0.9, 0.1])) == 0.5


def test_relative_log_loss_is_1_for_the_churn_rate_and_that_share_of_it_for_others() -> None:
    y = np.array([True, False, False, False])
    p = np.array([0.7, 0.2, 0.1, 0.1])

    assert relative_log_loss(y, np.full(4, 0.25)) == pytest.approx(1)
    assert relative_log_loss(y, p) == pytest.approx(
        sklearn_metrics.log_loss(y, p) / -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), abs=1e-9
    )


@pytest.mark.parametrize("label", [True, False])
def test_scores_of_one_class_are_numbers_or_nan(label: bool) -> None:
    found = scores(np.array([label, label]), np.array([0.1, 0.9]), COSTS)

    undefined = {"roc_auc", "relative_log_loss", "calibration_slope"} | (set() if label else {"pr_auc", "lift_at_10", "recall"})
    assert {name for name, value in found.items() if np.isnan(value)} == undefined


def test_log_loss_of_a_wrong_probability_of_1_is_finite() -> None:
    assert log_loss(np.array([True]), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_calibration_error_is_the_weighted_mean_gap_of_the_bins() -> None:
    y = np.array([False, False, False, True, True, True, True, True])
    p = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])

    error = expected_calibration_error(y, p, bins=2)

    assert error == pytest.approx((4 * abs(0.1 - 0.25) + 4 * abs(0.9 - 1.0)) / 8)


def test_calibration_error_of_calibrated_probabilities_is_0() -> None:
    assert expected_calibration_error(np.array([True, False]), np.array([0.5, 0.5]), bins=1) == 0.0


def test_calibration_error_accepts_fewer_rows_than_bins() -> None:
    assert expected_calibration_error(np.array([True, False]), np.array([1.0, 0.25]), bins=10) == pytest.approx(0.125)


def test_calibration_curve_has_predicted_and_observed_rate_per_bin() -> None:
    curve = calibration_curve(np.array([True, False, True, True]), np.array([0.3, 0.1, 0.7, 0.9]), bins=2)

    np.testing.assert_allclose(curve, [[0.2, 0.5], [0.8, 1.0]])


def test_rows_of_one_probability_are_put_into_bins_in_their_order() -> None:
    y, p = np.arange(1000) < 500, np.tile([0.2, 0.8], 500)

    np.testing.assert_allclose(calibration_curve(y, p, bins=4), [[0.2, 1.0], [0.2, 0.0], [0.8, 1.0], [0.8, 0.0]])


def test_there_are_ten_bins_unless_another_number_is_given() -> None:
    y, p = drawn(200)

    np.testing.assert_array_equal(calibration_curve(y, p), calibration_curve(y, p, bins=10))
    assert expected_calibration_error(y, p) == expected_calibration_error(y, p, bins=10)


def test_calibration_slope_of_few_rows_is_not_pulled_to_0() -> None:
    # By hand: odds of 1/4 and 4 are said, 1/2 and 2 observed: the log-odds differ by half of what they say.
    y = np.array([True, False, False, True, True, False])
    p = np.array([0.2, 0.2, 0.2, 0.8, 0.8, 0.8])

    assert calibration_slope(y, p) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_calibration_slope_recovers_the_slope_of_simulated_labels(slope: float) -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(-1, 1, 40_000)
    y = rng.random(40_000) < 1 / (1 + np.exp(-slope * odds))

    assert calibration_slope(y, 1 / (1 + np.exp(-odds))) == pytest.approx(slope, abs=0.05)


def test_calibration_slope_accepts_probabilities_of_0_and_1() -> None:
    y, p = drawn()

    assert np.isfinite(calibration_slope(y, np.r_[0.0, 1.0, p[2:]]))


def test_lift_is_the_top_rate_divided_by_the_overall_rate() -> None:
    y = np.array([True, False, False, False, False, False, False, True, False, False])
    p = np.linspace(0.9, 0.0, 10)

    assert lift(y, p, share=0.1) == pytest.approx(5.0)
    assert lift(y, p, share=0.5) == pytest.approx(1.0)


def test_lift_takes_customers_of_one_probability_in_their_order() -> None:
    y, p = np.arange(1000) < 100, np.tile([0.8, 0.2], 500)

    # Of the first 250 customers with the higher probability, those among the first 100 of all churned: 50.
    assert lift(y, p, share=0.25) == pytest.approx(0.2 / 0.1)


def test_lift_of_few_customers_uses_at_least_one() -> None:
    assert lift(np.array([True, False]), np.array([0.9, 0.1]), share=0.1) == pytest.approx(2.0)


def test_the_threshold_is_the_break_even_probability() -> None:
    # By hand: gain .3·(900 - 60) = 252, waste .5·60 = 30, so (5 + 30) / (252 + 30).
    assert cost_threshold(COSTS) == pytest.approx(35 / 282)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"contact": 0.0, "waste_rate": 0.0}, 0.0),
        ({"offer": 900.0}, 1.0),
        ({"offer": 1000.0}, 1.0),
        ({"contact": 10_000.0}, 1.0),
        ({"offer": 900.0, "waste_rate": 0.0}, 1.0),
        ({"offer": 1000.0, "waste_rate": 0.0}, 1.0),
        ({"contact": 0.0, "waste_rate": 0.0, "offer": 899.0}, 0.0),
        ({"contact": 0.0, "offer": 100.0, "value": 1100.0, "save_rate": 0.1, "waste_rate": 1.0}, 0.5),
    ],
)
def test_the_threshold_follows_the_costs(changed: dict[str, float], expected: float) -> None:
    assert cost_threshold(COSTS.model_copy(update=changed)) == pytest.approx(expected)


def test_profit_is_per_customer_of_contacting_the_flagged() -> None:
    y = np.array([True, False, True, False])
    p = np.array([0.9, 0.8, 0.1, 0.1])

    # A churner brings 252 - 5, another costs 30 + 5, and the two below the threshold nothing.
    assert profit(y, p, 0.5, COSTS) == pytest.approx((247 - 35) / 4)


def test_profit_includes_a_customer_at_the_threshold() -> None:
    assert profit(np.array([True]), np.array([0.5]), 0.5, COSTS) == pytest.approx(247)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_the_cost_threshold_maximises_profit_on_calibrated_rows(other: float) -> None:
    percent = np.repeat(np.arange(1, 100), 100)
    y, p = np.tile(np.arange(100), 99) < percent, percent / 100

    assert profit(y, p, other, COSTS) <= profit(y, p, cost_threshold(COSTS), COSTS)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 3)), min_size=2, max_size=60),
)
def test_bootstrap_auc_equals_sklearn_for_weighted_rows_with_ties(drawn_rows: list[tuple[bool, float, int]]) -> None:
    y, p, weights = (np.array(values) for values in zip(*drawn_rows, strict=True))
    assume(weights[y].sum() > 0)
    assume(weights[~y].sum() > 0)

    found = _RankAuc(y, p)(weights)

    assert found == pytest.approx(sklearn_metrics.roc_auc_score(y, p, sample_weight=weights), abs=1e-12)


def test_bootstrap_auc_of_a_resample_of_one_class_is_nan() -> None:
    auc = _RankAuc(np.array([True, False]), np.array([0.2, 0.1]))

    assert np.isnan(auc(np.array([2, 0])))


def test_a_model_compared_with_itself_differs_by_exactly_0() -> None:
    y, p = drawn(300)

    found = paired_bootstrap(y, p, p, samples=50, seed=7)

    assert found == {"roc_auc": Interval(0.0, 0.0, 0.0), "log_loss": Interval(0.0, 0.0, 0.0)}
    assert not any(difference.excludes_zero for difference in found.values())


def test_a_clearly_better_model_excludes_zero_on_the_right_side() -> None:
    y, p = drawn(1400)
    noise = np.random.default_rng(1).permutation(p)

    found = paired_bootstrap(y, p, noise, samples=200, seed=7)

    assert found["roc_auc"].low > 0
    assert found["log_loss"].high < 0
    assert all(difference.excludes_zero for difference in found.values())


def test_the_point_estimate_uses_all_rows() -> None:
    y, p = drawn(500)
    other = p**2

    found = paired_bootstrap(y, p, other, samples=20, seed=7)

    assert found["roc_auc"].value == pytest.approx(roc_auc(y, p) - roc_auc(y, other))
    assert found["log_loss"].value == pytest.approx(log_loss(y, p) - log_loss(y, other))


def test_the_interval_is_that_of_drawing_rows_again_and_scoring_them_with_sklearn() -> None:
    y, p = drawn(60, seed=3)
    other = np.random.default_rng(1).permutation(p)

    found = paired_bootstrap(y, p, other, samples=40, seed=7)

    rng = np.random.default_rng(7)
    draws = [rng.integers(0, 60, 60) for _ in range(40)]
    for name, score in (("roc_auc", sklearn_metrics.roc_auc_score), ("log_loss", sklearn_metrics.log_loss)):
        gaps = [score(y[rows], p[rows]) - score(y[rows], other[rows]) for rows in draws]
        np.testing.assert_allclose((found[name].low, found[name].high), np.percentile(gaps, [2.5, 97.5]), atol=1e-9)


def test_the_interval_of_two_equally_good_models_includes_zero() -> None:
    y, p = drawn(1400)
    first, second = (p + np.random.default_rng(seed).normal(0, 0.05, len(p)) for seed in (1, 2))

    found = paired_bootstrap(y, first, second, samples=200, seed=7)

    assert not found["roc_auc"].excludes_zero


def test_the_interval_depends_on_the_seed_only() -> None:
    y, p = drawn(300)

    first, again, other = (paired_bootstrap(y, p, p**2, samples=50, seed=seed)["log_loss"] for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_resamples_of_one_class_are_left_out_of_the_interval() -> None:
    y = np.array([True] + [False] * 9)
    p = np.linspace(0.9, 0.1, 10)

    assert np.isfinite(paired_bootstrap(y, p, 1 - p, samples=100, seed=7)["roc_auc"].low)


def test_slices_by_value_have_its_name_and_partition_the_rows() -> None:
    masks = slice_masks(rows(3, commitment=["Season", "Two seasons", "Season"]), (Slice("commitment"),))

    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "commitment=Season": [True, False, True],
        "commitment=Two seasons": [False, True, False],
    }


def test_slices_by_edges_include_the_lower_edge() -> None:
    masks = slice_masks({"member_months": np.array([0, 6, 7, 24, 25, 720])}, (Slice("member_months", edges=(7, 25)),))

    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "member_months=..7": [0, 1],
        "member_months=7..25": [2, 3],
        "member_months=25..": [4, 5],
    }


def test_a_null_is_in_no_band() -> None:
    masks = slice_masks({"total_fees": np.array([np.nan, 3.0, 10.0])}, (Slice("total_fees", edges=(7,)),))

    assert [np.flatnonzero(mask).tolist() for mask in masks.values()] == [[1], [2]]


def test_every_row_is_in_one_group_of_each_slice() -> None:
    masks = slice_masks(rows(200), SLICES)

    for each in SLICES:
        groups = [mask for name, mask in masks.items() if name.startswith(f"{each.column}=")]
        assert (np.sum(groups, axis=0) == 1).all()


def test_slice_scores_equal_the_scores_of_the_group_rows() -> None:
    y, p = drawn(200)
    mask = np.arange(200) < 50

    found = slice_scores(y, p, {"first": mask})["first"]

    assert found["rows"] == 50
    assert found["churn_rate"] == pytest.approx(y[:50].mean())
    assert found["roc_auc"] == roc_auc(y[:50], p[:50])
    assert found["log_loss"] == log_loss(y[:50], p[:50])


def test_a_group_without_rows_has_no_scores() -> None:
    y, p = drawn(10)

    assert slice_scores(y, p, {"empty": np.zeros(10, dtype=bool)}) == {}


def test_fairness_has_the_rates_and_precision_per_group() -> None:
    y = np.array([True, True, False, False, True, False])
    p = np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1])
    columns = {"language": np.array(["Danish"] * 4 + ["Dutch"] * 2)}

    female, male = fairness(y, p, 0.5, columns, ("language",))

    assert female == {
        "group": "language=Danish",
        "rows": 4,
        "flagged_share": 0.5,
        "true_positive_rate": 0.5,
        "false_positive_rate": 0.5,
        "precision": 0.5,
    }
    assert (male["true_positive_rate"], male["false_positive_rate"], male["precision"]) == (1.0, 0.0, 1.0)


def test_fairness_flags_a_customer_at_the_threshold() -> None:
    [group] = fairness(np.array([True]), np.array([0.5]), 0.5, {"language": np.array(["Dutch"])}, ("language",))

    assert group["flagged_share"] == 1.0


@pytest.mark.reported
def test_slices_and_fairness_use_the_same_group_names_for_flags() -> None:
    columns = {"is_student": np.array([True, False])}

    groups = fairness(np.array([True, False]), np.array([0.9, 0.1]), 0.5, columns, ("is_student",))

    assert list(slice_masks(columns, (Slice("is_student"),))) == [each["group"] for each in groups]


def test_fairness_groups_of_flags_are_yes_and_no() -> None:
    found = fairness(np.array([True, False]), np.array([0.9, 0.1]), 0.5, {"is_student": np.array([True, False])}, ("is_student",))

    assert [group["group"] for group in found] == ["is_student=no", "is_student=yes"]


def test_fairness_takes_the_bands_of_the_column_s_slice_and_leaves_nulls_out() -> None:
    y, p = np.array([True, False, False, True]), np.array([0.9, 0.9, 0.1, 0.1])
    columns = {"total_fees": np.array([2.0, 7.0, 9.0, np.nan])}

    below, above = fairness(y, p, 0.5, columns, ("total_fees",), (Slice("total_fees", edges=(7,)),))

    assert (below["group"], below["rows"], below["flagged_share"]) == ("total_fees=..7", 1, 1.0)
    assert (above["group"], above["rows"], above["flagged_share"]) == ("total_fees=7..", 2, 0.5)


def test_fairness_of_a_number_without_a_slice_has_no_group_of_nulls() -> None:
    y, p, charges = np.array([True, False, False, True]), np.full(4, 0.9), np.array([8.0, np.nan, 7.0, np.nan])

    groups = fairness(y, p, 0.5, {"total_fees": charges}, ("total_fees",))

    assert [(each["group"], each["rows"]) for each in groups] == [("total_fees=7.0", 1), ("total_fees=8.0", 1)]


def test_a_rate_without_customers_is_nan() -> None:
    [group] = fairness(np.array([False]), np.array([0.1]), 0.5, {"language": np.array(["Dutch"])}, ("language",))

    assert np.isnan(group["true_positive_rate"])
    assert np.isnan(group["precision"])


@pytest.mark.parametrize(
    ("difference", "excludes"),
    [((0.01, 0.001, 0.02), True), ((-0.01, -0.02, -0.001), True), ((0.01, 0.0, 0.02), False), ((0.0, -0.01, 0.01), False)],
)
def test_an_interval_that_touches_zero_does_not_exclude_it(difference: Any, excludes: bool) -> None:
    assert Interval(*difference).excludes_zero is excludes


def test_the_interval_is_wider_where_customers_have_several_rows() -> None:
    rng = np.random.default_rng(0)
    customers = np.repeat(np.arange(100), 6)
    y = (rng.random(100) < 0.4)[customers]
    p, other = (rng.random(100)[customers] for _ in range(2))

    by_row = paired_bootstrap(y, p, other, samples=300, seed=7)["roc_auc"]
    by_customer = paired_bootstrap(y, p, other, samples=300, seed=7, customers=customers)["roc_auc"]

    assert by_customer.high - by_customer.low > 1.5 * (by_row.high - by_row.low)
