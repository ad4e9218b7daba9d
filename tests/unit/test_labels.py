"""Which predictions have a final label, and which one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn.adapters.events.labels import OUTCOME_COLUMNS, PREDICTION_COLUMNS, Refused, horizon, matured, once_per_horizon, periods
from churn.adapters.events.log import outcome_schema, prediction_schema
from churn.contract import ENTITY, LABEL, LABEL_HORIZON
from churn.settings import Settings

DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)
HORIZON = 30 * DAY
PREDICTED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = PREDICTED_AT + HORIZON


def predictions_of(*rows: tuple[str, str | None, datetime]) -> pd.DataFrame:
    """Predictions (id, customer, time) as the log gives them."""
    return logged(rows, ("prediction_id", ENTITY, "time"), prediction_schema())[[*PREDICTION_COLUMNS]]


def outcomes_of(*rows: tuple[str | None, str | None, bool, datetime], received: datetime | None = None) -> pd.DataFrame:
    """Reports (prediction, customer, left, observed) as the log gives them, received when they were observed, or then."""
    named = [(f"o{number}", *row, received or row[3]) for number, row in enumerate(rows)]
    return logged(named, OUTCOME_COLUMNS, outcome_schema())


def logged(rows: Sequence[tuple[Any, ...]], names: Sequence[str], schema: pa.Schema) -> pd.DataFrame:
    columns = {name: pa.array([row[number] for row in rows], schema.field(name).type) for number, name in enumerate(names)}
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame


def of_prediction(left: bool, observed: datetime, prediction: str = "p1") -> tuple[str | None, str | None, bool, datetime]:
    return prediction, None, left, observed


def of_customer(left: bool, observed: datetime, customer: str = "c1") -> tuple[str | None, str | None, bool, datetime]:
    return None, customer, left, observed


ONE = predictions_of(("p1", "c1", PREDICTED_AT))


def label(*reports: Any, now: datetime = END + 365 * DAY) -> bool | None:
    """The label of one prediction; None without a final outcome."""
    found = matured(ONE, outcomes_of(*reports), now=now, horizon=HORIZON)
    assert len(found) <= 1
    return bool(found[LABEL].iloc[0]) if len(found) else None


# When it is final


@pytest.mark.parametrize(
    "report",
    [of_prediction(True, PREDICTED_AT + DAY), of_customer(True, PREDICTED_AT + DAY)],
    ids=["by prediction", "by customer"],
)
def test_a_churned_label_is_final_at_the_end_of_the_horizon(report: Any) -> None:
    assert label(report, now=END - MOMENT) is None
    assert label(report, now=END) is True


@pytest.mark.parametrize("report", [of_prediction(False, END), of_customer(False, END)], ids=["by prediction", "by customer"])
def test_a_retained_label_is_final_if_observed_at_the_end_of_the_horizon(report: Any) -> None:
    assert label(report, now=END) is False


@pytest.mark.parametrize(
    "report", [of_prediction(False, END - MOMENT), of_customer(False, END - MOMENT)], ids=["by prediction", "by customer"]
)
def test_a_retained_outcome_before_the_end_of_the_horizon_is_no_label(report: Any) -> None:
    assert label(report) is None


def test_a_prediction_without_an_outcome_has_no_label() -> None:
    assert label() is None


# A report on the customer


@pytest.mark.parametrize(
    ("observed", "expected"),
    [(PREDICTED_AT - MOMENT, None), (PREDICTED_AT, True), (END, True), (END + MOMENT, False)],
    ids=["before", "at once", "at the end", "after the end"],
)
def test_a_customer_outcome_is_churned_only_within_the_horizon(observed: datetime, expected: bool | None) -> None:
    assert label(of_customer(True, observed)) is expected


def test_a_customer_who_churned_after_the_horizon_is_retained() -> None:
    assert label(of_customer(True, END + 100 * DAY)) is False


def test_churn_within_the_horizon_overrides_other_outcomes() -> None:
    left, stayed = of_customer(True, PREDICTED_AT + DAY), of_customer(False, END + DAY)

    assert label(left, stayed) is True
    assert label(stayed, left) is True


def test_an_outcome_of_another_customer_gives_no_label() -> None:
    assert label(of_customer(True, PREDICTED_AT + DAY, "c2")) is None


def test_a_customer_outcome_labels_every_prediction_of_the_customer() -> None:
    predictions = predictions_of(
        ("p1", "c1", PREDICTED_AT - 40 * DAY),
        ("p2", "c1", PREDICTED_AT),
        ("p3", "c1", PREDICTED_AT + 5 * DAY),
        ("p4", "c2", PREDICTED_AT),
    )

    found = matured(predictions, outcomes_of(of_customer(True, PREDICTED_AT + 3 * DAY)), now=END + 10 * DAY, horizon=HORIZON)

    assert dict(zip(found.prediction_id, found[LABEL], strict=True)) == {"p1": False, "p2": True}


# A report on the prediction


def test_a_churned_outcome_by_prediction_id_counts_at_any_time() -> None:
    assert label(of_prediction(True, PREDICTED_AT)) is True
    assert label(of_prediction(True, END + 100 * DAY)) is True


@pytest.mark.parametrize("left", [True, False])
def test_an_outcome_by_prediction_id_overrides_the_customers(left: bool) -> None:
    its, customers = of_prediction(left, END), of_customer(not left, END)

    assert label(its, customers) is left
    assert label(customers, its) is left


def test_a_prediction_outcome_that_is_not_final_overrides_none() -> None:
    assert label(of_prediction(False, END - MOMENT), of_customer(True, PREDICTED_AT + DAY)) is True


@pytest.mark.parametrize("last", [True, False])
def test_the_last_outcome_of_a_prediction_is_used(last: bool) -> None:
    assert label(of_prediction(not last, END), of_prediction(last, END)) is last


def test_a_last_outcome_that_is_not_final_keeps_an_earlier_one() -> None:
    assert label(of_prediction(True, PREDICTED_AT + DAY), of_prediction(False, PREDICTED_AT + 2 * DAY)) is True


def test_an_outcome_of_an_unknown_prediction_is_ignored() -> None:
    assert label(of_prediction(True, PREDICTED_AT + DAY, "p9")) is None


# Times that cannot be true

SKEW = timedelta(minutes=5)


@pytest.mark.reported
@pytest.mark.parametrize(
    "report",
    [of_prediction(True, PREDICTED_AT + DAY), of_customer(True, PREDICTED_AT + DAY)],
    ids=["by prediction", "by customer"],
)
@pytest.mark.parametrize(("ahead", "expected"), [(SKEW, True), (SKEW + MOMENT, None)])
def test_an_outcome_observed_after_its_receipt_is_refused(report: Any, ahead: timedelta, expected: bool | None) -> None:
    outcomes = outcomes_of(report, received=report[3] - ahead)

    found = matured(ONE, outcomes, now=END, horizon=HORIZON)

    assert found[LABEL].tolist() == ([] if expected is None else [expected])


@pytest.mark.reported
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize(("before", "used"), [(SKEW, True), (SKEW + MOMENT, False)])
def test_an_outcome_observed_before_its_prediction_is_refused(left: bool, before: timedelta, used: bool) -> None:
    refused: list[Refused] = []

    matured(ONE, outcomes_of(of_prediction(left, PREDICTED_AT - before)), now=END, horizon=HORIZON, on_refused=refused.append)

    assert refused == ([] if used else [Refused(before_the_prediction=("o0",))])


@pytest.mark.reported
@pytest.mark.parametrize("report", [of_prediction, of_customer], ids=["by prediction", "by customer"])
@pytest.mark.parametrize("year", [1600, 1970, 1999])
def test_an_outcome_of_an_impossible_year_is_refused(report: Any, year: int) -> None:
    refused: list[Refused] = []

    found = matured(
        ONE, outcomes_of(report(False, datetime(year, 12, 31, tzinfo=UTC))), now=END, horizon=HORIZON, on_refused=refused.append
    )

    assert (len(found), refused) == (0, [Refused(too_early=("o0",))])


def test_a_customer_outcome_before_the_prediction_is_not_refused() -> None:
    refused: list[Refused] = []

    found = matured(ONE, outcomes_of(of_customer(True, PREDICTED_AT - DAY)), now=END, horizon=HORIZON, on_refused=refused.append)

    assert (len(found), refused) == (0, [])


def test_refused_outcomes_are_logged_with_their_number_reason_and_ids(caplog: pytest.LogCaptureFixture) -> None:
    reports = outcomes_of(
        *(of_prediction(True, PREDICTED_AT - DAY) for _ in range(5)), of_customer(True, PREDICTED_AT), received=PREDICTED_AT - DAY
    )

    matured(ONE, reports, now=END, horizon=HORIZON)

    (message,) = caplog.messages
    assert message.startswith("outcomes: 6 are not used: 1 observed after they were received (first: o5); 5 observed before")
    assert "(first: o0, o1, o2)" in message


# Who and what is there


def test_a_prediction_without_a_customer_uses_its_own_outcomes_only() -> None:
    predictions = predictions_of(("p1", None, PREDICTED_AT), ("p2", None, PREDICTED_AT))
    reports = outcomes_of(
        of_prediction(True, PREDICTED_AT + DAY),
        of_prediction(True, PREDICTED_AT + DAY, "p8"),
        of_customer(True, PREDICTED_AT + DAY),
    )

    found = matured(predictions, reports, now=END, horizon=HORIZON)

    assert found.prediction_id.tolist() == ["p1"]


def test_predictions_keep_their_order_and_their_columns() -> None:
    predictions = predictions_of(*((f"p{number}", f"c{number}", PREDICTED_AT - number * DAY) for number in range(5)))
    predictions = predictions.assign(extra=np.arange(5)).set_index(np.array([7, 7, 3, 1, 0]))
    reports = outcomes_of(
        of_customer(False, END, "c4"), of_prediction(True, PREDICTED_AT, "p3"), of_customer(True, PREDICTED_AT, "c0")
    )

    found = matured(predictions, reports, now=END, horizon=HORIZON)

    assert found.index.tolist() == [0, 1, 2]
    assert found.extra.tolist() == [0, 3, 4]
    assert found[LABEL].tolist() == [True, True, False]
    assert found[LABEL].dtype == bool


def test_a_prediction_that_is_logged_twice_is_labelled_twice() -> None:
    found = matured(pd.concat([ONE, ONE]), outcomes_of(of_prediction(True, PREDICTED_AT)), now=END, horizon=HORIZON)

    assert found[LABEL].tolist() == [True, True]


@pytest.mark.parametrize(
    ("predictions", "reports"),
    [
        (predictions_of(), outcomes_of()),
        (predictions_of(), outcomes_of(of_customer(True, PREDICTED_AT), of_prediction(True, PREDICTED_AT))),
        (ONE, outcomes_of()),
    ],
    ids=["neither", "no predictions", "no outcomes"],
)
def test_no_predictions_or_outcomes_give_no_labels(predictions: pd.DataFrame, reports: pd.DataFrame) -> None:
    found = matured(predictions, reports, now=END, horizon=HORIZON)

    assert len(found) == 0
    assert [*found] == [*PREDICTION_COLUMNS, LABEL]
    assert found[LABEL].dtype == bool


def test_the_input_frames_are_not_changed() -> None:
    predictions, reports = ONE.copy(), outcomes_of(of_customer(True, PREDICTED_AT))

    matured(predictions, reports, now=END, horizon=HORIZON)

    pd.testing.assert_frame_equal(predictions, ONE)
    pd.testing.assert_frame_equal(reports, outcomes_of(of_customer(True, PREDICTED_AT)))


# Once per horizon


def test_a_customer_counts_once_in_each_period_of_the_horizon_by_its_first_row() -> None:
    start = pd.Timestamp(0, tz="UTC").to_pydatetime() + 600 * HORIZON
    rows = predictions_of(
        ("p1", "c1", start),
        ("p2", "c1", start + DAY),
        ("p3", "c2", start + DAY),
        ("p4", "c1", start + HORIZON - MOMENT),
        ("p5", "c1", start + HORIZON),
    )

    assert once_per_horizon(rows, HORIZON).prediction_id.tolist() == ["p1", "p3", "p5"]


def test_the_time_column_can_have_another_name() -> None:
    rows = predictions_of(("p1", "c1", PREDICTED_AT), ("p2", "c1", PREDICTED_AT)).rename(columns={"time": "event_timestamp"})

    assert once_per_horizon(rows, HORIZON, time="event_timestamp").prediction_id.tolist() == ["p1"]


def test_once_per_horizon_of_no_rows_is_empty() -> None:
    assert once_per_horizon(predictions_of(), HORIZON).empty


def test_periods_are_whole_horizons_since_1970() -> None:
    times = pd.Series(
        pd.to_datetime(["1970-01-01", "1970-01-30T23:59:59.999999", "1970-01-31", "1969-12-31"], format="ISO8601", utc=True)
    )

    assert periods(times, HORIZON).tolist() == [0, 0, 1, -1]


# The horizon


def test_the_environment_overrides_the_horizon_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    assert horizon(Settings()) == LABEL_HORIZON

    monkeypatch.setenv("CHURN_LABEL_HORIZON_S", "1.5")
    assert horizon(Settings()) == timedelta(seconds=1.5)
