"""What happened, read from what the components wrote: records, log, outcomes, registry."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from churn.adapters import bundle, onnx
from churn.adapters.events import labels
from churn.adapters.events import log as events
from churn.adapters.mlflow.registry import Registry
from churn.contract import ENTITY, LABEL
from churn.domain import metrics
from churn.domain.encoding import encode
from churn.domain.metrics import Probabilities
from churn.domain.version import Version
from churn.features import FEATURES
from churn.settings import Settings
from demo.company import Month

SAMPLES, SEED = 2000, 7


@dataclass(frozen=True)
class Compared:
    """The first and the last version on the same final labels: ROC-AUC of both, their difference and its 95 % interval."""

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


def gist(check: dict[str, Any]) -> tuple[str, ...]:
    """A check's decision and the words of its reason, without figures and order: equal for checks that say the same."""
    return check["decision"], *sorted(set(re.findall(r"[a-z_]{2,}", check["reason"])))


def failure(story: Story, *, retrains: bool, better: bool = True) -> str:
    """Why the story did not end as its scenario promises; empty if it did. `retrains`: a new version is promised, and a
    `better` one."""
    if not retrains:
        begun = next((each["reason"] for each in story.retrainings if each["kind"] == "started"), "")
        return f"expected no retraining, got one: {begun}" if story.retrainings else ""
    ended = [each for each in story.retrainings if each["kind"] == "ended"]
    if not story.retrainings:
        last = (
            f"; the watcher's last decision: {story.checks[-1]['decision']}: {story.checks[-1]['reason']}" if story.checks else ""
        )
        return f"expected a retraining, got none in {len(story.months)} months{last}"
    if not any(each["result"] == "promoted" for each in ended):
        last = f"{ended[-1]['name']} {ended[-1]['result']}: {ended[-1]['reason']}" if ended else "the retraining has not ended"
        return f"expected a promoted version, got none: {last}"
    both = story.compared
    if not both:
        return "expected final labels of the new version's months, got none"
    if better and both.low <= 0:
        interval = f"{both.difference:+.4f} [{both.low:+.4f}, {both.high:+.4f}]"
        versions = f"expected version {both.new} to be better than version {both.old} on final labels"
        return f"{versions}, got a ROC-AUC difference of {interval}"
    return ""


def read(settings: Settings, records: Path, scenario: str, months: list[Month], horizon: timedelta) -> Story:
    """The story of those months, from the log and the registry that the settings name and the watcher's records."""
    log = events.open_sink(settings.events)
    predictions = log.read("predictions").to_pandas()
    reports = log.read("outcomes", columns=labels.OUTCOME_COLUMNS).to_pandas()
    final = labels.matured(predictions, reports, now=datetime.now(UTC), horizon=horizon)
    registry = Registry(settings)
    versions = sorted(registry.versions(), key=lambda each: int(each.number))
    by_first = _scored(final, registry, versions[0])
    return Story(
        scenario=scenario,
        months=[_month(each, final, by_first) for each in months],
        checks=_records(records / "checks"),
        retrainings=_records(records / "retrainings"),
        versions=[_version(each) for each in versions],
        compared=_compared(final, by_first, versions),
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _month(month: Month, final: pd.DataFrame, by_first: Probabilities) -> dict[str, Any]:
    """One month, with the performance of what answered it, and of the first version, where its labels are final."""
    mine = final["prediction_id"].isin(month.left).to_numpy()
    rows = final[mine]
    y, p = rows[LABEL].to_numpy(dtype=bool), rows["churn_probability"].to_numpy()
    known = len(rows) and 0 < y.sum() < len(y)
    return {
        "number": month.number,
        "at": datetime.fromtimestamp(month.began, UTC).isoformat(),
        "rows": len(month.left),
        "versions": sorted(month.versions, key=int),
        "left": float(y.mean()) if known else None,
        "roc_auc": metrics.roc_auc(y, p) if known else None,
        "first_roc_auc": metrics.roc_auc(y, by_first[mine]) if known else None,
        "log_loss": metrics.log_loss(y, p) if known else None,
    }


def _scored(final: pd.DataFrame, registry: Registry, version: Version) -> Probabilities:
    """(n,) what the version gives each row, whichever version answered."""
    files = registry.read_bundle(version)
    X = encode(final[[each.name for each in FEATURES]], bundle.inputs_of(files[bundle.INPUTS]))
    return onnx.predict(onnx.session(files[bundle.MODEL]), X)


def _version(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "created_at": version.created_at.isoformat(),
        "promoted_at": version.tags.get("promoted_at"),
        "decision": version.tags.get("decision", ""),
        "roc_auc": version.metrics.get("test.roc_auc"),
    }


def _compared(final: pd.DataFrame, by_first: Probabilities, versions: list[Version]) -> Compared | None:
    """The production version and the first on the labels of what production answered; None if they are one, or without labels."""
    production = next((each.number for each in versions if "production" in each.aliases), "")
    mine = (final["model_version"] == production).to_numpy()
    if production == versions[0].number or not mine.any():
        return None
    y, new, old = final[LABEL].to_numpy(dtype=bool)[mine], final["churn_probability"].to_numpy()[mine], by_first[mine]
    customers = pd.factorize(final[ENTITY][mine])[0]
    gap = metrics.paired_bootstrap(y, new, old, samples=SAMPLES, seed=SEED, customers=customers)["roc_auc"]
    return Compared(
        rows=len(y),
        old=versions[0].number,
        new=production,
        old_auc=metrics.roc_auc(y, old),
        new_auc=metrics.roc_auc(y, new),
        difference=gap.value,
        low=gap.low,
        high=gap.high,
        old_log_loss=metrics.log_loss(y, old),
        new_log_loss=metrics.log_loss(y, new),
    )
