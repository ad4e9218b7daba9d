"""Raw rows from a file, a folder of parts, object storage or a SQL database, as one Arrow table of the contract's columns."""

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn.adapters.arrow_types import require_readable, simple
from churn.adapters.object_storage import s3
from churn.adapters.sources.spelling import column_of, spellings, with_joined_key
from churn.contract import BY_NAME, COLUMNS, SCORED, Category, Column, Flag
from churn.domain.reasons import reason
from churn.errors import ContractError, SourceError

log = logging.getLogger(__name__)

EXTENSIONS = ("csv", "parquet")
DELTA_LOG = "_delta_log"
NO_ROWS = "has columns and no rows; at least one row is needed, so check what wrote it"


def read(location: str, *, table: str = "customers") -> pa.Table:
    """The rows at `location`: the contract's columns, under its names, in its order, (n, k) with n ≥ 1.

    `location` is a `.csv` or `.parquet` file, a folder of such parts (read in the order of their names; not nested; names that
    begin with `.` or `_` and other extensions are skipped), `s3://bucket/key` or `s3://bucket/prefix` for the same in object
    storage, or a SQLAlchemy URL whose `table` (`name` or `schema.name`) is read.

    Each part spells a column as the contract's `source` or as its `name`; no other column is read. CSV values stay text, a blank
    stays ''. Parquet and SQL values keep their types, in the simple form that `arrow_types.simple` gives them. Where parts
    disagree on a type all become text: floats in the shortest form that reads back as the same float, booleans `true` and
    `false`, timestamps ISO 8601 in UTC (taken as UTC without a zone). Parts without rows have no say in that.

    A column that has a `default` may be absent: the default in the rows of a part that lacks it, absent from the table if every
    part lacks it (`churn.adapters.rows.typed` then fills it in). A null in a part that has the column stays null.

    `churn.adapters.object_storage.s3` says how the environment configures object storage.

    Raises:
        SourceError: there is nothing to read at `location`, it cannot be reached or read, it lacks columns or rows, or a
            column's type stands for no values of its kind.
    """
    if location.startswith("s3://"):
        shown, parts = location, _read_files(s3(), location.removeprefix("s3://"), scheme="s3://")
    elif "://" in location:
        from churn.adapters.sources import databases

        shown, chunks = databases.read(location, table)
        parts = [_simple(chunk, shown) for chunk in chunks]
    else:
        from pyarrow.fs import LocalFileSystem

        shown, parts = location, _read_files(LocalFileSystem(), location, scheme="")
    rows = _stack(parts, shown)
    if not rows.num_rows:
        raise SourceError(f"{shown}: {NO_ROWS}")
    log.info("read %d rows from %s", rows.num_rows, shown)
    return rows


FEW_TEXTS = frozenset(each.name for each in SCORED if isinstance(each.kind, Category | Flag))


def batches(source: Path, *, rows: int) -> Iterator[Any]:
    """The columns to score, `churn.contract.SCORED`, of a local file or folder of parts, as record batches of about `rows` rows.

    Columns have the contract's names and the part's types; categories and flags that are texts come dictionary-encoded. CSV
    values stay text. Memory does not grow with the file.

    Raises:
        SourceError: as `read` does.
    """
    found = 0
    for part in local_parts(source):
        with _mended(part.path, partial(open, part.path, "rb") if _is_csv(part) else None):
            for batch in (_csv_batches if _is_csv(part) else _parquet_batches)(part.path, rows):
                found += batch.num_rows
                yield with_joined_key(batch, part.path)
    if not found:
        raise SourceError(f"{source}: {NO_ROWS}")


def local_parts(source: Path) -> list[Any]:
    """The parts of a local file or folder, sorted by name."""
    from pyarrow.fs import LocalFileSystem

    return _parts(LocalFileSystem(), str(source), str(source))


def count(source: Path) -> int | None:
    """How many rows the Parquet parts have; None where a part is CSV, which does not say."""
    from pyarrow.parquet import read_metadata

    parts = local_parts(source)
    if any(map(_is_csv, parts)):
        return None
    with _mended(str(source)):
        return sum(int(read_metadata(part.path).num_rows) for part in parts)


def _csv_batches(path: str, rows: int) -> Iterator[Any]:
    from pyarrow import csv

    with Path(path).open("rb") as file:
        spelled = spellings(_header(file, path, SCORED), path, SCORED)
    text, few = pa.string(), pa.dictionary(pa.int32(), pa.string())
    types = {spelling: few if name in FEW_TEXTS else text for name, spelling in spelled.items()}
    convert = csv.ConvertOptions(include_columns=list(types), column_types=types)
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, csv.ReadOptions(block_size=rows * 128), parse, convert) as reader:
        yield from (batch.rename_columns(list(spelled)) for batch in reader)


def _parquet_batches(path: str, rows: int) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile, read_schema

    schema = read_schema(path)
    spelled = spellings(schema.names, path, SCORED)
    with _named(path):
        for name, spelling in spelled.items():
            require_readable(schema.field(spelling).type, column_of(name))
    texts = [spelling for name, spelling in spelled.items() if name in FEW_TEXTS]
    with ParquetFile(path, read_dictionary=texts) as part:
        for batch in part.iter_batches(rows, columns=list(spelled.values())):
            yield batch.select(list(spelled.values())).rename_columns(list(spelled))


@contextmanager
def _mended(shown: str, reopen: Callable[[], Any] | None = None) -> Iterator[None]:
    """A file that cannot be read becomes one line. `reopen` opens a CSV file, to look for the wrong line; None: it is Parquet."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        if reopen is None:
            raise SourceError(f"{shown}: expected a whole Parquet file: {reason(error)}; write it again") from None
        raise SourceError(f"{shown}: {_wrong_line(reopen) or reason(error)}; correct it, or write the file again") from None


def _wrong_line(reopen: Callable[[], Any]) -> str:
    """What is wrong with which line of a CSV file, without its values; empty if nothing is found."""
    header: list[str] = []
    found, rows, last = "", -1, 0
    with reopen() as file:
        reader = csv.reader(_text(file))
        try:
            for record in reader:
                first, last = last + 1, reader.line_num  # a value may have line breaks
                if not record:
                    continue
                header, rows = header or record, rows + 1
                if len(record) != len(header):
                    return f"line {first}: expected {len(header)} values, as in the header, got {len(record)}"
                if not found and not _is_utf8(record):
                    found = f"line {first}: expected UTF-8 text, got other bytes"
        except csv.Error:
            limit = csv.field_size_limit()
            return f"line {last + 1}: expected values of at most {limit} characters, got more: a quotation mark is not closed"
    return found or ("" if rows else NO_ROWS)


def _text(file: Any) -> TextIOWrapper:
    """A CSV file as text; bytes that are not UTF-8 become what `_is_utf8` refuses."""
    return TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_utf8(record: Sequence[str]) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in "".join(record))


@contextmanager
def _named(shown: str) -> Iterator[None]:
    """A refusal of a column's type names the file or table."""
    try:
        yield
    except ContractError as error:
        raise SourceError(f"{shown}: {error}") from error


def _read_files(filesystem: Any, path: str, *, scheme: str) -> list[pa.Table]:
    """One table per part of the file or folder at `path`; `scheme` goes before a path in messages."""
    try:
        parts = _parts(filesystem, path.rstrip("/") or path, scheme + path)
    except OSError as error:
        raise SourceError(f"{scheme}{path}: {reason(error)}; check the address, the credentials and the permissions") from error
    return [_read_part(filesystem, part, scheme + part.path) for part in parts]


def _parts(filesystem: Any, path: str, shown: str) -> list[Any]:
    """The files to read, sorted by name."""
    from pyarrow.fs import FileSelector, FileType

    found = filesystem.get_file_info(path)
    if found.type == FileType.NotFound:
        what = "bucket, file or folder" if shown.startswith("s3://") else "file or folder"
        raise SourceError(f"{shown}: there is no such {what}; correct the location, or fetch the data")
    if found.type == FileType.File:
        if found.extension.lower() not in EXTENSIONS:
            raise SourceError(f"{shown}: is neither .csv nor .parquet; convert it, or rename it if it is one of them")
        return [found]
    inside = filesystem.get_file_info(FileSelector(path))
    if any(each.base_name == DELTA_LOG for each in inside):
        raise SourceError(
            f"{shown}: is a Delta Lake table, whose files have removed rows too; write its rows to a folder of Parquet"
        )
    parts = [each for each in inside if _is_part(each)]
    if not parts:
        raise SourceError(f"{shown}: the folder has no .csv or .parquet file; put the parts directly into it")
    return sorted(parts, key=lambda each: str(each.base_name))


def _is_part(found: Any) -> bool:
    return found.is_file and found.extension.lower() in EXTENSIONS and not found.base_name.startswith((".", "_"))


def _read_part(filesystem: Any, part: Any, shown: str) -> pa.Table:
    reopen = partial(filesystem.open_input_file, part.path)
    with _mended(shown, reopen if _is_csv(part) else None), reopen() as file:
        return (_read_csv if _is_csv(part) else _read_parquet)(file, shown)


def _is_csv(part: Any) -> bool:
    return bool(part.extension.lower() == "csv")


def _read_csv(file: Any, shown: str) -> pa.Table:
    from pyarrow import csv as arrow_csv

    spelled = spellings(_header(file, shown, COLUMNS), shown)
    convert = arrow_csv.ConvertOptions(
        include_columns=list(spelled.values()), column_types=dict.fromkeys(spelled.values(), pa.string())
    )
    table = arrow_csv.read_csv(file, parse_options=arrow_csv.ParseOptions(newlines_in_values=True), convert_options=convert)
    return with_joined_key(table.rename_columns(list(spelled)), shown)


def _header(file: Any, shown: str, columns: Sequence[Column]) -> list[str]:
    """A CSV file's column names; leaves the file at its start.

    Raises:
        SourceError: there is none, or it is not UTF-8.
    """
    text = _text(file)
    names = next(filter(None, csv.reader(text)), [])
    text.detach()
    file.seek(0)
    if not any(names):
        expected = ", ".join(source for column in columns if column.default is None for source in column.sources)
        raise SourceError(
            f"{shown}: expected a header with the columns {expected}, got an empty file; write it again, or delete it"
        )
    if not _is_utf8(names):
        raise SourceError(f"{shown}: line 1: expected UTF-8 text, got other bytes; write the file again, as UTF-8")
    if len(names) == 1 and (separator := next((each for each in ";\t|" if each in names[0]), "")):
        raise SourceError(f"{shown}: line 1: expected values separated by commas, got {separator!r}; write it again, with commas")
    return names


def _read_parquet(file: Any, shown: str) -> pa.Table:
    from pyarrow.parquet import ParquetFile

    part = ParquetFile(file)
    spelled = spellings(part.schema_arrow.names, shown)
    names = list(spelled.values())
    return _simple(part.read(columns=names).select(names).rename_columns(list(spelled)), shown)


def _simple(part: pa.Table, shown: str) -> pa.Table:
    """The part with columns of simple types, none of them dictionary-encoded."""
    with _named(shown):
        simple_part = pa.table({name: _simple_column(part[name], name) for name in part.column_names})
    return with_joined_key(simple_part, shown)


def _simple_column(values: Any, name: str) -> Any:
    chunks = [simple(chunk, column_of(name)) for chunk in values.chunks or [pa.array([], values.type)]]
    decoded = [chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk for chunk in chunks]
    return pa.chunked_array(decoded)


def _stack(parts: Sequence[pa.Table], shown: str) -> pa.Table:
    """The parts' rows in one table, each column of one type."""
    parts = [part for part in parts if part.num_rows] or parts
    names = [each.name for each in COLUMNS if any(each.name in part.column_names for part in parts)]
    return pa.table({name: _joined(name, parts, shown) for name in names})


def _joined(name: str, parts: Sequence[pa.Table], shown: str) -> Any:
    pieces = [part[name] if name in part.column_names else _defaults(name, part.num_rows) for part in parts]
    kinds = {each.type for each in pieces if not pa.types.is_null(each.type)}
    try:
        kind = _common(kinds)
        return pa.chunked_array([chunk for piece in pieces for chunk in _as(piece, kind).chunks], type=kind)
    except pa.ArrowException as error:
        types = ", ".join(sorted(map(str, kinds)))
        raise SourceError(f"{shown}: {name}: types that cannot be joined: {types}; write it with one type") from error


def _defaults(name: str, rows: int) -> Any:
    default = pa.scalar(BY_NAME[name].default, pa.timestamp("us", "UTC"))
    return pa.chunked_array([pa.repeat(default, rows)])


def _common(kinds: set[Any]) -> Any:
    """The narrowest type that holds values of all these types unchanged; text if there is none."""
    if len(kinds) <= 1:
        return next(iter(kinds), pa.null())
    families = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if any(all(map(family, kinds)) for family in families):
        return pa.unify_schemas([pa.schema({"": each}) for each in kinds], promote_options="permissive").field(0).type
    return pa.string()


def _as(values: Any, kind: Any) -> Any:
    from pyarrow import compute

    if pa.types.is_timestamp(values.type) and pa.types.is_string(kind):
        return compute.strftime(values, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_floating(values.type):  # as text, the NaN that stands for a null would be a word
        values = compute.if_else(compute.is_nan(values), None, values)
    return values.cast(kind)
