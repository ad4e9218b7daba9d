"""Raw rows from a file, a folder of parts, object storage or a SQL database, as one Arrow table of the contract's columns."""

import csv
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn.arrow_types import require_readable, simple
from churn.contract import BY_NAME, COLUMNS, Category, Flag, Role, of_role
from churn.errors import ContractError, SourceError
from churn.object_storage import s3
from churn.reasons import reason
from churn.spelling import spellings

log = logging.getLogger(__name__)

EXTENSIONS = ("csv", "parquet")
NO_ROWS = "has columns and no rows; at least one row is needed, so check what wrote it"


def read(location: str, *, table: str = "customers") -> pa.Table:
    """The rows at `location`: the contract's columns, under its names, in its order, (n, k) with n ≥ 1.

    `location` is a `.csv` or `.parquet` file, a folder of such parts (read in the order of their names; not nested; names that
    begin with `.` or `_` and other extensions are skipped), `s3://bucket/key` or `s3://bucket/prefix` for the same in object
    storage, or a SQLAlchemy URL whose `table` (`name` or `schema.name`) is read.

    Each part spells a column as the contract's `source` or as its `name`; no other column is read. CSV values stay text, a blank
    stays ''. Parquet and SQL values keep their types, in the simple form that `churn.arrow_types.simple` gives them. Where parts
    disagree on a type all become text: floats in the shortest form that reads back as the same float, booleans `true` and
    `false`, timestamps ISO 8601 in UTC (taken as UTC without a zone). Parts without rows have no say in that.

    A column that has a `default` may be absent: the default in the rows of a part that lacks it, absent from the table if every
    part lacks it (`churn.rows.typed` then fills it in). A null in a part that has the column stays null.

    `churn.object_storage.s3` says how the environment configures object storage.

    Raises:
        SourceError: there is nothing to read at `location`, it cannot be reached or read, it lacks columns or rows, or a
            column's type stands for no values of its kind.
    """
    if location.startswith("s3://"):
        shown, parts = location, _read_files(s3(), location.removeprefix("s3://"), scheme="s3://")
    elif "://" in location:
        from churn import databases

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


SCORED = (*of_role(Role.ENTITY), *of_role(Role.FEATURE))
FEW_TEXTS = frozenset(each.name for each in SCORED if isinstance(each.kind, Category | Flag))


def batches(source: Path, *, rows: int) -> Iterator[Any]:
    """The entity and the raw features of a local file or folder of parts, as record batches of about `rows` rows.

    Columns have the contract's names and the part's types; categories and flags that are texts come dictionary-encoded. CSV
    values stay text. Memory does not grow with the file.

    Raises:
        SourceError: as `read` does.
    """
    found = 0
    for part in local_parts(source):
        with _mended(part.path, part.extension):
            for batch in (_csv_batches if part.extension.lower() == "csv" else _parquet_batches)(part.path, rows):
                found += batch.num_rows
                yield batch
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
    if any(part.extension.lower() == "csv" for part in parts):
        return None
    with _mended(str(source), "parquet"):
        return sum(int(read_metadata(part.path).num_rows) for part in parts)


def _csv_batches(path: str, rows: int) -> Iterator[Any]:
    from pyarrow import csv

    with Path(path).open("rb") as file:
        spelled = spellings(_header(file), path, SCORED)
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
            require_readable(schema.field(spelling).type, BY_NAME[name])
    texts = [spelling for name, spelling in spelled.items() if name in FEW_TEXTS]
    with ParquetFile(path, read_dictionary=texts) as part:
        for batch in part.iter_batches(rows, columns=list(spelled.values())):
            yield batch.select(list(spelled.values())).rename_columns(list(spelled))


@contextmanager
def _mended(shown: str, extension: str) -> Iterator[None]:
    """A file that cannot be read becomes one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        is_csv = extension.lower() == "csv"
        rule = "UTF-8 text with as many values in each row as in the header" if is_csv else "a whole Parquet file"
        raise SourceError(f"{shown}: {reason(error)}; it must be {rule}: write it again") from None


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
    parts = [each for each in filesystem.get_file_info(FileSelector(path)) if _is_part(each)]
    if not parts:
        raise SourceError(f"{shown}: the folder has no .csv or .parquet file; put the parts directly into it")
    return sorted(parts, key=lambda each: str(each.base_name))


def _is_part(found: Any) -> bool:
    return found.is_file and found.extension.lower() in EXTENSIONS and not found.base_name.startswith((".", "_"))


def _read_part(filesystem: Any, part: Any, shown: str) -> pa.Table:
    if part.size == 0:
        raise SourceError(f"{shown}: is empty (0 bytes); a part needs a header at least: write it again, or delete it")
    with _mended(shown, part.extension), filesystem.open_input_file(part.path) as file:
        return _read_csv(file, shown) if part.extension.lower() == "csv" else _read_parquet(file, shown)


def _read_csv(file: Any, shown: str) -> pa.Table:
    from pyarrow import csv as arrow_csv

    spelled = spellings(_header(file), shown)
    table = arrow_csv.read_csv(
        file,
        # Only a reader without threads knows the number of the row that it complains about.
        arrow_csv.ReadOptions(use_threads=False),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(
            include_columns=list(spelled.values()), column_types=dict.fromkeys(spelled.values(), pa.string())
        ),
    )
    return table.rename_columns(list(spelled))


def _header(file: Any) -> list[str]:
    """A CSV file's column names; leaves the file at its start."""
    text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    names = next(filter(None, csv.reader(text)), [])
    text.detach()
    file.seek(0)
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
        return pa.table({name: _simple_column(part[name], name) for name in part.column_names})


def _simple_column(values: Any, name: str) -> Any:
    chunks = [simple(chunk, BY_NAME[name]) for chunk in values.chunks or [pa.array([], values.type)]]
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
