"""What the pods run, run here: the shell and the lock are real, our programs only say how they were called."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from http_server import Asked, HttpServer, Reply
from manifests import Manifest, laid_out, local, pods
from prometheus_tools import program

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
def test_a_job_lays_the_project_out_and_then_does_its_work(name: str, expected: list[str], calls: Path, tmp_path: Path) -> None:
    # The last container: others wait before it.
    with start(container(name, -1)["command"], calls, tmp_path) as process:
        assert process.wait() == 0

    assert calls.read_text().splitlines() == [f"churn {each}" for each in expected]


@pytest.mark.parametrize("name", ["train", "churn-retrain", "materialise"])
def test_a_job_lays_nothing_out_while_another_run_is_at_work(name: str, calls: Path, tmp_path: Path) -> None:
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


def test_mlflow_gets_the_address_of_its_database_from_the_file(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "backend_store_uri").write_text("postgresql+psycopg://mlflow:secret@postgres/mlflow")
    command = [each.replace("/etc/churn/secrets", str(tmp_path)) for each in container("mlflow")["command"]]

    with start(command, calls, tmp_path) as process:
        assert process.wait() == 0

    assert calls.read_text() == (
        "mlflow server --host 0.0.0.0 --port 5000 --workers 1 postgresql+psycopg://mlflow:secret@postgres/mlflow\n"
    )


def test_mlflow_does_not_start_on_a_database_of_its_own_where_the_address_is_missing(calls: Path, tmp_path: Path) -> None:
    command = [each.replace("/etc/churn/secrets", str(tmp_path)) for each in container("mlflow")["command"]]

    with start(command, calls, tmp_path) as process:
        assert process.wait() != 0

    assert not calls.exists()


def test_the_first_training_waits_until_mlflow_answers() -> None:
    _, _, script = container("train")["command"]
    asked = threading.Event()
    is_up = threading.Event()

    def answer(request: Asked) -> Reply:
        assert request.path == "/health"
        asked.set()
        return Reply(200 if is_up.is_set() else 503)

    with HttpServer(answer) as server:
        command = [sys.executable, "-c", script.replace("sleep(5)", "sleep(0.05)")]
        with subprocess.Popen(command, env={"MLFLOW_TRACKING_URI": server.url}, stdout=subprocess.DEVNULL) as process:
            assert asked.wait(60)
            assert process.poll() is None
            is_up.set()
            assert process.wait() == 0


def test_prometheus_reads_what_its_pod_has(tmp_path: Path) -> None:
    for path, text in laid_out(local("prometheus"), "/etc/prometheus").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)

    command = [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout
