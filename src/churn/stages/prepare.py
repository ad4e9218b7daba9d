"""prepare: raw rows → checked by the contract → typed → sorted by customer and time → split by customer."""

import hashlib
import logging

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn import expectations, paths, sources
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.errors import SourceError
from churn.files import write_parquet
from churn.params import Params
from churn.settings import Settings

log = logging.getLogger(__name__)


def is_test(entity: str, test_fraction: float) -> bool:
    """True if the customer is kept aside for tests: for good, whatever else the table holds."""
    digest = hashlib.blake2b(entity.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < test_fraction * 2**64


def split(frame: pd.DataFrame, test_fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test) rows; every row of a customer is on the same side."""
    aside = frame[ENTITY].map(lambda entity: is_test(entity, test_fraction)).astype(bool)
    return frame[~aside].reset_index(drop=True), frame[aside].reset_index(drop=True)


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
        ContractError: rows break the contract; nothing but the report and the quarantine file is written.
    """
    table = sources.read(str(paths.RAW))
    if LABEL not in table.column_names:
        raise SourceError(f"{paths.RAW}: no column for the label {LABEL}; training needs labelled rows")
    report = expectations.check(table, both_classes=True)
    expectations.write_report(report, paths.VALIDATION)
    frame = ordered(expectations.accept(report, source=str(paths.RAW), quarantine=paths.QUARANTINE))
    train, test = split(frame, params.prepare.test_fraction)
    write_parquet(train, paths.TRAIN_ROWS)
    write_parquet(test, paths.TEST_ROWS)
    log.info("prepare: %d rows to train on, %d kept aside, churn rate %.3f", len(train), len(test), frame[LABEL].mean())
