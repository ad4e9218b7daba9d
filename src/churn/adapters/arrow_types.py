"""Arrow columns of any type as one of the few types that the contract's rules are written for."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from churn.contract import Column, Date, Flag, Text, Timestamp
from churn.domain.reasons import reason
from churn.domain.values import EXACT, MAX_WHOLE, MIN_WHOLE
from churn.errors import ContractError

Matches = tuple[Callable[[Any], bool], ...]

TEXTS: Matches = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
NUMBERS: Matches = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
LONGEST = pa.decimal256(76, 0)
"""The Arrow type that holds the most digits."""
MOMENTS: Matches = (pa.types.is_timestamp, pa.types.is_date)


def require_readable(kind: Any, column: Column) -> None:
    """Check that values of the Arrow type can stand for values of the column.

    Raises:
        ContractError: they cannot, whatever the value: a number is no timestamp, a list is no number.
    """
    stored = _stored(kind)
    match column.kind:
        case Timestamp() | Date():
            more, advice = MOMENTS, "write timestamps, dates, or text in ISO 8601 (2026-02-01T00:00:00Z)"
        case Text():
            more, advice = NUMBERS, "write it as text"
        case Flag():
            more, advice = (*NUMBERS, pa.types.is_boolean), "write booleans or text"
        case _:
            more, advice = NUMBERS, "write numbers or text"
    allowed = (*TEXTS, pa.types.is_null, *more)
    if not any(matches(stored) for matches in allowed):
        raise ContractError(f"{column.name}: values of type {kind} are not readable as {column.kind}; {advice}")


def simple(values: Any, column: Column) -> Any:
    """The same values (n,) as text, null, or for their kind numbers, booleans or UTC timestamps of microseconds.

    Dictionary-encoded features stay so, with simple values. The entity becomes text: whole numbers as their digits.

    Raises:
        ContractError: as `require_readable`; or an identifier is a number that is not exact, or text is not UTF-8.
    """
    require_readable(values.type, column)
    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if pa.types.is_dictionary(values.type):
        few = simple(values.dictionary, column)
        is_few = not isinstance(column.kind, Text)
        return pa.DictionaryArray.from_arrays(values.indices, few) if is_few else few.take(values.indices)
    if isinstance(values, pa.ExtensionArray):
        is_uuid = values.type == pa.uuid()
        values = pa.array([each and str(each) for each in values.to_pylist()], pa.string()) if is_uuid else values.storage
    if any(matches(values.type) for matches in TEXTS):
        return _utf8(values, column)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    match column.kind:
        case Text():
            return _identifiers(values, column)
        case Timestamp() | Date() if not pa.types.is_null(values.type):
            return _microseconds(values, column)
        case _:
            return values


def exact_text(values: Any) -> Any:
    """Numbers as text, by the rules of `churn.domain.values.exact_text`: null for what is no whole number of 64 bits."""
    if pa.types.is_floating(values.type):
        # A float32 has 24 bits for the digits, a float64 has 53.
        limit = EXACT if pa.types.is_float64(values.type) else 2.0**24
        whole = pc.and_(pc.less(pc.abs(values), limit), pc.equal(pc.floor(values), values))
        return pc.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
    text = values.cast(pa.string())
    if pa.types.is_decimal(values.type):
        whole = pc.match_substring_regex(text, r"^-?[0-9]+(\.0*)?$")
        digits = pc.replace_substring_regex(pc.if_else(whole, text, None), r"\.0*$", "")
        number = digits.cast(LONGEST)
        low, high = (pa.scalar(Decimal(limit), LONGEST) for limit in (MIN_WHOLE, MAX_WHOLE))
        return pc.if_else(pc.and_(pc.greater_equal(number, low), pc.less_equal(number, high)), digits, None)
    return text


def _stored(kind: Any) -> Any:
    """The type of the values themselves."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _stored(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind == pa.uuid() else _stored(kind.storage_type)
    return kind


def _utf8(values: Any, column: Column) -> Any:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        raise ContractError(f"{column.name}: values of type {values.type} that are not UTF-8; write it as text") from None


def _identifiers(values: Any, column: Column) -> Any:
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    text = exact_text(values)
    if text.null_count > values.null_count:
        first = values.filter(pc.and_(pc.is_null(text), pc.is_valid(values)))[0]
        raise ContractError(
            f"{column.name}: {first} of type {values.type} is not an exact identifier; "
            "write it as text, or as an integer of 64 bits"
        )
    return text


def _microseconds(values: Any, column: Column) -> Any:
    is_finer = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    try:
        return values.cast(pa.timestamp("us", "UTC"), safe=not is_finer)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{column.name}: {reason(error)}; correct it") from None
