"""A registry, a filled online store, and servers on them."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pandas as pd
import pytest

from churn import model_store
from churn.contract import LABEL, TIMESTAMP
from churn.features import derive
from factory import rows
from redis_server import RedisServer
from served import CUSTOMERS, ROOT, Releases, Running, Serve, address, new_customers
from serving.swap import Shelf, Swap


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with the registered model and no version."""
    import mlflow

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}", registry_uri=f"sqlite:///{file}").create_registered_model("churn")
    return file


@pytest.fixture
def releases(empty_registry: Path, tmp_path: Path) -> Releases:
    """A registry without a version."""
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy(empty_registry, folder / "mlflow.db")
    return Releases(folder)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online store that Feast filled with `CUSTOMERS` customers of seed 1, and with `new_customers()`.

    The last of the first ones has features past their time.
    """
    folder = tmp_path_factory.mktemp("online")
    fill(folder, f"sqlite:///{folder}/features.db")
    with closing(sqlite3.connect(folder / "features.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file alone can be copied
    return folder / "features.db"


@pytest.fixture
def filled_redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis with the same customers, which asks for a password."""
    server = RedisServer(tmp_path, "--requirepass", "s3cret")
    url = server.url.replace("//", "//:s3cret@")
    fill(tmp_path, url)
    yield url
    server.stop()


def fill(folder: Path, online_store: str) -> None:
    """Materialise the customers with Feast."""
    from churn.contract import FEATURE_TTL
    from churn.feature_store import Store
    from churn.files import write_parquet
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


@pytest.fixture
def serve(releases: Releases, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on the registry: `serve(poll_s="0.2", …)` sets CHURN_POLL_S; they are killed at the end."""
    running: list[Running] = []
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> Running:
        log = tmp_path / f"server-{len(running)}.log"
        chosen = {
            "port": "0",
            "poll_s": "0.2",
            "drain_s": "0",
            "log_flush_s": "0.2",
            "models": str(tmp_path / "models"),
            "events": str(tmp_path / "events"),
            "online_store": f"sqlite:///{tmp_path}/features.db",
        } | settings
        uri = chosen.pop("tracking_uri", releases.uri)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "MLFLOW_TRACKING_URI": uri,
            **{f"CHURN_{name}".upper(): value for name, value in chosen.items()},
        }
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=tmp_path,
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

    yield start
    for each in running:
        each.http.close()
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()


@pytest.fixture
def swap(releases: Releases, tmp_path: Path) -> Swap:
    """What looks at the registry, without a server around it: version 1 serves."""
    releases.release(seed=0)
    store = model_store.connect(releases.uri, timeout_s=3)
    swap = Swap(store, Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)
    swap.look()
    assert swap.current
    return swap
