"""featurize: typed rows → derived features → Feast's offline file, registry and online store."""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from churn import paths
from churn.adapters.feast import store as feature_store
from churn.adapters.files import atomic_path
from churn.contract import ENTITY, TIMESTAMP, Category, Flag, Kind, Text
from churn.domain.derived import DERIVED
from churn.domain.encoding import computable, derive
from churn.errors import ContractError
from churn.features import FEATURES
from churn.params import Params
from churn.settings import Settings

log = logging.getLogger(__name__)

BATCH_ROWS = 500_000


def features_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The entity, the timestamp and every feature of each row, in the rows' order; no label.

    Whole numbers that may be null are floats, as Feast has them; flags and texts that may be null have pandas' types for that. Of
    a date it is the number of days before the row.

    Raises:
        ContractError: a derived feature is null and has no `null_as`.
    """
    columns = derive(rows.assign(**computable(rows)))
    for name, each in DERIVED.items():
        if each.null_as is None and (nulls := int(pd.isna(columns[name]).sum())):
            raise ContractError(f"features.py: {name}: {nulls} rows null; fill them in its function, or give @feature a null_as")
    names = [ENTITY, TIMESTAMP, *(each.name for each in FEATURES)]
    frame = pd.DataFrame({name: columns[name] for name in names})
    return frame.astype({each.name: _nullable_type(each.kind) for each in FEATURES if each.null_as is not None})


def _nullable_type(kind: Kind) -> str:
    """The type in pandas of values of the kind with nulls among them."""
    match kind:
        case Flag():
            return "boolean"
        case Category() | Text():
            return "string"
        case _:
            return "float64"


def write(batches: Iterable[pd.DataFrame], out: Path) -> int:
    """Write the features of typed rows as one Parquet file, a batch at a time; returns how many rows.

    Raises:
        ContractError: as `features_of` does; nothing is written.
    """
    done = 0
    with atomic_path(out) as temporary, ExitStack() as stack:
        writer = None
        for batch in batches:
            table = pa.Table.from_pandas(features_of(batch), preserve_index=False).replace_schema_metadata(None)
            writer = writer or stack.enter_context(ParquetWriter(temporary, table.schema))
            writer.write_table(table.cast(writer.schema))
            done += len(table)
    return done


def run(params: Params, settings: Settings, *, full: bool = False) -> None:
    """Write data/features, register it with Feast and bring the online store up to date; `full` writes all of it again.

    Raises:
        ContractError: a derived feature is null and has no `null_as`.
        FeatureStoreError: the registry or the online store is out of reach.
    """
    prepared = (ParquetFile(path) for path in (paths.TRAIN_ROWS, paths.TEST_ROWS))
    batches = (batch.to_pandas() for file in prepared for batch in file.iter_batches(BATCH_ROWS))
    rows = write(batches, paths.FEATURES)
    fresh = feature_store.Store(paths.FEATURES, settings).materialise(full=full)
    log.info("featurize: %d rows, %d features, %d rows new to the online store", rows, len(FEATURES), fresh)
