"""What docs/adopting.md tells, done in a clone: draft, check, train, serve."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from project import Project
from served import address

READY_S = 60
EXAMPLE = "import json; from serving.examples import EXAMPLE; print(json.dumps(EXAMPLE))"
"""Prints the customer that the API's documentation shows, made from the contract."""


def adopt(project: Project, table: Path, *options: str) -> str:
    """Draft the contract with no edit, check it, commit, run the pipeline; returns what `churn repro` printed."""
    project.run("churn", "init", str(table), *options, "--yes")
    project.run("churn", "check")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Our own customers")
    return project.run("churn", "repro")


def production(project: Project) -> str:
    """The version that serves, as `churn models` lists it; empty without one."""
    listed = project.run("churn", "models").splitlines()
    return next((line.split()[0] for line in listed if "production" in line), "")


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """The address of a server on the project's production version."""
    log = project.folder.parent / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["python", "-m", "serving"],
            cwd=project.folder,
            env=project.environment | _path(project) | {"CHURN_PORT": "0", "CHURN_DRAIN_S": "0"},
            stdout=out,
            stderr=out,
            text=True,
        )
    try:
        url = address(process, log)
        end = time.monotonic() + READY_S
        while httpx2.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def prediction(project: Project, url: str) -> dict[str, Any]:
    """The server's answer for the customer that its documentation shows."""
    customer = json.loads(project.run("python", "-c", EXAMPLE, environment=_path(project)).splitlines()[-1])
    answer = httpx2.post(f"{url}/predict", json={"customers": [customer]}).raise_for_status().json()
    found: dict[str, Any] = answer["predictions"][0]
    return found


def _path(project: Project) -> dict[str, str]:
    return {"PYTHONPATH": f"{project.environment['PYTHONPATH']}{os.pathsep}{project.folder}"}
