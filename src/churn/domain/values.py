"""Which single values a column accepts and what each becomes: one rule per kind, for files, databases, requests and models.

A value comes as text (CSV, a text column of a table, a form) and is read by `from_text`, or in a type of its own (JSON, a
tensor) and is read by `plain`. `adapters.rows` applies the same rules to whole Arrow columns. Ranges, lists of categories and
rules between columns come after that: `churn.contract.broken`. docs/contract.md has the rules as a table.

Standard library only.
"""

import re
from datetime import UTC, datetime
from typing import Any

from churn.domain.kinds import Category, Date, Flag, Integer, Kind, Real, Text, Timestamp

WHOLE = r"[+-]?[0-9]{1,18}(\.0+)?"
"""An integer as text."""
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A real as text: a decimal point, no thousands separator, no currency."""
MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?( ?[+-][0-9]{2}(:?[0-9]{2})?|Z)?)?"
"""A timestamp as text: ISO 8601 with hyphens. Digits alone are no timestamp: nothing says whether they are days or seconds."""
TRUE, FALSE = ("true", "True"), ("false", "False")
"""Booleans as text, whatever the contract's own words for the flag are: as JSON, Arrow and Python write them."""
CONTROL = r"[\x00-\x1f\x7f]"
"""What an identifier must not contain."""

MAX_INTEGER = 10**18 - 1
"""The largest absolute value of an integer: what `WHOLE` and 64 bits both hold."""
MAX_REAL = 3.4028234663852886e38
"""The largest absolute value of a real: that of float32, the type of the model's input."""
MAX_ID = 128
"""Characters of an identifier."""
EXACT = 2.0**53
"""Below it, every whole number is a float64 of its own."""
MIN_WHOLE, MAX_WHOLE = -(2**63), 2**64 - 1
"""The range of whole numbers that are read as text, as identifiers are: those of 64-bit integers, signed or unsigned."""
FIRST, LAST = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
"""Timestamps lie in [FIRST, LAST): what 64 bits of nanoseconds hold, which the feature store computes with."""


def from_text(kind: Kind, text: str) -> Any:
    """The value that a text spells: int, float, bool, str, date or an aware datetime in UTC; None for a blank.

    Blanks around a number, a flag, a date or a timestamp do not count; a category and an identifier are taken exactly.

    Raises:
        ValueError: it spells none of the kind.
    """
    stripped = text.strip()
    if not stripped:
        return None
    match kind:
        case Integer() if re.fullmatch(WHOLE, stripped):
            return int(stripped.partition(".")[0])
        case Real() if re.fullmatch(NUMBER, stripped) and abs(number := float(stripped)) <= MAX_REAL:
            return number
        case Flag(yes, no) if stripped in (yes, no):
            return stripped == yes
        case Flag() if stripped in (*TRUE, *FALSE):
            return stripped in TRUE
        case Timestamp() if moment := as_moment(stripped):
            return moment
        case Date() if moment := as_moment(stripped):
            return moment.date()
        case Category():
            return text
        case Text() if is_identifier(text):
            return text
    raise ValueError(f"not readable as {kind}")


def plain(kind: Kind, value: Any) -> Any:
    """A value of a type of its own as the kind has it: 5.0 as 5, 7 as the identifier "7", a text as a date; others unchanged."""
    match kind:
        case Integer() if type(value) is float and value.is_integer():
            return int(value)
        case Flag(yes, no) if (text := exact_text(value)) is not None and text in (yes, no):
            return text == yes
        case Category(values) if (text := exact_text(value)) is not None and text in values:
            return text
        case Text() if (text := exact_text(value)) is not None:
            return text
        case Date():
            return _day(value)
    return value


def _day(value: Any) -> Any:
    """The day in UTC of a moment, or of a text that names one; every other value unchanged."""
    moment = as_moment(value.strip()) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        return value
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()


def exact_text(number: Any) -> str | None:
    """A whole number's digits; None for one beyond 64 bits, a float that may stand for several ones, and every other value."""
    if type(number) is float:
        return str(int(number)) if abs(number) < EXACT and number.is_integer() else None
    return str(number) if type(number) is int and MIN_WHOLE <= number <= MAX_WHOLE else None


def is_identifier(text: str) -> bool:
    """True for 1 to `MAX_ID` characters without control characters and without blanks at either end."""
    return 0 < len(text) <= MAX_ID and text == text.strip() and not re.search(CONTROL, text)


def as_moment(text: str) -> datetime | None:
    """The moment that the text names, in UTC (also if it names no zone); None if it names none."""
    if not re.fullmatch(MOMENT, text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the 31st of February; in UTC before the year 1
        return None
    return moment if FIRST <= moment < LAST else None
