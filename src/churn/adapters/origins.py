"""Where the rows of data/raw came from: a source, or the prediction log, whose outcomes any client of the API can report."""

from pathlib import Path

import pandas as pd

from churn.contract import BY_NAME, ENTITY, TIMESTAMP
from churn.domain.derived import DERIVED

KEY = [ENTITY, TIMESTAMP]

ORIGIN = "row_origin"
"""The column of prepared rows that says where each came from. Never a feature."""
SOURCE, API = "source", "api"

METADATA = "churn.origin"
"""Where an ingested part keeps its origin, in the metadata of its Parquet schema."""
_EARLIER_API_SOURCE = b"(predictions that became labelled)"
"""How `churn.source` of a part ends that was ingested from the log before parts named their origin."""

if ORIGIN in {*BY_NAME, *DERIVED}:
    raise ValueError(f"contract.py, features.py: the pipeline has a column {ORIGIN} of its own; rename yours")


def ingested(raw: Path) -> pd.DataFrame:
    """The keys of all rows that `churn ingest` appended to the folder `raw`, with each row's `part` and `ORIGIN`."""
    from pyarrow.parquet import read_schema, read_table

    frames = [
        read_table(path, columns=KEY).to_pandas().assign(part=path.name, **{ORIGIN: _of(read_schema(path).metadata or {})})
        for path in sorted(raw.glob("ingested-*.parquet"))
    ]
    empty = pd.DataFrame({ENTITY: [], TIMESTAMP: pd.to_datetime([], utc=True), "part": [], ORIGIN: []})
    return pd.concat(frames, ignore_index=True) if frames else empty


def of_rows(rows: pd.DataFrame, known: pd.DataFrame) -> "pd.Series[str]":
    """(n,) the origin of each row: `API` where its key is among those of the API in `known`, as `ingested` returns it."""
    return is_among(rows, known[known[ORIGIN] == API]).map({True: API, False: SOURCE})


def is_among(rows: pd.DataFrame, others: pd.DataFrame) -> "pd.Series[bool]":
    """True for each row whose key is also that of one of the others."""
    if others.empty:
        return pd.Series(False, index=rows.index)
    keys = pd.MultiIndex.from_frame(others[KEY])
    return pd.Series(pd.MultiIndex.from_frame(rows[KEY]).isin(keys), index=rows.index)


def _of(metadata: dict[bytes, bytes]) -> str:
    noted = metadata.get(METADATA.encode())
    if noted is None:
        return API if metadata.get(b"churn.source", b"").endswith(_EARLIER_API_SOURCE) else SOURCE
    return API if noted == API.encode() else SOURCE
