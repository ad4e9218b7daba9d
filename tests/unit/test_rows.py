from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn.adapters.rows import arrays, newest, typed
from churn.domain.encoding import Coded
from company.tables import SNAPSHOT
from factory import raw_table, rows

MIDNIGHT = pd.Timestamp("2026-02-01", tz="UTC")


def column(name: str, values: Any) -> tuple[list[Any], list[bool]]:
    """The typed values of a table of that one column, and which of them could not be read."""
    frame, unreadable = typed(pa.table({name: values}))
    return frame[name].tolist(), unreadable.get(name, pd.Series([False] * len(frame))).tolist()


def batch(frame: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(frame, preserve_index=False)


def test_raw_csv_text_is_converted_to_the_original_typed_rows() -> None:
    frame = pd.concat([rows(50), rows(3, seed=1, member_months=0)], ignore_index=True)

    read, unreadable = typed(raw_table(frame))

    assert unreadable == {}
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_categorical=False)


def test_typed_rows_are_read_back_unchanged() -> None:
    frame = pd.concat([rows(50), rows(3, seed=1, member_months=0)], ignore_index=True)

    read, unreadable = typed(pa.Table.from_pandas(frame, preserve_index=False))

    assert unreadable == {}
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_categorical=False)


def test_columns_have_the_types_of_their_kinds() -> None:
    frame, _ = typed(raw_table(rows(5)))

    assert frame.member_months.dtype == np.int64
    assert frame.monthly_fee.dtype == np.float64
    assert frame.is_student.dtype == bool
    assert isinstance(frame.commitment.dtype, pd.CategoricalDtype)
    assert str(frame.event_timestamp.dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("values", "expected", "unread"),
    [
        (["5", " 7 ", "+3", "-2", "5.0"], [5, 7, 3, -2, 5], []),
        (["x", "5.5", "1e2", "1,000", "0x1"], [np.nan] * 5, [0, 1, 2, 3, 4]),
        (["5", ""], [5, np.nan], []),
        (pa.array([1, 2], pa.int8()), [1, 2], []),
        ([5.0, float("nan"), 5.5], [5, np.nan, np.nan], [2]),
    ],
)
def test_only_whole_numbers_are_readable_as_integers(values: Any, expected: list[float], unread: list[int]) -> None:
    found, unreadable = column("member_months", values)

    np.testing.assert_array_equal(np.array(found, dtype=float), expected)
    assert np.flatnonzero(unreadable).tolist() == unread


@pytest.mark.parametrize(
    ("values", "expected", "unread"),
    [
        (["29.85", " 2.5 ", "-3", ".5", "1e2"], [29.85, 2.5, -3, 0.5, 100], []),
        (["x", "nan", "inf", "1,000", "1e"], [np.nan] * 5, [0, 1, 2, 3, 4]),
        (["5", ""], [5, np.nan], []),
        ([5, 7], [5, 7], []),
        ([1.5, float("nan"), float("inf")], [1.5, np.nan, np.nan], [2]),
        (pa.array([2.5], pa.float32()), [2.5], []),
    ],
)
def test_only_finite_numbers_are_readable_as_reals(values: Any, expected: list[float], unread: list[int]) -> None:
    found, unreadable = column("monthly_fee", values)

    np.testing.assert_array_equal(found, expected)
    assert np.flatnonzero(unreadable).tolist() == unread


@pytest.mark.parametrize(
    ("name", "values", "expected", "unread"),
    [
        ("has_locker", ["Yes", "No", " Yes ", "true", "false"], [True, False, True, True, False], []),
        ("has_locker", ["yes", "1", "TRUE"], [None, None, None], [0, 1, 2]),
        ("has_locker", ["Yes", ""], [True, None], []),
        ("has_locker", [True, False, None], [True, False, None], []),
        ("is_student", ["1", "0", "Yes"], [True, False, None], [2]),
        ("is_student", [1, 0, 2], [True, False, None], [2]),
        ("is_student", [1.0, float("nan")], [True, None], []),
    ],
)
def test_flags_are_read_in_their_declared_spelling(
    name: str, values: Any, expected: list[bool | None], unread: list[int]
) -> None:
    found, unreadable = column(name, values)

    assert found == expected
    assert np.flatnonzero(unreadable).tolist() == unread


def test_categories_are_exact_text_and_unknown_ones_are_kept() -> None:
    frame, unreadable = typed(pa.table({"commitment": ["Season", " Two seasons ", "Three seasons", ""]}))

    assert frame.commitment.astype(object).where(frame.commitment.notna(), None).tolist() == [
        "Season",
        " Two seasons ",
        "Three seasons",
        None,
    ]
    assert unreadable == {}


def test_dictionary_encoded_categories_are_read_unchanged() -> None:
    found, unreadable = column("commitment", pa.array(["Season", "Two seasons", "Season"]).dictionary_encode())

    assert found == ["Season", "Two seasons", "Season"]
    assert not any(unreadable)


@pytest.mark.parametrize(
    "values",
    [
        ["2026-02-01"],
        ["2026-02-01 00:00:00"],
        ["2026-02-01T00:00:00Z"],
        ["2026-02-01T02:00:00+02:00"],
        ["2026-01-31T22:00:00.000-02:00"],
        [date(2026, 2, 1)],
        pa.array([datetime(2026, 2, 1)], pa.timestamp("s")),
        pa.array([datetime(2026, 2, 1)], pa.timestamp("ns")),
        [datetime(2026, 2, 1, 2, tzinfo=timezone(timedelta(hours=2)))],
    ],
)
def test_times_in_every_format_are_read_in_utc(values: Any) -> None:
    assert column("event_timestamp", values) == ([MIDNIGHT], [False])


def test_a_time_without_a_zone_is_utc_among_zoned_times() -> None:
    found, _ = column("event_timestamp", ["2026-02-01T02:00:00+02:00", "2026-02-01 00:00:00", "2026-02-01"])

    assert found == [MIDNIGHT] * 3


def test_an_unreadable_time_is_reported_and_not_replaced_by_the_default() -> None:
    found, unreadable = column("event_timestamp", ["2026-02-01", "soon", "2026-13-01"])

    assert unreadable == [False, True, True]
    assert found == [MIDNIGHT, pd.NaT, pd.NaT]


@pytest.mark.parametrize("values", [["", " "], pa.nulls(2)])
def test_a_null_timestamp_stays_null_in_a_table_that_has_the_column(values: Any) -> None:
    assert column("event_timestamp", values) == ([pd.NaT] * 2, [False, False])


def test_a_missing_column_gets_its_default() -> None:
    frame, _ = typed(pa.table({"customer_id": ["a", "b"]}))

    assert frame.columns.tolist() == ["customer_id", "event_timestamp"]
    assert frame.event_timestamp.tolist() == [SNAPSHOT] * 2


@pytest.mark.parametrize("name", ["member_months", "monthly_fee", "has_locker", "commitment", "customer_id"])
def test_a_column_of_nulls_only_is_null_and_not_unreadable(name: str) -> None:
    found, unreadable = column(name, pa.nulls(2))

    assert pd.isna(pd.Series(found)).all()
    assert not any(unreadable)


@pytest.mark.parametrize("spelled", [raw_table, lambda frame: pa.Table.from_pandas(frame, preserve_index=False)])
def test_a_batch_is_converted_to_arrays_of_equal_values(spelled: Any) -> None:
    frame = pd.concat([rows(40), rows(3, seed=1, member_months=0)], ignore_index=True)

    found = arrays(spelled(frame).to_batches()[0])

    assert list(found) == list(frame)
    for name in ("customer_id", "member_months", "monthly_fee", "total_fees", "is_student", "churned"):
        np.testing.assert_array_equal(found[name], frame[name].to_numpy(), err_msg=name)


def test_categories_of_a_batch_are_coded_by_the_contract() -> None:
    found = arrays(batch(rows(3, commitment=["Two seasons", "Three seasons", "Season"])))["commitment"]

    assert isinstance(found, Coded)
    assert found.codes.tolist() == [2, Coded.UNKNOWN, 1]


def test_nulls_of_a_batch_are_nan_and_no_category() -> None:
    frame = rows(2).astype({"member_months": object})
    frame.loc[1, ["member_months", "commitment", "total_fees"]] = None

    found = arrays(batch(frame))

    assert np.isnan(found["member_months"]).tolist() == [False, True]
    assert np.isnan(found["total_fees"]).tolist() == [False, True]
    assert found["commitment"].codes[1] == Coded.NULL


def at(*days: int) -> "pd.Series[pd.Timestamp]":
    return pd.Series([MIDNIGHT + pd.Timedelta(days=day) for day in days])


def test_newest_returns_row_positions_in_order() -> None:
    assert newest(at(3, 1, 5, 2, 4), 2).tolist() == [2, 4]
    assert newest(at(3, 1, 5, 2, 4), 3).tolist() == [0, 2, 4]


def test_rows_of_the_same_time_are_newest_together() -> None:
    assert newest(at(1, 2, 2, 2, 3), 2).tolist() == [1, 2, 3, 4]
    assert newest(at(7, 7, 7), 1).tolist() == [0, 1, 2]


def test_newest_of_more_rows_than_exist_returns_all() -> None:
    assert newest(at(2, 1), 2).tolist() == [0, 1]
    assert newest(at(2, 1), 100).tolist() == [0, 1]


def test_newest_returns_positions_for_any_index() -> None:
    assert newest(at(3, 1, 5).set_axis(np.array([9, 9, 4])), 1).tolist() == [2]
