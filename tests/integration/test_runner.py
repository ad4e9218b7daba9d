"""The runner and the watcher's webhook, over HTTP: a retraining in another container, once per name."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn

from churn.errors import ConfigError, MonitorError
from churn.settings import Monitoring
from monitoring.triggers.command import Command
from monitoring.triggers.trigger import Trigger, open_trigger
from ops.runner import application, serve

NAME = "retrain-v3-20261123t030000z"
OTHER = "retrain-v4-20261124t030000z"
TOKEN = "a token"
EVIDENCE = {"psi": 0.31}


@contextmanager
def running(*words: str, folder: Path) -> Iterator[str]:
    """The address of a runner of that command."""
    server = uvicorn.Server(uvicorn.Config(application(Command(words, folder), TOKEN), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def trigger(address: str, token: str = TOKEN) -> Trigger:
    return open_trigger(
        Monitoring(trigger="webhook", trigger_url=f"{address}/retrainings", trigger_form="runner", trigger_token=token)
    )


def ended(watching: Trigger, name: str = NAME) -> str:
    while (status := watching.status(name)) == "running":
        time.sleep(0.05)
    return status


@pytest.mark.parametrize(("code", "status"), [(0, "succeeded"), (3, "failed")])
def test_the_watcher_gets_the_result_of_its_retraining(code: int, status: str, tmp_path: Path) -> None:
    with running(sys.executable, "-c", f"raise SystemExit({code})", folder=tmp_path / "runs") as address:
        watching = trigger(address)

        watching.start(NAME, EVIDENCE)

        assert ended(watching) == status


def test_a_repeated_name_starts_nothing(tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    with running(sys.executable, "-c", count, folder=tmp_path / "runs") as address:
        watching = trigger(address)
        for _ in range(3):
            watching.start(NAME, EVIDENCE)

        assert ended(watching) == "succeeded"
    assert (tmp_path / "count").read_text() == "x"


def test_a_second_retraining_is_refused_while_one_is_running(tmp_path: Path) -> None:
    with running(sys.executable, "-c", "import time; time.sleep(2)", folder=tmp_path / "runs") as address:
        watching = trigger(address)
        watching.start(NAME, EVIDENCE)

        with pytest.raises(MonitorError, match=rf"answered 409.*{NAME} is running; try again when it has ended"):
            watching.start(OTHER, EVIDENCE)

        watching.start(NAME, EVIDENCE)  # the same is no other
        ended(watching)
        watching.start(OTHER, EVIDENCE)
        assert ended(watching, OTHER) == "succeeded"


def test_a_retraining_that_did_not_start_is_unknown(tmp_path: Path) -> None:
    with running("true", folder=tmp_path / "runs") as address:
        assert trigger(address).status(NAME) == "unknown"


@pytest.mark.parametrize("token", ["", "another"])
def test_requests_without_the_token_are_refused(token: str, tmp_path: Path) -> None:
    with running("true", folder=tmp_path / "runs") as address:
        with pytest.raises(MonitorError, match="answered 401"):
            trigger(address, token).start(NAME, EVIDENCE)

        assert trigger(address, token).status(NAME) == "unknown"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b'{"name": "retrain"}',
        b'{"name": "../etc/passwd", "evidence": {}}',
        b'{"name": "UPPER", "evidence": {}}',
        b'{"name": "retrain", "evidence": []}',
        b'{"name": "retrain", "name": "another", "evidence": {}}',
    ],
)
def test_an_invalid_request_is_refused_in_one_line(body: bytes, tmp_path: Path) -> None:
    with running("true", folder=tmp_path / "runs") as address:
        answer = httpx2.post(f"{address}/retrainings", content=body, headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 422
    assert answer.json()["detail"].count("\n") == 0


def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with running("true", folder=tmp_path / "runs") as address:
        answer = httpx2.post(f"{address}/retrainings", content=b" " * (2**20 + 1), headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 413


def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with running("true", folder=tmp_path / "runs") as address:
        answer = httpx2.post(
            f"{address}/retrainings", json={"name": NAME, "evidence": {}}, headers={"Authorization": f"Bearer {TOKEN}"}
        )

    assert answer.status_code == 503
    assert "check the folder" in answer.json()["detail"]


def test_the_health_check_needs_no_token(tmp_path: Path) -> None:
    with running("true", folder=tmp_path / "runs") as address:
        assert httpx2.get(f"{address}/healthz").text == "alive\n"


def test_the_runner_does_not_start_without_a_token() -> None:
    with pytest.raises(ConfigError, match="CHURN_TRIGGER_TOKEN is empty"):
        serve(Monitoring(), "127.0.0.1", 0)


@pytest.mark.reported
def test_a_port_in_use_is_an_error_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=f"^port {port} on 127.0.0.1 is in use: pass another by --port$"):
            serve(Monitoring(trigger_token=TOKEN), "127.0.0.1", port)
