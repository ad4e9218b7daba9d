"""The row groups of a part: what their metadata say, and their rows, checked."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from churn.adapters.events.parts import MICROSECOND, DamagedPartError, Part, PartFile, PartKind, microseconds


@dataclass(frozen=True)
class Group:
    """A row group of an opened part. `first` and `last` are the bounds of its times in microseconds since 1970, inclusive."""

    file: "PartFile"
    index: int
    rows: int
    first: int
    last: int


def groups(file: PartFile, kind: PartKind) -> list[Group]:
    """The row groups of a part, by its metadata.

    Raises:
        DamagedPartError: it is no Parquet, lacks a column, or has rows of another day.
        ChangedError, OSError: as `PartFile.decoded`.
    """

    def found(parquet: Any) -> list[Group]:
        needed = pa.schema([kind.schema.field(name) for name in kind.required])
        there = _check_columns(file.schema, needed)
        if absent := [name for name in kind.required if name not in there]:
            raise ValueError(f"no column {absent[0]}")
        return [
            Group(file, index, parquet.metadata.row_group(index).num_rows, *_bounds(parquet, index, kind, file.part.day))
            for index in range(parquet.num_row_groups)
            if parquet.metadata.row_group(index).num_rows
        ]

    return file.decoded(found)


def usable_groups(file: PartFile, kind: PartKind, on_damaged: Callable[[Part, str], None]) -> list[Group]:
    """The row groups of a part; none, and `on_damaged` is called, where it is damaged.

    Raises:
        ChangedError, OSError: as `PartFile.decoded`.
    """
    try:
        return groups(file, kind)
    except DamagedPartError as error:
        on_damaged(file.part, str(error))
        return []


def check_columns(file: PartFile, schema: pa.Schema) -> None:
    """Check that the columns of an opened part have the types of the schema; it may lack some.

    Raises:
        DamagedPartError: one has another type.
    """
    try:
        _check_columns(file.schema, schema)
    except ValueError as error:
        raise DamagedPartError(str(error)) from error


def read_group(group: Group, schema: pa.Schema) -> pa.Table:
    """The columns of the schema of one row group; a column that an older part lacks is null.

    Raises:
        DamagedPartError: it cannot be decoded, or a column has another type.
        ChangedError, OSError: as `PartFile.decoded`.
    """

    def read(parquet: Any) -> pa.Table:
        there = _check_columns(group.file.schema, schema)
        table = parquet.read_row_group(group.index, columns=there)
        # Texts that are not UTF-8 would fail much later, without the name of the part.
        table.validate(full=True)
        # Not safe: a real of more than 2**53 is good enough, and the error would have the value.
        columns = [
            table[column.name].cast(column.type, safe=False) if column.name in there else pa.nulls(group.rows, column.type)
            for column in schema
        ]
        return pa.table(columns, schema=schema)

    return group.file.decoded(read)


def text_bounds(group: Group, column: str) -> tuple[str, str] | None:
    """The least and the greatest text of a column without nulls, if the metadata tell.

    Raises:
        DamagedPartError, ChangedError, OSError: as `PartFile.decoded`.
    """

    def bounds(parquet: Any) -> tuple[str, str] | None:
        statistics = _statistics(parquet.metadata.row_group(group.index), column)
        if statistics is None or not statistics.has_min_max or not statistics.has_null_count or statistics.null_count:
            return None
        return str(statistics.min), str(statistics.max)

    return group.file.decoded(bounds)


def _check_columns(there: pa.Schema, expected: pa.Schema) -> list[str]:
    """The names of the expected columns that are there; their types must fit."""
    names = there.names
    found = [column for column in expected if column.name in names]
    for column in found:
        if names.count(column.name) > 1:
            raise ValueError(f"two columns {column.name}")
        if not _fits(kind := there.field(column.name).type, column.type):
            raise ValueError(f"column {column.name} is {kind}, expected {column.type}")
    return [column.name for column in found]


def _fits(kind: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of that type can stand for the expected: codes for texts, and whole numbers of an older contract."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(kind == expected or pa.types.is_null(kind) or (pa.types.is_integer(kind) and pa.types.is_float64(expected)))


def _bounds(parquet: Any, index: int, kind: PartKind, day: date) -> tuple[int, int]:
    """The first and the last time of a row group, from its statistics if it has them; all must be of the day."""
    statistics = _statistics(parquet.metadata.row_group(index), kind.time)
    if statistics is not None and statistics.has_min_max and statistics.has_null_count:
        nulls, first, last = statistics.null_count, statistics.min_raw, statistics.max_raw
    else:
        from pyarrow import compute as pc

        times = parquet.read_row_group(index, columns=[kind.time])[kind.time]
        bounds = pc.min_max(times.cast(pa.int64()))
        nulls, first, last = times.null_count, bounds["min"].as_py(), bounds["max"].as_py()
    if nulls or first is None:
        raise ValueError(f"{kind.time} has nulls")
    start = microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    if first < start or last >= start + timedelta(days=1) // MICROSECOND:
        raise ValueError(f"rows whose {kind.time} is of another day than {day}")
    return int(first), int(last)


def _statistics(about: Any, column: str) -> Any:
    leaves = (leaf for leaf in map(about.column, range(about.num_columns)) if leaf.path_in_schema == column)
    return next((leaf.statistics for leaf in leaves), None)
