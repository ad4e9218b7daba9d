"""Dates as single values; the other kinds are in tests/serving/test_accepted_values.py."""

from datetime import UTC, date, datetime

import pytest

from churn.domain.kinds import Date, Grouped
from churn.domain.values import from_text, plain


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-01-31", date(2026, 1, 31)),
        (" 2026-01-31 ", date(2026, 1, 31)),
        ("2026-01-31T23:59:59Z", date(2026, 1, 31)),
        ("2026-02-01T00:30:00+02:00", date(2026, 1, 31)),
        ("", None),
    ],
)
def test_a_date_is_the_day_in_utc(text: str, day: date | None) -> None:
    assert from_text(Date(), text) == day


@pytest.mark.parametrize("text", ["2026-02-30", "20260131", "31.01.2026", "45000", "never"])
def test_text_that_is_no_iso_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not readable as date"):
        from_text(Date(), text)


def test_a_text_or_a_moment_becomes_a_day_and_a_number_does_not() -> None:
    day = date(2026, 1, 31)

    assert plain(Date(), "2026-01-31") == plain(Date(), datetime(2026, 1, 31, 5, tzinfo=UTC)) == day
    assert plain(Date(), day) == day
    assert plain(Date(), 45000) == 45000


def test_grouped_text_is_exact_as_an_identifier_is() -> None:
    assert from_text(Grouped(), "a=b") == "a=b"
    assert plain(Grouped(), 8001) == "8001"
    with pytest.raises(ValueError, match="not readable"):
        from_text(Grouped(), " Aden")
