"""The rights of each key on every route and protocol, its quota of outcomes, and the stored reporter."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pyarrow.parquet as pq
import pytest
from fastapi.routing import iter_route_contexts

from churn.adapters.events.log import open_sink
from churn.contract import RAW_FEATURES
from churn.domain.access import Right
from churn.settings import Serving
from served import Releases, Running, Serve, customers, servers
from serving.app import create_app
from serving.examples import EXAMPLE
from serving.keys import WINDOW_S, Key
from serving.problems import QuotaExceeded
from serving.routes import Routes
from swaps import BODY, SECRET, signed

pytestmark = [pytest.mark.both_ways, pytest.mark.slow]

KEYS = {"plain": "", "reader": ":predict", "reporter": ":outcomes", "operator": ":admin", "both": ":predict+outcomes"}
"""A key → what follows its digest in CHURN_API_KEYS."""
RIGHTS = {
    "plain": {"predict"},
    "reader": {"predict"},
    "reporter": {"outcomes"},
    "operator": {"admin"},
    "both": {"predict", "outcomes"},
}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def configured(**rights: str) -> str:
    """The value of CHURN_API_KEYS."""
    return ",".join(f"{digest(key)}{names}" for key, names in rights.items())


def outcomes(*names: str) -> dict[str, Any]:
    return {"outcomes": [{"customer_id": name, "churned": True, "observed_at": "2026-02-01T00:00:00Z"} for name in names]}


@pytest.fixture(scope="module")
def keyed(released: Releases, filled: Path, tmp_path_factory: pytest.TempPathFactory, fast_path: str) -> Iterator[Running]:
    """A server with `KEYS` and a filled online store, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("keyed")
    shutil.copy(filled, folder / "features.db")
    with servers(released, folder, fast_path) as start:
        yield start(api_keys=configured(**KEYS), webhook_secret=SECRET).ready()


def requests() -> dict[str, tuple[str, dict[str, Any]]]:
    """A good request for every route that needs a right, and the right."""
    (given,) = customers(1)
    columns = [each.name for each in RAW_FEATURES]
    kinds = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
    tensors = [{"name": name, "shape": [1], "datatype": kinds[type(given[name])], "data": [given[name]]} for name in columns]
    form = {"content-type": "application/x-www-form-urlencoded"}
    filled = {name: str(EXAMPLE[name]).lower() if isinstance(EXAMPLE[name], bool) else EXAMPLE[name] for name in columns}
    return {
        "/predict": ("predict", {"json": {"customers": [given]}}),
        "/predict/by-id": ("predict", {"json": {"customer_ids": [given["customer_id"]]}}),
        "/explain": ("predict", {"json": {"customers": [given]}}),
        "/invocations": ("predict", {"json": {"instances": [given]}}),
        "/v2/models/churn/infer": ("predict", {"json": {"inputs": tensors}}),
        "/v2/models/churn/versions/1/infer": ("predict", {"json": {"inputs": tensors}}),
        "/page/score": ("predict", {"content": urlencode(filled), "headers": form}),
        "/page/customer": ("predict", {"content": urlencode({"customer_id": given["customer_id"]}), "headers": form}),
        "/outcomes": ("outcomes", {"json": outcomes("c1")}),
        "/hooks/mlflow": ("admin", {"content": BODY, "headers": signed(BODY)}),
    }


def send(server: Running, key: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx2.Response:
    return server.http.post(path, headers={"x-api-key": key, **(headers or {})}, **body)


@pytest.mark.reported
@pytest.mark.parametrize("key", KEYS)
def test_a_key_has_exactly_its_rights(key: str, keyed: Running) -> None:
    answers = {path: (right, send(keyed, key, path, **body)) for path, (right, body) in requests().items()}

    assert {path for path, (_, answer) in answers.items() if answer.status_code == 403} == {
        path for path, (right, _) in answers.items() if right not in RIGHTS[key]
    }
    for path, (right, answer) in answers.items():
        if right in RIGHTS[key]:
            assert (path, answer.status_code) == (path, 202 if path == "/hooks/mlflow" else 200)
        else:
            assert f"`{right}`" in answer.json()["detail"]
            assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/model", "/docs", "/openapi.json", "/version", "/v2", "/v2/models/churn"])
@pytest.mark.parametrize("key", KEYS)
def test_server_information_needs_any_known_key(key: str, path: str, keyed: Running) -> None:
    assert keyed.http.get(path, headers={"x-api-key": key}).status_code == 200
    assert keyed.http.get(path, headers={"x-api-key": "unknown"}).status_code == 401


def test_every_route_with_a_body_requires_a_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(Serving(fast_path=False))._app

    posts = {str(route.path) for route in iter_route_contexts(app.routes) if (route.methods or set()) - {"GET", "HEAD"}}

    assert {path for path in posts if not Routes(app.routes).right(path)} == set()
    assert {path.replace("{name}", "churn").replace("{version}", "1") for path in posts} == set(requests())


def test_a_webhook_key_in_the_url_is_accepted(keyed: Running) -> None:
    import requests as http  # what MLflow sends its webhooks with

    def hook(user: str) -> int:
        url = keyed.url.replace("://", f"://{user}")
        return http.post(f"{url}/hooks/mlflow", data=BODY, headers=signed(BODY), timeout=30).status_code

    assert [hook("webhook:operator@"), hook("webhook:reader@"), hook("")] == [202, 403, 401]


def test_an_unknown_key_gets_401_and_a_missing_right_gets_403(keyed: Running) -> None:
    statuses = {
        key: send(keyed, key, "/outcomes", json=outcomes("c1")).status_code for key in ("", "unknown", "reader", "reporter")
    }

    assert statuses == {"": 401, "unknown": 401, "reader": 403, "reporter": 200}


@pytest.mark.reported
def test_a_key_for_predictions_cannot_report_outcomes(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(api_keys=configured(plain="")).ready()

    refused = [send(server, "plain", path, json=outcomes("c1")) for path in ("/outcomes", "/outcome%73", "/outcomes/")]

    assert [each.status_code for each in refused] == [403, 403, 307]
    assert server.stop() == 0
    assert open_sink(tmp_path / "events").read("outcomes").num_rows == 0


def test_outcomes_are_stored_with_a_reporter_id_and_without_the_key(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(api_keys=configured(reporter=":outcomes", both=":outcomes+predict")).ready()

    send(server, "reporter", "/outcomes", json=outcomes("c1"))
    send(server, "both", "/outcomes", json=outcomes("c2"))

    kept = open_sink(tmp_path / "events").read("outcomes").to_pylist()
    assert {each["customer_id"]: each["reporter"] for each in kept} == {"c1": digest("reporter")[:8], "c2": digest("both")[:8]}


@pytest.mark.reported
def test_an_outcome_repeated_by_another_key_keeps_its_reporter(serve: Serve, tmp_path: Path) -> None:
    events = tmp_path / "repeated"
    server = serve(api_keys=configured(reporter=":outcomes", both=":outcomes+predict"), events=str(events)).alive()

    for key in ("reporter", "both", "reporter"):
        assert send(server, key, "/outcomes", json=outcomes("c1")).status_code == 200

    parts = [pq.read_table(part)["reporter"].to_pylist() for part in events.glob("outcomes/*/*.parquet")]
    assert sorted(parts) == sorted([[digest("reporter")[:8]], [digest("both")[:8]]])
    assert open_sink(events).read("outcomes").num_rows == 1


def test_without_keys_every_route_is_open_and_the_reporter_is_null(server: Running) -> None:
    answers = {path: server.http.post(path, **body).status_code for path, (_, body) in requests().items()}

    assert {path for path, status in answers.items() if status in (401, 403)} == {"/hooks/mlflow"}  # for its signature
    kept = open_sink(server.log.parent / "events").read("outcomes")
    assert set(kept["reporter"].to_pylist()) == {None}


@pytest.mark.reported
def test_the_outcome_quota_applies_per_key(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(api_keys=configured(reporter=":outcomes", both=":outcomes+predict"), outcomes_per_hour="5").ready()

    kept = [send(server, "both", "/outcomes", json=outcomes(*names)).status_code for names in ("abc", "de")]
    refused = send(server, "both", "/outcomes", json=outcomes("f"))

    assert (kept, refused.status_code) == ([200, 200], 429)
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW_S
    assert send(server, "reporter", "/outcomes", json=outcomes("g")).status_code == 200
    assert send(server, "both", "/predict", json={"customers": customers(1)}).status_code == 200
    assert set(open_sink(tmp_path / "events").read("outcomes")["customer_id"].to_pylist()) == set("abcdeg")


def test_outcomes_that_were_not_stored_do_not_count_for_the_quota(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    (tmp_path / "sink").write_text("a regular file")
    events = str(tmp_path / "sink" / "events")
    server = serve(api_keys=configured(reporter=":outcomes"), outcomes_per_hour="1", events=events).ready()

    statuses = [send(server, "reporter", "/outcomes", json=outcomes("c1")).status_code for _ in range(3)]

    assert statuses == [503] * 3


def test_the_quota_window_begins_with_the_first_report() -> None:
    now = 1000.0
    key = Key(bytes(32), frozenset({Right.OUTCOMES}), clock=lambda: now)

    key.report(10, limit=10)
    now += WINDOW_S - 1
    with pytest.raises(QuotaExceeded) as refused:
        key.report(1, limit=10)
    now += 1
    key.report(10, limit=10)

    assert dict(refused.value.headers) == {b"retry-after": b"1"}
    with pytest.raises(QuotaExceeded):
        key.report(1, limit=10)


@pytest.mark.reported
@pytest.mark.parametrize("path", ["/outcomes%0a", "/predict%0A", "/hooks/mlflow%0a", "/model%0d", "/%00"])
def test_a_path_with_a_control_character_is_not_found(path: str, keyed: Running) -> None:
    answer = httpx2.post(f"{keyed.url}{path}", json=outcomes("a"), headers={"x-api-key": "reader"})

    assert answer.status_code == 400
    assert "control character" in answer.json()["detail"]
