"""What the inputs of the kinds that the tests' company lacks are computed from."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.contract import filled
from churn.domain.encoding import Coded, commonest_of, days_before

UTC_MONTH_END = pd.Timestamp("2026-01-31T23:30:00Z")


def test_days_are_counted_between_days_of_utc() -> None:
    dates = pd.Series(pd.to_datetime(["2026-01-31", "2026-01-01", "1965-01-31", "NaT"], utc=True))
    moments = pd.Series([UTC_MONTH_END] * 4)

    days = days_before(dates, moments)

    np.testing.assert_array_equal(days, [0, 30, 22280, np.nan])


def test_a_date_after_the_moment_is_a_negative_number_of_days() -> None:
    assert days_before(np.array(["2026-02-01"], dtype="datetime64[D]"), np.datetime64("2026-01-31")).tolist() == [-1]


def test_zones_do_not_change_the_day() -> None:
    zoned = pd.Series([pd.Timestamp("2026-02-01T00:30:00+02:00")])

    assert days_before(zoned, pd.Series([UTC_MONTH_END])).tolist() == [0]


@pytest.mark.parametrize("order", [1, -1])
def test_the_commonest_values_do_not_depend_on_the_order_of_rows(order: int) -> None:
    texts = ["b", "a", "c", "b", "a", "d", None][::order]

    assert commonest_of(texts, 3) == ("a", "b", "c")


def test_the_text_of_a_null_is_not_among_the_commonest_values() -> None:
    assert commonest_of(["missing", "missing", "a", None, np.nan], 3, "missing") == ("a",)


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", None], dtype=object),
        pd.Series(["a", None], dtype="category"),
        pd.Series(["a", None], dtype=object),
        np.array([1.0, np.nan]),
        Coded(np.array([0, -1], dtype=np.int16), ("a",)),
    ],
    ids=["objects", "categories", "series", "floats", "codes"],
)
def test_a_null_is_told_from_a_value_in_every_form_of_a_column(values: Any) -> None:
    assert np.asarray(filled(values)).tolist() == [True, False]


def test_an_unknown_text_among_codes_is_no_null_and_equals_no_value() -> None:
    column: Any = Coded(np.array([0, Coded.UNKNOWN, Coded.NULL], dtype=np.int16), ("a", "b"))

    assert np.asarray(filled(column)).tolist() == [True, True, False]
    assert [(column == text).tolist() for text in ("a", "b", "c")] == [[True, False, False], [False] * 3, [False] * 3]
    assert (column.codes == column.codes_of(("a", "c"))).tolist() == [[True, False, False], [False] * 3]


PLANS = Coded(np.array([0, 2, -1, 1]), ("Free", "Basic", "Family"))


def test_codes_compare_like_the_texts_that_they_stand_for() -> None:
    assert (PLANS == "Family").tolist() == [False, True, False, False]
    assert (PLANS != "Family").tolist() == [True, False, True, True]


def test_codes_equal_no_text_that_is_not_among_their_values() -> None:
    assert not (PLANS == "Premium").any()
    assert (PLANS != "Premium").all()


def test_codes_of_texts_are_one_below_another_and_unlike_every_code_where_unknown() -> None:
    codes = PLANS.codes_of(("Family", "Premium"))

    assert codes.shape == (2, 1)
    assert (PLANS.codes == codes).tolist() == [[False, True, False, False], [False] * 4]


def test_some_rows_of_codes_are_codes_of_the_same_values() -> None:
    some = PLANS[np.array([1, 3])]

    assert len(some) == 2
    assert some.values == PLANS.values
    assert (some == "Family").tolist() == [True, False]
