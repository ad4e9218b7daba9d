"""New labelled rows from the source into data/raw: checked, without those already known, each batch a file of its own."""

import hashlib
import logging
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa

from churn import expectations, paths, rows, sources
from churn.contract import ENTITY, TIMESTAMP
from churn.errors import ConfigError
from churn.files import atomic_path
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)

KEY = [ENTITY, TIMESTAMP]


def unknown(found: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The rows of `found` whose customer and time are not among `known`."""
    merged = found[KEY].merge(known[KEY].drop_duplicates(), how="left", on=KEY, indicator=True)
    return found[(merged["_merge"] == "left_only").to_numpy()].reset_index(drop=True)


def run(settings: Settings) -> int:
    """Append the source's new rows to data/raw as one Parquet part; returns how many. Doing it again appends nothing.

    Raises:
        ConfigError: no source is set.
        SourceError: it cannot be read.
        ContractError: its rows break the contract; nothing is appended, the rows are in data/quarantine.
    """
    if not settings.source:
        raise ConfigError("ingest: CHURN_SOURCE is not set: name a file, a folder, s3://bucket/key or a database URL")
    table = sources.read(settings.source, table=settings.source_table)
    source = without_password(settings.source)
    found = expectations.accept(expectations.check(table), source=source, quarantine=paths.QUARANTINE)
    fresh = unknown(found, _known()) if paths.RAW.exists() and any(paths.RAW.iterdir()) else found
    if len(fresh):
        _append(fresh, source)
    log.info("ingest: %d of %d rows of %s are new", len(fresh), len(found), source)
    return len(fresh)


def _known() -> pd.DataFrame:
    known, _ = rows.typed(sources.read(str(paths.RAW)))
    return known


def _append(fresh: pd.DataFrame, source: str) -> None:
    """Write the rows, named by their content, with where and when they came from in the file's metadata."""
    from pyarrow.parquet import write_table

    digest = hashlib.sha256(pd.util.hash_pandas_object(fresh, index=False).to_numpy().tobytes()).hexdigest()
    table = pa.Table.from_pandas(fresh, preserve_index=False)
    provenance = {"churn.source": source, "churn.ingested_at": datetime.now(UTC).isoformat(timespec="seconds")}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **provenance})
    with atomic_path(paths.RAW / f"ingested-{digest[:12]}.parquet") as temporary:
        write_table(table, temporary)
