"""What tests of the server share: a registry with versions of real models, and a server in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd

from churn.adapters import bundle, onnx
from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP
from churn.domain.encoding import contract_sha256, derive, encode, encoded_names
from churn.models.gradient_boosting import explain
from churn.paths import BUNDLE
from churn.pipeline import selection
from churn.pipeline.train import reference, write_bundle
from factory import rows

ROOT = Path(__file__).parents[2]
CUSTOMERS = 300
THRESHOLD = 0.3
KEY = "let-me-in"
"""The API key of the fixture `locked`."""


def customers(n: int = 1, *, seed: int = 1, **overrides: Any) -> list[dict[str, Any]]:
    """`n` customers as `POST /predict` takes them."""
    return as_sent(rows(n, seed=seed, **overrides))


def as_sent(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Typed rows as `POST /predict` takes them."""
    text = frame[[ENTITY, *(each.name for each in RAW_FEATURES)]].to_json(orient="records", double_precision=15)
    return [dict(each) for each in json.loads(text)]


def new_customers(n: int = 10) -> pd.DataFrame:
    """Rows of customers who have not been billed yet: their total is null."""
    return rows(n, seed=2, member_months=0, customer_id=[f"new-{index}" for index in range(n)])


def frame_of(given: list[dict[str, Any]]) -> pd.DataFrame:
    """The customers as training sees them: raw and derived features."""
    return pd.DataFrame(derive(pd.DataFrame(given).astype({"total_fees": float})))


def materialise(folder: Path, online_store: str) -> None:
    """Fill an online store with Feast: `CUSTOMERS` customers of seed 1 and `new_customers()`.

    The last of the first ones has features past their time.
    """
    from churn.adapters.feast.store import Store
    from churn.adapters.files import write_parquet
    from churn.contract import FEATURE_TTL
    from churn.settings import Settings

    frame = pd.DataFrame(derive(pd.concat([rows(CUSTOMERS, seed=1), new_customers()], ignore_index=True)))
    now = datetime.now(UTC)
    frame[TIMESTAMP] = pd.Series([now] * len(frame)).astype("datetime64[us, UTC]")
    frame.loc[CUSTOMERS - 1, TIMESTAMP] = now - FEATURE_TTL - timedelta(days=1)
    categories = frame.select_dtypes("category").columns
    write_parquet(frame.astype(dict.fromkeys(categories, object)).drop(columns=LABEL), folder / "features.parquet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        settings = Settings(feature_registry=f"sqlite:///{folder}/registry.db", online_store=online_store)
        Store(folder / "features.parquet", settings).materialise()
    finally:
        os.chdir(before)


@dataclass(frozen=True)
class Fitted:
    """Gradient boosting with what it was fitted on, and what a bundle has of it."""

    estimator: Any
    frame: pd.DataFrame
    content: bytes
    explanation: dict[str, Any]
    importance: dict[str, float]

    @classmethod
    def of(cls, estimator: Any, frame: pd.DataFrame) -> "Fitted":
        """An estimator that was fitted on the frame."""
        X, explanation = encode(frame), explain(estimator)
        metadata = {"contract_sha256": contract_sha256(), "inputs": "\n".join(encoded_names())}
        importance = selection.by_contributions(explanation, encoded_names(), X)
        return cls(estimator, frame, onnx.export(estimator, X, metadata=metadata), explanation, importance)


@cache
def fitted_on(seed: int) -> Fitted:
    """A small model of rows of that seed."""
    from sklearn.ensemble import GradientBoostingClassifier

    frame = pd.DataFrame(derive(rows(200, seed=seed)))
    estimator = GradientBoostingClassifier(n_estimators=20, max_depth=2, random_state=seed)
    return Fitted.of(estimator.fit(encode(frame), frame[LABEL].to_numpy(dtype=bool)), frame)


@dataclass
class Releases:
    """A registry in MLflow's embedded database: versions are fitted here, and promoted by MLflow's own client."""

    folder: Path
    estimators: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def copied(cls, empty: Path, folder: Path) -> "Releases":
        """A registry in the folder, from the database of an empty one."""
        folder.mkdir()
        shutil.copy(empty, folder / "mlflow.db")
        return cls(folder)

    @property
    def uri(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> Any:
        """MLflow's own client."""
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def release(
        self,
        *,
        seed: int = 0,
        promote: bool = True,
        change: Callable[[Path], None] = lambda folder: None,
        mangle: Callable[[Path], None] = lambda folder: None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Register a version fitted on rows of that seed.

        `change` changes its bundle before its digest is taken, `mangle` after that.
        """
        fitted = fitted_on(seed)
        root = self.write(fitted, np.full(len(fitted.frame), 0.5), rows=50)
        change(root / BUNDLE)
        given = {bundle.TAG: bundle.seal(root / BUNDLE), "threshold": str(THRESHOLD), **(tags or {})}
        mangle(root / BUNDLE)
        number = self.register(root, given)
        self.estimators[number] = fitted.estimator
        if promote:
            self.promote(number)
        return number

    def write(self, fitted: "Fitted", out_of_fold: Any, *, rows: int) -> Path:
        """Write the bundle of what was fitted; `rows` of its (n,) probabilities travel with it."""
        root = self.folder / "artifacts" / str(time.monotonic_ns())
        write_bundle(
            root / BUNDLE,
            fitted.content,
            fitted.frame,
            reference(fitted.frame, out_of_fold, rows),
            explanation=fitted.explanation,
            importance=fitted.importance,
        )
        return root

    def register(self, root: Path, tags: dict[str, str], *, run_id: str | None = None) -> str:
        """Register the version whose files are in that folder."""
        return str(self.client.create_model_version("churn", source=str(root), run_id=run_id, tags=tags).version)

    def promote(self, number: str) -> None:
        """Point `production` at the version."""
        self.client.set_registered_model_alias("churn", "production", number)

    def probabilities(self, number: str, given: list[dict[str, Any]]) -> Any:
        """scikit-learn's probabilities of these customers: (n,)."""
        return self.estimators[number].predict_proba(encode(frame_of(given)))[:, 1]


@dataclass
class Running:
    """A server's process; requests go to `http`."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path
    http: httpx2.Client

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def wait(self, what: Callable[[], Any], seconds: float = 180) -> Any:
        """What `what` returns as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if found := what():
                    return found
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s without success\n{self.log.read_text()[-4000:]}")

    def ready(self) -> "Running":
        """Wait until it is ready."""
        self.wait(lambda: self.http.get("/readyz").status_code == 200)
        return self

    def alive(self) -> "Running":
        """Wait until it answers at all."""
        self.wait(lambda: self.http.get("/healthz").status_code == 200)
        return self

    def version(self) -> str:
        """The version that is serving."""
        return str(self.http.get("/model").json().get("model_version", ""))

    def predict(self, given: list[dict[str, Any]], **kwargs: Any) -> httpx2.Response:
        """`POST /predict`."""
        return self.http.post("/predict", json={"customers": given}, **kwargs)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples of exactly that name (labels included, if given)."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith((f"{name} ", f"{name}{{")))

    def resident_mb(self) -> float:
        """The memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end, return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def address(process: "subprocess.Popen[str]", log: Path) -> str:
    """Where the server listens, as its log says."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if "running on http://" in log.read_text():
            return "http://" + log.read_text().partition("running on http://")[2].split(" ")[0].rstrip('",')
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


Serve = Callable[..., Running]


@contextmanager
def servers(releases: Releases, folder: Path, fast_path: str = "true") -> Iterator[Serve]:
    """Starts servers on the registry, with what they keep in the folder; they are killed at the end."""
    running: list[Running] = []
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> Running:
        log = folder / f"server-{len(running)}.log"
        chosen = {
            "port": "0",
            "fast_path": fast_path,
            "poll_s": "0.2",
            "drain_s": "0",
            "log_flush_s": "0.2",
            "models": str(folder / "models"),
            "events": str(folder / "events"),
            "online_store": f"sqlite:///{folder}/features.db",
        } | settings
        uri = chosen.pop("tracking_uri", releases.uri)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "MLFLOW_TRACKING_URI": uri,
            **{f"CHURN_{name}".upper(): value for name, value in chosen.items()},
        }
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        url = address(process, log)
        running.append(Running(process, url, log, httpx2.Client(base_url=url, timeout=30)))
        return running[-1]

    try:
        yield start
    finally:
        for each in running:
            each.http.close()
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.wait()
