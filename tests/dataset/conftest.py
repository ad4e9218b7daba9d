"""The rows of data/raw, on which these tests run. They hold for any table: nothing here names a column."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from churn import paths
from churn.adapters import sources
from churn.adapters.rows import typed
from churn.domain.encoding import computable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def raw() -> pa.Table:
    """The raw rows as they are read."""
    if not any((ROOT / paths.RAW).glob("[!._]*")):
        pytest.skip(f"{paths.RAW} has no rows here: `dvc pull` or `churn ingest` brings them")
    return sources.read(str(ROOT / paths.RAW))


@pytest.fixture(scope="session")
def rows(raw: pa.Table) -> pd.DataFrame:
    """A thousand of them at most, as features.py gets them."""
    frame, _ = typed(raw.slice(0, 1000))
    return frame.assign(**computable(frame))
