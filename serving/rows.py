"""Rows of a request as the columns that features.py computes with."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from churn.contract import RAW_FEATURES, Category, Flag, Integer, Kind
from churn.domain.encoding import Coded
from churn.features import FEATURES


def _converter(kind: Kind, *, nullable: bool) -> Callable[[list[Any]], Any]:
    """What makes a column of its values."""
    match kind:
        case Category(texts):
            codes = {text: code for code, text in enumerate(texts)}
            return lambda values: Coded(np.array([codes.get(each, -1) for each in values], dtype=np.int16), texts)
        case Flag():
            return partial(np.array, dtype=np.bool_)
        case Integer() if not nullable:
            return partial(np.array, dtype=np.int64)
        case _:
            return partial(np.array, dtype=np.float64)  # None becomes NaN


RAW = tuple((each.name, _converter(each.kind, nullable=each.null_as is not None)) for each in RAW_FEATURES)
ALL = tuple((each.name, _converter(each.kind, nullable=each.null_as is not None)) for each in FEATURES)


def columns_of(rows: Sequence[Mapping[str, Any]], *, derived: bool = False) -> dict[str, Any]:
    """name → (n,) array: categories as `Coded`, nulls as NaN; with the derived features where the rows have them.

    Raises:
        KeyError: a row lacks a column.
    """
    return {name: convert([row[name] for row in rows]) for name, convert in (ALL if derived else RAW)}


def sliced(columns: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The same columns, of those rows only."""
    return {name: values[rows] for name, values in columns.items()}
