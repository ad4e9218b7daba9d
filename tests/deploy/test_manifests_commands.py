"""The commands of the pods, run here: shell and lock are real, and stand-ins for our programs log their arguments."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from http_server import HttpServer, ReceivedRequest, Reply
from manifests import K8S, Manifest, local, mounted_files, pods
from ports import free_port
from requirements import need

CALLED = '#!/bin/sh\necho {name} $* ${variable} >>"$CALLS"\n'


def container(name: str, index: int = 0) -> Manifest:
    (pod,) = [pod for pod in pods("prod") if pod.name == name]
    return pod.containers[index]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the programs of the images say how they were called; they are first on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, variable in (("churn", "NOTHING"), ("mlflow", "MLFLOW_BACKEND_STORE_URI")):
        (programs / name).write_text(CALLED.format(name=name, variable=variable))
        (programs / name).chmod(0o755)
    return tmp_path / "calls"


def start(command: list[str], calls: Path, folder: Path) -> "subprocess.Popen[str]":
    environment = {"PATH": f"{calls.parent / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", ["workspace . --project /app", "repro", "models"]),
        ("churn-retrain", ["workspace . --project /app", "retrain"]),
        ("materialise", ["workspace . --project /app", "featurize --full"]),
    ],
)
def test_a_job_copies_the_project_and_then_runs_its_command(name: str, expected: list[str], calls: Path, tmp_path: Path) -> None:
    # The last container: others wait before it.
    with start(container(name, -1)["command"], calls, tmp_path) as process:
        assert process.wait() == 0

    assert calls.read_text().splitlines() == [f"churn {each}" for each in expected]


@pytest.mark.parametrize("name", ["train", "churn-retrain", "materialise"])
def test_a_job_waits_for_the_workspace_lock_before_it_copies_the_project(name: str, calls: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    holder = subprocess.Popen(["flock", ".", "sh", "-c", "echo held; read line"], cwd=workspace, stdin=-1, stdout=-1, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"

    with start(container(name, -1)["command"], calls, workspace) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert not calls.exists()
        holder.communicate("\n")
        assert waiting.wait() == 0

    assert calls.read_text().startswith("churn workspace")


def test_mlflow_reads_its_database_url_from_the_file(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "backend_store_uri").write_text("postgresql+psycopg://mlflow:secret@postgres/mlflow")
    command = [each.replace("/etc/churn/secrets", str(tmp_path)) for each in container("mlflow")["command"]]

    with start(command, calls, tmp_path) as process:
        assert process.wait() == 0

    assert calls.read_text() == (
        "mlflow server --host 0.0.0.0 --port 5000 --workers 1 postgresql+psycopg://mlflow:secret@postgres/mlflow\n"
    )


def test_mlflow_does_not_start_without_a_database_url(calls: Path, tmp_path: Path) -> None:
    command = [each.replace("/etc/churn/secrets", str(tmp_path)) for each in container("mlflow")["command"]]

    with start(command, calls, tmp_path) as process:
        assert process.wait() != 0

    assert not calls.exists()


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of the init containers, which tries again without a pause."""
    spec = importlib.util.spec_from_file_location("wait_for_places", K8S / "base/config/wait.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    return module


def test_a_job_waits_until_its_registry_responds(wait: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = threading.Event()
    is_up = threading.Event()

    def answer(_: ReceivedRequest) -> Reply:
        requested.set()
        return Reply(200 if is_up.is_set() else 503)

    with HttpServer(answer) as server, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        monkeypatch.setattr(sys, "argv", ["wait.py", "MLFLOW_TRACKING_URI"])
        waiting = pool.submit(wait.main)
        assert requested.wait(60)
        assert not waiting.done()
        is_up.set()
        assert waiting.result() == 0


def test_a_job_waits_until_the_database_of_the_mounted_file_responds(
    wait: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    (tmp_path / "source").write_text(f"postgresql+psycopg://reader:hunter2@127.0.0.1:{port}/crm\n")
    monkeypatch.setenv("CHURN_SOURCE_FILE", str(tmp_path / "source"))
    monkeypatch.setattr(sys, "argv", ["wait.py", "CHURN_SOURCE"])

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait.main)
        output = ""
        while "refused" not in output:
            output += capsys.readouterr().out
        with socket.create_server(("127.0.0.1", port)):
            assert waiting.result() == 0

    assert "CHURN_SOURCE: 127.0.0.1: " in output
    assert "hunter2" not in output


def test_a_job_fails_if_a_dependency_stays_unreachable(wait: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "WAIT_S", 0)
    monkeypatch.setenv("CHURN_ONLINE_STORE", f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(sys, "argv", ["wait.py", "CHURN_ONLINE_STORE"])

    assert wait.main() == 1


@pytest.mark.parametrize("url", ["", "data/raw/customers.csv", "s3://example/rows", "sqlite:///registry.db", "http://[broken"])
def test_a_job_does_not_wait_for_a_source_without_a_server(url: str, wait: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SOURCE", url)
    monkeypatch.setenv("CHURN_SOURCE_FILE", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["wait.py", "CHURN_SOURCE"])

    assert wait.main() == 0


def test_a_403_response_counts_as_reachable(wait: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer(lambda _: Reply(403)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setattr(sys, "argv", ["wait.py", "AWS_ENDPOINT_URL"])

        assert wait.main() == 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql+psycopg://feast:secret@database.example.com/feast", ("database.example.com", 5432)),
        ("rediss://:secret@store.example.com/0", ("store.example.com", 6379)),
        ("https://s3.example.com", ("s3.example.com", 443)),
        ("https://s3.example.com:8443", ("s3.example.com", 8443)),
    ],
)
def test_a_url_without_a_port_uses_the_port_of_its_scheme(
    url: str, address: tuple[str, int], wait: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[tuple[str, int]] = []

    def connect(to: tuple[str, int], _: float) -> socket.socket:
        requested.append(to)
        return socket.socket()

    monkeypatch.setattr(wait.socket, "create_connection", connect)

    assert wait.refusal(url) == ""
    assert requested == [address]


def test_prometheus_reads_the_files_mounted_in_its_pod(tmp_path: Path) -> None:
    for path, text in mounted_files(local("prometheus"), "/etc/prometheus").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)

    command = [need("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout
