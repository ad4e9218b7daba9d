"""Drift is found where there is some, rarely where there is none, and not because of types, nulls or small windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn import models
from churn.adapters.rows import typed
from churn.adapters.sources import read
from churn.domain.encoding import derive, encode, encoded_names
from churn.features import FEATURES
from churn.models.gradient_boosting import explain
from churn.params import load_params
from churn.pipeline.selection import by_contributions
from monitoring import versions
from monitoring.drift import MISSING, SCORE, Drift, Report, measure, noise
from monitoring.policy import SIGNALS, Kind, Labels, Rules, Seen, Verdict, decide, signals_on

# Evidently and its libraries warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
THRESHOLD = 0.124
ROWS, REFERENCE_ROWS = 500, 5000


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    """The shipped customers with derived features."""
    frame, _ = typed(read(str(ROOT / "data/raw/customers.csv")))
    return with_features(frame)


def with_features(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {str(name): frame[name].astype(str) if str(frame[name].dtype) == "category" else frame[name] for name in frame}
    return frame.assign(**{name: np.asarray(values) for name, values in derive(columns).items()})


@pytest.fixture(scope="module")
def model(customers: pd.DataFrame) -> Any:
    """The project's own model, fitted on half of the customers."""
    half = customers.iloc[::2]
    unfitted = models.build(load_params(ROOT / "params.yaml").train, "gradient_boosting").unfitted(max_depth=2, n_estimators=100)
    return unfitted.fit(encode(half), half["churned"].astype(bool))


@pytest.fixture(scope="module")
def important(customers: pd.DataFrame, model: Any) -> tuple[str, ...]:
    """Its five most important features."""
    return versions.important(by_contributions(explain(model), encoded_names(), encode(customers)))[:5]


@pytest.fixture(scope="module")
def scored(model: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Adds the model's score."""
    return lambda frame: frame.assign(**{SCORE: model.predict_proba(encode(frame))[:, 1]})


Split = tuple[pd.DataFrame, Callable[..., pd.DataFrame]]


@pytest.fixture(scope="module")
def split(customers: pd.DataFrame, scored: Callable[[pd.DataFrame], pd.DataFrame]) -> Split:
    """The reference, and undrifted windows: both drawn from all customers, as two samples of one population are."""
    reference = scored(customers).sample(REFERENCE_ROWS, random_state=0)

    def window(seed: int, rows: int = ROWS) -> pd.DataFrame:
        return scored(customers).sample(rows, random_state=seed + 1)

    return reference, window


@pytest.fixture
def measured(split: Split, important: tuple[str, ...]) -> Callable[[pd.DataFrame], Drift]:
    """What a window shows against the reference."""
    return lambda window: measure(window, split[0], important=important, threshold=THRESHOLD)


Measured = Callable[[pd.DataFrame], Drift]


def test_windows_without_drift_rarely_show_drift_and_never_retrain(split: Split, measured: Measured) -> None:
    _, window = split
    rules = Rules(
        cooldown=pd.Timedelta(0), budget=99, budget_time=pd.Timedelta(days=999), max_rejected=2, min_rows=0, min_positives=0
    )
    past: list[Seen] = []
    decisions = []

    for number in range(200):
        drift = measured(window(number))
        at = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number)
        verdicts = dict.fromkeys(SIGNALS, Verdict.INSUFFICIENT) | {"short": drift.verdict(min_rows=ROWS)}
        seen = Seen(at, "1", verdicts, {"short": "; ".join(drift.reasons)}, signals_on(verdicts, at, past))
        decisions.append(decide(seen, [], Labels(10**6, 10**6), rules).kind)
        past.append(seen)

    assert sum(each.verdicts["short"] is Verdict.BAD for each in past) <= 2
    assert Kind.RETRAIN not in decisions


def detected(change: Callable[[pd.DataFrame, int], pd.DataFrame], split: Split, measured: Measured, windows: int = 100) -> float:
    """The share of changed windows that count as drifted."""
    _, window = split
    changed = (measured(change(window(number), number)) for number in range(windows))
    return float(np.mean([each.verdict(min_rows=ROWS) is Verdict.BAD for each in changed]))


def test_a_price_rise_of_10_percent_is_detected_in_95_percent_of_windows(
    split: Split, measured: Measured, scored: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    def raised(window: pd.DataFrame, seed: int) -> pd.DataFrame:
        return scored(with_features(window.assign(monthly_fee=(window["monthly_fee"] * 1.1).round(2))))

    assert detected(raised, split, measured) >= 0.95


def test_threefold_new_customers_are_detected_in_95_percent_of_windows(
    split: Split, measured: Measured, customers: pd.DataFrame, scored: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    weights = np.where(customers["member_months"] <= 6, 3.0, 1.0)

    def surged(window: pd.DataFrame, seed: int) -> pd.DataFrame:
        return scored(customers.sample(ROWS, weights=weights, random_state=seed))

    assert detected(surged, split, measured) >= 0.95


def test_a_window_below_the_required_rows_can_only_warn(split: Split, measured: Measured) -> None:
    _, window = split
    raised = window(0, 400).assign(member_months=1)

    drift = measured(raised)

    assert drift.verdict(min_rows=400) is Verdict.BAD
    assert drift.verdict(min_rows=500) is Verdict.WARN


def test_a_feature_of_nulls_only_is_broken_and_the_others_are_measured(split: Split, measured: Measured) -> None:
    _, window = split

    drift = measured(window(0).assign(monthly_fee=np.nan))

    assert drift.broken == ("monthly_fee",)
    assert "monthly_fee all null" in drift.reasons
    assert len(drift.features) >= len(FEATURES) - 1


def test_a_higher_share_of_nulls_is_drift(split: Split, measured: Measured) -> None:
    _, window = split
    holed = window(0)
    holed.loc[holed.sample(frac=0.3, random_state=0).index, "total_fees"] = np.nan

    found = {each.name: each for each in measured(holed).features}

    assert not found["total_fees"].is_drifted
    assert found["total_fees" + MISSING].is_drifted


def test_the_same_values_in_other_types_do_not_drift(split: Split, measured: Measured) -> None:
    _, window = split
    logged = window(0)
    categories = [each for each in logged if str(logged[each].dtype) == "category"]
    texts = logged.astype(dict.fromkeys(categories, str)).astype({"member_months": "float32"})

    as_they_were, as_texts = (measured(each) for each in (logged, texts))

    assert [each.value for each in as_texts.features] == pytest.approx([each.value for each in as_they_were.features])


def test_an_unseen_category_is_drift(split: Split, measured: Measured) -> None:
    _, window = split
    new = window(0).astype({"paid_by": str})
    new.loc[new.sample(frac=0.15, random_state=0).index, "paid_by"] = "Crypto"

    found = {each.name: each for each in measured(new).features}

    assert found["paid_by"].is_drifted


def test_a_changed_positive_rate_alone_is_drift(split: Split, measured: Measured) -> None:
    _, window = split

    drift = measured(window(0).assign(**{SCORE: lambda frame: frame[SCORE].clip(lower=THRESHOLD)}))

    assert drift.positive_rate == 1.0
    assert any(each.startswith("positive rate") for each in drift.reasons)


def test_the_noise_floor_is_above_random_variation() -> None:
    random = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    found = []
    for _ in range(2000):
        one, other = (random.multinomial(rows, shares) / rows for rows in (ROWS, REFERENCE_ROWS))
        found.append(float(((one - other) * np.log(one / other)).sum()))

    bound = noise(ROWS, REFERENCE_ROWS, bins=10, columns=1)

    assert 0.003 < np.mean(np.array(found) >= bound) < 0.02


def test_the_evidently_report_has_the_same_values_and_thresholds(split: Split) -> None:
    reference, window = split
    holed = window(0)
    holed.loc[holed.sample(frac=0.3, random_state=0).index, "total_fees"] = np.nan
    reports: list[tuple[str, dict[str, Any]]] = []
    report = Report(lambda snapshot, name: reports.append((name, snapshot.dict())), "w", {"version": "1"})

    drift = measure(holed, reference, important=(), threshold=THRESHOLD, report=report)

    ((name, written),) = reports
    configured = {
        each["config"]["column"]: (each["config"]["method"], each["config"]["threshold"], float(each["value"]))
        for each in written["metrics"]
        if each["config"]["type"].endswith(":ValueDrift")
    }
    assert name == "w"
    assert configured == {each.name: ("psi", each.bound, each.value) for each in (*drift.features, drift.score)}


def test_a_changed_score_distribution_is_drift(split: Split, measured: Measured) -> None:
    _, window = split

    drift = measured(window(0).assign(**{SCORE: lambda frame: np.sqrt(frame[SCORE])}))

    assert drift.score.is_drifted
    assert any(each.startswith("score PSI") for each in drift.reasons)
