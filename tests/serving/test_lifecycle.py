"""The server starts, runs without its dependencies, and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from churn.adapters.events.log import open_sink
from ports import free_port
from served import ROOT, Releases, Running, Serve, customers

pytestmark = pytest.mark.slow

DRAIN_S = 1.5


# What it needs


@pytest.fixture(params=["refused", "hanging"])
def dead(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where nothing listens, or where something takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        if request.param == "refused":
            listener.close()
            yield f"127.0.0.1:{free_port()}"
        else:
            yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_the_server_scores_without_registry_online_store_and_log(
    releases: Releases, serve: Serve, dead: str, tmp_path: Path
) -> None:
    number = releases.release()
    serve().ready().stop()
    (tmp_path / "no-folder").touch()

    server = serve(tracking_uri=f"http://{dead}", online_store=f"redis://{dead}/0", events=str(tmp_path / "no-folder" / "events"))

    assert server.alive().http.get("/healthz").json() == {"status": "alive"}
    assert server.ready().version() == number
    assert server.predict(customers(5)).status_code == 200
    by_id = server.http.post("/predict/by-id", json={"customer_ids": ["anyone"]})
    assert (by_id.status_code, by_id.headers["retry-after"]) == (503, "1")
    server.wait(lambda: server.metric("churn_prediction_log_failed_flushes_total") >= 1)
    server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
    assert [server.http.get(path).status_code for path in ("/healthz", "/health", "/readyz", "/metrics")] == [200] * 4


def test_the_server_is_live_but_not_ready_without_any_dependency_or_cache(serve: Serve, dead: str, tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()

    server = serve(
        tracking_uri=f"http://{dead}", online_store=f"redis://{dead}/0", events=str(tmp_path / "no-folder" / "events")
    ).alive()

    server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
    assert server.http.get("/healthz").status_code == 200
    assert server.http.get("/readyz").status_code == 503
    assert server.stop() == 0


def test_the_server_is_ready_from_its_first_version_on(releases: Releases, serve: Serve) -> None:
    server = serve().alive()
    server.wait(lambda: "no production version" in server.http.get("/readyz").text)
    before = server.http.get("/readyz")

    number = releases.release()

    assert (before.status_code, before.headers["retry-after"]) == (503, "1")
    assert server.ready().version() == number
    assert server.http.get("/readyz").json() == {"status": "ready"}


@pytest.mark.reported
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_an_error_in_one_line(workers: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {
            **{"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
            **{"CHURN_PORT": str(port), "CHURN_WORKERS": workers},
        }
        done = subprocess.run(
            [sys.executable, "-m", "serving"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"churn: port {port} on 127.0.0.1 is in use: set CHURN_PORT\n"


def test_not_ready_is_logged_once_with_its_reason(releases: Releases, serve: Serve) -> None:
    server = serve().alive()

    for _ in range(5):
        assert server.http.get("/readyz").status_code == 503
    server.wait(lambda: any("there is no production version" in each["message"] for each in server.logged()))

    assert not [each for each in server.logged() if each["message"] == "request"]


# How it ends


@dataclass
class Load:
    """Threads that predict until the server no longer listens, on a connection that they keep, or on a new one every time."""

    url: str
    answers: list[httpx2.Response] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self.run, args=(kept,)) for kept in (True, True, False, False)]
        for each in threads:
            each.start()
        return threads

    def run(self, kept: bool) -> None:
        body = {"customers": customers(2)}
        limits = httpx2.Limits(max_keepalive_connections=1 if kept else 0)
        with httpx2.Client(base_url=self.url, timeout=30, limits=limits) as http:
            while not self.stopped.is_set():
                try:
                    self.answers.append(http.post("/predict", json=body))
                except httpx2.TransportError as error:
                    self.failures.append((time.monotonic(), repr(error)))
                    if isinstance(error, httpx2.ConnectError):
                        return
                time.sleep(0.002)  # leaves some of the two cores to the server


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_request_and_no_log_row(
    releases: Releases, serve: Serve, tmp_path: Path, workers: str
) -> None:
    releases.release()
    server = serve(drain_s=str(DRAIN_S), workers=workers).ready()
    server.wait(lambda: server.metric("churn_model_swaps_total") == int(workers))  # every worker has its version
    load = Load(server.url)
    threads = load.start()
    try:
        server.wait(lambda: len(load.answers) > 100)

        stopped_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.http.get("/readyz").status_code == 503, seconds=DRAIN_S)
        while_draining = server.predict(customers())
        before_the_end = len(load.answers)
        code = server.process.wait(30)
    finally:
        load.stopped.set()
        for each in threads:
            each.join()

    assert code == 0
    assert while_draining.status_code == 200
    assert {each.status_code for each in load.answers} == {200}
    assert len(load.answers) > before_the_end
    # A load balancer that polls /readyz sends nothing more by now; until then, no request failed.
    assert [error for at, error in load.failures if at < stopped_at + DRAIN_S] == []
    answered = [each["prediction_id"] for answer in (*load.answers, while_draining) for each in answer.json()["predictions"]]
    logged = open_sink(tmp_path / "events").read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()
    assert len(logged) == len(set(logged))
    assert set(logged) == set(answered)


def test_responses_close_their_connection_during_draining(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(drain_s="30").ready()

    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: server.http.get("/readyz").status_code == 503, seconds=5)

    answers = [server.predict(customers()), server.http.get("/healthz"), server.http.get("/readyz")]
    assert [each.status_code for each in answers] == [200, 200, 503]
    assert [each.headers["connection"] for each in answers] == ["close"] * 3
    assert "draining" in answers[-1].json()["detail"]


def test_a_partly_sent_request_at_shutdown_is_answered(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(drain_s="0").ready()
    body = json.dumps({"customers": customers(3)}).encode()
    address = urlsplit(server.url)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with closing(socket.create_connection((address.hostname or "", address.port or 0), timeout=20)) as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")  # the server is at work on it
        connection.sendall(body[:100])

        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: "Shutting down" in server.log.read_text())
        connection.sendall(body[100:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200")
    assert server.process.wait(30) == 0
    [*found] = json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]
    logged = open_sink(tmp_path / "events").read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()
    assert logged == [each["prediction_id"] for each in found]


def test_a_second_sigterm_does_not_cut_the_drain_short(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(drain_s=str(DRAIN_S)).ready()
    began = time.monotonic()

    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: server.http.get("/readyz").status_code == 503, seconds=DRAIN_S)

    assert server.stop() == 0
    assert time.monotonic() - began >= DRAIN_S


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_stops_the_server_without_draining(releases: Releases, serve: Serve, workers: str) -> None:
    releases.release()
    server = serve(drain_s="0" if workers == "2" else "60", workers=workers).ready()
    server.predict(customers())
    began = time.monotonic()

    assert server.stop(signal.SIGINT) == 0

    assert time.monotonic() - began < 20
    assert "Traceback" not in server.log.read_text()


def test_sigterm_stops_the_server_while_the_registry_hangs(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = serve(tracking_uri=f"http://127.0.0.1:{listener.getsockname()[1]}").alive()
        began = time.monotonic()

        assert server.stop() == 0

        assert time.monotonic() - began < 20


# How it starts, or does not


def start(tmp_path: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a server that is not expected to start."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "CHURN_PORT": "0",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        **settings,
    }
    return subprocess.run(
        [sys.executable, "-m", "serving"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_server_does_not_start_on_a_public_address_without_keys(tmp_path: Path) -> None:
    done = start(tmp_path, CHURN_HOST="0.0.0.0")

    assert done.returncode == 1
    assert done.stderr.startswith("churn: environment: CHURN_HOST = '0.0.0.0' is reached from other machines")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("protected", [{"anonymous": "true"}, {"api_keys": "a" * 64}])
def test_the_server_starts_on_a_public_address_with_keys_or_if_set_open(serve: Serve, protected: dict[str, str]) -> None:
    server: Running = serve(host="0.0.0.0", **protected).alive()

    assert server.http.get("/model").status_code == (401 if "api_keys" in protected else 503)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CHURN_PORT", "http", "CHURN_PORT = 'http'"),
        ("CHURN_POLL_S", "0", "CHURN_POLL_S = '0'"),
        ("CHURN_API_KEYS", "password", "not SHA-256 digests"),
        ("CHURN_POTR", "1", "CHURN_POTR is not a setting of churn; did you mean CHURN_PORT?"),
        ("CHURN_EVENTS", "gs://bucket", "'gs://bucket' is neither a folder nor s3://bucket/prefix"),
        ("CHURN_ONLINE_STORE", "mysql://host", "mysql"),
        ("MLFLOW_TRACKING_URI", "postgresql://host/db", "MLFLOW_TRACKING_URI = postgresql://…"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_invalid_setting_is_an_error_in_one_line_with_exit_code_1(
    name: str, value: str, says: str, workers: str, tmp_path: Path
) -> None:
    done: Any = start(tmp_path, CHURN_WORKERS=workers, **{name: value})

    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("churn: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
