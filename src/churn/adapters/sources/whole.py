"""A table with all of its columns, whatever the contract: what a contract is drafted from."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from churn.adapters.object_storage import s3
from churn.adapters.sources import NO_ROWS, local_parts
from churn.adapters.sources import _as as converted
from churn.adapters.sources import _common as common_type
from churn.domain.reasons import reason
from churn.errors import SourceError

SEPARATORS = ",;\t|"
ENCODINGS = ("utf-8-sig", "cp1252")
"""Tried in this order; the second reads almost every file that a spreadsheet of western Europe writes."""
UNNAMED = "unnamed"
UNREADABLE = pa.list_(pa.string())
"""The type of a column whose parts have nothing in common."""
SAMPLED = 20
"""So many records of a CSV file show what separates its values."""


@dataclass(frozen=True)
class Whole:
    """The rows (n, k), and what `churn.adapters.sources.read` would not read as it stands.

    `table` has a name of its own for every column: the second `a` is `a_2`; a part without a column has nulls there. `files` are
    the local parts, none of a database or of object storage. `odd` says in words in what the files differ from CSV in UTF-8 with
    commas and the same columns.
    """

    table: pa.Table
    files: tuple[Path, ...] = ()
    odd: tuple[str, ...] = ()
    separator: str = ","


def read(location: str, *, table: str = "customers") -> Whole:
    """All columns of the table at `location`, which is as for `churn.adapters.sources.read`. CSV values stay text.

    Raises:
        SourceError: there is nothing to read at `location`, or it cannot be reached or read.
    """
    if "://" in location and not location.startswith("s3://"):
        from churn.adapters.sources import databases

        return _with_rows(Whole(_stacked(databases.read_all(location, table))), location)
    filesystem, parts = _parts(location)
    found = [_read(filesystem, part) for part in parts]
    files = () if location.startswith("s3://") else tuple(Path(part.path) for part in parts)
    odd = dict.fromkeys(text for _, texts, _ in found for text in texts)
    lacking = _lacking({part.path: rows for part, (rows, _, _) in zip(parts, found, strict=True)})
    if lacking and not files:
        raise SourceError(f"{location}: expected the same columns in every part, got others: {lacking[0]}; write it again")
    rows = _stacked([rows for rows, _, _ in found])
    return _with_rows(Whole(rows, files, (*odd, *lacking), found[0][2]), location)


def names(location: str, *, table: str = "customers") -> list[list[str]]:
    """The column names of each part, as they stand there.

    Raises:
        SourceError: as `read` does.
    """
    from pyarrow.parquet import read_schema

    if "://" in location and not location.startswith("s3://"):
        from churn.adapters.sources import databases

        return [databases.names(location, table)]
    filesystem, parts = _parts(location)
    found = []
    for part in parts:
        try:
            with filesystem.open_input_file(part.path) as file:
                found.append(_header(file, "utf-8-sig", ",") if _is_csv(part) else list(read_schema(file).names))
        except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{part.path}: {reason(error)}; correct it, or write the file again") from None
    return found


def _parts(location: str) -> tuple[Any, list[Any]]:
    from pyarrow.fs import LocalFileSystem

    from churn.adapters.sources import _parts as listed

    if not location.startswith("s3://"):
        return LocalFileSystem(), local_parts(Path(location))
    filesystem = s3()
    try:
        return filesystem, listed(filesystem, location.removeprefix("s3://").rstrip("/"), location)
    except OSError as error:
        raise SourceError(f"{location}: {reason(error)}; check the address, the credentials and the permissions") from error


def _with_rows(whole: Whole, location: str) -> Whole:
    if not whole.table.num_rows:
        raise SourceError(f"{location}: {NO_ROWS}")
    return whole


def _read(filesystem: Any, part: Any) -> tuple[pa.Table, tuple[str, ...], str]:
    """The part's rows, in what it is odd, and the separator of its values."""
    from pyarrow.parquet import ParquetFile

    try:
        if not _is_csv(part):
            with filesystem.open_input_file(part.path) as file:
                rows = ParquetFile(file).read()  # `read_table` refuses a name that occurs twice
            return _decoded(rows.rename_columns(unique(rows.column_names))), _twice(rows.column_names), ","
        return _read_csv(filesystem, part.path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{part.path}: {reason(error)}; correct it, or write the file again") from None


def _read_csv(filesystem: Any, path: str) -> tuple[pa.Table, tuple[str, ...], str]:
    from pyarrow import csv as arrow_csv

    with filesystem.open_input_file(path) as file:
        start = file.read(2**20)
    encoding = next((each for each in ENCODINGS if _decodes(filesystem, path, each)), ENCODINGS[-1])
    separator = _separator(start.decode(encoding, errors="replace"))
    with filesystem.open_input_file(path) as file:
        header = _header(file, encoding, separator)
    if not any(header):
        raise SourceError(f"{path}: expected a header, got an empty file; write it again, or delete it")
    columns = unique(header)
    with filesystem.open_input_file(path) as file:
        rows = arrow_csv.read_csv(
            file,
            # The header is read as a row: it may follow blank lines, and a name may have line breaks.
            arrow_csv.ReadOptions(autogenerate_column_names=True, encoding="utf-8" if encoding == ENCODINGS[0] else encoding),
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types={f"f{index}": pa.string() for index in range(len(columns))}),
        )
    odd = _twice(header)
    odd += () if separator == "," else (f"values are separated by {separator!r}",)
    odd += () if encoding == ENCODINGS[0] else (f"its encoding is not UTF-8, and was read as {encoding}",)
    return rows.slice(1).rename_columns(columns), odd, separator


def _separator(start: str) -> str:
    """What separates the values: it cuts the first records into the same number of values, and into the most."""
    fits = {each: _values_of_a_record(start, each) for each in SEPARATORS}
    best = max(SEPARATORS, key=lambda each: fits[each])
    if fits[best] > 1:
        return best
    first = start.lstrip("\r\n").partition("\n")[0]
    return max(SEPARATORS, key=first.count) if first else ","


def _values_of_a_record(start: str, separator: str) -> int:
    """Into how many values the separator cuts each of the first records; 0 if they differ."""
    records = filter(None, csv.reader(StringIO(start, newline=""), delimiter=separator))
    try:
        counts = [len(record) for record in islice(records, SAMPLED + 1)]
    except csv.Error:
        return 0
    whole = counts[:-1] or counts  # the last one may be cut off
    return whole[0] if whole and len(set(whole)) == 1 else 0


def _decodes(filesystem: Any, path: str, encoding: str) -> bool:
    import codecs

    decoder = codecs.getincrementaldecoder(encoding)()
    with filesystem.open_input_file(path) as file:
        try:
            while block := file.read(2**22):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _header(file: Any, encoding: str, separator: str) -> list[str]:
    from io import TextIOWrapper

    text = TextIOWrapper(file, encoding=encoding, newline="")
    header = next(filter(None, csv.reader(text, delimiter=separator)), [])
    text.detach()
    return header


def _is_csv(part: Any) -> bool:
    return bool(part.extension.lower() == "csv")


def unique(header: Sequence[str]) -> list[str]:
    """The names, each once: a second `a` becomes `a_2`, an empty one `unnamed`."""
    taken: set[str] = set()
    result = []
    for name in header:
        plain = name if name.strip() else UNNAMED
        free = next(each for each in (plain, *(f"{plain}_{index}" for index in range(2, len(header) + 2))) if each not in taken)
        taken.add(free)
        result.append(free)
    return result


def _twice(header: Sequence[str]) -> tuple[str, ...]:
    repeated = sorted({name for name in header if header.count(name) > 1} if isinstance(header, list) else ())
    unnamed = ("a column has no name",) if any(not name.strip() for name in header) else ()
    return (*(f"{name} is the name of several columns" for name in repeated if name.strip()), *unnamed)


def _lacking(parts: dict[str, pa.Table]) -> list[str]:
    """Which parts lack which columns of the others, in words."""
    every = dict.fromkeys(name for rows in parts.values() for name in rows.column_names)
    lacking = {path: [name for name in every if name not in rows.column_names] for path, rows in parts.items()}
    return [f"{Path(path).name} has no column {', '.join(names[:5])}" for path, names in lacking.items() if names]


def _decoded(rows: pa.Table) -> pa.Table:
    """The table without the encodings of columns that say nothing about their values."""
    return pa.table([_decoded_column(each) for each in rows.columns], names=rows.column_names)


def _decoded_column(values: Any) -> Any:
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        is_uuid = kind == pa.uuid()
        texts = [[each and str(each) for each in chunk.to_pylist()] for chunk in values.chunks] if is_uuid else []
        storage = [chunk.storage for chunk in values.chunks]
        return pa.chunked_array(texts, pa.string()) if is_uuid else pa.chunked_array(storage, kind.storage_type)
    if pa.types.is_run_end_encoded(kind):
        return pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], kind.value_type)
    return values.cast(kind.value_type) if pa.types.is_dictionary(kind) else values


def _stacked(parts: Sequence[pa.Table]) -> pa.Table:
    """The parts' rows in one table; a column becomes text where the parts' types differ, as the pipeline reads it."""
    parts = [part for part in parts if part.num_rows] or parts
    every = dict.fromkeys(name for part in parts for name in part.column_names)
    return pa.table({name: _joined([_column_of(part, name) for part in parts]) for name in every})


def _column_of(part: pa.Table, name: str) -> Any:
    return part[name] if name in part.column_names else pa.chunked_array([pa.nulls(part.num_rows)])


def _joined(pieces: Sequence[Any]) -> Any:
    kinds = {each.type for each in pieces if not pa.types.is_null(each.type)}
    try:
        kind = common_type(kinds)
        return pa.chunked_array([chunk for each in pieces for chunk in converted(each, kind).chunks], kind)
    except pa.ArrowException:  # lists and numbers, for example: no kind reads such a column
        return pa.chunked_array([pa.nulls(len(each), UNREADABLE) for each in pieces], UNREADABLE)
