"""The performance of labelled predictions, and its confidence intervals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from churn.domain import metrics
from churn.domain.metrics import Labels, Probabilities
from churn.params import Costs
from monitoring.performance import (
    MAX_AUC_LOSS,
    SCORES,
    Performance,
    Score,
    _auc,
    hanley_mcneil,
    measured,
    promised_auc,
)
from monitoring.policy import Verdict

pytestmark = pytest.mark.slow

COSTS = Costs(contact=5, offer=60, value=900, save_rate=0.3, waste_rate=0.5)
THRESHOLD = metrics.cost_threshold(COSTS)
SEEDS = range(12)
TIED = [0.1, 0.2, 0.5, 0.9]


def drawn(n: int = 1500, *, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Calibrated probabilities and labels that were drawn with them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 3, n)
    return rng.random(n) < p, p


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    """The scores of so many rows that chance plays no part."""
    y, p = drawn(1_000_000, seed=99)
    return metrics.scores(y, p, COSTS) | {"rows": 1400, "positives": 350}


def with_test_scores(y: Labels, p: Probabilities, **test: float) -> Performance:
    return measured(y, p, threshold=THRESHOLD, costs=COSTS, test={"roc_auc": 0.75} | test)


def of_seed(seed: int, **test: float) -> Performance:
    y, p = drawn(seed=seed)
    return with_test_scores(y, p, **test)


def changed(value: float, low: float, high: float) -> Performance:
    return Performance(1000, 250, {}, value, low, high)


# Scores


def test_every_score_equals_the_metrics_function() -> None:
    y, p = drawn()

    found = with_test_scores(y, p)

    expected = metrics.scores(y, p, COSTS)
    assert tuple(found.scores) == SCORES
    assert {name: score.value for name, score in found.scores.items()} == pytest.approx({name: expected[name] for name in SCORES})
    assert (found.rows, found.positives) == (1500, int(y.sum()))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.9])
def test_profit_uses_the_threshold_of_the_version(threshold: float) -> None:
    y, p = drawn(200)

    found = measured(y, p, threshold=threshold, costs=COSTS, test={"roc_auc": 0.75})

    assert found.scores["profit_per_customer"].value == metrics.profit(y, p, threshold, COSTS)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(TIED)), min_size=2, max_size=60))
def test_auc_equals_sklearns_with_ties(drawn_rows: list[tuple[bool, float]]) -> None:
    y, p = (np.array(values) for values in zip(*drawn_rows, strict=True))
    assume(0 < y.sum() < len(y))

    assert _auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)


def test_a_score_includes_the_test_score_if_there_is_one() -> None:
    y, p = drawn(200)

    found = with_test_scores(y, p, roc_auc=0.8, ece=0.01)

    assert {name: score.test for name, score in found.scores.items()} == {
        "roc_auc": 0.8,
        "log_loss": None,
        "ece": 0.01,
        "brier": None,
        "profit_per_customer": None,
    }


# Intervals


def test_confidence_intervals_have_about_their_nominal_coverage(truth: dict[str, float]) -> None:
    names = ("roc_auc", "log_loss", "brier", "profit_per_customer")

    hits = [of_seed(seed).scores for seed in SEEDS]

    for name in names:
        assert sum(found[name].low <= truth[name] <= found[name].high for found in hits) >= len(SEEDS) - 3, name


def test_the_interval_of_the_change_contains_zero_if_nothing_changed(truth: dict[str, float]) -> None:
    found = [of_seed(seed, **truth) for seed in SEEDS]

    assert sum(each.auc_change_low <= 0 <= each.auc_change_high for each in found) >= len(SEEDS) - 2


def test_the_interval_of_the_change_includes_the_test_score_error() -> None:
    y, p = drawn()
    exact, few = with_test_scores(y, p), with_test_scores(y, p, rows=400, positives=100)

    auc = exact.scores["roc_auc"]
    assert (exact.auc_change_low, exact.auc_change_high) == pytest.approx((auc.low - 0.75, auc.high - 0.75))
    widths = [each.auc_change_high - each.auc_change_low for each in (exact, few)]
    own = 2 * 1.96 * hanley_mcneil(0.75, 100, 300)
    assert widths[1] == pytest.approx(np.hypot(widths[0], own), rel=0.1)


def test_the_interval_is_narrower_with_more_labels() -> None:
    few, many = (with_test_scores(*drawn(n)).scores["roc_auc"] for n in (500, 8000))

    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.25)


def test_the_interval_depends_on_the_seed_only() -> None:
    y, p = drawn(300)

    first, again, other = (
        measured(y, p, threshold=THRESHOLD, costs=COSTS, test={"roc_auc": 0.75}, seed=seed) for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


def test_resamples_of_one_class_are_left_out_of_the_interval() -> None:
    y, p = np.array([True] + [False] * 9), np.linspace(0.9, 0.1, 10)

    found = with_test_scores(y, p)

    assert all(np.isfinite((score.low, score.high)).all() for score in found.scores.values())
    assert np.isfinite((found.auc_change_low, found.auc_change_high)).all()


# Verdicts


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ((-0.05, -0.08, -0.0201), Verdict.BAD),
        ((-0.05, -0.08, -0.02), Verdict.WARN),
        ((-0.05, -0.08, -0.0001), Verdict.WARN),
        ((-0.05, -0.10, 0.0), Verdict.BETWEEN),
        ((-0.02, -0.05, 0.01), Verdict.BETWEEN),
        ((-0.016, -0.05, 0.01), Verdict.BETWEEN),
        ((-0.0159, -0.05, 0.01), Verdict.CLEAN),
        ((0.0, -0.03, 0.03), Verdict.CLEAN),
        ((0.05, 0.02, 0.08), Verdict.CLEAN),
    ],
)
def test_the_verdict_follows_the_upper_bound_of_the_change(change: tuple[float, float, float], verdict: Verdict) -> None:
    assert changed(*change).verdict() is verdict


def test_the_tolerated_loss_is_0_02_auc() -> None:
    assert MAX_AUC_LOSS == 0.02


@pytest.mark.parametrize("seed", range(5))
def test_a_much_worse_model_is_bad(seed: int, truth: dict[str, float]) -> None:
    y, p = drawn(seed=seed)
    worse = np.clip(p + np.random.default_rng(seed).normal(0, 0.3, len(p)), 0, 1)

    found = with_test_scores(y, worse, **truth)

    assert found.auc_change < -0.08
    assert found.verdict() is Verdict.BAD


def test_an_equal_model_is_never_bad(truth: dict[str, float]) -> None:
    verdicts = [of_seed(seed, **truth).verdict() for seed in SEEDS]

    assert Verdict.BAD not in verdicts
    assert verdicts.count(Verdict.WARN) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_below_the_tolerance_is_not_bad(seed: int, truth: dict[str, float]) -> None:
    y, p = drawn(seed=seed)

    assert with_test_scores(y, p, **truth | {"roc_auc": truth["roc_auc"] + 0.015}).verdict() is not Verdict.BAD


def test_the_reason_is_one_line_with_both_scores_and_the_interval() -> None:
    found = replace(changed(-0.05, -0.08, -0.0201), scores={"roc_auc": Score(0.79, 0.76, 0.82, 0.84)})

    assert found.reason == "ROC-AUC 0.790 on 1000 final labels, 0.840 on the test rows: -0.050 [-0.080, -0.020]"


# The standard error of a ROC-AUC


def test_the_standard_error_is_exact_for_exponential_scores() -> None:
    """The formula is exact for exponential scores, from which the two derived it."""
    rng = np.random.default_rng(0)
    positives, negatives, ratio = 51, 58, 0.893 / 0.107
    labels = np.arange(positives + negatives) < positives

    aucs = [
        _auc(labels, np.r_[rng.exponential(ratio, positives), rng.exponential(1, negatives)].astype(np.float64))
        for _ in range(4000)
    ]

    assert np.mean(aucs) == pytest.approx(0.893, abs=0.002)
    assert hanley_mcneil(0.893, positives, negatives) == pytest.approx(np.std(aucs), rel=0.05)


def test_the_standard_error_is_close_to_the_bootstrap_estimate(truth: dict[str, float]) -> None:
    y, p = drawn()

    auc = with_test_scores(y, p).scores["roc_auc"]

    expected = hanley_mcneil(truth["roc_auc"], float(y.sum()), float((~y).sum()))
    assert (auc.high - auc.low) / (2 * 1.96) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("auc", [0.5, 0.75, 0.95])
def test_four_times_the_rows_halve_the_standard_error(auc: float) -> None:
    assert hanley_mcneil(auc, 4000, 12000) == pytest.approx(hanley_mcneil(auc, 1000, 3000) / 2, rel=0.01)


def test_a_perfect_auc_has_no_standard_error() -> None:
    assert hanley_mcneil(1.0, 50, 100) == 0.0


# What probabilities promise


def pairwise_auc(p: Any) -> float:
    """The same by brute force: every pair of rows, one as churned and the other as retained."""
    ahead = (p[:, None] > p).astype(float) + (p[:, None] == p) / 2
    weights = p[:, None] * (1 - p)
    return float((ahead * weights).sum() / weights.sum())


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(TIED), st.floats(0.01, 0.99)), min_size=1, max_size=40))
def test_expected_auc_equals_the_sum_over_all_pairs(probabilities: list[float]) -> None:
    p = np.array(probabilities)

    assert promised_auc(p) == pytest.approx(pairwise_auc(p), abs=1e-9)


def test_expected_auc_equals_sklearns_auc_of_weighted_rows() -> None:
    _, p = drawn(300)
    p = p.round(2)
    y, both, weights = np.r_[np.ones(300), np.zeros(300)], np.r_[p, p], np.r_[p, 1 - p]

    assert promised_auc(p) == pytest.approx(roc_auc_score(y, both, sample_weight=weights), abs=1e-12)


def test_expected_auc_does_not_depend_on_row_order() -> None:
    _, p = drawn(300)

    assert promised_auc(p[::-1]) == pytest.approx(promised_auc(p), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (0.5, 1.5)])
def test_calibrated_probabilities_have_the_expected_auc(shape: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(*shape, 50_000)
    y = rng.random(50_000) < p

    assert promised_auc(p) == pytest.approx(metrics.roc_auc(y, p), abs=0.006)


def test_constant_probabilities_have_an_expected_auc_of_0_5() -> None:
    assert promised_auc(np.full(10, 0.3)) == pytest.approx(0.5)


def test_probabilities_of_0_and_1_have_an_expected_auc_of_1() -> None:
    assert promised_auc(np.array([0.0, 0.0, 1.0])) == 1.0


def test_concept_drift_does_not_change_the_expected_auc(truth: dict[str, float]) -> None:
    y, p = drawn()
    other = np.random.default_rng(1).permutation(y)

    assert promised_auc(p) == pytest.approx(truth["roc_auc"], abs=0.02)
    assert with_test_scores(other, p, **truth).verdict() is Verdict.BAD
