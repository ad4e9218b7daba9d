"""Real servers for the tests, each on a free port of this machine: PostgreSQL and an S3 API; registries; a stand-in for DVC."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from churn.adapters.mlflow.registry import Registry
from churn.settings import Settings
from s3_server import point_at, s3_api


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, whose password is checked."""
    home = Path(tempfile.mkdtemp(prefix="pg"))
    data, password, port = home / "data", home / "password", free_port()
    password.write_text("s3cret")
    shutil.chown(home, **owner())
    options = f"-c fsync=off -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home}"
    try:
        postgres("initdb", "-D", data, "-U", "churn", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        postgres("pg_ctl", "start", "-w", "-D", data, "-l", home / "log", "-o", options)
        yield f"postgresql://churn:s3cret@127.0.0.1:{port}/postgres"
        postgres("pg_ctl", "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(home)


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


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres(program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs, not as root, which it refuses."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name))
    path = shutil.which(program, path=os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", "")]))
    if not path:
        pytest.fail(f"{program} is not installed; apt-get install postgresql")
    # From /, because the server's user may not be allowed into this folder.
    done = subprocess.run(
        [path, *arguments], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, **owner()
    )
    if done.returncode:
        pytest.fail(f"{program}: {done.stderr}")


def owner() -> dict[str, Any]:
    """Who owns the server's files and processes: the system's PostgreSQL user if these tests run as root."""
    if os.getuid():
        return {"user": os.getuid(), "group": os.getgid()}
    import pwd

    names = {each.pw_name for each in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


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
