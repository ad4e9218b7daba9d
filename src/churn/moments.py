"""Times that others send or wrote down: text in ISO 8601 with a zone, never a bare number."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

CLOCK_SKEW = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""
TEXT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt _]\d{2}:\d{2}")
"""How such a text begins. pydantic also takes numbers, numbers in text, and dates."""


def _text(value: Any) -> Any:
    if isinstance(value, datetime) or (isinstance(value, str) and TEXT.match(value)):
        return value
    raise ValueError("expected a time with its zone, as 2026-02-01T00:00:00Z")


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is before the year 1 or after 9999") from error


def _not_future(value: datetime) -> datetime:
    if value > datetime.now(UTC) + CLOCK_SKEW:
        raise ValueError(f"it is in the future by the clock of this server ({datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ})")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text), AfterValidator(_utc)]
"""A time, converted to UTC."""
PastMoment = Annotated[Moment, AfterValidator(_not_future)]
"""A time that is not in the future, but for `CLOCK_SKEW`."""
