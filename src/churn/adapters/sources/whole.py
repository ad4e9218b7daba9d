"""A table with all of its columns, whatever the contract: what a contract is drafted from."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn.adapters.object_storage import s3
from churn.adapters.sources import NO_ROWS, local_parts
from churn.domain.reasons import reason
from churn.errors import SourceError

SEPARATORS = ",;\t|"
ENCODINGS = ("utf-8-sig", "cp1252")
"""Tried in this order; the second reads almost every file that a spreadsheet of western Europe writes."""
UNNAMED = "unnamed"


@dataclass(frozen=True)
class Whole:
    """The rows (n, k), and what `churn.adapters.sources.read` would not read as it stands.

    `table` has a name of its own for every column: the second `a` is `a_2`. `files` are the local parts, none of a database or of
    object storage. `odd` says in words in what the files differ from CSV in UTF-8 with commas.
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
    return _with_rows(Whole(_stacked([rows for rows, _, _ in found]), files, tuple(odd), found[0][2]), location)


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
    from pyarrow.parquet import read_table

    try:
        if not _is_csv(part):
            rows = read_table(filesystem.open_input_file(part.path))
            return rows.rename_columns(unique(rows.column_names)), _twice(rows.column_names), ","
        return _read_csv(filesystem, part.path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{part.path}: {reason(error)}; correct it, or write the file again") from None


def _read_csv(filesystem: Any, path: str) -> tuple[pa.Table, tuple[str, ...], str]:
    from pyarrow import csv as arrow_csv

    with filesystem.open_input_file(path) as file:
        start = file.read(2**20)
    encoding = next((each for each in ENCODINGS if _decodes(filesystem, path, each)), ENCODINGS[-1])
    first = start.decode(encoding, errors="replace").lstrip("\r\n").partition("\n")[0]
    separator = max(SEPARATORS, key=first.count) if first else ","
    with filesystem.open_input_file(path) as file:
        header = _header(file, encoding, separator)
    if not any(header):
        raise SourceError(f"{path}: expected a header, got an empty file; write it again, or delete it")
    columns = unique(header)
    with filesystem.open_input_file(path) as file:
        rows = arrow_csv.read_csv(
            file,
            arrow_csv.ReadOptions(column_names=columns, skip_rows=1, encoding="utf-8" if encoding == ENCODINGS[0] else encoding),
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    odd = _twice(header)
    odd += () if separator == "," else (f"values are separated by {separator!r}",)
    odd += () if encoding == ENCODINGS[0] else (f"its encoding is not UTF-8, and was read as {encoding}",)
    return rows, odd, separator


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


def _stacked(parts: Sequence[pa.Table]) -> pa.Table:
    """The parts' rows in one table; a column becomes text where the parts' types differ too much."""
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException:
        texts = [part.cast(pa.schema([(name, pa.string()) for name in part.column_names])) for part in parts]
        return pa.concat_tables(texts, promote_options="permissive")
