"""What happened, read from what the components wrote: records, log, outcomes, registry."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from churn import events, labels, metrics, onnx
from churn.contract import ENTITY, LABEL
from churn.features import FEATURES, encode
from churn.model_store import connect
from churn.registry import Registry, Version
from churn.settings import Settings
from demo.company import Month

SAMPLES, SEED = 2000, 7


@dataclass(frozen=True)
class Compared:
    """Old and new version on the same final labels of drifted traffic: ROC-AUC of both, difference and 95 % interval."""

    rows: int
    old: str
    new: str
    old_auc: float
    new_auc: float
    difference: float
    low: float
    high: float
    old_log_loss: float
    new_log_loss: float


@dataclass(frozen=True)
class Story:
    """Everything in the order of time; times are UTC."""

    scenario: str
    months: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    retrainings: list[dict[str, Any]]
    versions: list[dict[str, Any]]
    compared: Compared | None


def read(folder: Path, scenario: str, months: list[Month], horizon: timedelta) -> Story:
    """The story of the demonstration in that workspace."""
    settings = Settings(events=str(folder / "data/events"), MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    log = events.open_sink(settings.events)
    predictions = log.read("predictions").to_pandas()
    reports = log.read("outcomes", columns=labels.OUTCOME_COLUMNS).to_pandas()
    final = labels.matured(predictions, reports, now=datetime.now(UTC), horizon=horizon)
    versions = sorted(Registry(settings).versions(), key=lambda each: int(each.number))
    return Story(
        scenario=scenario,
        months=[_month(each, final) for each in months],
        checks=_records(folder / "data/monitoring/checks"),
        retrainings=_records(folder / "data/monitoring/retrainings"),
        versions=[_version(each) for each in versions],
        compared=_compared(final, settings, folder),
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _month(month: Month, final: pd.DataFrame) -> dict[str, Any]:
    """One month, with the performance of what answered it where its labels are final."""
    rows = final[final["prediction_id"].isin(month.left)]
    y, p = rows[LABEL].to_numpy(dtype=bool), rows["churn_probability"].to_numpy()
    known = len(rows) and 0 < y.sum() < len(y)
    return {
        "number": month.number,
        "at": datetime.fromtimestamp(month.began, UTC).isoformat(),
        "rows": len(month.left),
        "versions": sorted(month.versions, key=int),
        "left": float(y.mean()) if known else None,
        "roc_auc": metrics.roc_auc(y, p) if known else None,
        "log_loss": metrics.log_loss(y, p) if known else None,
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "created_at": version.created_at.isoformat(),
        "promoted_at": version.tags.get("promoted_at"),
        "decision": version.tags.get("decision", ""),
        "roc_auc": version.metrics.get("test.roc_auc"),
    }


def _compared(final: pd.DataFrame, settings: Settings, folder: Path) -> Compared | None:
    """Both versions on the labels of the months that the new one answered; None if there is no new one, or no such labels yet."""
    store = connect(f"sqlite:///{folder}/mlflow.db", timeout_s=10)
    served = sorted(final["model_version"].unique(), key=int)
    production = store.of_alias("churn", "production")
    if not production or len(served) < 2 or served[-1] != production.number:
        return None
    old, new = served[-2:]
    rows = final[final["model_version"] == new].reset_index(drop=True)
    y = rows[LABEL].to_numpy(dtype=bool)
    by_new = rows["churn_probability"].to_numpy()
    registry = Registry(settings)
    with TemporaryDirectory() as place:
        bundle = registry.download(registry.version(old), Path(place))
        by_old = onnx.predict(onnx.session(bundle / onnx.FILE), encode(rows[[each.name for each in FEATURES]]))
    gap = metrics.paired_bootstrap(y, by_new, by_old, samples=SAMPLES, seed=SEED, customers=pd.factorize(rows[ENTITY])[0])[
        "roc_auc"
    ]
    return Compared(
        rows=len(rows),
        old=old,
        new=new,
        old_auc=metrics.roc_auc(y, by_old),
        new_auc=metrics.roc_auc(y, by_new),
        difference=gap.value,
        low=gap.low,
        high=gap.high,
        old_log_loss=metrics.log_loss(y, by_old),
        new_log_loss=metrics.log_loss(y, by_new),
    )
