"""A real MLflow server that tests start."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from ports import free_port


@contextmanager
def mlflow_server(uri: str, folder: Path, *, workers: int = 1) -> Iterator[str]:
    """The address of a server on the database at `uri`, which hands the artifacts through; its files are in the folder."""
    port = free_port()
    server = _started(uri, folder, port, workers)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _started(uri: str, folder: Path, port: int, workers: int) -> "subprocess.Popen[bytes]":
    program = str(Path(sys.executable).with_name("mlflow"))
    arguments = ["--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )
    end = time.monotonic() + 180
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    pytest.fail(f"mlflow server did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
