"""Versions change while requests run: promoted, refused, rolled back, and with the registry away."""

import base64
import hmac
import json
import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest

from churn import model_store
from churn.lineage import sha256
from served import ROOT, THRESHOLD, Releases, Running, Serve, customers
from serving import metrics
from serving.swap import Shelf, Swap

SECRET = "s3cret"
FOREVER = "3600"


# Under load


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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_promotion_under_load_fails_no_request_and_every_answer_names_the_version_that_made_it(
    releases: Releases, serve: Serve, workers: str
) -> None:
    numbers = [releases.release(seed=seed) for seed in range(3)]
    releases.promote(numbers[0])
    server = ready(serve(workers=workers), int(workers))

    with load(server) as done:
        for number in numbers:
            releases.promote(number)
            done.wait_for(number)

    assert not done.failures
    expected = {number: releases.probabilities(number, done.given) for number in numbers}
    assert not np.allclose(expected[numbers[0]], expected[numbers[1]], atol=1e-3)
    for mine in done.answers:
        assert [version for version, _ in groupby(version for version, _ in mine)] == numbers, "each version once, in its turn"
        for version, found in mine:
            np.testing.assert_allclose(found, expected[version], atol=1e-6)


def test_a_hundred_promotions_under_load_leak_no_memory_thread_or_descriptor(releases: Releases, serve: Serve) -> None:
    numbers = [releases.release(seed=seed) for seed in range(2)]
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    process = psutil.Process(server.process.pid)

    def swap(times: int) -> None:
        for turn in range(times):
            number = numbers[turn % 2]
            releases.promote(number)
            assert hook(server).status_code == 202
            wait_for(server, number)

    with load(server, connections=2) as done:
        swap(10)
        memory, threads, descriptors = process.memory_info().rss, process.num_threads(), process.num_fds()
        swap(100)
        grown = process.memory_info().rss - memory
        after = process.num_threads(), process.num_fds()

    assert not done.failures
    assert server.metric("churn_model_swaps_total") >= 110
    assert grown < 100e6
    assert after[0] <= threads + 2
    assert after[1] <= descriptors + 8


# Bad versions


Spoil = Callable[[Path], None]


def edited(file: str, **values: Any) -> Spoil:
    def spoil(bundle: Path) -> None:
        (bundle / file).write_text(json.dumps(json.loads((bundle / file).read_text()) | values))

    return spoil


def written(file: str, content: bytes) -> Spoil:
    def spoil(bundle: Path) -> None:
        (bundle / file).write_bytes(content)

    return spoil


def without(file: str) -> Spoil:
    return lambda bundle: (bundle / file).unlink()


def truncated(bundle: Path) -> None:
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content[: len(content) // 2])


def pickled(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(pickle.dumps({"coefficients": [1.0, 2.0]}))


def wider(bundle: Path) -> None:
    import onnx

    model = onnx.load(bundle / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
    onnx.save(model, bundle / "model.onnx")


def renamed(bundle: Path) -> None:
    import onnx

    model = onnx.load(bundle / "model.onnx")
    for each in (*model.graph.output, *(node for node in model.graph.node)):
        names = [each] if hasattr(each, "name") and each.name == "probabilities" else []
        for one in names:
            one.name = "scores"
        if hasattr(each, "output"):
            for index, name in enumerate(each.output):
                each.output[index] = "scores" if name == "probabilities" else name
    onnx.save(model, bundle / "model.onnx")


def with_external_data(bundle: Path) -> None:
    """A model of the right signature whose weights lie in a file beside it, or anywhere else on the disk."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    original = onnx.load(bundle / "model.onnx")
    width = original.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    weights = np.zeros((width, 2), dtype=np.float32)
    (bundle / "weights.bin").write_bytes(weights.tobytes())
    tensor = numpy_helper.from_array(weights, "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": str(weights.nbytes)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["probabilities"])],
        "external",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())


def nothing(bundle: Path) -> None: ...


@dataclass(frozen=True)
class Bad:
    """How a version is spoilt, why it must be refused, and whether the registry's digest is that of the spoilt model."""

    spoil: Spoil
    reason: str
    says: str
    is_digest_right: bool = True
    tags: dict[str, str] = field(default_factory=dict)


BAD = {
    "truncated onnx": Bad(truncated, "corrupt", "not an ONNX model"),
    "garbage for onnx": Bad(written("model.onnx", b"\x00garbage" * 100), "corrupt", "not an ONNX model"),
    "empty onnx": Bad(written("model.onnx", b""), "corrupt", "not an ONNX model"),
    "pickle for onnx": Bad(pickled, "corrupt", "not an ONNX model"),
    "external data": Bad(with_external_data, "corrupt", "not an ONNX model"),
    "another digest": Bad(truncated, "digest", "the registry says", is_digest_right=False),
    "no digest": Bad(nothing, "digest", "onnx_sha256", is_digest_right=False, tags={"onnx_sha256": ""}),
    "a path for a digest": Bad(nothing, "digest", "onnx_sha256", is_digest_right=False, tags={"onnx_sha256": "../../../x"}),
    "another contract": Bad(edited("model.json", contract_sha256="0" * 64), "contract", "another contract"),
    "unknown inputs": Bad(edited("model.json", inputs=["shoe_size"]), "contract", "does not have"),
    "inputs that are none": Bad(edited("model.json", inputs=[["a"], 5, None]), "contract", "does not have"),
    "a number for inputs": Bad(edited("model.json", inputs=5), "contract", "does not have"),
    "wider": Bad(wider, "signature", "the model takes"),
    "another output": Bad(renamed, "signature", "the model takes"),
    "another golden probability": Bad(edited("golden.json", churn_probability=0.123456789), "golden", "was stored with"),
    "golden that is no number": Bad(edited("golden.json", churn_probability=None), "golden", "failed"),
    "golden without customer": Bad(edited("golden.json", customer={}), "golden", "failed"),
    "golden that is no object": Bad(written("golden.json", b"[]"), "corrupt", "not a JSON object"),
    "model.json that is no JSON": Bad(written("model.json", b"{"), "corrupt", "not JSON"),
    "malformed explanation": Bad(written("explain.json", b"{}"), "corrupt", "explain.json"),
    "explanation of another model": Bad(
        written(
            "explain.json", json.dumps({"kind": "linear", "columns": 1, "slope": [1.0], "mean": [0.0], "base": 0.0}).encode()
        ),
        "corrupt",
        "explains 1 columns",
    ),
    "no onnx": Bad(without("model.onnx"), "missing", "model.onnx", is_digest_right=False),
    "no model.json": Bad(without("model.json"), "missing", "model.json"),
    "no golden.json": Bad(without("golden.json"), "missing", "golden.json"),
    "no threshold": Bad(nothing, "metadata", "threshold", tags={"threshold": ""}),
    "threshold that is no number": Bad(nothing, "metadata", "threshold", tags={"threshold": "nan"}),
    "threshold that is no probability": Bad(nothing, "metadata", "threshold", tags={"threshold": "30"}),
}


def release_bad(releases: Releases, bad: Bad) -> str:
    """Promote the spoilt version."""
    bundles: list[Path] = []

    def mangle(bundle: Path) -> None:
        bad.spoil(bundle)
        bundles.append(bundle)

    number = releases.release(seed=1, promote=False, mangle=mangle, **bad.tags)
    if bad.is_digest_right:
        releases.client.set_model_version_tag("churn", number, "onnx_sha256", sha256(bundles[0] / "model.onnx"))
    releases.promote(number)
    return number


def refusals(reason: str) -> float:
    found: float = metrics.SWAPS_REFUSED.labels(reason)._value.get()
    return found


@pytest.fixture
def swap(releases: Releases, tmp_path: Path) -> Swap:
    """What looks at the registry, without a server around it: version 1 serves."""
    releases.release(seed=0)
    store = model_store.connect(releases.uri, timeout_s=3)
    swap = Swap(store, Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)
    swap.look()
    assert swap.current
    return swap


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_refused_with_its_reason_and_the_old_one_keeps_serving(
    kind: str, releases: Releases, swap: Swap, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bad = BAD[kind]
    before, serving = refusals(bad.reason), swap.current
    number = release_bad(releases, bad)

    swap.look()
    swap.look()

    assert swap.current is serving
    assert refusals(bad.reason) == before + 1, "once, not at every look"
    [line] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert line.startswith(f"version {number} refused ({bad.reason}): ")
    assert bad.says in line
    assert bad.says in swap.reason
    assert [each.name[:2] for each in (tmp_path / "models").iterdir() if each.is_dir()] == ["1-"]


def test_a_server_goes_on_while_it_refuses_bad_versions_and_serves_the_next_good_one(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve().ready()
    chosen = ("pickle for onnx", "another digest", "another contract", "wider", "another golden probability", "no threshold")

    with load(server, connections=2) as done:
        for kind in chosen:
            number = release_bad(releases, BAD[kind])
            reason = BAD[kind].reason
            wait_for_refusal(server, reason)
            assert any(each["message"].startswith(f"version {number} refused ({reason})") for each in server.logged())
        assert done.latest == {"1"}
        good = releases.release(seed=2)
        done.wait_for(good)

    assert not done.failures
    assert {version for mine in done.answers for version, _ in mine} == {"1", good}


def test_no_version_is_ready_where_the_first_one_is_bad(releases: Releases, serve: Serve) -> None:
    release_bad(releases, BAD["another golden probability"])
    server = serve().alive()

    server.wait(lambda: server.metric("churn_model_swaps_refused_total") == 1)

    answer = server.http.get("/readyz")
    assert answer.status_code == 503
    assert "golden prediction" in answer.json()["detail"]
    assert server.predict(customers()).status_code == 503
    releases.release(seed=2)
    server.ready()


def test_a_threshold_that_is_changed_in_the_registry_is_followed_and_a_senseless_one_is_not(
    releases: Releases, swap: Swap, tmp_path: Path
) -> None:
    releases.client.set_model_version_tag("churn", "1", "threshold", "0.7")
    swap.look()
    assert swap.current
    assert swap.current.threshold == 0.7

    releases.client.set_model_version_tag("churn", "1", "threshold", "high")
    swap.look()

    assert swap.current.threshold == 0.7
    restarted = Swap(Away(), Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)
    restarted.look()
    assert restarted.current
    assert restarted.current.threshold == 0.7


def test_a_metric_that_is_no_number_does_not_hinder_the_version(releases: Releases, serve: Serve) -> None:
    client = releases.client
    run = client.create_run(client.create_experiment("evaluation")).info.run_id
    client.log_metric(run, "slope", float("nan"))
    client.log_metric(run, "auc", 0.84)
    number = releases.release(promote=False)
    with closing(sqlite3.connect(releases.folder / "mlflow.db")) as db, db:
        db.execute("UPDATE model_versions SET run_id = ? WHERE version = ?", (run, number))
    releases.promote(number)

    server = serve().ready()

    answer = server.http.get("/model")
    assert answer.status_code == 200
    assert answer.json()["metrics"] == {"auc": 0.84}
    assert answer.json()["threshold"] == THRESHOLD


# The shelf


class Away:
    """A registry that is out of reach."""

    def of_alias(self, model: str, alias: str) -> Any:
        raise OSError("away")

    def fetch(self, released: Any, name: str, out: Path) -> bool:
        raise OSError("away")


def test_only_so_many_versions_stay_on_disk(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    server = serve(kept_models="2", poll_s=FOREVER, webhook_secret=SECRET)
    for seed in range(4):
        number = releases.release(seed=seed)
        hook(server)
        wait_for(server, number)

    def kept() -> list[str]:
        return sorted(each.name.partition("-")[0] for each in (tmp_path / "models").iterdir() if each.is_dir())

    server.wait(lambda: kept() == ["3", "4"])


def test_what_a_killed_process_left_on_the_shelf_is_cleared_and_nothing_else(
    releases: Releases, swap: Swap, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for name in (f".9-{'a' * 12}.4711", f"8-{'b' * 12}", "mine"):
        (models / name).mkdir()

    releases.release(seed=2)
    swap.look()

    assert sorted(each.name[:2] for each in models.iterdir() if each.is_dir()) == ["1-", "2-", "mi"]


def test_a_corrupted_kept_version_is_not_served(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    releases.release(seed=2)
    swap.look()
    [newest] = (tmp_path / "models").glob("2-*")
    (newest / "model.onnx").write_bytes((newest / "model.onnx").read_bytes()[:-1])

    restarted = Swap(Away(), Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)
    restarted.look()

    assert restarted.current
    assert restarted.current.version == "1"
    assert not newest.exists()


def test_a_corrupted_kept_version_is_fetched_again(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    [kept] = (tmp_path / "models").glob("1-*")
    (kept / "golden.json").write_text("{}")
    store = model_store.connect(releases.uri, timeout_s=3)
    restarted = Swap(store, Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)

    restarted.look()
    restarted.look()

    assert restarted.current
    assert restarted.current.version == "1"


@pytest.mark.parametrize("content", ["", "[]", "null", '{"names": 5}', '{"names": null}'])
def test_a_damaged_list_of_good_versions_does_not_hinder_the_start(
    content: str, releases: Releases, swap: Swap, tmp_path: Path
) -> None:
    (tmp_path / "models" / "good.json").write_text(content)
    store = model_store.connect(releases.uri, timeout_s=3)
    restarted = Swap(store, Shelf(tmp_path / "models", 3), model="churn", alias="production", poll_s=1)

    restarted.look()

    assert restarted.current


def test_workers_that_share_a_shelf_do_not_disturb_each_other(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = ready(serve(workers="3"), 3)

    with load(server, connections=6) as done:
        for seed in range(1, 5):
            number = releases.release(seed=seed)
            done.wait_for(number)

    assert not done.failures
    assert server.metric("churn_model_swaps_refused_total") == 0
    assert server.metric("churn_registry_failures_total") == 0


# Rolling back


def command(name: str, tmp_path: Path, uri: str = "sqlite:////nowhere/mlflow.db") -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "MLFLOW_TRACKING_URI": uri,
        "CHURN_MODELS": str(tmp_path / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", "serving", name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_rolling_back_is_one_command_and_needs_no_registry(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1)
    wait_for(server, second)
    database = releases.folder / "mlflow.db"
    database.rename(tmp_path / "away.db")

    done = command("rollback", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"version {first} serves from here on, whatever the registry says\n"
    server.wait(lambda: server.version() == first, seconds=5)
    assert server.http.get("/model").json()["pinned"]
    # It holds when the registry is back, and after a restart.
    (tmp_path / "away.db").rename(database)
    server.stop()
    server = serve().ready()
    assert server.version() == first
    assert command("resume", tmp_path).returncode == 0
    server.wait(lambda: server.version() == second, seconds=5)
    assert not server.http.get("/model").json()["pinned"]


def test_rolling_back_reaches_every_worker(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    first = releases.release(seed=0)
    server = ready(serve(workers="2"), 2)
    with load(server) as done:
        second = releases.release(seed=1)
        done.wait_for(second)

        command("rollback", tmp_path)

        done.wait_for(first)
    assert not done.failures


def test_there_is_nothing_to_roll_back_to_before_a_second_version(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    serve().ready()

    done = command("rollback", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("churn: ")
    assert "keeps no version before" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_alias_moved_back_is_a_rollback_too(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1)
    wait_for(server, second)

    releases.promote(first)

    wait_for(server, first)


# The registry away


def gone(releases: Releases) -> None:
    (releases.folder / "mlflow.db").rename(releases.folder / "away.db")


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_the_last_good_version_serves_within_ten_seconds_where_the_registry_is_away_at_the_start(
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


def test_without_registry_and_kept_version_it_lives_unready_until_the_registry_comes(releases: Releases, serve: Serve) -> None:
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


def test_a_registry_that_hangs_does_not_hold_requests_up(releases: Releases, serve: Serve) -> None:
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
    assert done.slowest_s < 1, "the registry was asked for 3 s"
    assert server.http.get("/readyz").status_code == 200
    assert server.metric("churn_model_created_timestamp_seconds") == pytest.approx(created, abs=0.01)
    checked = server.metric("churn_registry_checked_timestamp_seconds")
    server.wait(lambda: server.metric("churn_registry_checked_timestamp_seconds") > checked)


def test_artifacts_that_are_gone_leave_the_old_version_serving(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve().ready()
    second = releases.release(seed=1, promote=False)
    shutil.rmtree(releases.client.get_model_version("churn", second).source)

    releases.promote(second)

    server.wait(lambda: server.metric("churn_registry_failures_total") >= 1)
    assert server.version() == first
    assert any("its files are gone" in each["message"] for each in server.logged())


# The webhook


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The headers with which MLflow sends a webhook."""
    head = {"x-mlflow-delivery-id": "d-1", "x-mlflow-timestamp": str(int(time.time()))}
    text = f"{head['x-mlflow-delivery-id']}.{head['x-mlflow-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret.encode(), text, "sha256")).decode()
    return head | {"x-mlflow-signature": f"v1,{signature}", "content-type": "application/json"}


BODY = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"alias": "production"}}).encode()


def hook(server: Running, secret: str = SECRET) -> httpx2.Response:
    return server.http.post("/hooks/mlflow", content=BODY, headers=signed(BODY, secret))


def test_a_signed_webhook_makes_the_server_look_at_once(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    second = releases.release(seed=1)

    answer = hook(server)

    assert answer.status_code == 202
    server.wait(lambda: server.version() == second, seconds=10)


def test_a_webhook_that_is_not_signed_is_refused(releases: Releases, serve: Serve) -> None:
    first = releases.release(seed=0)
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    releases.release(seed=1)
    right = signed(BODY)

    attempts = [
        server.http.post("/hooks/mlflow", content=BODY),
        hook(server, "another"),
        hook(server, ""),
        server.http.post("/hooks/mlflow", content=BODY + b" ", headers=right),
        server.http.post("/hooks/mlflow", content=BODY, headers=right | {"x-mlflow-timestamp": "1"}),
        server.http.post("/hooks/mlflow", content=BODY, headers=right | {"x-mlflow-signature": "v1,"}),
    ]

    assert [each.status_code for each in attempts] == [401] * len(attempts)
    assert server.version() == first


def test_without_a_secret_no_webhook_is_taken(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve().ready()

    assert hook(server, "").status_code == 401
