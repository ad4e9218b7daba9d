"""What becomes of a candidate that passed every check."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.contract import LABEL, TIMESTAMP
from churn.domain.encoding import derive, encoded_names
from churn.domain.gate import Advice, Check
from churn.domain.metrics import Interval
from churn.domain.version import Version
from churn.errors import ConfigError
from churn.params import Evaluate, load_params
from churn.pipeline.evaluate import (
    Evaluation,
    check_trusted,
    decide,
    examine_columns,
    model_card,
    newer_days,
    newest_rows,
)
from factory import rows

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SCORES = {"roc_auc": 0.85, "log_loss": 0.4, "roc_auc_sd": 0.01}
TRAINED = {
    "algorithm": "gradient_boosting",
    "hyperparameters": {"max_depth": 2, "n_estimators": 80},
    "candidates": 5,
    "rows": 100,
    "churn_rate": 0.25,
    "cv": SCORES,
    "baseline_cv": SCORES,
}

NOTHING: dict[str, Any] = {"rows": 0, "positives": 0, "test": {}, "baseline": {}, "slices": {}, "fairness": [], "checks": []}


def version(number: str, digest: str, threshold: str = "0.05") -> Version:
    tags = {"bundle_sha256": number, "onnx_sha256": digest, "threshold": threshold}
    return Version(number, datetime(2026, 11, 26, tzinfo=UTC), aliases=(), tags=tags, metrics={}, run_id="run")


def evaluation(**found: Any) -> Evaluation:
    return Evaluation(threshold=0.05, **NOTHING, **found)


def test_the_first_version_has_nobody_to_be_compared_with() -> None:
    assert decide(evaluation(), version("1", "a"), None)["promoted"]


def test_the_champions_own_model_made_anew_moves_nothing() -> None:
    decision = decide(evaluation(), version("3", "a"), version("1", "a"))

    assert decision == {
        "promoted": False,
        "outcome": "unchanged",
        "reason": "version 1 is production already, and the same model",
    }


def test_the_same_model_replaces_a_champion_that_was_registered_before_bundles_had_a_digest() -> None:
    champion = version("1", "a")
    del champion.tags["bundle_sha256"]

    assert decide(evaluation(), version("3", "a"), champion)["promoted"]


def test_the_same_model_with_another_threshold_decides_otherwise_and_is_promoted() -> None:
    assert decide(evaluation(), version("3", "a"), version("1", "a", threshold="0.1"))["promoted"]


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ("2026-10-01T00:00:00+00:00", datetime(2026, 10, 1, tzinfo=UTC)),
        ("2026-11-26T00:00:00+00:00", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26T00:00:01+00:00", None),
        ("2099-01-01T00:00:00+00:00", None),
        (None, None),
    ],
)
def test_a_newest_row_later_than_its_version_is_unknown(noted: str | None, expected: datetime | None) -> None:
    made = version("1", "a")
    if noted:
        made.tags["newest_row"] = noted

    assert made.newest_row == expected


@pytest.mark.reported
def test_a_champion_that_learned_a_row_of_the_future_is_compared_by_its_scores_alone() -> None:
    candidate, champion = version("2", "b"), version("1", "a")
    candidate.tags["newest_row"] = "2026-10-20T00:00:00+00:00"
    champion.tags["newest_row"] = "2099-01-01T00:00:00+00:00"

    assert newer_days(candidate, champion) is None


def test_another_model_is_promoted_with_what_it_gains() -> None:
    gained = {"roc_auc": Interval(0.01, 0.002, 0.02)}

    decision = decide(evaluation(differences=gained), version("3", "b"), version("1", "a"))

    assert decision == {
        "promoted": True,
        "outcome": "promoted",
        "reason": "passed every check; better than version 1: ΔAUC +0.0100 [+0.0020, +0.0200]",
    }


SLICE = Check("roc_auc − champion's where is_student=no", -0.05, "≥ -0.03", False)
SLOPE = Check("calibration_slope", 0.7, "not wholly outside [0.9, 1.2]", False, Advice("it is overfitted", "`more`"), 0.6, 0.8)
FEW = Check("churned customers", 31, "≥ 50", False, Advice("few", "add rows"))


def decided(*checks: Check) -> dict[str, Any]:
    return decide(Evaluation(threshold=0.05, **NOTHING | {"checks": list(checks)}), version("2", "b"), version("1", "a"))


@pytest.mark.reported
def test_a_refusal_names_each_failed_check_with_what_was_expected() -> None:
    assert decided(SLICE)["reason"] == "failed roc_auc − champion's where is_student=no: -0.0500, must be ≥ -0.03"


def test_a_refusal_names_the_likely_cause_and_the_next_step_of_the_first_failed_check() -> None:
    decision = decided(SLOPE, SLICE)

    assert not decision["promoted"]
    assert decision["outcome"] == "failed"
    assert decision["reason"] == (
        "failed calibration_slope: 0.7000 [0.6000, 0.8000], must be not wholly outside [0.9, 1.2]; "
        "roc_auc − champion's where is_student=no: -0.0500, must be ≥ -0.03. Likely cause: it is overfitted. Next: `more`"
    )


def test_too_few_churned_customers_are_no_verdict_on_the_model() -> None:
    decision = decided(FEW, SLOPE)

    assert not decision["promoted"]
    assert decision["outcome"] == "too few churned customers"
    assert decision["reason"] == "too few churned customers: 31, must be ≥ 50. Likely cause: few. Next: add rows"


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([], "passed"),
        ([SLOPE, SLICE], "failed: calibration_slope, roc_auc − champion's where is_student=no"),
        ([FEW, SLOPE], "too few churned customers"),
    ],
)
def test_the_verdict_is_one_of_three(checks: list[Check], verdict: str) -> None:
    assert Evaluation(threshold=0.05, **NOTHING | {"checks": checks}).verdict == verdict


def frame_of(churned: list[int], *, days: list[int]) -> pd.DataFrame:
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    return pd.DataFrame({LABEL: np.array(churned, dtype=bool), TIMESTAMP: at})


def rules(newest: int, least: int) -> Evaluate:
    gate = PARAMS.evaluate.gate.model_copy(update={"min_of_class": least})
    return PARAMS.evaluate.model_copy(update={"newest_rows": newest, "gate": gate})


@pytest.mark.parametrize(
    ("least", "expected"),
    [(1, [6, 7]), (2, [4, 5, 6, 7]), (3, list(range(8))), (9, list(range(8)))],
)
def test_as_many_of_the_newest_rows_are_tested_as_a_decision_needs(least: int, expected: list[int]) -> None:
    frame = frame_of([1, 0, 1, 0, 1, 0, 1, 0], days=list(range(8)))

    assert newest_rows(frame, rules(2, least)).tolist() == expected


def test_a_trusted_column_that_no_feature_has_is_refused() -> None:
    check_trusted(("commitment", "member_months"))

    with pytest.raises(ConfigError, match="trusted_columns: expected features of the contract, got tenor"):
        check_trusted(("commitment", "tenor"))


def test_inputs_are_examined_on_test_rows_and_on_rows_that_were_learned_from() -> None:
    frame = pd.DataFrame(derive(rows(120, seed=1))).assign(**{LABEL: np.arange(120) < 60})
    learned = pd.DataFrame(derive(rows(80, seed=2))).assign(**{LABEL: np.arange(80) < 20}).assign(churn_probability=0.25)

    found = examine_columns(frame, np.linspace(0.9, 0.1, 120), learned, encoded_names())

    assert found.churn_rate == 0.4
    assert tuple(found.alone) == tuple(found.at_end) == encoded_names()


def card(trained: dict[str, Any] = TRAINED, **profits: float) -> str:
    test = {"profit_per_customer": 45.0, "profit_per_customer_at_half": 31.0} | profits
    found = Evaluation(threshold=0.124, **NOTHING | {"test": test, "baseline": test})
    return text_of(found, {"promoted": True, "outcome": "promoted", "reason": "passed"}, trained)


def text_of(found: Evaluation, decision: dict[str, Any], trained: dict[str, Any] = TRAINED) -> str:
    return " ".join(model_card(found, decision, PARAMS, trained, encoded_names()).split())


@pytest.mark.parametrize(
    ("checks", "headline"),
    [([], "**Promoted**"), ([SLOPE], "**Refused**: failed calibration_slope"), ([FEW], "**Not decided**: too few churned")],
)
def test_the_card_says_what_became_of_the_version(checks: list[Check], headline: str) -> None:
    test = {"profit_per_customer": 45.0, "profit_per_customer_at_half": 31.0}
    found = Evaluation(threshold=0.124, **NOTHING | {"test": test, "baseline": test, "checks": checks})

    assert headline in text_of(found, decide(found, version("2", "b"), None))


def test_the_card_has_each_check_with_its_interval_and_the_advice_of_those_that_failed() -> None:
    test = {"profit_per_customer": 45.0, "profit_per_customer_at_half": 31.0}
    found = Evaluation(threshold=0.124, **NOTHING | {"test": test, "baseline": test, "checks": [SLOPE, FEW]})

    text = text_of(found, decide(found, version("2", "b"), None))

    assert "| calibration_slope | 0.7000 | [0.6000, 0.8000] | not wholly outside [0.9, 1.2] | **failed** |" in text
    assert "| churned customers | 31 | | ≥ 50 | **failed** |" in text
    assert "Likely cause: it is overfitted. Next: `more`." in text
    assert "Likely cause: few. Next: add rows." in text


@pytest.mark.reported
def test_the_card_names_the_chosen_model_and_by_which_rule_it_was_chosen() -> None:
    assert "gradient_boosting, max_depth 2, n_estimators 80: of 5 candidates, the first whose log loss in 3-fold" in card()


def test_the_card_of_a_single_candidate_speaks_of_no_choice() -> None:
    assert "max_depth 2, n_estimators 80. Served" in card(TRAINED | {"candidates": 1})


def test_the_card_of_a_model_without_hyperparameters_names_the_model_alone() -> None:
    alone = {"algorithm": "logistic_regression", "hyperparameters": {}, "candidates": 1}

    assert "Algorithm: logistic_regression. Served" in card(TRAINED | alone)


@pytest.mark.reported
def test_the_card_says_where_the_cost_threshold_earns_less_than_one_half() -> None:
    warning = "threshold from the costs earns less than one half does"

    assert warning in card(profit_per_customer=30.0)
    assert warning not in card()
    assert "30.00; at a threshold of one half it would be 31.00" in card(profit_per_customer=30.0)


def test_the_card_says_where_contacting_loses_money() -> None:
    assert "contacting no customer costs nothing" in card(profit_per_customer=-1.0, profit_per_customer_at_half=-2.0)
    assert "contacting nobody" not in card()
