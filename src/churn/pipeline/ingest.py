"""New labelled rows into data/raw, from the source and from the prediction log: checked, none twice, a file per batch."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from churn import paths
from churn.adapters import expectations, origins, rows, set_aside, sources
from churn.adapters.events import labels
from churn.adapters.events import log as events
from churn.adapters.files import atomic_path
from churn.adapters.locks import workspace_lock
from churn.adapters.online_store import reader as online_store
from churn.adapters.origins import KEY
from churn.adapters.set_aside import BREAKS_CONTRACT, LABEL_NOT_KNOWN_YET, UNKNOWN_CUSTOMER
from churn.contract import COLUMNS, ENTITY, TIMESTAMP
from churn.errors import ConfigError, ContractError, FeatureStoreError
from churn.pipeline.log_labels import Logged
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)

STORE_BATCH = 1000
STORE_TIMEOUT_S = 10.0
"""For one batch of customers: an ingest is no request that somebody waits for."""


def run(settings: Settings) -> int:
    """As `append_new`, alone in this workspace: waits while another process ingests, retrains or runs the pipeline here."""
    with workspace_lock():
        return append_new(settings)


def append_new(settings: Settings) -> int:
    """Append the new rows of the source and of the log to data/raw; returns how many. Doing it again appends nothing.

    The caller holds the workspace's lock. Rows whose label cannot be known yet, rows of the log that break the contract, and its
    labels beyond the share that unknown customers may have, are set aside in data/quarantine, logged and reported to the watcher.

    Raises:
        ConfigError: no source is set, and nothing was logged.
        SourceError, EventsError: one of them cannot be read.
        ContractError: rows of the source break the contract; nothing of it is appended, the rows are in data/quarantine.
    """
    with _reported(settings) as (now, aside):
        logged = from_log(settings, now=now, aside=aside)
        new = from_source(settings, now=now, aside=aside) if settings.source else 0
    if logged is None and not settings.source:
        raise ConfigError(
            f"ingest: CHURN_SOURCE is not set, and {without_password(settings.events)} holds no predictions: "
            "name a file, a folder, s3://bucket/key or a database URL; or serve, and report outcomes"
        )
    return new + (logged or 0)


def named(settings: Settings) -> int:
    """As `append_new`, of the places that the environment names, CHURN_EVENTS and CHURN_SOURCE; neither is required.

    Raises:
        SourceError, EventsError, ContractError: as `append_new`, the last of the source alone.
    """
    new = 0
    with _reported(settings) as (now, aside):
        if "events" in settings.model_fields_set and settings.events:
            try:
                new = from_log(settings, now=now, aside=aside) or 0
            except ContractError as error:
                log.warning("ingest: going on without the log: %s", error)
        new += from_source(settings, now=now, aside=aside) if settings.source else 0
    return new


@contextmanager
def _reported(settings: Settings) -> Iterator[tuple[datetime, Counter[str]]]:
    """The time, and a counter of rows that are set aside, by reason, which is reported to the watcher at the end."""
    aside: Counter[str] = Counter()
    try:
        yield datetime.now(UTC), aside
    finally:
        set_aside.report(settings.events, "ingest", aside)


def from_source(settings: Settings, *, now: datetime, aside: Counter[str]) -> int:
    """Append the source's new rows as one Parquet part; returns how many. Adds to `aside` how many were set aside, by reason.

    Rows whose label cannot be known at `now` are set aside.
    """
    table, source = sources.read(settings.source, table=settings.source_table), without_password(settings.source)
    horizon = labels.horizon(settings)
    early = set_aside.is_immature(table, now=now, horizon=horizon)
    if kept := set_aside.keep(table, early, paths.QUARANTINE / "ingest-immature.csv"):
        aside[LABEL_NOT_KNOWN_YET] += int(early.sum())
        log.warning(
            "ingest: %s: set aside %s: their labels are not known before %s + %s",
            source,
            kept,
            TIMESTAMP,
            set_aside.shown(horizon),
        )
        table = table.filter(pa.array(~early))
        if not len(table):
            return 0
    found = expectations.accept(expectations.check(table), source=source, quarantine=paths.QUARANTINE)
    fresh = found[~origins.is_among(found, _known())] if _has_rows() else found
    return _append(fresh, source, len(found), origin=origins.SOURCE)


def from_log(settings: Settings, *, now: datetime, aside: Counter[str]) -> int | None:
    """Append what the log's predictions became, where that is final at `now`; None if nothing was ever predicted.

    A customer counts once per horizon of the label. The log is read from `watermark` on: an outcome that is reported later than
    that is not learned from. Adds to `aside` how many labels of unknown customers were set aside.
    """
    horizon = labels.horizon(settings)
    known = _known()[KEY] if _has_rows() else pd.DataFrame({ENTITY: [], TIMESTAMP: pd.to_datetime([], utc=True)})
    ingested = origins.ingested(paths.RAW)
    logged = Logged(events.open_sink(settings.events), watermark(ingested, now=now, horizon=horizon), now - horizon)
    labelled = logged.labelled(now=now, horizon=horizon)
    if labelled.empty and not logged.has_predictions():
        return None
    is_known = _periods(labelled.rename(columns={"time": TIMESTAMP}), horizon).isin(_periods(known, horizon))
    fresh = logged.with_features(labelled[~is_known]).rename(columns={"time": TIMESTAMP})
    source = f"{settings.events} (predictions that became labelled)"
    table = rows.dated(pa.Table.from_pandas(fresh[[each.name for each in COLUMNS]], preserve_index=False))
    table = _within_share(table, _known_customers(fresh, known, ingested, logged, settings), settings, aside)
    if len(table):
        fresh = _keeping_the_contract(table, source, aside)
    return _append(fresh if len(table) else fresh[:0], source, len(labelled), origin=origins.API)


def watermark(ingested: pd.DataFrame, *, now: datetime, horizon: timedelta) -> datetime | None:
    """From when on the log is read: two horizons before the newest row that came from it; None: from its beginning.

    `ingested` is as `origins.ingested` returns it. Rows of a source do not count, which may be newer than what waits in the log;
    nor do times of which no label can be known at `now`.
    """
    times = ingested.loc[ingested[origins.ORIGIN] == origins.API, TIMESTAMP]
    final = times[times <= pd.Timestamp(now - horizon)]
    return (final.max() - 2 * horizon).to_pydatetime() if len(final) else None


def _known_customers(
    fresh: pd.DataFrame, known: pd.DataFrame, ingested: pd.DataFrame, logged: Logged, settings: Settings
) -> npt.NDArray[np.bool_]:
    """True (n,) for each row of `fresh` whose customer is known by a source or by the online store.

    The pipeline writes every customer of data/raw to the online store. So what the store holds proves nothing where it is as of a
    row that came through the API: one in data/raw, or, in a workspace that lacks the parts, one of the predictions `logged`.
    """
    is_api = (origins.of_rows(known, ingested) == origins.API).to_numpy(dtype=bool)
    of_source = set(known.loc[~is_api, ENTITY])
    stored = _stored(sorted(set(fresh[ENTITY]) - of_source), settings.online_store)
    predicted = logged.times(stored).rename(columns={"time": TIMESTAMP})
    through_api = pd.concat([known[is_api & known[ENTITY].isin(stored).to_numpy()], predicted])
    # A SQLite store keeps whole seconds.
    written = set(zip(through_api[ENTITY], pd.to_datetime(through_api[TIMESTAMP], utc=True).dt.floor("s"), strict=True))
    vouched = {name for name, as_of in stored.items() if (name, pd.Timestamp(as_of).floor("s")) not in written}
    return fresh[ENTITY].isin(of_source | vouched).to_numpy(dtype=bool)


def _stored(customers: Sequence[str], url: str) -> dict[str, datetime]:
    """Those of the customers that the online store holds, with the time (UTC) of what it holds.

    None, with a line in the log, where the store cannot be read.
    """
    found: dict[str, datetime] = {}
    try:
        with closing(online_store.connect(url, timeout_s=STORE_TIMEOUT_S)) as store:
            for start in range(0, len(customers), STORE_BATCH):
                batch = customers[start : start + STORE_BATCH]
                found |= {name: stored.as_of for name, stored in zip(batch, store.read(batch), strict=True) if stored}
    except FeatureStoreError as error:
        log.warning("ingest: customers are looked up in data/raw alone: %s", error)
    return found


def _within_share(table: pa.Table, is_known: npt.NDArray[np.bool_], settings: Settings, aside: Counter[str]) -> pa.Table:
    """The table, in the order of time, without the labels of unknown customers that exceed their share of what is kept."""
    beyond = beyond_share(is_known, settings.max_unknown_share)
    if kept := set_aside.keep(table, beyond, paths.QUARANTINE / "ingest-unknown.csv"):
        aside[UNKNOWN_CUSTOMER] += int(beyond.sum())
        log.warning(
            "ingest: %s: set aside %s: neither a source nor the online store knows these customers, and at most %g of an "
            "increment may be of such (CHURN_MAX_UNKNOWN_SHARE); they are taken as soon as a source or the store knows them",
            settings.events,
            kept,
            settings.max_unknown_share,
        )
    return table.filter(pa.array(~beyond))


def beyond_share(is_known: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """True (n,) for the unknown rows to set aside, the last ones, so that at most that share of what remains is unknown."""
    if share >= 1:
        return np.zeros(len(is_known), dtype=bool)
    allowed = int(share / (1 - share) * is_known.sum() + 1e-9)
    return ~is_known & (np.cumsum(~is_known) > allowed)


def _keeping_the_contract(table: pa.Table, source: str, aside: Counter[str]) -> pd.DataFrame:
    """The table's rows that keep the contract, typed. The others are set aside, because a row of the log cannot be corrected.

    Otherwise one row that the server takes and a rule with `mostly` does not would stop all learning from the log.
    """
    report = expectations.check(table)
    bad = report.bad.to_numpy(dtype=bool)
    if kept := set_aside.keep(table, bad, paths.QUARANTINE / "ingest-log.csv"):
        aside[BREAKS_CONTRACT] += int(bad.sum())
        log.warning("ingest: %s: set aside %s: %s", source, kept, "; ".join(map(str, report.violations)))
        if bad.all():
            return report.frame[:0]
        report = expectations.check(table.filter(pa.array(~bad)))
    return expectations.accept(report, source=source, quarantine=paths.QUARANTINE)


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


def _append(fresh: pd.DataFrame, source: str, found: int, *, origin: str) -> int:
    """Write the rows, named by their content, with where and when they came from in the file's metadata."""
    from pyarrow.parquet import write_table

    log.info("ingest: %d of %d rows of %s are new", len(fresh), found, source)
    if fresh.empty:
        return 0
    # A database gives rows in any order, and what is fitted depends on theirs.
    fresh = fresh.sort_values(KEY, ignore_index=True)
    digest = hashlib.sha256(pd.util.hash_pandas_object(fresh, index=False).to_numpy().tobytes()).hexdigest()
    table = pa.Table.from_pandas(fresh, preserve_index=False)
    ingested_at = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = {"churn.source": source, "churn.ingested_at": ingested_at, origins.METADATA: origin}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **provenance})
    with atomic_path(paths.RAW / f"ingested-{digest[:12]}.parquet") as temporary:
        write_table(table, temporary)
    return len(fresh)
