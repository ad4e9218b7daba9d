"""Rows that are in data/raw twice: what `prepare` leaves out, what it refuses and how it names the part."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from churn import paths
from churn.adapters.origins import API, ORIGIN, SOURCE
from churn.contract import ENTITY
from churn.errors import ContractError
from churn.params import load_params
from churn.pipeline import prepare
from churn.settings import Settings
from factory import rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
APRIL = pd.Timestamp("2026-04-01", tz="UTC")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data/raw holds a hundred customers of January."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    paths.RAW.mkdir(parents=True)
    rows(100).to_parquet(paths.RAW / "customers.parquet", index=False)
    return paths.RAW


def part(name: str, frame: pd.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write the rows as a part that was ingested."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table = pa.Table.from_pandas(frame, preserve_index=False)
    write_table(table.replace_schema_metadata(metadata or {}), paths.RAW / f"ingested-{name}.parquet")


def prepared() -> pd.DataFrame:
    prepare.run(PARAMS, Settings(events=""))
    return pd.concat([pd.read_parquet(paths.TRAIN_ROWS), pd.read_parquet(paths.TEST_ROWS)])


@pytest.mark.reported
def test_equal_rows_of_two_ingested_parts_are_kept_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    april = rows(30, event_timestamp=APRIL)
    part("aa", april.head(20))
    part("bb", april)

    assert len(prepared()) == 130
    assert "prepare: 20 rows of ingested parts are there twice" in caplog.text


def test_an_ingested_row_that_is_also_in_a_file_is_kept_once() -> None:
    part("aa", rows(100).tail(5))

    assert len(prepared()) == 100


def test_contradicting_rows_are_refused_with_the_names_of_their_parts() -> None:
    april = rows(30, event_timestamp=APRIL)
    part("aa", april)
    part("bb", april.head(3).assign(churned=~april.churned.head(3)))
    part("cc", rows(5, event_timestamp=APRIL, customer_id=[f"other-{number}" for number in range(5)]))

    with pytest.raises(ContractError, match=r"ingested-aa\.parquet, ingested-bb\.parquet: .*first: customer_id-00000") as caught:
        prepared()

    assert "\n" not in str(caught.value)
    assert "ingested-cc" not in str(caught.value)
    assert not paths.TRAIN_ROWS.exists()


def test_equal_rows_in_user_files_are_refused() -> None:
    rows(3).to_parquet(paths.RAW / "more.parquet", index=False)
    part("aa", rows(5, event_timestamp=APRIL))

    with pytest.raises(ContractError, match="expected one row per customer_id and event_timestamp, got repeats in 6 rows"):
        prepared()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"churn.origin": "api"}, API),
        ({"churn.origin": "source"}, SOURCE),
        ({"churn.source": "s3://events (predictions that became labelled)"}, API),
        ({"churn.source": "postgresql://crm"}, SOURCE),
        ({}, SOURCE),
    ],
)
def test_prepared_rows_have_their_origin(metadata: dict[str, str], expected: str) -> None:
    part("aa", rows(5, event_timestamp=APRIL), metadata)

    frame = prepared()

    assert frame.loc[frame.event_timestamp == APRIL, ORIGIN].tolist() == [expected] * 5
    assert set(frame.loc[frame.event_timestamp != APRIL, ORIGIN]) == {SOURCE}
    assert frame[ENTITY].nunique() == 100
