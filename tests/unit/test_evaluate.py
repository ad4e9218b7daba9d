"""What becomes of a candidate that passed every check."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from churn.domain.encoding import encoded_names
from churn.domain.gate import Check
from churn.domain.metrics import Difference
from churn.domain.version import Version
from churn.params import load_params
from churn.pipeline.evaluate import Evaluation, decide, model_card, newer_days

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

    assert decision == {"promoted": False, "reason": "version 1 is production already, and the same model"}


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
    gained = {"roc_auc": Difference(0.01, 0.002, 0.02)}

    decision = decide(evaluation(differences=gained), version("3", "b"), version("1", "a"))

    assert decision == {"promoted": True, "reason": "passed every check; better than version 1: ΔAUC +0.0100 [+0.0020, +0.0200]"}


@pytest.mark.reported
def test_a_refusal_names_each_failed_check_with_what_was_expected() -> None:
    failed = Check("roc_auc − champion's where is_senior=no", -0.05, "≥ -0.03", False)

    decision = decide(Evaluation(threshold=0.05, **NOTHING | {"checks": [failed]}), version("2", "b"), version("1", "a"))

    assert decision["reason"] == "failed roc_auc − champion's where is_senior=no: -0.0500, must be ≥ -0.03"


def card(trained: dict[str, Any] = TRAINED, **profits: float) -> str:
    test = {"profit_per_customer": 45.0, "profit_per_customer_at_half": 31.0} | profits
    found = Evaluation(threshold=0.124, **NOTHING | {"test": test, "baseline": test})
    return " ".join(model_card(found, {"promoted": True, "reason": "passed"}, PARAMS, trained, encoded_names()).split())


@pytest.mark.reported
def test_the_card_names_the_chosen_model_and_by_which_rule_it_was_chosen() -> None:
    assert "gradient_boosting, max_depth 2, n_estimators 80: of 5 candidates, the one with the least log loss in 3-fold" in card()


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
