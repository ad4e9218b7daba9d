"""The real stack in a project and on ports of its own, and requests to it."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "churn-test"
PORTS = {
    "CHURN_PORT": 28000,
    "CHURN_MONITOR_PORT": 28001,
    "MLFLOW_PORT": 25000,
    "GRAFANA_PORT": 23000,
    "PROMETHEUS_PORT": 29090,
    "ALERTMANAGER_PORT": 29093,
    "EVIDENTLY_PORT": 28003,
}
FLUSH_S = 1
COUNT = """
import json
from churn.adapters.events.log import open_sink
from churn.settings import load_settings
print(json.dumps(open_sink(load_settings().events).read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()))
"""


@dataclass
class Stack:
    """The running stack."""

    compose: list[str]
    environment: dict[str, str]
    took_s: float = 0.0

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{PORTS['CHURN_PORT']}"

    def run(self, *words: str, exit_code: int | None = 0) -> str:
        """What a command of Compose prints."""
        done = self._run(*self.compose, *words)
        assert exit_code is None or done.returncode == exit_code, f"{words} exited {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def command(self, word: str) -> "subprocess.CompletedProcess[str]":
        """`python -m ops.stack WORD`."""
        return self._run(sys.executable, "-m", "ops.stack", word)

    def query(self, sql: str) -> int:
        """The one number that a query of MLflow's database returns."""
        return int(self.run("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "mlflow", "-tc", sql))

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(words, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def wait(self) -> None:
        """Until all is healthy."""
        done = self.command("wait")
        assert done.returncode == 0, done.stdout + done.stderr

    def secret(self, name: str) -> str:
        return self.run("run", "--rm", "-T", "secrets", "show", name).split()[-1]

    def container(self, service: str) -> dict[str, Any]:
        """Docker's description of the service's container."""
        (identifier,) = self.run("ps", "--quiet", service).split()
        (found,) = json.loads(docker("inspect", identifier))
        return dict(found)

    def kill(self, service: str) -> None:
        """Kill -9 the container's first process, as the kernel does when memory runs out: `docker kill` would keep it down."""
        pid = self.container(service)["State"]["Pid"]
        image = self.container("api")["Image"]
        docker("run", "--rm", "--pid=host", "--user=0", "--entrypoint=python", image, "-c", f"import os; os.kill({pid}, 9)")

    def logged(self) -> set[str]:
        """The ids of every prediction in the log; none where the log is gone."""
        output = self.run("exec", "-T", "runner", "python", "-c", COUNT, exit_code=None)
        return set(json.loads(output.splitlines()[-1])) if output else set()


@dataclass
class Load:
    """Requests one after the other, inline and by id in turns, until it is stopped."""

    api: str
    key: str
    customer: dict[str, Any]
    answers: list[tuple[str, int, float]] = field(default_factory=list)
    """(route, status or 0 without an answer, seconds)."""
    predicted: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Load":
        self._thread = threading.Thread(target=self._send_requests)
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, route: str) -> list[tuple[str, int, float]]:
        return [each for each in self.answers if each[0] == route]

    def _send_requests(self) -> None:
        bodies = {"/predict": {"customers": [self.customer]}, "/predict/by-id": {"customer_ids": ["8504-XZKFR"]}}
        while not self._stop.wait(0.02):
            for route, body in bodies.items():
                began = time.monotonic()
                status, answer = post(self.api + route, body, self.key)
                self.answers.append((route, status, time.monotonic() - began))
                self.predicted += [each["prediction_id"] for each in answer.get("predictions", [])]


def post(url: str, body: Any, key: str) -> tuple[int, dict[str, Any]]:
    """(status, body) of a POST; status 0 without an answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", "X-API-Key": key})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}
    except (OSError, ValueError):
        return 0, {}


def docker(*words: str) -> str:
    done = subprocess.run(
        ["docker", *words], env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"docker {words} exited {done.returncode}:\n{done.stderr}"
    return done.stdout
