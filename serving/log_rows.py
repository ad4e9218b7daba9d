"""Rows for the prediction log, collected column by column until they are written."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn.adapters.events.log import prediction_schema
from churn.contract import ENTITY, Category, Flag, Text
from churn.domain.derived import Feature
from churn.domain.encoding import Coded
from churn.features import FEATURES

Array = npt.NDArray[Any]

CODES = np.dtype(np.int16)
TYPES = {pa.bool_(): np.dtype(np.bool_), pa.int64(): np.dtype(np.int64), pa.float64(): np.dtype(np.float64)}
"""The arrays that hold the values of the log's types; those of a category hold its codes, -1 for a null."""


class Entry(NamedTuple):
    """One scored batch. `columns` has every feature, raw and derived, as an array or as `Coded`."""

    time_s: float
    version: str
    threshold: float
    prediction_ids: Sequence[str]
    customer_ids: Sequence[str | None]
    columns: Mapping[str, Any]
    probabilities: npt.NDArray[np.floating[Any]]
    latency_ms: Sequence[float]


class LogRows:
    """Rows of the prediction log in arrays of `capacity` rows: to add a batch costs about as much as to copy it.

    To keep the batches and to convert them later, 10,000 at once, would hold up the requests that are answered meanwhile.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._features = [(each.name, *_array(each, capacity)) for each in FEATURES]
        self._time_us = np.empty(capacity, dtype=np.int64)
        self._probabilities, self._latency_ms = np.empty(capacity), np.empty(capacity)
        self._churn = np.empty(capacity, dtype=np.bool_)
        self._prediction_ids: list[Sequence[str]] = []
        self._customer_ids: list[Sequence[str | None]] = []
        self._versions: list[str] = []

    def add(self, entry: Entry) -> None:
        """Copy a batch, for which there is room; nothing is added if it raises.

        Raises:
            LookupError, TypeError, ValueError: a column is missing, or holds what its type does not.
        """
        stop = self.size + len(entry.prediction_ids)
        rows = slice(self.size, stop)
        for name, array, values in self._features:
            column = entry.columns[name]
            if values:
                array[rows] = column.codes if column.values is values else _codes(column, values)
            else:
                array[rows] = column if column.dtype is array.dtype else _cast(column, array.dtype)
        self._time_us[rows] = round(entry.time_s * 1e6)
        self._probabilities[rows] = entry.probabilities
        self._churn[rows] = entry.probabilities >= entry.threshold
        self._latency_ms[rows] = entry.latency_ms
        self._prediction_ids.append(entry.prediction_ids)
        self._customer_ids.append(entry.customer_ids)
        self._versions += [entry.version] * len(entry.prediction_ids)
        self.size = stop

    def table(self) -> pa.Table:
        """The rows in the order of `churn.adapters.events.log.prediction_schema`, categories dictionary-encoded."""
        rows = slice(self.size)
        columns = {
            "prediction_id": pa.array([*chain.from_iterable(self._prediction_ids)], pa.string()),
            "time": pa.array(self._time_us[rows], prediction_schema().field("time").type),
            ENTITY: pa.array([*chain.from_iterable(self._customer_ids)], pa.string()),
            **{name: _to_arrow(array[rows], values, name) for name, array, values in self._features},
            "churn_probability": pa.array(self._probabilities[rows]),
            "churn": pa.array(self._churn[rows]),
            "model_version": pa.array(self._versions, pa.string()),
            "latency_ms": pa.array(self._latency_ms[rows]),
        }
        return pa.table(columns)


def to_table(entries: Sequence[Entry]) -> pa.Table:
    """The rows of the entries, as the log has them."""
    rows = LogRows(sum(len(each.prediction_ids) for each in entries))
    for each in entries:
        rows.add(each)
    return rows.table()


def _array(feature: Feature, size: int) -> tuple[Array, tuple[str, ...]]:
    """An empty array for a feature, and the texts that its codes mean."""
    match feature.kind:
        case Category(values):
            return np.empty(size, dtype=CODES), values
        case Text():
            return np.empty(size, dtype=np.object_), ()
        case Flag() if feature.null_as is not None:  # 1, 0 and NaN
            return np.empty(size), ()
        case _:
            return np.empty(size, dtype=TYPES[prediction_schema().field(feature.name).type]), ()


def _to_arrow(array: Array, values: tuple[str, ...], name: str) -> pa.Array:
    if values:
        return pa.DictionaryArray.from_arrays(pa.array(array, mask=array < 0), pa.array(values, pa.string()))
    kind = prediction_schema().field(name).type
    if array.dtype.kind == "f":
        return pa.array(array, from_pandas=NULLABLE[name]).cast(kind)
    return pa.array(array, kind)


NULLABLE = {each.name: each.null_as is not None for each in FEATURES}


def _codes(column: Coded, values: tuple[str, ...]) -> npt.NDArray[np.signedinteger[Any]]:
    """The codes of a column with the same texts in another order, as indices into `values`."""
    codes: npt.NDArray[np.int64] = np.array([*(values.index(each) for each in column.values), -1])[column.codes]
    return codes


def _cast(column: Any, dtype: np.dtype[Any]) -> Array:
    """The same values in another type.

    Raises:
        TypeError, ValueError: one of them is not the same there.
    """
    given = np.asarray(column)
    cast = given.astype(dtype)
    if not np.array_equal(cast, given, equal_nan=dtype.kind == "f"):
        raise ValueError(f"expected {dtype}, got other values")
    return cast
