from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from churn.domain.gate import Check, Evidence, SourceRows, evaluate
from churn.domain.metrics import Difference, scores
from churn.params import Gate, load_params

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate

EDGE = 1 / 128
"""A margin that a float holds exactly, so that a difference can lie on it."""

BOUNDS = Gate(
    min_auc=0.75,
    max_auc=0.875,
    max_relative_log_loss=0.5,
    max_ece=0.0625,
    min_calibration_slope=0.75,
    max_calibration_slope=1.25,
    baseline_auc_margin=EDGE,
    champion_auc_margin=EDGE,
    champion_log_loss_margin=EDGE,
    slice_auc_margin=4 * EDGE,
    slice_min_rows=100,
    source_min_auc=0.625,
    source_auc_margin=0.125,
    source_min_of_class=50,
)
GOOD = {"roc_auc": 0.8125, "relative_log_loss": 0.4, "ece": 0.01, "calibration_slope": 1.0}
SAME = {"roc_auc": Difference(0.0, -0.01, 0.01), "log_loss": Difference(0.0, -0.01, 0.01)}
EVIDENCE = Evidence(GOOD, baseline={"roc_auc": 0.8125}, differences=SAME, slices={"term=One year": (100, 0.75, 0.75)})


def refused(evidence: Evidence) -> list[str]:
    return [check.name for check in evaluate(evidence, BOUNDS) if not check.passed]


def with_score(name: str, value: float) -> Evidence:
    """Good evidence but for one score of the candidate; the baseline follows its ROC-AUC."""
    candidate = GOOD | {name: value}
    return replace(EVIDENCE, candidate=candidate, baseline={"roc_auc": candidate["roc_auc"]})


def test_good_evidence_passes_every_check() -> None:
    assert refused(EVIDENCE) == []


@pytest.mark.parametrize(
    ("score", "edge", "beyond", "check"),
    [
        ("roc_auc", 0.75, 0.7499, "roc_auc"),
        ("roc_auc", 0.875, 0.8751, "roc_auc (leakage)"),
        ("relative_log_loss", 0.5, 0.5001, "log_loss / the churn rate's"),
        ("ece", 0.0625, 0.0626, "ece"),
        ("calibration_slope", 0.75, 0.7499, "calibration_slope"),
        ("calibration_slope", 1.25, 1.2501, "calibration_slope"),
    ],
)
def test_a_score_passes_at_its_bound_and_is_refused_by_name_beyond(score: str, edge: float, beyond: float, check: str) -> None:
    assert refused(with_score(score, edge)) == []
    assert refused(with_score(score, beyond)) == [check]


@pytest.mark.parametrize("score", ["roc_auc", "relative_log_loss", "ece", "calibration_slope"])
def test_a_score_that_is_nan_is_refused(score: str) -> None:
    name = "log_loss / the churn rate's" if score == "relative_log_loss" else score
    assert name in refused(with_score(score, float("nan")))


def test_a_candidate_may_be_worse_than_the_baseline_by_the_margin_and_no_more() -> None:
    at, beyond = (replace(EVIDENCE, baseline={"roc_auc": GOOD["roc_auc"] + gap}) for gap in (EDGE, EDGE + 1e-4))

    assert refused(at) == []
    assert refused(beyond) == ["roc_auc − baseline's"]


def test_a_candidate_that_has_not_seen_what_the_champion_has_is_refused() -> None:
    same, newer, older, unknown = (refused(replace(EVIDENCE, newer_days=days)) for days in (0.0, 30.0, -1.0, None))

    assert (same, newer, unknown) == ([], [], [])
    assert older == ["newest row − champion's, days"]


@pytest.mark.parametrize(("name", "sign"), [("roc_auc", -1), ("log_loss", 1)])
def test_a_candidate_may_be_worse_than_the_champion_by_the_margin_and_no_more(name: str, sign: int) -> None:
    at, beyond = (replace(EVIDENCE, differences=SAME | {name: Difference(sign * gap, -1.0, 1.0)}) for gap in (EDGE, EDGE + 1e-4))

    assert refused(at) == []
    assert refused(beyond) == [f"{name} − champion's"]


def test_a_group_may_be_worse_by_its_margin_and_no_more() -> None:
    at, beyond = (replace(EVIDENCE, slices={"term=One year": (100, 0.75 - gap, 0.75)}) for gap in (4 * EDGE, 4 * EDGE + 1e-4))

    assert refused(at) == []
    assert refused(beyond) == ["roc_auc − champion's where term=One year"]


@pytest.mark.parametrize("group", [(99, 0.1, 0.9), (100, float("nan"), 0.9), (100, 0.9, float("nan"))])
def test_a_group_of_few_rows_or_of_one_class_is_not_evaluated(group: tuple[int, float, float]) -> None:
    names = [check.name for check in evaluate(replace(EVIDENCE, slices={"few": group}), BOUNDS)]

    assert not any("few" in name for name in names)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceRows(50, 50, 0.625, 0.75), []),
        (SourceRows(50, 50, 0.6249, 0.6249), ["roc_auc on source rows"]),
        (SourceRows(50, 50, 0.75, 0.8751), ["roc_auc − champion's on source rows"]),
        (SourceRows(50, 50, 0.6249), ["roc_auc on source rows"]),
        (SourceRows(49, 5000, 0.1, 0.9), []),
        (SourceRows(5000, 49, 0.1, 0.9), []),
        (SourceRows(50, 50, float("nan"), 0.9), ["roc_auc on source rows", "roc_auc − champion's on source rows"]),
    ],
)
def test_source_rows_are_evaluated_by_their_own_bounds(source: SourceRows, expected: list[str]) -> None:
    assert refused(replace(EVIDENCE, source=source)) == expected


def test_without_a_champion_nothing_is_compared_with_one() -> None:
    checks = evaluate(Evidence(GOOD, baseline={"roc_auc": 0.8125}), BOUNDS)

    assert not any("champion" in check.name for check in checks)
    assert all(check.passed for check in checks)


def test_every_failure_is_told_at_once() -> None:
    poor = Evidence({"roc_auc": 0.5, "relative_log_loss": 1.0, "ece": 0.5, "calibration_slope": 3.0}, baseline={"roc_auc": 0.75})

    assert refused(poor) == ["roc_auc", "log_loss / the churn rate's", "ece", "calibration_slope", "roc_auc − baseline's"]


@pytest.mark.reported
def test_a_failed_check_says_what_was_measured_and_what_was_expected() -> None:
    slice_gap = "roc_auc − champion's where term=Two year"
    assert str(Check(slice_gap, -0.0412, "≥ -0.03", False)) == f"{slice_gap}: -0.0412, must be ≥ -0.03"
    assert str(Check("roc_auc", float("nan"), "≥ 0.82", False)) == "roc_auc: nan, must be ≥ 0.82"
    assert str(Check("ece", 0.01, "≤ 0.05", True)) == "ece: 0.0100 (≤ 0.05)"


def test_a_value_just_beyond_its_bound_does_not_read_as_if_it_held() -> None:
    assert str(Check("ece", 0.050001, "≤ 0.05", False)) == "ece: 0.050001, must be ≤ 0.05"


def test_the_committed_gate_refuses_a_model_that_knows_nothing() -> None:
    y = np.random.default_rng(0).random(2000) < 0.27
    p = np.full(len(y), y.mean())
    found = scores(y, p, PARAMS.costs)

    checks = evaluate(Evidence(found, baseline=found), PARAMS.gate)

    assert "roc_auc" in [check.name for check in checks if not check.passed]
