"""What a check and the book of retrainings say, as metrics."""

from collections.abc import Sequence
from datetime import datetime

from monitoring import metrics, policy
from monitoring.policy import Retraining, Rules, Verdict
from monitoring.record_types import CheckRecord, WindowSeen
from monitoring.versions import Watched

OF_THE_VERSION = (
    metrics.FEATURE_PSI,
    metrics.FEATURE_BOUND,
    metrics.DRIFTED,
    metrics.SCORE_PSI,
    metrics.POSITIVE_RATE,
    metrics.PERFORMANCE,
    metrics.PERFORMANCE_TEST,
    metrics.PERFORMANCE_ESTIMATED,
)
"""What an earlier version, or an earlier window, leaves behind where this one has nothing to say."""
TESTED = ("roc_auc", "log_loss", "ece", "brier", "profit_per_customer")
STATE_OF = {
    Verdict.CLEAN: "none",
    Verdict.BETWEEN: "none",
    Verdict.WARN: "warn",
    Verdict.BAD: "drift",
    Verdict.INCIDENT: "data incident",
    Verdict.INSUFFICIENT: "insufficient data",
}


def show_check(version: Watched, record: CheckRecord) -> None:
    """Set what a check's record says."""
    metrics.VERSION.clear()
    metrics.VERSION.labels(version.number).set(1)
    for each in metrics.DECISIONS:
        metrics.DECISION.labels(each).set(each == record.decision)
    for gauge in OF_THE_VERSION:
        gauge.clear()
    for window in record.windows:
        _show_window(window)
    for score, value in version.test.items():
        if score in TESTED:
            metrics.PERFORMANCE_TEST.labels(score).set(value)
    metrics.MATURED_ROWS.set(record.matured.rows)
    metrics.MATURED_POSITIVES.set(record.matured.positives)
    for score, found in record.performance.scores.items() if record.performance else ():
        for bound, value_or_none in (("value", found.value), ("low", found.low), ("high", found.high)):
            metrics.PERFORMANCE.labels(score, bound).set(_number(value_or_none))
    if record.promised_auc.window is not None:
        metrics.PERFORMANCE_ESTIMATED.labels("roc_auc").set(record.promised_auc.window)
    metrics.DAMAGED_PARTS.set(len(record.damaged_parts))
    metrics.REFUSED_OUTCOMES.set(record.refused_outcomes)


def _show_window(window: WindowSeen) -> None:
    which, drift = window.name, window.drift
    metrics.WINDOW_ROWS.labels(which).set(window.rows)
    metrics.WINDOW_VIOLATIONS.labels(which).set(len(window.violations))
    for state in metrics.STATES:
        metrics.WINDOW_STATE.labels(which, state).set(state == STATE_OF[window.verdict])
    if drift:
        for each in drift.features:
            metrics.FEATURE_PSI.labels(which, each.name).set(_number(each.value))
            metrics.FEATURE_BOUND.labels(which, each.name).set(_number(each.bound))
        metrics.DRIFTED.labels(which).set(len(drift.drifted))
        metrics.SCORE_PSI.labels(which).set(_number(drift.score.value))
        metrics.POSITIVE_RATE.labels(which).set(_number(drift.positive_rate))
        metrics.POSITIVE_RATE_REFERENCE.set(_number(drift.reference_rate))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def show_retrainings(history: Sequence[Retraining], rules: Rules, now: datetime) -> None:
    """Set what the retrainings so far say at that moment."""
    metrics.COOLDOWN.set(policy.cooldown_left(now, history, rules).total_seconds())
    metrics.CIRCUIT_OPEN.set(policy.is_circuit_open(history, rules))
    metrics.RUNNING.set(sum(each.result is None for each in history))
    recent = [each for each in history if each.started_at > now - rules.budget_time]
    metrics.STARTED.set(len(recent))
    for result in metrics.RESULTS:
        metrics.ENDED.labels(result).set(sum(each.result == result for each in recent))
