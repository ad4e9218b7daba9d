"""Every metric of the watcher, for Prometheus. The alerts and dashboards beside this file name no others of its."""

from prometheus_client import Counter, Gauge, Histogram

DECISIONS = ("keep", "warn", "retrain", "data incident", "insufficient data")
STATES = ("none", "warn", "drift", "data incident", "insufficient data")
RESULTS = ("promoted", "rejected", "failed")
WINDOWS = ("short", "long")

CHECKS = Counter("churn_monitor_checks", "Checks by result: done, or failed (the log says why)", ["result"])
CHECK_DURATION = Histogram(
    "churn_monitor_check_duration_seconds", "Time of one check", buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
)
LAST_CHECK = Gauge("churn_monitor_last_check_timestamp_seconds", "When the last check was done, Unix time")
INTERVAL = Gauge("churn_monitor_interval_seconds", "How often it looks")

COMPACTIONS = Counter("churn_monitor_compactions", "Compactions of the event log by result: done, or failed", ["result"])
RECORDS_SET_ASIDE = Gauge("churn_monitor_records_set_aside", "Records of the watcher that are damaged, or of the future")
DAMAGED_PARTS = Gauge("churn_monitor_damaged_parts", "Parts of the event log that the last check skipped as damaged")
REFUSED_OUTCOMES = Gauge("churn_monitor_refused_outcomes", "Outcomes of the last check whose times cannot be true")

VERSION = Gauge("churn_monitor_model_version", "The version that is watched: 1", ["version"])
DATA_AGE = Gauge("churn_monitor_data_age_seconds", "Age of the newest logged prediction at the last check")

WINDOW_ROWS = Gauge("churn_window_rows", "Rows in the window", ["window"])
WINDOW_STATE = Gauge("churn_window_state", "1 for the state that the window is in, 0 for the others", ["window", "state"])
WINDOW_VIOLATIONS = Gauge("churn_window_violations", "Rules of the contract that the window's rows break", ["window"])
FEATURE_PSI = Gauge(
    "churn_feature_psi", "Population stability index of a feature against the version's reference", ["window", "feature"]
)
FEATURE_BOUND = Gauge("churn_feature_psi_threshold", "From which PSI on the feature counts as drifted", ["window", "feature"])
DRIFTED = Gauge("churn_drifted_features", "How many features drifted", ["window"])
SCORE_PSI = Gauge("churn_score_psi", "PSI of the predicted probabilities", ["window"])
POSITIVE_RATE = Gauge("churn_positive_rate", "Share of rows at or above the decision threshold", ["window"])
POSITIVE_RATE_REFERENCE = Gauge("churn_positive_rate_reference", "The same share of the version's reference rows")

MATURED_ROWS = Gauge("churn_matured_rows", "Predictions whose label is final, of the version that is watched")
MATURED_POSITIVES = Gauge("churn_matured_positives", "Those of them that left")
PERFORMANCE = Gauge("churn_performance", "A score on matured labels: its value, and its 95 % bounds", ["score", "bound"])
PERFORMANCE_TEST = Gauge("churn_performance_test", "The same score of the version on its test rows", ["score"])
PERFORMANCE_ESTIMATED = Gauge(
    "churn_performance_estimated", "The score that the window's probabilities promise, without labels", ["score"]
)

DECISION = Gauge("churn_monitor_decision", "1 for the last decision, 0 for the others", ["decision"])
COOLDOWN = Gauge("churn_retrain_cooldown_seconds", "How long until a retraining may start")
CIRCUIT_OPEN = Gauge("churn_retrain_circuit_open", "1: too many retrainings were rejected or failed; a person must look")
RUNNING = Gauge("churn_retrain_running", "1 while a retraining is under way")
STARTED = Gauge("churn_retrains_started", "Retrainings that were started within the budget's time")
ENDED = Gauge("churn_retrains_ended", "Retrainings that ended within the budget's time, by result", ["result"])

SET_ASIDE = Gauge("churn_rows_set_aside", "Rows that the last run of a pipeline stage set aside", ["stage", "reason"])

for _result in ("done", "failed"):
    COMPACTIONS.labels(_result)
    CHECKS.labels(_result)  # from 0 on, so that the first one shows as an increase
