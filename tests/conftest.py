"""Fixtures of several folders, and the isolation of each test from the environment of other files."""

import os
import shutil
from collections.abc import Iterator

import pytest

from project import Project, clone
from s3_server import point_at, s3_api
from split_run import pytest_cmdline_main, pytest_ignore_collect  # noqa: F401 - hooks


@pytest.fixture(scope="module", autouse=True)
def own_mlflow_variables() -> Iterator[None]:
    """`mlflow.set_tracking_uri` sets a variable of the process, which outlives the server that it names."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 API that keeps its objects in memory."""
    with s3_api() as address:
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The S3 API's address, with the environment pointing there."""
    point_at(s3_server, monkeypatch)
    return s3_server


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clean clone in which the pipeline has run once."""
    folder = tmp_path_factory.mktemp("clone")
    project = clone(folder / "churn", folder / "home")
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)
