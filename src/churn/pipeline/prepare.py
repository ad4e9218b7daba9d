"""prepare: raw rows → checked by the contract → typed → sorted by customer and time → split by customer, or by time."""

import hashlib
import logging
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn import paths
from churn.adapters import expectations, origins, set_aside, sources
from churn.adapters.events import labels
from churn.adapters.files import write_parquet
from churn.adapters.origins import KEY, ORIGIN
from churn.adapters.rows import newest, typed
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.errors import ContractError, SourceError
from churn.params import Params
from churn.settings import Settings

log = logging.getLogger(__name__)


def is_test(entity: str, test_fraction: float) -> bool:
    """True if the customer is kept aside for tests: for good, whatever else the table holds."""
    digest = hashlib.blake2b(entity.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < test_fraction * 2**64


def split(frame: pd.DataFrame, test_fraction: float, by: str = "customer") -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test) rows: by customer, every row of a customer is on the same side; by time, every row of one timestamp.

    Raises:
        ContractError: by time, there is only one timestamp to learn from.
    """
    if by == "customer":
        aside = frame[ENTITY].map(lambda entity: is_test(entity, test_fraction)).astype(bool)
    else:
        aside = pd.Series(False, index=frame.index)
        aside.iloc[newest(frame[TIMESTAMP], max(1, round(test_fraction * len(frame))))] = True
        if aside.all():
            raise ContractError(
                f"{paths.RAW}: expected several times in {TIMESTAMP} to split by, got no row older than the newest "
                f"{test_fraction:g} of the rows; add rows of earlier times, or set prepare.split: customer"
            )
    return frame[~aside].reset_index(drop=True), frame[aside].reset_index(drop=True)


def without_immature(table: pa.Table, *, max_share: float, now: datetime, horizon: timedelta) -> pa.Table:
    """The rows whose label can be known at `now`; the others go to the folder of quarantine.

    Raises:
        ContractError: the others are more than `max_share` of the rows.
    """
    early = set_aside.is_immature(table, now=now, horizon=horizon)
    kept = set_aside.keep(table, early, paths.QUARANTINE / "prepare-immature.csv")
    if not kept:
        return table
    what = f"{paths.RAW}: {kept}: their labels are not known before {TIMESTAMP} + {set_aside.shown(horizon)}"
    if early.mean() > max_share:
        raise ContractError(
            f"{what}; expected at most {max_share:g} of the rows (prepare.max_immature_share); delete the parts that have them"
            f"{_parts_with(table.filter(pa.array(early)))} and ingest again, or correct {TIMESTAMP}"
        )
    log.warning("prepare: set aside %s", what)
    return table.filter(pa.array(~early))


def without_repeats(report: expectations.Report, ingested: pd.DataFrame) -> expectations.Report:
    """The report, checked again without rows of ingested parts that are there twice, equal in every column.

    `ingested` is as `origins.ingested` returns it.

    Raises:
        ContractError: rows of ingested parts have the key of another row and contradict it.
    """
    if all(each.rule != expectations.UNIQUE for each in report.violations):
        return report
    frame = report.frame
    repeated = (frame.duplicated() & origins.is_among(frame, ingested)).to_numpy(dtype=bool)
    if repeated.any():
        log.warning("prepare: %d rows of ingested parts are there twice, equal in every column: left out", repeated.sum())
        report, frame = expectations.check(report.table.filter(pa.array(~repeated)), both_classes=True), frame[~repeated]
    twice = frame[frame.duplicated(KEY, keep=False)]
    if len(parts := ingested.loc[origins.is_among(ingested, twice), "part"].unique()):
        first = ", ".join(twice.loc[origins.is_among(twice, ingested), ENTITY].unique()[:3])
        raise ContractError(
            f"{paths.RAW}: {', '.join(parts)}: rows of one {ENTITY} and {TIMESTAMP} contradict each other or another part's "
            f"(first: {first}); delete the part that is wrong, and ingest again"
        )
    return report


def _parts_with(table: pa.Table) -> str:
    """The names of the ingested parts that have one of the rows, in brackets."""
    ingested = origins.ingested(paths.RAW)
    found = ingested.loc[origins.is_among(ingested, typed(table)[0]), "part"].unique()
    return f" ({', '.join(found)})" if len(found) else ""


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows sorted by customer and time, whatever order they were read in: what is fitted depends on the order of its rows.

    Text is compared by its code points, so that no locale has a say.
    """
    keys = pa.table({name: pa.Array.from_pandas(frame[name]) for name in (ENTITY, TIMESTAMP)})
    order = pc.sort_indices(keys, sort_keys=[(ENTITY, "ascending"), (TIMESTAMP, "ascending")])
    ordered: pd.DataFrame = frame.take(order.to_numpy()).reset_index(drop=True)
    return ordered


def run(params: Params, settings: Settings) -> None:
    """Read data/raw, check it, write data/prepared and a report in data/validation.

    Raises:
        SourceError: the rows cannot be read.
        ContractError: rows break the contract; nothing but the report and the files of quarantine is written.
    """
    now, horizon = datetime.now(UTC), labels.horizon(settings)
    table = sources.read(str(paths.RAW))
    if LABEL not in table.column_names:
        raise SourceError(f"{paths.RAW}: no column for the label {LABEL}; training needs labelled rows")
    mature = without_immature(table, max_share=params.prepare.max_immature_share, now=now, horizon=horizon)
    set_aside.report(settings.events, "prepare", {set_aside.LABEL_NOT_KNOWN_YET: len(table) - len(mature)})
    ingested = origins.ingested(paths.RAW)
    report = without_repeats(expectations.check(mature, both_classes=True), ingested)
    expectations.write_report(report, paths.VALIDATION)
    frame = ordered(expectations.accept(report, source=str(paths.RAW), quarantine=paths.QUARANTINE))
    frame = frame.assign(**{ORIGIN: origins.of_rows(frame, ingested)})
    train, test = split(frame, params.prepare.test_fraction, params.prepare.split)
    write_parquet(train, paths.TRAIN_ROWS)
    write_parquet(test, paths.TEST_ROWS)
    log.info("prepare: %d rows to train on, %d kept aside, churn rate %.3f", len(train), len(test), frame[LABEL].mean())
