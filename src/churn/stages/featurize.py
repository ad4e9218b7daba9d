"""featurize: typed rows → derived features → Feast's offline file, registry and online store."""

import logging

import pandas as pd

from churn import feature_store, paths
from churn.contract import ENTITY, TIMESTAMP
from churn.errors import ContractError
from churn.features import DERIVED, FEATURES, derive
from churn.files import write_parquet
from churn.params import Params
from churn.settings import Settings

log = logging.getLogger(__name__)


def features_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The entity, the timestamp and every feature of each row, by customer and time; no label.

    Raises:
        ContractError: a derived feature is null and has no `null_as`.
    """
    columns = derive(rows)
    for name, each in DERIVED.items():
        if each.null_as is None and (nulls := int(pd.isna(columns[name]).sum())):
            raise ContractError(f"features.py: {name}: {nulls} rows null; fill them in its function, or give @feature a null_as")
    names = [ENTITY, TIMESTAMP, *(each.name for each in FEATURES)]
    return pd.DataFrame({name: columns[name] for name in names}).sort_values([ENTITY, TIMESTAMP], ignore_index=True)


def run(params: Params, settings: Settings, *, full: bool = False) -> None:
    """Write data/features, register it with Feast and bring the online store up to date; `full` writes all of it again.

    Raises:
        ContractError: a derived feature is null and has no `null_as`.
        FeatureStoreError: the registry or the online store is out of reach.
    """
    rows = pd.concat([pd.read_parquet(path) for path in (paths.TRAIN_ROWS, paths.TEST_ROWS)], ignore_index=True)
    features = features_of(rows)
    write_parquet(features, paths.FEATURES)
    store = feature_store.Store(paths.FEATURES, settings)
    fresh = store.materialise(features, full=full)
    log.info("featurize: %d rows, %d features, %d rows new to the online store", len(features), len(FEATURES), fresh)
