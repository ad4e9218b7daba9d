"""Rows of a request as the columns that features.py computes with."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from churn.contract import DATES, RAW_FEATURES, TIMESTAMP, Category, Flag, Integer, Kind, Text
from churn.domain.encoding import Coded, days_before
from churn.features import FEATURES


def _converter(kind: Kind, *, nullable: bool) -> Callable[[list[Any]], Any]:
    """What makes a column of its values."""
    match kind:
        case Category(texts):
            codes = {text: code for code, text in enumerate(texts)}
            return lambda values: Coded(np.array([codes.get(each, Coded.NULL) for each in values], dtype=np.int16), texts)
        case Flag() if not nullable:
            return partial(np.array, dtype=np.bool_)
        case Text():
            return partial(np.array, dtype=np.object_)
        case Integer() if not nullable:
            return partial(np.array, dtype=np.int64)
        case _:
            return partial(np.array, dtype=np.float64)  # None becomes NaN


RAW = tuple((each.name, _converter(each.kind, nullable=each.nullable)) for each in RAW_FEATURES if each.name not in DATES)
"""What makes a column of a request's values; dates are not computed with before they are days."""
ALL = tuple((each.name, _converter(each.kind, nullable=each.null_as is not None)) for each in FEATURES)


def columns_of(rows: Sequence[Mapping[str, Any]], *, derived: bool = False) -> dict[str, Any]:
    """name → (n,) array: categories as `Coded`, nulls as NaN; with the derived features where the rows have them.

    Dates become days before the row's timestamp, or before today where the row has none; `derived` rows have days already.

    Raises:
        KeyError: a row lacks a column.
    """
    columns = {name: convert([row[name] for row in rows]) for name, convert in (ALL if derived else RAW)}
    return columns if derived or not DATES else columns | _in_days(rows)


def _in_days(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    moments = np.array([row.get(TIMESTAMP) or today for row in rows], dtype="datetime64[D]")
    return {name: days_before(np.array([row[name] for row in rows], dtype="datetime64[D]"), moments) for name in DATES}


def sliced(columns: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The same columns, of those rows only."""
    return {name: values[rows] for name, values in columns.items()}
