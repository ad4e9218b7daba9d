"""A registry, a filled online store, and servers on them."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from churn.adapters.mlflow import model_store
from redis_server import RedisServer
from served import KEY, Releases, Running, Serve, materialise, servers
from serving.versions.cache import VersionCache
from serving.versions.swap import Swap


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
    return Releases.copied(empty_registry, tmp_path / "registry")


@pytest.fixture(scope="module")
def released(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """A registry with version 1 in production, which tests leave as it is."""
    releases = Releases.copied(empty_registry, tmp_path_factory.mktemp("released") / "registry")
    releases.release()
    return releases


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online store that Feast filled with `CUSTOMERS` customers of seed 1, and with `new_customers()`.

    The last of the first ones has features past their time.
    """
    folder = tmp_path_factory.mktemp("online")
    materialise(folder, f"sqlite:///{folder}/features.db")
    with closing(sqlite3.connect(folder / "features.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file alone can be copied
    return folder / "features.db"


@pytest.fixture
def filled_redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis with the same customers, which requires a password."""
    server = RedisServer(tmp_path, "--requirepass", "s3cret")
    url = server.url.replace("//", "//:s3cret@")
    materialise(tmp_path, url)
    yield url
    server.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_ways` on a server with the fast path and on one without it."""
    if metafunc.definition.get_closest_marker("both_ways") and "fast_path" in metafunc.fixturenames:
        metafunc.parametrize("fast_path", ["true", "false"], ids=["fast path", "ASGI"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def fast_path(request: pytest.FixtureRequest) -> str:
    """CHURN_FAST_PATH of the servers."""
    return str(getattr(request, "param", "true"))


@pytest.fixture
def serve(releases: Releases, tmp_path: Path, fast_path: str) -> Iterator[Serve]:
    """Starts servers on `releases`: `serve(poll_s="0.2", …)` sets CHURN_POLL_S."""
    with servers(releases, tmp_path, fast_path) as start:
        yield start


@pytest.fixture(scope="module")
def server(released: Releases, tmp_path_factory: pytest.TempPathFactory, fast_path: str) -> Iterator[Running]:
    """A server on `released`, which tests leave as it is."""
    with servers(released, tmp_path_factory.mktemp("server"), fast_path) as start:
        yield start().ready()


@pytest.fixture(scope="module")
def locked(released: Releases, tmp_path_factory: pytest.TempPathFactory, fast_path: str) -> Iterator[Running]:
    """As `server`, but it needs the key `KEY`, which its `http` sends."""
    with servers(released, tmp_path_factory.mktemp("locked"), fast_path) as start:
        server = start(api_keys=hashlib.sha256(KEY.encode()).hexdigest())
        server.http.headers["x-api-key"] = KEY
        yield server.ready()


@pytest.fixture(scope="module")
def stocked(released: Releases, filled: Path, tmp_path_factory: pytest.TempPathFactory, fast_path: str) -> Iterator[Running]:
    """A server on `released` with a filled online store, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("stocked")
    shutil.copy(filled, folder / "features.db")
    with servers(released, folder, fast_path) as start:
        yield start().ready()


@pytest.fixture
def swap(releases: Releases, tmp_path: Path) -> Swap:
    """What polls the registry, without a server around it: version 1 serves."""
    releases.release(seed=0)
    store = model_store.connect(releases.uri, timeout_s=3)
    swap = Swap(store, VersionCache(tmp_path / "models", 3), uri=releases.uri, poll_s=1)
    swap.poll()
    assert swap.current
    return swap
