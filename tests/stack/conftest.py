"""The stack, brought up once for all tests: `make test-compose`. It needs Docker, and is taken away at the end."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator

import pytest

from stacked import FLUSH_S, PORTS, PROJECT, ROOT, Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """From no volume at all to everything healthy."""
    configured = subprocess.run(
        ["make", "--no-print-directory", "-s", "compose-command"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    compose = [*shlex.split(configured.stdout), "--project-name", PROJECT]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHURN_", "MLFLOW_", "AWS_"))}
    environment |= {name: str(port) for name, port in PORTS.items()}
    environment |= {
        **{"CHURN_LOG_FLUSH_S": str(FLUSH_S), "CHURN_POLL_S": "5", "COMPOSE": shlex.join(compose)},
        **{"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"},
    }
    found = Stack(compose, environment)
    found.run("--profile", "tools", "down", "--volumes", exit_code=None)
    began = time.monotonic()
    try:
        found.run("up", "--detach", "--build")
        found.wait()
        found.took_s = time.monotonic() - began
        yield found
    finally:
        found.run("--profile", "tools", "down", "--volumes", exit_code=None)
