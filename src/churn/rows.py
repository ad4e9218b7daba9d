"""Raw rows as the contract's kinds: text or foreign types in, a typed frame out."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn.contract import BY_NAME, COLUMNS, Category, Column, Flag, Integer, Real, Timestamp
from churn.features import Coded

if TYPE_CHECKING:
    import numpy.typing as npt


def typed(table: pa.Table) -> tuple[pd.DataFrame, dict[str, "pd.Series[bool]"]]:
    """The table as a frame of the contract's kinds, and per column which values could not be read (left null in the frame).

    Integers are int64 (float64 where a value is null), reals float64, flags bool (object where null), categories pandas
    categories of the values that occur, timestamps microseconds in UTC. A column that the table lacks is filled with the
    contract's default.
    """
    data: dict[str, Any] = {}
    unreadable = {}
    for column in COLUMNS:
        if column.name not in table.column_names:
            if column.default is not None:
                data[column.name] = pd.Series(column.default, index=range(table.num_rows)).astype("datetime64[us, UTC]")
            continue
        given = _without_nan(table[column.name].combine_chunks())
        values = _cast(text(given) if pa.types.is_string(given.type) else given, column)
        misread = pc.and_(pc.is_null(values), pc.is_valid(text(given)))
        if pc.any(misread).as_py():
            unreadable[column.name] = misread.to_pandas()
        if column.default is not None:
            values = pc.if_else(misread, values, pc.fill_null(values, pa.scalar(column.default, values.type)))
        data[column.name] = values.to_pandas()
    return pd.DataFrame(data), unreadable


def arrays(batch: pa.RecordBatch) -> dict[str, Any]:
    """A batch's columns as arrays of the contract's kinds, (n,) each: categories as `Coded`, nulls as NaN.

    What cannot be read as its kind is null, and so breaks the contract.
    """
    found: dict[str, Any] = {}
    for name in batch.schema.names:
        column = BY_NAME[name]
        values = _cast(batch[name], column)
        match column.kind:
            case Category(texts):
                found[name] = Coded(_codes(values, texts), texts)
            case Integer() if values.null_count:
                found[name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            case _:
                found[name] = values.to_numpy(zero_copy_only=False)
    return found


def _codes(values: Any, texts: tuple[str, ...]) -> "npt.NDArray[np.int16]":
    """Dictionary-encoded texts as indices into `texts`; -1 for others and for nulls."""
    lookup = [texts.index(each) if each in texts else -1 for each in text(values.dictionary).to_pylist()]
    indices = pc.fill_null(values.indices, len(lookup)).to_numpy(zero_copy_only=False)
    codes: npt.NDArray[np.int16] = np.array([*lookup, -1], dtype=np.int16)[indices]
    return codes


def _without_nan(values: Any) -> Any:
    """NaN is how some writers say null."""
    return pc.if_else(pc.is_nan(values), None, values) if pa.types.is_floating(values.type) else values


def text(values: Any) -> Any:
    """The values as trimmed text, blanks as nulls."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    trimmed = pc.utf8_trim_whitespace(values.cast(pa.string()))
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


_WHOLE = r"^[+-]?\d{1,18}(\.0+)?$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def _cast(values: Any, column: Column) -> Any:
    """The values as the column's kind; null where they cannot be."""
    match column.kind:
        case Category() if pa.types.is_dictionary(values.type):
            return values
        case Category():
            return text(values).dictionary_encode()
        case _ if pa.types.is_dictionary(values.type):
            return _cast(values.dictionary, column).take(values.indices)
        case Integer() if pa.types.is_integer(values.type):
            return values.cast(pa.int64())
        case Integer():
            return _matching(values, _WHOLE).cast(pa.float64()).cast(pa.int64())
        case Real() if pa.types.is_floating(values.type):
            return pc.if_else(pc.is_finite(values), values.cast(pa.float64()), None)
        case Real():
            return _matching(values, _NUMBER).cast(pa.float64())
        case Flag() if pa.types.is_boolean(values.type):
            return values
        case Flag(yes, no):
            few = values.dictionary_encode()  # so that each spelling is read once
            given = text(few.dictionary)
            is_yes, is_no = (pc.is_in(given, pa.array(spellings)) for spellings in ((yes, "true"), (no, "false")))
            return pc.if_else(is_yes, True, pc.if_else(is_no, False, None)).take(few.indices)
        case Timestamp():
            return _moments(values)
        case _:
            return text(values)


def _matching(values: Any, pattern: str) -> Any:
    given = text(values)
    return pc.if_else(pc.match_substring_regex(given, pattern), given, None)


def _moments(values: Any) -> Any:
    """Timestamps in UTC; without a zone they are taken as UTC, text is read as ISO 8601."""
    given = values.to_pandas()
    if given.dtype == object:
        # pandas reads a text without a zone in the zone of the text before it, so the two kinds are read apart.
        zoned = given.astype(str).str.contains(r"[T ].*[Z+-]")
        moments = pd.concat(
            [pd.to_datetime(each, errors="coerce", utc=True, format="ISO8601") for each in (given[zoned], given[~zoned])]
        )
    else:
        moments = pd.to_datetime(given, errors="coerce", utc=True)
    return pa.array(moments.sort_index().astype("datetime64[us, UTC]"))


def newest(times: "pd.Series[pd.Timestamp]", rows: int) -> "npt.NDArray[np.intp]":
    """The numbers of the newest `rows` rows, in their order; rows of one time stay together, so that there may be more."""
    cut = np.sort(times.to_numpy())[-min(rows, len(times))]
    return np.flatnonzero(times.to_numpy() >= cut)
