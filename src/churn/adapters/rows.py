"""Rows in Arrow's types or pandas' as the contract's kinds. The rules are those of `churn.domain.values`, on whole columns."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn.adapters.arrow_types import exact_text, simple
from churn.contract import (
    BY_NAME,
    COLUMNS,
    DATES,
    ENTITY,
    RULES,
    SCORED,
    TIMESTAMP,
    Array,
    Category,
    Column,
    Date,
    Flag,
    Integer,
    Real,
    Text,
    Violation,
    broken,
)
from churn.domain.encoding import Coded, days_before
from churn.domain.values import CONTROL, FALSE, FIRST, LAST, MAX_ID, MAX_INTEGER, MAX_REAL, NUMBER, TRUE, WHOLE, as_moment
from churn.errors import ContractError

READABLE = "a value readable as {}"
"""What is expected of a value before its kind's range or list."""

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]


def typed(table: pa.Table) -> tuple[pd.DataFrame, dict[str, "pd.Series[bool]"]]:
    """The table as a frame of the contract's kinds, and per column which values could not be read (left null in the frame).

    Integers are int64 (float64 where a value is null), reals float64, flags bool (object where null), categories pandas
    categories of the values that occur (in the contract's order, others sorted after them), timestamps microseconds in UTC,
    dates too, at midnight. A timestamp column that the table lacks is filled with the contract's default; a null in a column
    that is there stays null.

    Raises:
        ContractError: a column's Arrow type stands for no values of its kind.
    """
    data: dict[str, Any] = {}
    unreadable = {}
    for column in COLUMNS:
        if column.name not in table.column_names:
            if column.default is not None:
                data[column.name] = pd.Series(column.default, index=range(table.num_rows)).astype("datetime64[us, UTC]")
            continue
        values, misread = _read(table[column.name].combine_chunks(), column)
        if misread is not None:
            unreadable[column.name] = misread.to_pandas()
        data[column.name] = _categories(values, column.kind) if isinstance(column.kind, Category) else values.to_pandas()
    return pd.DataFrame(data), unreadable


def arrays(batch: pa.RecordBatch, now: datetime | None = None) -> dict[str, Any]:
    """A batch's columns as arrays of the contract's kinds, (n,) each: categories as `Coded`, nulls as NaN, flags with nulls as 1,
    0 and NaN, dates as days before the row's timestamp, or before `now` (by default the present) where it has none.

    A value that cannot be read as its kind is null: `checked` tells which.

    Raises:
        ContractError: a column's Arrow type stands for no values of its kind.
    """
    return _in_days({name: _array(_read(batch[name], BY_NAME[name])[0], BY_NAME[name]) for name in batch.schema.names}, now)


def checked(batch: pa.RecordBatch, now: datetime | None = None) -> tuple[dict[str, Any], list[tuple[str, str, "Mask"]]]:
    """A batch's columns as `arrays` without the entity, and every rule that rows break: (column or rule, rule, boolean per row).

    The rules are the contract's, and that each value can be read; those that only most rows must keep are left out. A row with a
    value that cannot be read breaks that rule alone.

    Raises:
        ContractError: a column's Arrow type stands for no values of its kind.
    """
    columns: dict[str, Any] = {}
    unreadable: list[tuple[str, str, Mask]] = []
    unnamed: list[tuple[str, str, Mask]] = []
    misfits = np.zeros(len(batch), dtype=bool)
    for name in batch.schema.names:
        column = BY_NAME[name]
        values, misread = _read(batch[name], column)
        if misread is not None:
            unreadable.append((name, READABLE.format(column.kind), _mask(misread)))
            misfits |= _mask(misread)
        if name != ENTITY:
            columns[name] = _array(values, column)
        # As Python objects, identifiers would hold up the other threads.
        elif values.null_count:
            unnamed.append((name, str(column.kind), _mask(pc.is_null(values))))
    columns = _in_days(columns, now)
    found: list[tuple[str, str, Array]] = [*unnamed, *broken(columns)]
    others = [(subject, rule, np.asarray(bad) & ~misfits) for subject, rule, bad in found]
    return columns, [*unreadable, *(each for each in others if each[2].any())]


def violation(
    subject: str,
    rule: str,
    count: int,
    first: tuple[tuple[str, str], ...] = (),
    *,
    got: str = "no such value",
    of: int | None = None,
) -> Violation:
    """A violation of a rule that `checked` or `churn.contract.broken` yields as `subject` and `rule`."""
    if any(subject == each.name for each in RULES):
        return Violation(subject, f"that {rule}", count, first, "a contradiction", of)
    return Violation(subject, rule, count, first, got, of)


def _in_days(columns: dict[str, Any], now: datetime | None) -> dict[str, Any]:
    """The columns without the timestamp, dates as days before it."""
    if not DATES:
        return columns
    present = np.datetime64((now or datetime.now(UTC)).replace(tzinfo=None), "us")
    moments = columns.pop(TIMESTAMP, present)
    moments = np.where(np.isnat(moments), present, moments)
    return {name: days_before(values, moments) if name in DATES else values for name, values in columns.items()}


def as_sent(frame: pd.DataFrame) -> pd.DataFrame:
    """The raw features of a training frame's rows as a request has them: for days the date, and the day that they count from."""
    sent = frame[[each.name for each in SCORED if each.name != ENTITY]]
    if not DATES:
        return sent
    days = frame[TIMESTAMP].dt.normalize()
    dates = {name: _iso_day(days - pd.to_timedelta(frame[name], unit="D")) for name in DATES}
    return sent.assign(**dates, **{TIMESTAMP: _iso_day(days)})


def _iso_day(moments: "pd.Series[Any]") -> "pd.Series[Any]":
    texts: pd.Series[Any] = moments.dt.strftime("%Y-%m-%d").astype(object).where(moments.notna(), None)
    return texts


def dated(table: pa.Table) -> pa.Table:
    """Rows of the prediction log with dates in place of the days before their timestamp, which the log has."""
    for name in DATES:
        moments = table[TIMESTAMP].to_numpy().astype("datetime64[D]")
        days = table[name].to_numpy()
        dates = np.where(np.isnan(days), np.datetime64("NaT"), moments - np.nan_to_num(days).astype("timedelta64[D]"))
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(dates.astype("datetime64[D]")))
    return table


def batch_of(frame: pd.DataFrame, columns: Sequence[Column]) -> pa.RecordBatch:
    """The frame's columns of these names in Arrow's types; a nullable column that the frame lacks is null in every row.

    A timestamp that the frame lacks is left out.

    Raises:
        ContractError: a column is missing, or its values have no type in common.
    """
    found = {}
    for column in columns:
        if column.name in frame:
            try:
                found[column.name] = pa.Array.from_pandas(frame[column.name])
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                raise ContractError(f"{column.name}: values of several types; give values that are {column.kind}") from None
        elif column.name == TIMESTAMP:
            continue
        elif column.nullable:
            found[column.name] = pa.nulls(len(frame))
        else:
            raise ContractError(f"{column.name}: the column is missing; add it: {column.kind}")
    return pa.record_batch(found)


def identifiers(values: Any) -> Any:
    """Identifiers as text: exact, whatever type they come in; null where they are null or blank.

    Raises:
        ContractError: their type stands for no identifiers.
    """
    return _blank_as_null(simple(values, BY_NAME[ENTITY]))


def newest(times: "pd.Series[pd.Timestamp]", rows: int) -> "npt.NDArray[np.intp]":
    """The numbers of the newest `rows` rows, in their order; rows of one time stay together, so that there may be more."""
    cut = np.sort(times.to_numpy())[-min(rows, len(times))]
    return np.flatnonzero(times.to_numpy() >= cut)


def _mask(values: Any) -> "Mask":
    mask: Mask = values.to_numpy(zero_copy_only=False)
    return mask


def _array(values: Any, column: Column) -> Any:
    match column.kind:
        case Category(texts):
            return Coded(_codes(values, texts), texts)
        case Integer() if values.null_count:
            return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        case Flag() if column.nullable:
            return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        case _:
            return values.to_numpy(zero_copy_only=False)


def _codes(values: Any, texts: tuple[str, ...]) -> "npt.NDArray[np.int16]":
    """Dictionary-encoded texts as the codes of a `Coded` of `texts`."""
    unknown = {None: Coded.NULL}
    lookup = [texts.index(each) if each in texts else unknown.get(each, Coded.UNKNOWN) for each in values.dictionary.to_pylist()]
    indices = pc.fill_null(values.indices, len(lookup)).to_numpy(zero_copy_only=False)
    codes: npt.NDArray[np.int16] = np.array([*lookup, Coded.NULL], dtype=np.int16)[indices]
    return codes


def _categories(values: Any, kind: Category) -> "pd.Series[Any]":
    """Dictionary-encoded texts as pandas categories, in an order that does not depend on the rows'."""
    occurring = {each for each in values.unique().cast(pa.string()).to_pylist() if each is not None}
    order = (*(each for each in kind.values if each in occurring), *sorted(occurring.difference(kind.values)))
    return pd.Series(pd.Categorical.from_codes(_codes(values, order), dtype=pd.CategoricalDtype(list(order))))


def _read(values: Any, column: Column) -> tuple[Any, Any]:
    """The values as the column's kind, null where they cannot be; and where that is so, None if nowhere.

    A category comes dictionary-encoded.
    """
    values = simple(values, column)
    if pa.types.is_dictionary(values.type):
        few, misread = _read_simple(values.dictionary, column)
        misread = None if misread is None else pc.fill_null(misread.take(values.indices), False)
        if not isinstance(column.kind, Category):
            return few.take(values.indices), misread
        return pa.DictionaryArray.from_arrays(values.indices, few), misread
    if isinstance(column.kind, Category | Flag):  # so that each of the few values is read once
        return _read(values.dictionary_encode(), column)
    return _read_simple(values, column)


def _read_simple(values: Any, column: Column) -> tuple[Any, Any]:
    given = _without_nan(values)
    if pa.types.is_string(given.type):
        given = _blank_as_null(given) if isinstance(column.kind, Category | Text) else _trimmed(given)
    read = _cast(given, column)
    # What was null before could be read: it is a null.
    return read, pc.and_(pc.is_null(read), pc.is_valid(given)) if read.null_count > given.null_count else None


def _without_nan(values: Any) -> Any:
    """NaN is how some writers say null."""
    return pc.if_else(pc.is_nan(values), None, values) if pa.types.is_floating(values.type) else values


def _trimmed(text: Any) -> Any:
    """Text without the blanks around it; null where nothing is left."""
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def _blank_as_null(text: Any) -> Any:
    """Text as it is; null where it is nothing but blanks."""
    blank = pc.equal(pc.utf8_trim_whitespace(text), "")
    return pc.if_else(blank, None, text)


def _cast(values: Any, column: Column) -> Any:
    """Values without NaN and blanks as the column's kind; null where they cannot be."""
    is_text = pa.types.is_string(values.type)
    match column.kind:
        case Integer():
            return _integers(values)
        case Real():
            # Where casts of decimals and of large integers are inexact, so is the model's float32.
            numbers = (_matching(values, NUMBER) if is_text else values).cast(pa.float64(), safe=False)
            return pc.if_else(pc.less_equal(pc.abs(numbers), MAX_REAL), numbers, None)
        case Flag() if pa.types.is_boolean(values.type):
            return values
        case Flag(yes, no):
            given = values if is_text else exact_text(values)
            words = {each: is_true for group, is_true in ((TRUE, True), (FALSE, False)) for each in group} if is_text else {}
            words |= {yes: True, no: False}
            return pa.array([words.get(each) for each in given.to_pylist()], pa.bool_())
        case Category():
            return values if is_text else exact_text(values)
        case Text():
            return _identified(values)
        case Date():
            day = _moments(values).cast(pa.date32()).cast(pa.timestamp("us"))
            return day.cast(pa.timestamp("us", "UTC"))
        case _:
            return _moments(values)


def _integers(values: Any) -> Any:
    if pa.types.is_string(values.type):
        digits = pc.replace_substring_regex(_matching(values, WHOLE), r"^\+|\.0+$", "")
        return digits.cast(pa.int64())
    if pa.types.is_decimal(values.type):
        return _integers(values.cast(pa.string()))
    if pa.types.is_null(values.type):
        return values.cast(pa.int64())
    if pa.types.is_floating(values.type):
        fits = pc.and_(pc.less(pc.abs(values), float(MAX_INTEGER)), pc.equal(pc.floor(values), values))
    elif pa.types.is_unsigned_integer(values.type):
        fits = pc.less_equal(values, pa.scalar(MAX_INTEGER, pa.uint64()))
    else:
        fits = pc.and_(pc.less_equal(values, MAX_INTEGER), pc.greater_equal(values, -MAX_INTEGER))
    return pc.if_else(fits, values, None).cast(pa.int64())


def _matching(text: Any, pattern: str) -> Any:
    return pc.if_else(pc.match_substring_regex(text, f"^({pattern})$"), text, None)


def _identified(text: Any) -> Any:
    is_wrong = pc.match_substring_regex(text, CONTROL)
    is_wrong = pc.or_(is_wrong, pc.greater(pc.utf8_length(text), MAX_ID))
    is_wrong = pc.or_(is_wrong, pc.not_equal(pc.utf8_trim_whitespace(text), text))
    return pc.if_else(is_wrong, None, text)


def _moments(values: Any) -> Any:
    """Timestamps of microseconds in UTC, in the range that `churn.domain.values` gives."""
    kind = pa.timestamp("us", "UTC")
    if pa.types.is_timestamp(values.type):
        first, last = (pa.scalar(each, kind) for each in (FIRST, LAST))
        return pc.if_else(pc.and_(pc.greater_equal(values, first), pc.less(values, last)), values, None)
    few = values.cast(pa.string()).dictionary_encode()  # so that each text is read once
    return pa.array([each and as_moment(each) for each in few.dictionary.to_pylist()], kind).take(few.indices)
