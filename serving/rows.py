"""Rows of a request as the columns that features.py computes with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from churn.contract import RAW_FEATURES, Category, Flag, Integer, Kind
from churn.features import FEATURES, Coded

RAW = tuple((each.name, each.kind, each.null_as is not None) for each in RAW_FEATURES)
ALL = tuple((each.name, each.kind, each.null_as is not None) for each in FEATURES)

_CODES: dict[tuple[str, ...], dict[Any, int]] = {}


def columns_of(rows: Sequence[Mapping[str, Any]], *, derived: bool = False) -> dict[str, Any]:
    """name → (n,) array: categories as `Coded`, nulls as NaN; with the derived features where the rows have them.

    Raises:
        KeyError: a row lacks a column.
    """
    return {name: _column([row[name] for row in rows], kind, nullable) for name, kind, nullable in (ALL if derived else RAW)}


def _column(values: list[Any], kind: Kind, nullable: bool) -> Any:
    match kind:
        case Category(texts):
            codes = _CODES.get(texts) or _CODES.setdefault(texts, {text: code for code, text in enumerate(texts)})
            return Coded(np.array([codes.get(each, -1) for each in values], dtype=np.int16), texts)
        case Flag():
            return np.array(values, dtype=np.bool_)
        case Integer() if not nullable:
            return np.array(values, dtype=np.int64)
        case _:
            return np.array(values, dtype=np.float64)  # None becomes NaN


def sliced(columns: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The same columns, of those rows only."""
    return {name: values[rows] for name, values in columns.items()}
