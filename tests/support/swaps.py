"""What tests of changing versions share: load, waiting for a version, the signed webhook, a registry that is away."""

import base64
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from served import ROOT, Running, customers

SECRET = "s3cret"
FOREVER = "3600"


@dataclass
class Load:
    """Threads that predict for the same customers, each on one connection of its own: (version, probabilities) in its order."""

    server: Running
    given: list[dict[str, Any]] = field(default_factory=lambda: customers(3))
    answers: list[list[tuple[str, list[float]]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, mine: list[tuple[str, list[float]]]) -> None:
        with httpx2.Client(base_url=self.server.url, timeout=30) as http:
            while not self.stopped.is_set():
                began = time.perf_counter()
                try:
                    answer = http.post("/predict", json={"customers": self.given})
                except httpx2.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                body = answer.json()
                mine.append((body["model_version"], [each["churn_probability"] for each in body["predictions"]]))
                time.sleep(0.002)  # leaves some of the two cores to the server

    @property
    def latest(self) -> set[str]:
        """The versions that made each connection's last answer."""
        return {mine[-1][0] if mine else "" for mine in self.answers}

    def wait_for(self, number: str) -> None:
        """Wait until that version answers on every connection."""
        self.server.wait(lambda: self.latest == {number})

    @property
    def count(self) -> int:
        return sum(map(len, self.answers))


@contextmanager
def load(server: Running, connections: int = 4) -> Iterator[Load]:
    load = Load(server)
    load.answers = [[] for _ in range(connections)]
    threads = [threading.Thread(target=load.run, args=(mine,)) for mine in load.answers]
    for each in threads:
        each.start()
    try:
        yield load
    finally:
        load.stopped.set()
        for each in threads:
            each.join()


def wait_for(server: Running, number: str) -> None:
    """Wait until that version serves."""
    server.wait(lambda: server.version() == number)


def wait_for_refusal(server: Running, reason: str) -> None:
    """Wait until a version is refused for that reason."""
    server.wait(lambda: server.metric(f'churn_model_swaps_refused_total{{reason="{reason}"}}') == 1)


def ready(server: Running, workers: int) -> Running:
    """Wait until every worker has its version: `/readyz` is answered by one of them."""
    server.ready().wait(lambda: server.metric("churn_model_swaps_total") == workers)
    return server


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The headers with which MLflow sends a webhook."""
    head = {"x-mlflow-delivery-id": "d-1", "x-mlflow-timestamp": str(int(time.time()))}
    text = f"{head['x-mlflow-delivery-id']}.{head['x-mlflow-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret.encode(), text, "sha256")).decode()
    return head | {"x-mlflow-signature": f"v1,{signature}", "content-type": "application/json"}


BODY = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"alias": "production"}}).encode()


def hook(server: Running, secret: str = SECRET) -> httpx2.Response:
    return server.http.post("/hooks/mlflow", content=BODY, headers=signed(BODY, secret))


def command(name: str, tmp_path: Path, uri: str = "sqlite:////nowhere/mlflow.db") -> "subprocess.CompletedProcess[str]":
    """Run `python -m serving NAME` beside the servers whose versions are in `tmp_path / "models"`."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "MLFLOW_TRACKING_URI": uri,
        "CHURN_MODELS": str(tmp_path / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", "serving", name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


class Away:
    """A registry that is out of reach."""

    def of_alias(self, model: str, alias: str) -> Any:
        raise OSError("away")

    def fetch(self, released: Any, name: str, out: Path, max_bytes: int) -> bool:
        raise OSError("away")
