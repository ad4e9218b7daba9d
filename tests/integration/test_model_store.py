"""The server's own registry reader returns what MLflow's client returns, from its database and from its server."""

import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.adapters import bundle
from churn.adapters.files import write_json
from churn.adapters.mlflow.model_store import ModelStore, RestStore, SqliteStore, connect
from churn.adapters.mlflow.registry import Registry
from churn.adapters.mlflow.tracking import Training
from churn.domain.encoding import derive
from churn.domain.version import Version
from churn.errors import RegistryError
from churn.paths import MODEL, PRODUCTION
from churn.settings import Settings
from factory import rows
from mlflow_server import mlflow_server
from ports import free_port

LIMIT = 1 << 20
FILES = ("model.onnx", "model.json", "golden.json")
TIMEOUT_S = 10
Store = RestStore | SqliteStore


def training(folder: Path, digest: str = "a" * 64) -> Training:
    """A training whose bundle is a stand-in, with bytes that a text mode or a wrong encoding would change."""
    place = folder / "candidate"
    place.mkdir(exist_ok=True)
    (place / "model.onnx").write_bytes(bytes(range(256)) * 300 + b"\r\n")
    write_json({"inputs": ["ä", "b"]}, place / "model.json")
    write_json({"churn_probability": 0.5}, place / "golden.json")
    frame = pd.DataFrame(derive(rows(20)))
    texts = frame.select_dtypes("category").columns
    return Training(
        params={"seed": 7},
        metrics={"cv.roc_auc": 0.85, "cv.log_loss": 1 / 3},
        loss=np.array([[0.6, 0.61], [0.5, 0.52]]),
        tags={bundle.TAG: digest, "threshold": "0.3", "params": '{"a": "ü & =?\\n"}', "train_rows_sha256": "b" * 64},
        rows=frame.astype(dict.fromkeys(texts, object)),
        source=Path("data/features/customers.parquet"),
        bundle=place,
    )


@pytest.fixture(scope="module", params=["sqlite", "server"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, str]]:
    """A registry with a version in production, and its address: a database, or a server that hands the artifacts through."""
    folder = tmp_path_factory.mktemp("a folder")
    before = Path.cwd()
    os.chdir(folder)
    try:
        uri = f"sqlite:///{folder}/mlflow.db"
        if request.param == "sqlite":
            yield filled(uri, folder), uri
            return
        with mlflow_server(uri, folder) as address:
            yield filled(address, folder), address
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def filled(uri: str, folder: Path) -> Registry:
    """The registry with a version in production; its evaluation has a metric that is no number."""
    registry = Registry(Settings(MLFLOW_TRACKING_URI=uri))
    version = registry.register(training(folder))
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "report.json").write_text("{}")
    registry.record(
        version, metrics={"test.roc_auc": 0.84, "test.slope": math.nan}, tags={"gate": "passed"}, artifacts=folder / "evaluation"
    )
    registry.promote(registry.version(version.number), over=None, reason="first")
    return registry


@pytest.fixture
def store(registry: tuple[Registry, str]) -> Store:
    return connect(registry[1], timeout_s=TIMEOUT_S)


def champion(registry: tuple[Registry, str]) -> Version:
    found = registry[0].of_alias(PRODUCTION)
    assert found
    return found


def production(store: ModelStore) -> Version:
    found = store.of_alias(MODEL, PRODUCTION)
    assert found
    return found


def test_the_production_version_equals_mlflows(registry: tuple[Registry, str], store: ModelStore) -> None:
    expected = champion(registry)

    found = production(store)

    assert (found.number, found.digest, found.created_at) == (expected.number, expected.digest, expected.created_at)
    assert found.tags == expected.tags
    assert found.tags["params"] == '{"a": "ü & =?\\n"}'


def test_the_metrics_equal_mlflows(registry: tuple[Registry, str], store: ModelStore) -> None:
    expected = champion(registry).metrics

    found = production(store).metrics

    assert found == pytest.approx(expected, nan_ok=True, abs=0)
    assert found["cv.roc_auc"] == 0.85
    assert math.isnan(found["test.slope"])


def test_the_files_equal_mlflows_downloads(registry: tuple[Registry, str], store: ModelStore, tmp_path: Path) -> None:
    import mlflow

    released = production(store)
    mlflow.set_tracking_uri(registry[1])
    root = mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{released.number}", dst_path=str(tmp_path / "mlflow"))
    place = Path(root) / "artifacts" / "candidate"

    for name in FILES:
        assert store.fetch(released, name, tmp_path / name, LIMIT)
        assert (tmp_path / name).read_bytes() == (place / name).read_bytes()


def test_artifacts_are_downloaded_through_the_server(registry: tuple[Registry, str], store: ModelStore) -> None:
    assert production(store).location.startswith("mlflow-artifacts:/" if registry[1].startswith("http") else "/")


def test_a_file_missing_in_the_version_is_not_fetched(store: ModelStore, tmp_path: Path) -> None:
    assert not store.fetch(production(store), "explain.json", tmp_path / "explain.json", LIMIT)
    assert not (tmp_path / "explain.json").exists()


def test_a_missing_alias_has_no_version(store: ModelStore) -> None:
    assert store.of_alias(MODEL, "nobody") is None


def test_an_unregistered_model_has_no_version(store: ModelStore) -> None:
    assert store.of_alias("nothing", PRODUCTION) is None


def test_a_moved_alias_gives_the_new_version(registry: tuple[Registry, str], store: ModelStore, tmp_path: Path) -> None:
    second = registry[0].register(training(tmp_path, "c" * 64))

    registry[0].promote(second, over=champion(registry), reason="better")

    assert production(store).number == second.number
    assert production(store).digest == "c" * 64
    assert production(store).metrics == pytest.approx(champion(registry).metrics, abs=0)


def tag_of(registry: tuple[Registry, str], key: str) -> str | None:
    """A tag of the production version, as MLflow's own client reads it."""
    from mlflow import MlflowClient

    tags: dict[str, str] = MlflowClient(registry[1]).get_model_version(MODEL, champion(registry).number).tags
    return tags.get(key)


def test_mlflow_reads_a_tag_that_was_set(registry: tuple[Registry, str], store: Store) -> None:
    value = '{"reason": "ü & =?\\n \'quoted\'; --"}'

    store.set_tag(MODEL, champion(registry).number, "monitor", value)

    assert tag_of(registry, "monitor") == value
    assert production(store).tags["monitor"] == value


def test_a_second_tag_replaces_the_first_and_keeps_the_others(registry: tuple[Registry, str], store: Store) -> None:
    number = champion(registry).number
    store.set_tag(MODEL, number, "monitor", "first")
    before = production(store).tags

    store.set_tag(MODEL, number, "monitor", "second")

    assert tag_of(registry, "monitor") == "second"
    assert production(store).tags == before | {"monitor": "second"}


def test_a_tag_that_mlflow_set_is_replaced(registry: tuple[Registry, str], store: Store) -> None:
    from mlflow import MlflowClient

    number = champion(registry).number
    MlflowClient(registry[1]).set_model_version_tag(MODEL, number, "monitor", "mlflow's")

    store.set_tag(MODEL, number, "monitor", "ours")

    assert tag_of(registry, "monitor") == "ours"


def test_a_version_is_restored_from_json(store: ModelStore) -> None:
    released = production(store)

    again = Version.from_json(released.as_json())

    assert again.as_json() == released.as_json()
    assert again.created_at == released.created_at


# Out of reach


def test_a_missing_database_is_an_error_in_one_line_and_not_created(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1)

    with pytest.raises(RegistryError, match=r"^model registry sqlite:///.*: unable to open database file; check .*$"):
        store.of_alias(MODEL, PRODUCTION)

    assert not (tmp_path / "mlflow.db").exists()


def test_a_tag_in_a_missing_database_is_an_error_and_creates_none(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1)

    with pytest.raises(RegistryError, match=r"^model registry sqlite:///.*: unable to open database file; check .*$"):
        store.set_tag(MODEL, "1", "monitor", "value")

    assert not (tmp_path / "mlflow.db").exists()


def test_a_tag_for_a_missing_version_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.execute("CREATE TABLE model_version_tags (name TEXT, version INTEGER, key TEXT, value TEXT)")
        db.execute("CREATE TABLE model_versions (name TEXT, version INTEGER)")
        db.commit()

        with pytest.raises(RegistryError, match="no version 7"):
            connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1).set_tag(MODEL, "7", "monitor", "value")

        assert db.execute("SELECT * FROM model_version_tags").fetchall() == []


def test_a_tag_in_a_locked_database_is_an_error_in_one_line(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.execute("CREATE TABLE model_version_tags (name TEXT, version INTEGER, key TEXT, value TEXT)")
        db.execute("CREATE TABLE model_versions (name TEXT, version INTEGER)")
        db.commit()
        db.execute("BEGIN IMMEDIATE")

        with pytest.raises(RegistryError, match="database is locked"):
            connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=0.1).set_tag(MODEL, "1", "monitor", "value")


def test_a_database_without_mlflow_tables_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()

    with pytest.raises(RegistryError, match="no such table"):
        connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1).of_alias(MODEL, PRODUCTION)


def test_an_unreachable_server_is_an_error_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(RegistryError) as caught:
        connect(f"http://another:hidden@{address}", timeout_s=1).of_alias(MODEL, PRODUCTION)

    text = str(caught.value)
    assert address in text
    assert "refused" in text
    assert not [each for each in ("someone", "s3cret", "another", "hidden", "\n") if each in text]


def test_a_hanging_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        store = connect(f"http://127.0.0.1:{hanging.getsockname()[1]}", timeout_s=0.3)

        with pytest.raises(RegistryError, match="timed out"):
            store.of_alias(MODEL, PRODUCTION)


@pytest.mark.reported
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_a_server_that_sends_single_bytes_times_out(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dripping:

        def drip() -> None:
            connection, _ = dripping.accept()
            with connection, suppress(OSError):
                connection.sendall(head)
                for _ in range(1000):
                    connection.sendall(b"x")
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()

        with pytest.raises(RegistryError, match=r"timed out: no complete answer within 0\.3 s"):
            connect(f"http://127.0.0.1:{dripping.getsockname()[1]}", timeout_s=0.3).of_alias(MODEL, PRODUCTION)

        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b'{"model_version":[]}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
        b"",
    ],
)
def test_a_response_of_another_server_is_an_error_and_not_a_missing_version(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def reply() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()

        with pytest.raises(RegistryError, match=r"^model registry http://127\.0\.0\.1:.*; check"):
            connect(f"http://127.0.0.1:{other.getsockname()[1]}", timeout_s=5).of_alias(MODEL, PRODUCTION)

        thread.join()


@pytest.mark.parametrize(
    ("environment", "user", "header"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "", "Basic dTpw"),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "", "Bearer t"),
        ({}, "u:p@", "Basic dTpw"),
    ],
)
def test_credentials_are_sent_to_the_server(
    environment: dict[str, str], user: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as other:

        def listen() -> None:
            connection, _ = other.accept()
            with connection:
                requests.append(connection.recv(65536))

        thread = threading.Thread(target=listen)
        thread.start()

        with pytest.raises(RegistryError):
            connect(f"http://{user}127.0.0.1:{other.getsockname()[1]}", timeout_s=5).of_alias(MODEL, PRODUCTION)

        thread.join()
    assert f"authorization: {header}\r\n".lower() in requests[0].decode().lower()


def test_deleted_version_files_are_an_error_and_not_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    gone = Version("1", datetime.now(UTC), {}, {}, str(tmp_path / "gone"))

    with pytest.raises(RegistryError, match="its files are gone"):
        connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1).fetch(gone, "model.onnx", tmp_path / "out", LIMIT)


def test_files_at_a_file_address_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "a folder ü"
    (folder / "artifacts" / "candidate").mkdir(parents=True)
    (folder / "artifacts" / "candidate" / "model.onnx").write_bytes(b"bytes")
    there = Version("1", datetime.now(UTC), {}, {}, folder.as_uri())

    assert connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1).fetch(there, "model.onnx", tmp_path / "out", LIMIT)
    assert (tmp_path / "out").read_bytes() == b"bytes"


def test_object_storage_without_credentials_is_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    there = Version("1", datetime.now(UTC), {}, {}, "s3://bucket/prefix")

    with pytest.raises(RegistryError, match="AWS_ACCESS_KEY_ID"):
        connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=1).fetch(there, "model.onnx", tmp_path / "out", LIMIT)


def test_files_in_object_storage_are_read(s3: str, tmp_path: Path) -> None:
    import boto3

    client: Any = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="1/m-1/artifacts/artifacts/candidate/model.onnx", Body=b"bytes\r\n")
    there = Version("1", datetime.now(UTC), {}, {}, "s3://models/1/m-1/artifacts")
    store = connect(f"sqlite:///{tmp_path}/mlflow.db", timeout_s=5)

    assert store.fetch(there, "model.onnx", tmp_path / "model.onnx", LIMIT)
    assert (tmp_path / "model.onnx").read_bytes() == b"bytes\r\n"
    assert not store.fetch(there, "explain.json", tmp_path / "explain.json", LIMIT)


def test_an_unsupported_registry_url_is_refused_without_its_password() -> None:
    with pytest.raises(RegistryError, match=r"^MLFLOW_TRACKING_URI = postgresql://…: the server reads"):
        connect("postgresql://user:hidden@host/db", timeout_s=1)


def test_reading_the_registry_imports_neither_mlflow_nor_pandas() -> None:
    code = (
        "import sys, churn.adapters.mlflow.model_store as m; m.connect('sqlite:////x', timeout_s=1); "
        "m.connect('http://x', timeout_s=1); "
        "print([each for each in ('mlflow', 'pandas', 'pyarrow', 'numpy', 'sqlalchemy', 'requests') if each in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
