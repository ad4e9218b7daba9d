"""Dates as single values; the other kinds are in tests/serving/test_accepted_values.py."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from churn.contract import Category, Flag, Integer, Kind, Real, Text, Timestamp
from churn.domain.kinds import Date, Grouped
from churn.domain.values import MAX_REAL, as_moment, exact_text, from_text, is_identifier, plain


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


PLANS = Category(("Free", "1", "2"))


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Integer(), "12", 12),
        (Integer(), " +12.0 ", 12),
        (Integer(), "-" + "9" * 18, -(10**18 - 1)),
        (Real(), "29.85", 29.85),
        (Real(), " -.5", -0.5),
        (Real(), "1e2", 100.0),
        (Real(), repr(MAX_REAL), MAX_REAL),
        (Flag(), "Yes", True),
        (Flag(), " No ", False),
        (Flag("1", "0"), "1", True),
        (Flag("1", "0"), "0", False),
        (Flag(), "true", True),
        (Flag(), "True", True),
        (Flag(), "false", False),
        (Flag(), "False", False),
        (PLANS, "Free", "Free"),
        (PLANS, " other ", " other "),
        (Text(), "00123", "00123"),
        (Timestamp(), " 2026-02-01 ", datetime(2026, 2, 1, tzinfo=UTC)),
    ],
)
def test_a_text_is_read_as_its_kind(kind: Kind, text: str, expected: Any) -> None:
    value = from_text(kind, text)

    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize("kind", [Integer(), Real(), Flag(), PLANS, Text(), Timestamp()], ids=str)
def test_blank_text_is_null(kind: Kind) -> None:
    assert from_text(kind, " \t") is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Integer(), text) for text in ("5.5", "1e3", "1_000", "N/A", "true", "9" * 19, "٣")),
        *((Real(), text) for text in ("20,50", "$1", "nan", "inf", "1e400", "3.5e38", "-3.5e38", "true", ".")),
        *((Flag(), text) for text in ("yes", "1", "2", "TRUE")),
        *((Text(), text) for text in (" a", "a ", "a\nb", "a\x7f", "x" * 129)),
        *((Timestamp(), text) for text in ("20260201", "1767225600", "2026-02-30", "yesterday")),
    ],
)
def test_a_text_that_is_none_of_the_kind_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match="not readable"):
        from_text(kind, text)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Integer(), 5.0, 5),
        (Integer(), 5.5, 5.5),
        (Integer(), "5", "5"),
        (Real(), 5, 5),
        (Flag("1", "0"), 1, True),
        (Flag("1", "0"), 0.0, False),
        (Flag("1", "0"), 2, 2),
        (Flag(), 1, 1),
        (PLANS, 1, "1"),
        (PLANS, 2.0, "2"),
        (PLANS, 3, 3),
        (PLANS, "Free", "Free"),
        (Text(), 7, "7"),
        (Text(), 7.0, "7"),
        (Text(), 7.5, 7.5),
        (Text(), True, True),
        (Text(), None, None),
    ],
)
def test_a_typed_value_becomes_its_kinds(kind: Kind, value: Any, expected: Any) -> None:
    found = plain(kind, value)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (-(2**63), str(-(2**63))),
        (-(2**63) - 1, None),
        (2**64 - 1, str(2**64 - 1)),
        (2**64, None),
        (2.0**53 - 1, str(2**53 - 1)),
        (2.0**53, None),
        (-(2.0**53), None),
        (0.5, None),
        (True, None),
        ("7", None),
    ],
)
def test_a_whole_number_is_text_if_it_is_the_only_one_of_its_value(number: Any, expected: str | None) -> None:
    assert exact_text(number) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", True),
        ("x" * 128, True),
        ("a b", True),
        ("", False),
        ("x" * 129, False),
        ("\ta", False),
        ("a\x00", False),
        ("a\x1fb", False),
    ],
)
def test_an_identifier_has_1_to_128_characters_and_none_of_control(text: str, expected: bool) -> None:
    assert is_identifier(text) is expected


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own zone is not UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-02-01 12:30", datetime(2026, 2, 1, 12, 30, tzinfo=UTC)),
        ("2026-02-01T12:30:00+02:00", datetime(2026, 2, 1, 10, 30, tzinfo=UTC)),
        ("2026-02-01T12:30:00.5Z", datetime(2026, 2, 1, 12, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_in_utc_whatever_zone_it_or_the_machine_has(text: str, expected: datetime) -> None:
    found = as_moment(text)

    assert found
    assert (found, found.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1678-01-01", True),
        ("1677-12-31 23:59:59", False),
        ("2261-12-31 23:59:59", True),
        ("2262-01-01", False),
        ("0001-01-01 00:00+05:00", False),
        ("2026-02-31", False),
    ],
)
def test_moments_lie_in_the_years_1678_to_2261(text: str, is_one: bool) -> None:
    assert (as_moment(text) is not None) is is_one
