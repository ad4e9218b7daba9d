"""`churn ingest`: rows from real sources into data/raw."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from churn import paths
from churn.errors import ContractError
from churn.pipeline import ingest
from churn.settings import Settings

CUSTOMERS = Path(__file__).parents[2] / "data/raw/customers.csv"


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds the first hundred customers."""
    monkeypatch.chdir(tmp_path)
    paths.RAW.mkdir(parents=True)
    customers(0, 100).to_csv(paths.RAW / "customers.csv", index=False)
    return paths.RAW


def customers(first: int, last: int) -> pd.DataFrame:
    return pd.read_csv(CUSTOMERS, dtype=str, keep_default_na=False)[first:last]


@pytest.fixture
def database(postgres_url: str) -> Settings:
    """A PostgreSQL table with customers 50 to 250, as a CRM would type them."""
    frame = customers(50, 250)
    numbers = frame.assign(
        Membership=frame.Membership.astype(int),
        MonthlyFee=frame.MonthlyFee.astype(float),
        TotalFees=pd.to_numeric(frame.TotalFees, errors="coerce"),
        region="west",
    )
    engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    numbers.to_sql("members", engine, if_exists="replace", index=False)
    engine.dispose()
    return Settings(source=postgres_url, source_table="members")


def test_only_new_customers_are_appended_in_a_fixed_order(database: Settings, raw: Path) -> None:
    assert ingest.run(database) == 150

    (part,) = raw.glob("ingested-*.parquet")
    assert list(pd.read_parquet(part).customer_id) == sorted(customers(100, 250).MemberNo)


def test_a_second_ingest_appends_nothing(database: Settings, raw: Path) -> None:
    ingest.run(database)

    assert ingest.run(database) == 0
    assert len(list(raw.glob("ingested-*.parquet"))) == 1


def test_a_part_has_its_source_without_the_password(database: Settings, raw: Path) -> None:
    ingest.run(database)

    (part,) = raw.glob("ingested-*.parquet")
    provenance = pq.read_schema(part).metadata
    assert b"127.0.0.1" in provenance[b"churn.source"]
    assert b"s3cret" not in provenance[b"churn.source"]
    assert b"churn.ingested_at" in provenance


def test_rows_are_ingested_from_s3(s3: str, raw: Path) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="crm")
    client.put_object(Bucket="crm", Key="new/part-1.csv", Body=customers(95, 120).to_csv(index=False).encode())

    assert ingest.run(Settings(source="s3://crm/new")) == 20


def test_bad_rows_are_refused_and_nothing_is_appended(raw: Path, tmp_path: Path) -> None:
    customers(100, 120).assign(MonthlyFee="-1").to_csv(tmp_path / "bad.csv", index=False)

    with pytest.raises(ContractError, match=r"monthly_fee: expected real ≥ 0 .* in 20 rows"):
        ingest.run(Settings(source=str(tmp_path / "bad.csv")))

    assert [path.name for path in raw.iterdir()] == ["customers.csv"]


def test_an_empty_data_raw_is_filled(database: Settings, raw: Path) -> None:
    (raw / "customers.csv").unlink()

    assert ingest.run(database) == 200


def test_appended_rows_are_read_with_existing_rows(database: Settings, raw: Path) -> None:
    from churn.adapters import expectations, sources

    ingest.run(database)

    report = expectations.check(sources.read(str(raw)))
    assert report.violations == ()
    assert len(report.frame) == 250
