"""What tests of the watcher share: a version of the shipped data, its traffic and outcomes in a log, and watchers of them."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from prometheus_client import generate_latest

from churn.adapters import bundle, onnx, rows, sources
from churn.adapters.events import log as events
from churn.contract import ENTITY, LABEL
from churn.domain import metrics
from churn.domain.encoding import derive, encode
from churn.params import load_params
from churn.paths import BUNDLE
from churn.settings import Monitoring
from monitoring.policy import Decision
from monitoring.triggers.trigger import open_trigger
from monitoring.watcher import Watcher
from served import ROOT, THRESHOLD, Fitted, Releases

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
HORIZON = 10 * MINUTE
LEARNED, REFERENCE = 4000, 2000
"""Customers of the shipped file that the version learned from; the others are its test rows, and the traffic."""

Change = Callable[[pd.DataFrame], pd.DataFrame]


def shipped() -> pd.DataFrame:
    """The shipped customers, typed and with every feature."""
    frame, _ = rows.typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    return pd.DataFrame(derive(frame))


def as_ever(frame: pd.DataFrame) -> pd.DataFrame:
    """Nothing changes."""
    return frame


def dearer(frame: pd.DataFrame) -> pd.DataFrame:
    """Every bill rises by a fifth, and so does all that was billed before."""
    return frame.assign(**{name: frame[name] * 1.2 for name in ("monthly_fee", "total_fees")})


def broken(frame: pd.DataFrame) -> pd.DataFrame:
    """Totals that are not what was billed."""
    return frame.assign(total_fees=frame["total_fees"] * 2)


@dataclass(frozen=True)
class Origin:
    """Where every workspace begins: a registry in which version 1 is production, the customers that it has not seen."""

    releases: Releases
    customers: pd.DataFrame

    @classmethod
    def made(cls, folder: Path) -> "Origin":
        """Fit version 1 on the first of the shipped customers, and test it on the others."""
        from sklearn.ensemble import GradientBoostingClassifier
        from sklearn.model_selection import cross_val_predict

        params, frame = load_params(ROOT / "params.yaml"), shipped()
        learned, kept = frame.head(LEARNED).reset_index(drop=True), frame.iloc[LEARNED:].reset_index(drop=True)
        X, y = encode(learned), learned[LABEL].to_numpy(dtype=bool)
        estimator = GradientBoostingClassifier(n_estimators=50, max_depth=2, random_state=0)
        out_of_fold = cross_val_predict(estimator, X, y, cv=3, method="predict_proba")[:, 1]
        estimator.fit(X, y)
        tested = kept[LABEL].to_numpy(dtype=bool)
        scores = metrics.scores(tested, estimator.predict_proba(encode(kept))[:, 1], params.evaluate.costs)
        scores |= {"rows": len(kept), "positives": int(tested.sum())}

        releases = Releases(folder)
        client = releases.client
        client.create_registered_model("churn")
        run = client.create_run(client.create_experiment("churn")).info.run_id
        for name, value in scores.items():
            client.log_metric(run, f"test.{name}", value)
        root = releases.write(Fitted.of(estimator, learned), out_of_fold, rows=REFERENCE)
        tags = {bundle.TAG: bundle.digest(root / BUNDLE), "threshold": str(THRESHOLD), "params": params.model_dump_json()}
        number = releases.register(root, tags, run_id=run)
        releases.promote(number)
        set_created(folder / "mlflow.db", number, NOON - 24 * HOUR)
        return cls(releases, kept)


def set_created(database: Path, number: str, at: datetime) -> None:
    """When the version says it was made: MLflow itself takes the time of day."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE model_versions SET creation_time = ? WHERE version = ?", (int(at.timestamp() * 1000), number))


@dataclass(frozen=True)
class Workspace:
    """A registry, a log, and a folder of records for watchers; `options` are settings of theirs."""

    folder: Path
    origin: Origin
    events: Path
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, origin: Origin, *, events: Path | None = None, **options: Any) -> "Workspace":
        """A workspace with a registry of its own, and a log of its own or that of another."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin.releases.folder / "mlflow.db", folder / "mlflow.db")
        return cls(folder, origin, events or folder / "events", options)

    def copied(self, folder: Path, **options: Any) -> "Workspace":
        """Another workspace with the same log, and a registry and records that begin as the same."""
        shutil.copytree(self.folder / "monitoring", folder / "monitoring")
        shutil.copy(self.folder / "mlflow.db", folder / "mlflow.db")
        return replace(self, folder=folder).but(**options)

    def but(self, **options: Any) -> "Workspace":
        """The same workspace for watchers with other settings."""
        return replace(self, options=self.options | options)

    @property
    def settings(self) -> Monitoring:
        """Short windows; retraining is a command that writes its name into `started`."""
        chosen: dict[str, Any] = {
            "events": str(self.events),
            "monitor": str(self.folder / "monitoring"),
            "reports": self.folder / "monitoring" / "reports",
            "monitor_port": 0,
            "interval_s": 3600,
            "window_s": 3600,
            "long_window_s": 7200,
            "performance_window_s": 3 * 3600,
            "label_horizon_s": HORIZON.total_seconds(),
            "trigger": "command",
            "trigger_command": f"sh -c 'echo \"$RETRAIN_NAME\" >> {self.folder}/started'",
        } | self.options
        return Monitoring(MLFLOW_TRACKING_URI=f"sqlite:///{self.folder}/mlflow.db", **chosen)

    @property
    def environment(self) -> dict[str, str]:
        """The same settings for a process of its own."""
        chosen = self.settings.model_dump(exclude_unset=True)
        uri = chosen.pop("tracking_uri")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "MLFLOW_TRACKING_URI": uri,
            **{f"CHURN_{name}".upper(): str(value) for name, value in chosen.items()},
        }

    def check(self, at: datetime) -> Decision | None:
        """One check by a watcher that has just been started."""
        return Watcher(self.settings).check(at)

    def checks(self) -> list[dict[str, Any]]:
        """The records of the checks, in their order."""
        return _records(self.folder / "monitoring" / "checks")

    def retrainings(self) -> list[dict[str, Any]]:
        """The records of retrainings, in their order."""
        return _records(self.folder / "monitoring" / "retrainings")

    def ended(self) -> list[str]:
        """What ran, once every retraining on record has ended: their names in the order of their start."""
        trigger = open_trigger(self.settings)
        names = [each["name"] for each in self.retrainings() if each["kind"] == "started"]
        wait_until(lambda: all(trigger.status(name) not in ("running", "unknown") for name in names))
        started = self.folder / "started"
        return started.read_text().split() if started.exists() else []

    def predict(
        self, since: datetime, until: datetime, n: int, *, change: Change = as_ever, seed: int = 0, version: str = "1"
    ) -> pd.DataFrame:
        """Log predictions on `n` customers, evenly over that time; returns them with what becomes of the customers."""
        some = self.origin.customers.sample(n, replace=n > len(self.origin.customers), random_state=seed)
        scored = pd.DataFrame(derive(change(some.reset_index(drop=True))))
        model = onnx.session(self._bundle("1") / bundle.MODEL)
        steps = pd.Series(np.arange(n)) * ((until - since) / n)
        table = scored.assign(
            **{ENTITY: [f"c-{since:%d%H%M}-{index}" for index in range(n)]},
            prediction_id=[f"p-{since:%d%H%M}-{index}" for index in range(n)],
            time=(pd.Timestamp(since) + steps).astype("datetime64[us, UTC]"),
            churn_probability=(p := onnx.predict(model, encode(scored))),
            churn=p >= THRESHOLD,
            model_version=version,
            latency_ms=1.5,
        )
        sink = events.open_sink(self.events)
        for day, part in table.groupby(table["time"].dt.date):
            plain = part.astype(dict.fromkeys(part.select_dtypes("category").columns, object))
            chosen = plain[events.prediction_schema().names]
            sink.write("predictions", pa.Table.from_pandas(chosen, preserve_index=False), f"{since:%H%M}-v{version}-{day}")
        return table

    def report(self, predictions: pd.DataFrame, *, change: Change = as_ever, after: timedelta = HORIZON) -> None:
        """Report what became of the customers, that long after each prediction."""
        changed = change(predictions)[["prediction_id", LABEL, "time"]]
        reports = [
            {"prediction_id": name, LABEL: left, "observed_at": time.to_pydatetime() + after}
            for name, left, time in changed.itertuples(index=False)
        ]
        received = max(each["observed_at"] for each in reports)
        name = f"reports-{predictions['prediction_id'].iloc[0]}"
        events.open_sink(self.events).write("outcomes", events.outcomes(reports, received_at=received), name)

    def version(self, at: datetime, tags: dict[str, str], *, production: bool = False) -> str:
        """Register a candidate that was made then, and maybe call it production; it has the files and figures of version 1."""
        releases = Releases(self.folder)
        client = releases.client
        first = client.get_model_version("churn", "1")
        given = {name: first.tags[name] for name in (bundle.TAG, "threshold", "params")} | tags
        number = releases.register(Path(first.source), given, run_id=first.run_id)
        client.set_registered_model_alias("churn", "candidate", number)
        if production:
            client.set_registered_model_alias("churn", "production", number)
        set_created(self.folder / "mlflow.db", number, at)
        return number

    def tags(self, number: str = "1") -> dict[str, str]:
        """The tags of a version in MLflow."""
        return dict(Releases(self.folder).client.get_model_version("churn", number).tags)

    def _bundle(self, number: str) -> Path:
        return Path(self.origin.releases.client.get_model_version("churn", number).source) / BUNDLE


def reversed_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Churned and retained customers are swapped."""
    return frame.assign(**{LABEL: ~frame[LABEL].to_numpy(dtype=bool)})


def everyone_left(frame: pd.DataFrame) -> pd.DataFrame:
    """Every customer churns."""
    return frame.assign(**{LABEL: True})


def exported() -> dict[str, float]:
    """Every sample of this process's metrics, by the name and the labels, as Prometheus reads them."""
    lines = generate_latest().decode().splitlines()
    return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines if not each.startswith("#"))}


def wait_until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What `what` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds} s without success"
        time.sleep(0.02)
    return found


def process(workspace: Workspace, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Python with these arguments, on the workspace's settings."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command, environment = [sys.executable, *arguments], workspace.environment
    return subprocess.Popen(command, cwd=workspace.folder, env=environment, text=True, **streams)


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
