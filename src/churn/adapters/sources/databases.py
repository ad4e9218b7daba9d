"""Raw rows from a SQL database, by SQLAlchemy."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from churn.adapters.sources.spelling import spellings
from churn.domain.reasons import reason
from churn.domain.values import exact_text
from churn.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa

CONNECT_TIMEOUT_S = 5
ROWS_PER_CHUNK = 20_000
POSTGRES = "postgresql+psycopg"


def read(location: str, table: str) -> tuple[str, list[pa.Table]]:
    """How to call the table in messages, and its rows in chunks of the contract's columns; see `churn.adapters.sources.read`.

    Raises:
        SourceError: the database cannot be reached or read, or the table lacks columns.
    """
    url = _database_url(location)
    shown = _shown(url, table)
    with _refusals(shown), _connection(url) as connection:
        return shown, list(_chunks(connection, table, shown))


def read_all(location: str, table: str) -> list[pa.Table]:
    """The table's rows in chunks of all of its columns.

    Raises:
        SourceError: the database cannot be reached or read.
    """
    url = _database_url(location)
    shown = _shown(url, table)
    with _refusals(shown), _connection(url) as connection:
        kinds = _reflect(connection, table, shown)
        return list(_select(connection, table, {name: name for name in kinds}, kinds))


def names(location: str, table: str) -> list[str]:
    """The names of the table's columns.

    Raises:
        SourceError: the database cannot be reached, or lacks the table.
    """
    url = _database_url(location)
    shown = _shown(url, table)
    with _refusals(shown), _connection(url) as connection:
        return list(_reflect(connection, table, shown))


def has_table(location: str, table: str) -> bool:
    """True if the database has the table.

    Raises:
        SourceError: the database cannot be reached.
    """
    import sqlalchemy as sa

    url = _database_url(location)
    schema, _, name = table.rpartition(".")
    with _refusals(_shown(url, table)), _connection(url) as connection:
        return bool(sa.inspect(connection).has_table(name, schema or None))


def write(rows: "pd.DataFrame", location: str, table: str) -> None:
    """Make the table and fill it, all or nothing.

    Raises:
        SourceError: the database cannot be reached, or has the table.
    """
    url = _database_url(location)
    schema, _, name = table.rpartition(".")
    with _refusals(_shown(url, table)), _connection(url) as connection, connection.begin():
        rows.to_sql(name, connection, schema=schema or None, index=False, chunksize=ROWS_PER_CHUNK)


def _database_url(location: str) -> "sa.URL":
    import sqlalchemy as sa

    try:
        url = sa.make_url(location)
    except (sa.exc.ArgumentError, ValueError) as error:
        shown = re.sub("://.*@", "://***@", location)
        raise SourceError(f"{shown}: is not a database URL; write driver://user:password@host:port/database") from error
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise SourceError(f"{location}: there is no such file; correct the path: sqlite:///relative or sqlite:////absolute")
    return url.set(drivername=POSTGRES) if url.drivername in ("postgres", "postgresql") else url


def _shown(url: "sa.URL", table: str) -> str:
    return f"{url.set(query={}).render_as_string(hide_password=True)}: table {table}"


@contextmanager
def _connection(url: "sa.URL") -> Iterator["sa.Connection"]:
    import sqlalchemy as sa

    patience = {"connect_timeout": CONNECT_TIMEOUT_S} if url.drivername == POSTGRES else {}
    with sa.create_engine(url, poolclass=sa.NullPool, connect_args=patience, hide_parameters=True).connect() as connection:
        yield connection


@contextmanager
def _refusals(shown: str) -> Iterator[None]:
    """Foreign errors become one line."""
    import sqlalchemy as sa

    try:
        yield
    except (sa.exc.NoSuchModuleError, ImportError) as error:
        advice = "install the package of its driver (uv add --group train PACKAGE), or correct the URL"
        raise SourceError(f"{shown}: {reason(error)}; {advice}") from None
    except sa.exc.SQLAlchemyError as error:
        advice = "check the URL and that the database is up"
        raise SourceError(f"{shown}: {reason(error)}; {advice}") from None


def _chunks(connection: "sa.Connection", table: str, shown: str) -> Iterator[pa.Table]:
    kinds = _reflect(connection, table, shown)
    yield from _select(connection, table, spellings(list(kinds), shown), kinds)


def _select(connection: "sa.Connection", table: str, spelled: dict[str, str], kinds: dict[str, Any]) -> Iterator[pa.Table]:
    """One table per chunk of rows, and one without rows for their columns; `spelled`: name → the column's own name."""
    import sqlalchemy as sa

    declared = [kinds[each] for each in spelled.values()]
    schema, _, name = table.rpartition(".")
    # Columns without a type: values come as the driver gives them, not as SQLAlchemy would convert them.
    query = sa.table(name, *map(sa.column, spelled.values()), schema=schema or None).select()
    yield pa.table({each: pa.nulls(0) for each in spelled})
    for rows in connection.execution_options(yield_per=ROWS_PER_CHUNK).execute(query).partitions():
        yield pa.table(list(map(_array, zip(*rows, strict=True), declared)), names=list(spelled))


def _reflect(connection: "sa.Connection", table: str, shown: str) -> dict[str, Any]:
    """The table's columns: name → SQLAlchemy type."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    schema, _, name = table.rpartition(".")
    try:
        return {each["name"]: each["type"] for each in inspector.get_columns(name, schema or None)}
    except sa.exc.NoSuchTableError as error:
        near = get_close_matches(name, inspector.get_table_names(schema or None), n=1)
        hint = f"did you mean {near[0]}?" if near else "name one that is, as table or schema.table"
        raise SourceError(f"{shown} is not there; {hint}") from error


def _array(values: Sequence[Any], declared: "sa.types.TypeEngine[Any]") -> Any:
    """Python values as an Arrow array of their own type; as text where they have none in common, or one that only Arrow knows."""
    import sqlalchemy as sa

    if isinstance(declared, sa.CHAR):  # SQL fills a value up with blanks to the column's length; they are not part of it
        values = [each.rstrip(" ") if isinstance(each, str) else each for each in values]
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        array = None
    if array is None or isinstance(array, pa.ExtensionArray):
        return pa.array([None if each is None else _text(each) for each in values])
    # SQLite has no booleans: it stores 0 and 1, and only the declared type tells.
    is_boolean = isinstance(declared, sa.Boolean) and pa.types.is_integer(array.type)
    return array.cast(pa.bool_()) if is_boolean else array


def _text(value: Any) -> str:
    """A value as it would stand in a CSV file."""
    match value:
        case bytes():
            return value.decode(errors="backslashreplace")
        case bool():
            return str(value).lower()
        case float():
            return exact_text(value) or str(value)
        case _:
            return str(value)
