"""New labelled rows into data/raw, from the source and from the prediction log: checked, none twice, a file per batch."""

import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from churn import events, expectations, labels, paths, rows, sources
from churn.contract import COLUMNS, ENTITY, RAW_FEATURES, TIMESTAMP
from churn.errors import ConfigError, ContractError
from churn.files import atomic_path
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)

KEY = [ENTITY, TIMESTAMP]


def unknown(found: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The rows of `found` whose customer and time are not among `known`."""
    merged = found[KEY].merge(known[KEY].drop_duplicates(), how="left", on=KEY, indicator=True)
    return found[(merged["_merge"] == "left_only").to_numpy()].reset_index(drop=True)


def run(settings: Settings) -> int:
    """Append the new rows of the source and of the log to data/raw; returns how many. Doing it again appends nothing.

    Raises:
        ConfigError: no source is set, and nothing was logged.
        SourceError, EventsError: one of them cannot be read.
        ContractError: rows break the contract; nothing is appended of that source, the rows are in data/quarantine.
    """
    # The log first: it is read from the newest known row on, and the source's may be newer than what waits there.
    logged = from_log(settings, now=datetime.now(UTC))
    new = from_source(settings) if settings.source else 0
    if logged is None and not settings.source:
        raise ConfigError(
            f"ingest: CHURN_SOURCE is not set, and {without_password(settings.events)} holds no predictions: "
            "name a file, a folder, s3://bucket/key or a database URL; or serve, and report outcomes"
        )
    return new + (logged or 0)


def named(settings: Settings) -> int:
    """The same of what the environment names, CHURN_EVENTS and CHURN_SOURCE, be it nothing; returns how many.

    Rows of the log that break the contract are told of and left out: they are of an earlier one, and nobody can mend them.

    Raises:
        SourceError, EventsError, ContractError: as `run`, the last of the source alone.
    """
    new = 0
    if "events" in settings.model_fields_set and settings.events:
        try:
            new = from_log(settings, now=datetime.now(UTC)) or 0
        except ContractError as error:
            log.warning("ingest: going on without the log: %s", error)
    return new + (from_source(settings) if settings.source else 0)


def from_source(settings: Settings) -> int:
    """Append the source's new rows as one Parquet part; returns how many."""
    table = sources.read(settings.source, table=settings.source_table)
    source = without_password(settings.source)
    found = expectations.accept(expectations.check(table), source=source, quarantine=paths.QUARANTINE)
    fresh = unknown(found, _known()) if _has_rows() else found
    return _append(fresh, source, len(found))


def from_log(settings: Settings, *, now: datetime) -> int | None:
    """Append what the log's predictions became, where that is final at `now`; None if nothing was ever predicted.

    A customer counts once per horizon of the label. Predictions from two horizons before the newest known row on are looked at:
    an outcome that is reported later than that is not learned from.
    """
    horizon = labels.horizon(settings)
    known = _known()[KEY] if _has_rows() else pd.DataFrame({ENTITY: [], TIMESTAMP: pd.to_datetime([], utc=True)})
    since = (known[TIMESTAMP].max() - 2 * horizon).to_pydatetime() if len(known) else None
    log_of = events.open_sink(settings.events)
    columns = [*labels.PREDICTION_COLUMNS, *(each.name for each in RAW_FEATURES)]
    predictions = log_of.read("predictions", since=since, until=now - horizon, columns=columns).to_pandas()
    if predictions.empty:
        return 0 if log_of.read("predictions", columns=["time"]).num_rows else None
    reports = log_of.read("outcomes", since=since, columns=labels.OUTCOME_COLUMNS).to_pandas()
    named = predictions[predictions[ENTITY].notna()].sort_values("time")
    labelled = labels.once_per_horizon(labels.matured(named, reports, now=now, horizon=horizon), horizon)
    found = labelled.rename(columns={"time": TIMESTAMP})
    fresh = found[~_periods(found, horizon).isin(_periods(known, horizon))]
    source = f"{settings.events} (predictions that became labelled)"
    if len(fresh):
        table = pa.Table.from_pandas(fresh[[each.name for each in COLUMNS]], preserve_index=False)
        fresh = expectations.accept(_of_a_batch(expectations.check(table)), source=source, quarantine=paths.QUARANTINE)
    return _append(fresh, source, len(labelled))


def _of_a_batch(report: expectations.Report) -> expectations.Report:
    """The report without the rule that both classes occur: the few customers who became labelled may all have stayed."""
    return replace(report, violations=tuple(each for each in report.violations if each.rule != expectations.BOTH_CLASSES))


def _periods(frame: pd.DataFrame, horizon: timedelta) -> "pd.Series[Any]":
    """(customer, period) of each row."""
    return pd.Series(
        list(zip(frame[ENTITY], labels.periods(frame[TIMESTAMP], horizon), strict=True)), index=frame.index, dtype=object
    )


def _has_rows() -> bool:
    return paths.RAW.exists() and any(paths.RAW.iterdir())


def _known() -> pd.DataFrame:
    known, _ = rows.typed(sources.read(str(paths.RAW)))
    return known


def _append(fresh: pd.DataFrame, source: str, found: int) -> int:
    """Write the rows, named by their content, with where and when they came from in the file's metadata."""
    from pyarrow.parquet import write_table

    log.info("ingest: %d of %d rows of %s are new", len(fresh), found, source)
    if fresh.empty:
        return 0
    # A database gives rows in any order, and what is fitted depends on theirs.
    fresh = fresh.sort_values(KEY, ignore_index=True)
    digest = hashlib.sha256(pd.util.hash_pandas_object(fresh, index=False).to_numpy().tobytes()).hexdigest()
    table = pa.Table.from_pandas(fresh, preserve_index=False)
    provenance = {"churn.source": source, "churn.ingested_at": datetime.now(UTC).isoformat(timespec="seconds")}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **provenance})
    with atomic_path(paths.RAW / f"ingested-{digest[:12]}.parquet") as temporary:
        write_table(table, temporary)
    return len(fresh)
