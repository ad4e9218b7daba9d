"""Times that others send or wrote down: text in ISO 8601 with a zone, never a bare number."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

CLOCK_SKEW = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing was observed before: an earlier time is a default of the program that sent it, or was in another unit."""
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


def _past(value: datetime) -> datetime:
    if value < EARLIEST:
        raise ValueError(f"it is before {EARLIEST:%Y-%m-%d}")
    if value > datetime.now(UTC) + CLOCK_SKEW:
        raise ValueError(f"it is in the future by the clock of this server ({datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ})")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text), AfterValidator(_utc)]
"""A time, converted to UTC."""
PastMoment = Annotated[Moment, AfterValidator(_past)]
"""A time that is not before `EARLIEST`, nor in the future, but for `CLOCK_SKEW`."""
