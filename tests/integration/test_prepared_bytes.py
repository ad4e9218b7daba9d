"""The same rows are prepared to the same bytes, whatever order, file or database they come from."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from churn import paths
from churn.adapters import rows, sources
from churn.contract import BY_NAME, COLUMNS
from churn.params import load_params
from churn.pipeline import ingest, prepare
from churn.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CUSTOMERS = ROOT / "data/raw/customers.csv"
PREPARED = (paths.TRAIN_ROWS, paths.TEST_ROWS)


def shuffled(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    return frame.iloc[np.random.default_rng(seed).permutation(len(frame))]


def as_shipped(typed: pd.DataFrame, raw: Path) -> None:
    (raw / "customers.csv").write_bytes(CUSTOMERS.read_bytes())


def as_shuffled_parts(typed: pd.DataFrame, raw: Path) -> None:
    """Parquet with types of their own, CSV as shipped; the order of the parts is not that of the rows."""
    frame = shuffled(typed, 1)
    text = pd.read_csv(CUSTOMERS, dtype=str, keep_default_na=False).set_index("MemberNo")
    frame.iloc[:3000].to_parquet(raw / "b.parquet", index=False)
    frame.iloc[3000:5000].astype({"commitment": object}).to_parquet(raw / "c.parquet", index=False)
    text.loc[frame.customer_id.iloc[5000:]].to_csv(raw / "a.csv")


def as_a_database_has_them(typed: pd.DataFrame, url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    shuffled(typed, 2).to_sql("customers", engine, index=False, if_exists="replace")
    engine.dispose()
    ingest.run(Settings(source=url))


@pytest.fixture(scope="module")
def typed() -> pd.DataFrame:
    frame, _ = rows.typed(sources.read(str(CUSTOMERS)))
    return frame


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Path], None]], list[str]]:
    """Digests of what `churn prepare` writes in a workspace whose data/raw is filled by a function."""

    def run(name: str, fill: Callable[[Path], None]) -> list[str]:
        (tmp_path / name / paths.RAW).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        fill(paths.RAW)
        prepare.run(load_params(ROOT / "params.yaml"), Settings())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in PREPARED]

    return run


@pytest.mark.reported
def test_prepared_bytes_do_not_depend_on_row_order_or_source(
    prepared: Any, typed: pd.DataFrame, tmp_path: Path, postgres_url: str
) -> None:
    expected = prepared("shipped", lambda raw: as_shipped(typed, raw))

    assert prepared("parts", lambda raw: as_shuffled_parts(typed, raw)) == expected
    assert prepared("sqlite", lambda raw: as_a_database_has_them(typed, _empty(tmp_path / "crm.db"))) == expected
    assert prepared("postgresql", lambda raw: as_a_database_has_them(typed, postgres_url)) == expected


def test_a_hundred_orders_of_the_rows_are_prepared_to_the_same_bytes(prepared: Any, typed: pd.DataFrame) -> None:
    some = typed.head(300)

    def in_order(seed: int) -> Callable[[Path], None]:
        return lambda raw: shuffled(some, seed).to_parquet(raw / "rows.parquet", index=False)

    digests = {tuple(prepared(f"order {seed}", in_order(seed))) for seed in range(100)}

    assert len(digests) == 1


def _empty(path: Path) -> str:
    path.touch()
    return f"sqlite:///{path}"


def test_prepared_rows_are_sorted_by_customer_and_time(typed: pd.DataFrame) -> None:
    later = typed.head(3).assign(event_timestamp=typed.event_timestamp + pd.Timedelta(days=1))
    frame = pd.concat([later, shuffled(typed, 3)])

    found = prepare.ordered(frame)

    keys = list(zip(found.customer_id, found.event_timestamp, strict=True))
    assert keys == sorted(keys)
    assert found.index.tolist() == list(range(len(frame)))


def test_the_order_of_categories_does_not_depend_on_the_rows(typed: pd.DataFrame) -> None:
    again, _ = rows.typed(pa.Table.from_pandas(shuffled(typed, 4)[[each.name for each in COLUMNS]], preserve_index=False))

    assert list(again.paid_by.cat.categories) == list(BY_NAME["paid_by"].kind.values)  # type: ignore[union-attr]
    assert list(again.paid_by.cat.categories) == list(typed.paid_by.cat.categories)
