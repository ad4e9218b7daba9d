"""Why a library refused, as one line that holds no value of a row: a message must not carry personal data."""

import re
from collections.abc import Mapping
from typing import Any

_TELLING = frozenset({"BinderException", "CatalogException", "HTTPException", "IOException", "OutOfMemoryException"})
"""DuckDB's errors about names and files; the others may quote values."""
_QUOTED_BY_ARROW = re.compile(
    r"(?<=got )(\d+): .*|(?<=Could not convert ).*(?= with type )|(?<=Failed to parse string: ).*(?= as a )"
    r"|(?<=nteger value )\S+|(?<=invalid value ).*"
)

_UNREACHABLE = re.compile(r"Caused by \w+\([\"'].*?\): (.*?)[\"']\)")
"""What urllib3 says of a connection that failed, within a message of MLflow's."""


def reason(error: BaseException) -> str:
    """The error's text without line breaks and without values of rows, or the name of its class where it may be all values.

    Knows the messages of redis-py, SQLAlchemy and its drivers, sqlite3, DuckDB, MLflow and Arrow; others are taken as they are.
    """
    match type(error).__module__.partition(".")[0]:
        case "redis":
            return _of_redis(one_line(error))
        case "sqlalchemy":
            return _of_sqlalchemy(error)
        case "psycopg":
            return _of_psycopg(error)
        case "sqlite3":
            # "Could not decode to UTF-8 column 'name' with text '…'"
            return one_line(error).partition(" with text ")[0]
        case "duckdb" | "_duckdb":
            return one_line(error) if type(error).__name__ in _TELLING else f"DuckDB: {type(error).__name__}"
        case "mlflow":
            return _of_mlflow(str(error)) or one_line(error)
        case "pyarrow":
            # "CSV parse error: Row #5: Expected 21 columns, got 22: …" quotes the row, others a value.
            return _QUOTED_BY_ARROW.sub(lambda found: found[1] or "…", one_line(error))
        case _:
            return one_line(error)


def validation_message(details: Mapping[str, Any]) -> str:
    """The message of one of pydantic's errors, without the prefix that it puts before a validator's own words."""
    return str(details["msg"]).removeprefix("Value error, ")


def one_line(error: BaseException) -> str:
    """The error's text without its line breaks; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _of_mlflow(text: str) -> str:
    """MLflow quotes SQL with its parameters from the second line on, and wraps why a server cannot be reached three times."""
    if found := _UNREACHABLE.search(text):
        return found[1]
    return " ".join(next(iter(text.splitlines()), "").split())


def _of_redis(text: str) -> str:
    """redis-py quotes the command of a pipeline, and Redis one that it does not know."""
    if text.startswith("Command # "):
        text = text.rpartition(" of pipeline caused error: ")[2]
    return text.partition(", with args beginning with")[0]


def _of_sqlalchemy(error: BaseException) -> str:
    cause = getattr(error, "orig", None)
    if cause is None:
        return one_line(error)  # of SQLAlchemy itself: about URLs, names and types
    if type(cause).__module__.partition(".")[0] in ("sqlite3", "psycopg"):
        return reason(cause)
    # Any other driver: errors of data quote them, and so does what fails before the driver is called.
    kind = type(error).__name__
    return f"{kind}: {type(cause).__name__}" if kind in ("DataError", "IntegrityError", "StatementError") else one_line(cause)


def _of_psycopg(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or ""
    if state.startswith(("22", "23")):
        return f"{type(error).__name__} (SQLSTATE {state})"  # data exceptions and broken constraints quote values
    first, _, _ = str(error).partition("\nDETAIL:")
    return " ".join(first.split()) or type(error).__name__
