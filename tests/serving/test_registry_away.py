"""The registry is unreachable, hangs, or has lost its files; the server keeps serving."""

import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from served import Releases, Serve, customers
from swaps import load

pytestmark = pytest.mark.slow


def gone(releases: Releases) -> None:
    (releases.folder / "mlflow.db").rename(releases.folder / "away.db")


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_the_cached_version_serves_within_10_s_of_a_start_without_registry(
    releases: Releases, serve: Serve, hanging: str, how: str
) -> None:
    number = releases.release()
    serve().ready().stop()
    gone(releases)
    began = time.monotonic()

    server = serve(**({"tracking_uri": hanging} if how == "hangs" else {})).ready()

    assert time.monotonic() - began < 10
    assert server.version() == number
    assert server.metric("churn_registry_failures_total") >= 1
    np.testing.assert_allclose(
        [each["churn_probability"] for each in server.predict(customers(5)).json()["predictions"]],
        releases.probabilities(number, customers(5)),
        atol=1e-6,
    )


def test_the_server_is_not_ready_without_registry_and_cached_version(releases: Releases, serve: Serve) -> None:
    number = releases.release()
    gone(releases)
    server = serve().alive()

    server.wait(lambda: server.metric("churn_registry_failures_total") >= 2)

    assert server.process.poll() is None
    answer = server.http.get("/readyz")
    assert answer.status_code == 503
    assert "unable to open database file" in answer.json()["detail"]
    assert server.http.get("/model").status_code == 503
    refused = server.predict(customers())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    (releases.folder / "away.db").rename(releases.folder / "mlflow.db")
    assert server.ready().version() == number


def test_a_hanging_registry_does_not_block_requests(releases: Releases, serve: Serve) -> None:
    number = releases.release()
    server = serve().ready()
    created = releases.client.get_model_version("churn", number).creation_timestamp / 1000

    with closing(sqlite3.connect(releases.folder / "mlflow.db")) as db, load(server, connections=2) as done:
        db.execute("BEGIN EXCLUSIVE")
        server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
        before = done.count
        server.wait(lambda: done.count > before + 100)
        db.rollback()

    assert not done.failures
    assert done.slowest_s < 1, "the registry request took 3 s"
    assert server.http.get("/readyz").status_code == 200
    assert server.metric("churn_model_created_timestamp_seconds") == pytest.approx(created, abs=0.01)
    checked = server.metric("churn_registry_checked_timestamp_seconds")
    server.wait(lambda: server.metric("churn_registry_checked_timestamp_seconds") > checked)


@pytest.mark.reported
def test_readyz_gives_the_gate_refusal_and_the_promote_command(releases: Releases, serve: Serve) -> None:
    number = releases.release(promote=False, tags={"decision": "failed roc_auc 0.8199 (≥ 0.82)"})
    releases.client.set_registered_model_alias("churn", "candidate", number)
    server = serve().alive()

    server.wait(lambda: "was not promoted" in server.http.get("/readyz").json()["detail"])

    detail = server.http.get("/readyz").json()["detail"]
    assert f"version {number} was not promoted: failed roc_auc 0.8199 (≥ 0.82)" in detail
    assert f"churn promote {number}" in detail
    assert "make repro" not in detail


def test_readyz_reports_that_no_version_was_trained(serve: Serve) -> None:
    server = serve().alive()

    server.wait(lambda: "none was trained yet" in server.http.get("/readyz").json()["detail"])
    ready = server.http.get("/readyz")

    assert ready.status_code == 503
    assert "run `make repro`" in ready.json()["detail"]


def test_missing_artifacts_leave_the_old_version_serving(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1, promote=False)
    shutil.rmtree(releases.client.get_model_version("churn", second).source)

    releases.promote(second)

    server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
    assert server.version() == first
    assert any("its files are gone" in each["message"] for each in server.logged())
