"""Feast's entity, source, view and service, derived from the contract."""

from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, FeastType, Float64, Int64, String

from churn import paths
from churn.contract import ENTITY, FEATURE_TTL, TIMESTAMP, Date, Flag, Integer, Real
from churn.domain.derived import Feature
from churn.features import FEATURES

ROOT = Path(__file__).parents[4]

SERVICE = "churn"


def _feast_type(feature: Feature) -> FeastType:
    match feature.kind:
        # With a null among them, whole numbers are floats in pandas and NumPy.
        case Integer() if feature.null_as is None:
            return Int64
        case Integer() | Real() | Date():
            return Float64
        case Flag():
            return Bool
        case _:
            return String


def definitions(offline_file: Path) -> tuple[Entity, FileSource, FeatureView, FeatureService]:
    """What `apply` registers, reading the features from that Parquet file."""
    entity = Entity(name="customer", join_keys=[ENTITY], value_type=ValueType.STRING)
    source = FileSource(name="customers", path=str(offline_file.absolute()), timestamp_field=TIMESTAMP)
    view = FeatureView(
        name=paths.FEAST_VIEW,
        entities=[entity],
        ttl=FEATURE_TTL,
        schema=[Field(name=each.name, dtype=_feast_type(each), description=each.description) for each in FEATURES],
        source=source,
    )
    return entity, source, view, FeatureService(name=SERVICE, features=[view])


# What `feast apply` finds.
customer, customers, customer_features, churn = definitions(ROOT / paths.FEATURES)
