"""A library's error as one line without values of rows; real errors of the real libraries."""

import io
import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest
import redis
import sqlalchemy as sa
from mlflow.exceptions import MlflowException

from churn.domain.reasons import reason

CUSTOMER = "8504-XZKFR"


def parse_csv() -> None:
    text = f"id,charge\n1,2\n{CUSTOMER},29.85,Danish\n".encode()
    arrow_csv.read_csv(io.BytesIO(text), arrow_csv.ReadOptions(use_threads=False))


def insert_with_sqlalchemy(value: Any) -> None:
    table = sa.Table("customers", sa.MetaData(), sa.Column("id", sa.Text, primary_key=True), sa.Column("at", sa.DateTime))
    with sa.create_engine("sqlite://").connect() as connection:
        table.create(connection)
        for _ in range(2):
            connection.execute(table.insert().values(id=CUSTOMER, at=value))


@pytest.mark.reported
@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (parse_csv, "CSV parse error: Row #3: Expected 2 columns, got 3"),
        (lambda: pa.array([1, CUSTOMER]), "Could not convert … with type str: tried to convert to int64"),
        (lambda: pa.array([CUSTOMER]).cast(pa.int64()), "Failed to parse string: … as a scalar of type int64"),
        (lambda: duckdb.execute(f"SELECT '{CUSTOMER}'::INT").fetchall(), "DuckDB: ConversionException"),
        (lambda: insert_with_sqlalchemy(None), "UNIQUE constraint failed: customers.id"),
        (lambda: insert_with_sqlalchemy(CUSTOMER), "StatementError: TypeError"),
    ],
    ids=["row of a CSV file", "value in Arrow", "text in Arrow", "DuckDB", "SQLite's key", "SQLAlchemy's parameter"],
)
def test_an_error_message_has_no_customer_data(fail: Callable[[], Any], expected: str) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011 - one of many libraries
        fail()

    assert reason(error.value) == expected


def test_text_that_sqlite_cannot_decode_is_removed() -> None:
    with pytest.raises(sqlite3.OperationalError) as error:
        sqlite3.connect(":memory:").execute("SELECT CAST(x'37353930FF' AS TEXT) AS id").fetchall()

    assert reason(error.value) == "Could not decode to UTF-8 column 'id'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Command # 1 (HSET {CUSTOMER}) of pipeline caused error: out of memory", "out of memory"),
        (f"unknown command 'HSET', with args beginning with: '{CUSTOMER}'", "unknown command 'HSET'"),
        ("WRONGTYPE Operation against a key", "WRONGTYPE Operation against a key"),
    ],
)
def test_redis_commands_are_removed(text: str, expected: str) -> None:
    assert reason(redis.ResponseError(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "API request to http://h:1/api failed with exception HTTPConnectionPool(host='h', port=1): Max retries exceeded with "
            "url: /api (Caused by NewConnectionError(\"HTTPConnection(host='h', port=1): Failed to establish a new connection: "
            '[Errno 111] Connection refused"))',
            "Failed to establish a new connection: [Errno 111] Connection refused",
        ),
        (
            f"(sqlite3.OperationalError) database is locked\n[SQL: UPDATE]\n[parameters: ('{CUSTOMER}',)]",
            "(sqlite3.OperationalError) database is locked",
        ),
    ],
    ids=["server", "database"],
)
def test_mlflow_errors_have_neither_wrapping_nor_parameters(text: str, expected: str) -> None:
    assert reason(MlflowException(text)) == expected


def test_names_and_places_are_kept() -> None:
    with pytest.raises(duckdb.Error) as error:
        duckdb.sql("SELECT * FROM 'no/such.parquet'")

    assert "no/such.parquet" in reason(error.value)
    assert reason(FileNotFoundError(2, "No such file", "data/raw")) == "[Errno 2] No such file: 'data/raw'"


def test_an_error_without_text_is_named_by_its_class() -> None:
    assert reason(TimeoutError()) == "TimeoutError"
