from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from churn.domain import evidence, metrics
from churn.domain.evidence import Customers, chance_ece, columns, gather, log_loss_gap, roc_auc_gap, slice_gaps, slope
from churn.domain.metrics import Interval, Labels, Probabilities

Z90 = NormalDist().inv_cdf(0.95)


def drawn(n: int = 1400, *, seed: int = 0, rate: float = 3) -> tuple[Labels, Probabilities]:
    """Labels drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, rate, n)
    return rng.random(n) < p, p


def each_its_own(y: Labels) -> Customers:
    return np.arange(len(y))


def logits(p: Probabilities, factor: float = 1.0, shift: float = 0.0) -> Probabilities:
    return 1 / (1 + np.exp(-(factor * np.log(p / (1 - p)) + shift)))


def width(found: Interval) -> float:
    return found.high - found.low


def test_a_log_loss_gap_has_the_interval_of_the_paired_mean() -> None:
    y = np.array([True, False, False, True])
    p, other = np.array([0.8, 0.4, 0.1, 0.5]), np.array([0.5, 0.5, 0.5, 0.5])
    gaps = np.log([0.5 / 0.8, 0.5 / 0.6, 0.5 / 0.9, 1.0])

    found = log_loss_gap(y, p, other, each_its_own(y))

    error = gaps.std() / 2
    assert (found.value, found.low, found.high) == pytest.approx(
        (gaps.mean(), gaps.mean() - Z90 * error, gaps.mean() + Z90 * error)
    )


@pytest.mark.parametrize("statistic", [log_loss_gap, roc_auc_gap])
def test_rows_of_one_customer_do_not_narrow_a_gaps_interval(statistic: object) -> None:
    y, p = drawn(200)
    other = np.random.default_rng(1).permutation(p)
    thrice = [np.repeat(each, 3) for each in (y, p, other, each_its_own(y))]

    once, repeated = statistic(y, p, other, each_its_own(y)), statistic(*thrice)  # type: ignore[operator]

    assert (repeated.value, repeated.low, repeated.high) == pytest.approx((once.value, once.low, once.high))


def test_rows_of_one_customer_do_not_narrow_the_slopes_interval() -> None:
    y, p = drawn(300)

    once = slope(y, p, each_its_own(y))
    repeated = slope(np.repeat(y, 3), np.repeat(p, 3), np.repeat(each_its_own(y), 3))

    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=1e-4)


def test_an_auc_gap_is_that_of_sklearn_with_ties() -> None:
    y, p = drawn(300)
    rough, other = np.round(p, 1), np.round(np.random.default_rng(1).permutation(p), 1)

    found = roc_auc_gap(y, rough, other, each_its_own(y))

    assert found.value == pytest.approx(roc_auc_score(y, rough) - roc_auc_score(y, other), abs=1e-12)
    assert (found.low + found.high) / 2 == pytest.approx(found.value)


def test_an_auc_gap_has_the_interval_of_the_paired_bootstrap() -> None:
    y, p = drawn(1400)
    other = np.clip(p + np.random.default_rng(1).normal(0, 0.1, len(p)), 0.001, 0.999)

    found = roc_auc_gap(y, p, other, each_its_own(y), 0.95)
    bootstrapped = metrics.paired_bootstrap(y, p, other, samples=1000, seed=7)["roc_auc"]

    assert width(found) == pytest.approx(width(bootstrapped), rel=0.1)


def test_equal_probabilities_have_no_gap() -> None:
    y, p = drawn(100)

    assert roc_auc_gap(y, p, p, each_its_own(y)) == Interval(0.0, 0.0, 0.0)
    assert log_loss_gap(y, p, p, each_its_own(y)) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.6])
def test_the_slopes_interval_misses_the_true_slope_in_one_of_ten_draws(factor: float) -> None:
    found = []
    for seed in range(300):
        y, p = drawn(500, seed=seed)
        found.append(slope(y, logits(np.clip(p, 1e-6, 1 - 1e-6), factor), each_its_own(y)))

    misses = np.mean([not each.low <= 1 / factor <= each.high for each in found])
    assert 0.06 <= misses <= 0.14


def test_the_slope_is_that_of_the_scores() -> None:
    y, p = drawn(500)

    assert slope(y, p, each_its_own(y)).value == metrics.calibration_slope(y, p)


def test_any_slope_fits_one_probability_for_all() -> None:
    y, _ = drawn(100)

    found = slope(y, np.full(100, 0.25), each_its_own(y))

    assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("label", [True, False])
def test_the_slope_of_one_class_is_nan(label: bool) -> None:
    found = slope(np.full(4, label), np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4))

    assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize("n", [500, 1400])
def test_right_probabilities_exceed_the_chance_error_about_once_in_a_hundred(n: int) -> None:
    _, p = drawn(n)
    rng = np.random.default_rng(1)

    bound = chance_ece(p, seed=7)
    exceeded = np.mean([metrics.expected_calibration_error(rng.random(n) < p, p) > bound for _ in range(1000)])

    assert 0 < exceeded < 0.04


def test_the_chance_error_is_that_of_drawn_labels() -> None:
    _, p = drawn(300)
    rng = np.random.default_rng(1)
    errors = [metrics.expected_calibration_error(rng.random(300) < p, p) for _ in range(2000)]

    assert chance_ece(p, seed=7) == pytest.approx(np.mean(errors) + 2.33 * np.std(errors), rel=0.1)


def test_the_chance_error_takes_fewer_rows_than_bins() -> None:
    assert 0 < chance_ece(np.array([0.2, 0.7]), seed=7) < 1


def test_the_chance_error_is_the_same_for_the_same_seed() -> None:
    _, p = drawn(300)

    assert chance_ece(p, 7) == chance_ece(p, 7)
    assert chance_ece(p, 7) != chance_ece(p, 8)


def test_a_group_needs_ten_of_each_class() -> None:
    y = np.array([True] * 10 + [False] * 10 + [True] * 9 + [False] * 30 + [True] * 30 + [False] * 9)
    p = np.linspace(0.1, 0.9, len(y))
    masks = {name: np.isin(np.arange(len(y)), range(*of)) for name, of in {"a": (0, 20), "b": (20, 59), "c": (59, 98)}.items()}

    assert set(slice_gaps(y, p, p, masks, each_its_own(y))) == {"a"}


def test_the_intervals_of_groups_hold_together() -> None:
    y, p = drawn(400)
    other = np.random.default_rng(1).permutation(p)
    first = np.arange(400) < 200

    one = slice_gaps(y, p, other, {"a": first}, each_its_own(y))["a"]
    two = slice_gaps(y, p, other, {"a": first, "b": ~first}, each_its_own(y))["a"]

    ratio = NormalDist().inv_cdf(1 - 0.05 / 4) / NormalDist().inv_cdf(1 - 0.05 / 2)
    assert width(two.log_loss) / width(one.log_loss) == pytest.approx(ratio)
    assert width(two.roc_auc) / width(one.roc_auc) == pytest.approx(ratio)


def test_a_groups_gap_is_that_of_its_rows() -> None:
    y, p = drawn(400)
    other = np.random.default_rng(1).permutation(p)
    mask = np.arange(400) < 150

    found = slice_gaps(y, p, other, {"a": mask}, each_its_own(y))["a"]

    assert found.log_loss.value == pytest.approx(metrics.log_loss(y[mask], p[mask]) - metrics.log_loss(y[mask], other[mask]))
    assert found.champion_log_loss == metrics.log_loss(y[mask], other[mask])
    assert found.roc_auc.value == pytest.approx(roc_auc_score(y[mask], p[mask]) - roc_auc_score(y[mask], other[mask]))


def test_a_column_is_as_good_as_its_ranking_in_either_direction() -> None:
    y, p = drawn(300)
    X = np.column_stack([p, -p, np.zeros(300), y]).astype(np.float32)

    found = columns(X, y, p, ("up", "down", "constant", "label"))

    assert found.alone["up"] == found.alone["down"] == pytest.approx(roc_auc_score(y, X[:, 0]))
    assert found.alone["constant"] == 0.5
    assert found.alone["label"] == 1.0
    assert found.roc_auc == pytest.approx(roc_auc_score(y, p))
    assert found.churn_rate == y.mean()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_end_of_a_column_is_its_fifty_most_extreme_rows(sign: int) -> None:
    value = np.arange(200, dtype=np.float32)
    y = value >= 155  # of the 50 largest 45

    assert columns(sign * value.reshape(-1, 1), y, y.astype(float), ("a",)).at_end["a"] == 0.9


def test_rows_that_tie_with_the_last_of_the_end_belong_to_it() -> None:
    flag = np.repeat([1.0, 0.0], [80, 120]).astype(np.float32)
    y = np.repeat([True, False], [60, 140])

    assert columns(flag.reshape(-1, 1), y, y.astype(float), ("a",)).at_end["a"] == 0.75


def test_few_rows_are_all_at_the_end() -> None:
    y = np.array([True, False, False, False])

    assert columns(np.arange(4, dtype=np.float32).reshape(-1, 1), y, y.astype(float), ("a",)).at_end["a"] == 0.25


def gathered(y: Labels, **probabilities: Probabilities) -> evidence.Evidence:
    masks = {"first": np.arange(len(y)) < 200}
    return gather(y, probabilities, customers=each_its_own(y), masks=masks, samples=50, seed=7)


def test_evidence_of_right_probabilities() -> None:
    y, p = drawn(1400)

    found = gathered(y, candidate=p, baseline=p)

    assert (found.churned, found.others) == (y.sum(), (~y).sum())
    assert found.churn_rate == y.mean()
    assert found.roc_auc == metrics.roc_auc(y, p)
    assert found.skill.value == pytest.approx(metrics.log_loss(y, p) - metrics.log_loss(y, np.full(1400, y.mean())))
    assert found.baseline.value == 0
    assert found.mean.value == pytest.approx(p.mean() - y.mean())
    assert found.mean.high - found.mean.value == pytest.approx(Z90 * (p - y).std() / np.sqrt(1400))
    assert found.ece == metrics.expected_calibration_error(y, p)
    assert found.chance_ece == chance_ece(p, 7)
    assert found.slope == slope(y, p, each_its_own(y))
    assert found.champion is None
    assert found.slices is None


def test_evidence_beside_a_champion() -> None:
    y, p = drawn(1400)
    worse = np.random.default_rng(1).permutation(p)

    found = gathered(y, candidate=worse, baseline=p, champion=p)

    assert found.champion == metrics.paired_bootstrap(y, worse, p, samples=50, seed=7)
    assert found.champion["roc_auc"].high < 0
    assert found.slices
    assert set(found.slices) == {"first"}
    assert found.baseline.low > 0


def test_evidence_beside_a_champion_draws_customers() -> None:
    y, p = drawn(300)
    other = np.random.default_rng(1).permutation(p)
    thrice = {"candidate": np.repeat(p, 3), "baseline": np.repeat(p, 3), "champion": np.repeat(other, 3)}

    repeated = gather(np.repeat(y, 3), thrice, customers=np.repeat(each_its_own(y), 3), masks={}, samples=50, seed=7)

    assert repeated.champion
    assert repeated.champion["log_loss"].low == pytest.approx(
        metrics.paired_bootstrap(y, p, other, samples=50, seed=7)["log_loss"].low
    )
