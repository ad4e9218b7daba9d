"""An empty system's buckets and source table, on a real PostgreSQL and an S3 API."""

import os
from pathlib import Path

import boto3
import pandas as pd
import psycopg
import pytest

from churn.adapters import sources
from churn.adapters.rows import typed
from churn.adapters.sources import databases
from churn.errors import SourceError
from churn.pipeline import ingest, seed
from churn.settings import Settings

pytestmark = pytest.mark.slow

RAW = Path(__file__).parents[2] / "data/raw/customers.csv"


@pytest.fixture
def source(postgres_url: str) -> Settings:
    """A database of its own, with nothing in it."""
    name = f"crm_{os.urandom(4).hex()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return Settings(source=postgres_url.replace("/postgres", f"/{name}"))


def test_the_table_has_the_file_rows_with_the_contract_types(source: Settings) -> None:
    seed.run(source, RAW, buckets=())

    stored, _ = typed(sources.read(source.source, table="customers"))
    shipped, _ = typed(sources.read(str(RAW)))
    key = ["customer_id"]
    assert stored.sort_values(key, ignore_index=True).equals(shipped.sort_values(key, ignore_index=True))


def test_an_existing_table_is_not_changed(source: Settings) -> None:
    shipped, _ = typed(sources.read(str(RAW)))
    databases.write(shipped.head(3), source.source, "customers")

    seed.run(source, RAW, buckets=())

    assert sources.read(source.source, table="customers").num_rows == 3


def test_the_pipeline_ingests_the_seeded_rows(source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seed.run(source, RAW, buckets=())

    assert ingest.run(source) == 7043
    assert ingest.run(source) == 0


def test_a_table_write_is_atomic(source: Settings) -> None:
    shipped, _ = typed(sources.read(str(RAW)))
    broken = shipped.head(3).assign(total_fees=pd.Series([1.0, 2.0, object()], dtype=object))

    with pytest.raises(SourceError):
        databases.write(broken, source.source, "customers")

    assert not databases.has_table(source.source, "customers")


def test_buckets_are_created_once(s3: str) -> None:
    for _ in range(2):
        seed.run(Settings(), RAW, buckets=["seeded-models", "seeded-events"])

    names = {each["Name"] for each in boto3.client("s3", endpoint_url=s3, region_name="us-east-1").list_buckets()["Buckets"]}
    assert {"seeded-models", "seeded-events"} <= names


def test_keys_can_be_in_a_file(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aws").write_text("[default]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws"))

    seed.run(Settings(), RAW, buckets=["seeded-by-file"])

    names = {each["Name"] for each in boto3.client("s3", endpoint_url=s3, region_name="us-east-1").list_buckets()["Buckets"]}
    assert "seeded-by-file" in names


def test_an_unreachable_database_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="check the URL, that its driver is installed and that the database is up"):
        seed.run(Settings(source="postgresql://nobody@127.0.0.1:1/none"), RAW, buckets=())
