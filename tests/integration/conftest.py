"""A PostgreSQL server that the tests of a session share, places for the event log, registries, a stand-in for DVC."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from churn.adapters.events.log import Sink, open_sink
from churn.adapters.mlflow.registry import Registry
from churn.settings import Settings
from postgres import postgres
from s3_server import new_bucket


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, whose password is checked."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["folder", "s3"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    """An empty event log, in a folder and below a prefix of a bucket."""
    if request.param == "folder":
        return open_sink(tmp_path / "events")
    return open_sink(f"s3://{new_bucket(request.getfixturevalue('s3'))}/some/prefix/")


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run: making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(Settings(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")).versions()
    return folder / "mlflow.db"


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry without versions, in a folder of its own, which is the current one."""
    shutil.copy(empty_registry, tmp_path)
    monkeypatch.chdir(tmp_path)
    return Registry(Settings(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db"))


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the place of DVC."""

    def put(script: str) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/dvc").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/dvc").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))

    return put
