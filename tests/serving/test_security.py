"""Key checks, security headers, and no personal data in logs, metric labels or errors."""

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from pydantic import BaseModel

from churn.settings import Serving
from served import Releases, Running, Serve, customers
from serving.json_bodies import parse_model
from serving.problems import Invalid
from serving.schemas import ByIdRequest, OutcomesRequest, PredictRequest
from serving.service import Service

pytestmark = [pytest.mark.both_ways, pytest.mark.slow]

KEY, OTHER_KEY = "correct horse battery staple", "another key"
HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
OPEN = ("/healthz", "/health", "/readyz", "/metrics")
CLOSED = ("/model", "/openapi.json", "/docs", "/nowhere")


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


SECRET = "8504-XZKFR"


@pytest.mark.reported
@pytest.mark.parametrize(
    ("model", "body"),
    [
        (PredictRequest, {"customers": [{"commitment": SECRET}]}),
        (PredictRequest, {"customers": customers(1, customer_id=f" {SECRET}")}),
        (ByIdRequest, {"customer_ids": [f" {SECRET}"]}),
        (OutcomesRequest, {"outcomes": [{"customer_id": SECRET}]}),
    ],
)
def test_a_refusal_and_its_tracebacks_quote_no_value(model: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        parse_model(model, json.dumps(body).encode())

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.reported
def test_a_refusal_in_another_protocol_quotes_no_value() -> None:
    with pytest.raises(Invalid) as caught:
        asyncio.run(Service(Serving(), None, None, None).score_rows([{"commitment": SECRET}]))  # type: ignore[arg-type]

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def server(releases: Releases, serve: Serve) -> Running:
    releases.release()
    return serve(access_log="true").ready()


def test_requests_without_a_valid_key_are_refused(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(api_keys=f"{digest(KEY)},{digest(OTHER_KEY)}").ready()
    given = {"customers": customers(1)}
    basic = httpx2.BasicAuth("anyone", KEY)

    def status(**kwargs: Any) -> int:
        return server.http.post("/predict", json=given, **kwargs).status_code

    assert status(headers={"authorization": f"Bearer {KEY}"}) == 200
    assert status(headers={"authorization": f"bearer {OTHER_KEY}"}) == 200
    assert status(headers={"x-api-key": KEY}) == 200
    assert status(auth=basic) == 200
    for wrong in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {digest(KEY)}"},
        {"authorization": f"Bearer {KEY} more"},
        {"authorization": KEY},
        {"authorization": f"Digest {KEY}"},
        {"authorization": "Basic not-base64"},
        {"authorization": "Basic YQ=="},
        {"x-api-key": ""},
        {"x-api-key": digest(KEY)},
    ):
        refused = server.http.post("/predict", json=given, headers=wrong)

        assert (wrong, refused.status_code) == (wrong, 401)
        assert refused.headers["www-authenticate"] == 'Basic realm="churn", charset="UTF-8"'
        assert KEY not in refused.text
    assert server.metric("churn_predictions_total") == 4


def test_only_health_and_metrics_need_no_key(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(api_keys=digest(KEY)).ready()

    for path in OPEN:
        assert (path, server.http.get(path).status_code) == (path, 200)
    for path in CLOSED:
        assert (path, server.http.get(path).status_code) == (path, 401)
    for path in ("/predict", "/predict/by-id", "/explain", "/outcomes", "/hooks/mlflow"):
        assert (path, server.http.post(path, content=b"x" * 2_000_000).status_code) == (path, 401)
    assert server.http.get("/model", headers={"x-api-key": KEY}).status_code == 200
    assert KEY not in server.log.read_text()


def test_every_kind_of_response_has_the_security_headers(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve().ready()
    locked = serve(api_keys=digest(KEY), models=str(releases.folder / "models")).ready()

    answers = {
        "predict": server.predict(customers(1)),
        "invalid": server.predict([]),
        "too large": server.http.post("/predict", content=b"x" * 2_000_000),
        "no JSON": server.http.post("/predict", content=b"x", headers={"content-type": "text/plain"}),
        "store down": server.http.post("/predict/by-id", json={"customer_ids": ["c"]}),
        "health": server.http.get("/healthz"),
        "metrics": server.http.get("/metrics"),
        "model": server.http.get("/model"),
        "document": server.http.get("/openapi.json"),
        "documentation": server.http.get("/docs"),
        "page": server.http.get("/"),
        "nowhere": server.http.get("/nowhere"),
        "other method": server.http.delete("/predict"),
        "unsigned": server.http.post("/hooks/mlflow", json={}),
        "unauthorized": locked.http.get("/model"),
    }

    assert {each.status_code for each in answers.values()} >= {200, 401, 404, 405, 413, 415, 422, 503}
    for name, answer in answers.items():
        for header, value in HEADERS.items():
            assert (name, header, answer.headers.get(header)) == (name, header, value)
        policy = answer.headers["content-security-policy"]
        assert (name, "default-src 'none'" in policy) == (name, True)
        assert (name, "frame-ancestors 'none'" in policy) == (name, True)
        assert (name, answer.headers.get("server")) == (name, None)
        # Twice the same header would be read as one with two values.
        assert (name, len(answer.headers.multi_items())) == (name, len({*answer.headers}))


def test_no_log_line_metric_or_error_identifies_a_customer(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    (tmp_path / "sink").write_text("a regular file")
    server = serve(access_log="true", events=str(tmp_path / "sink" / "events"), max_rows="5").ready()
    (given,) = customers(1, monthly_fee=437.216193)
    secret = given | {"customer_id": "MARK-id"}
    at = {"observed_at": "2026-02-01T00:00:00Z", "churned": True}

    def predict(path: str = "/predict", **fields: Any) -> httpx2.Response:
        return server.http.post(path, json={"customers": [secret | fields]})

    def cut_off(path: str) -> httpx2.Response:
        return server.http.post(path, content=json.dumps({"customers": [secret]})[:-3])

    refused = [
        *(predict(path, language="MARK-language") for path in ("/predict", "/explain")),
        *(predict(path, member_months="MARK-Membership") for path in ("/predict", "/explain")),
        *(cut_off(path) for path in ("/predict", "/explain")),
        predict(total_fees=None),
        predict(total_fees=2.0, pool_access="No"),
        predict(customer_id=["MARK-list"]),
        predict(customer_id="MARK" * 100),
        predict(commitment=["MARK-list"]),
        server.http.post("/predict", json={"customers": "MARK-text"}),
        server.http.post("/predict", json={"customers": [secret] * 6}),
        server.http.post("/predict", content=json.dumps({"customers": [secret]}), headers={"content-type": "text/MARK"}),
        server.http.post("/predict/by-id", json={"customer_ids": ["MARK-1"] * 6}),
        server.http.post("/predict/by-id", json={"customer_ids": ["MARK-1"]}),
        server.http.post("/outcomes", json={"outcomes": [at | {"customer_id": "MARK-1", "prediction_id": "MARK-2"}]}),
        server.http.post("/outcomes", json={"outcomes": [at | {"customer_id": "MARK-1"}]}),
        server.http.get("/MARK-path/MARK", params={"q": "MARK-query"}),
        server.http.delete("/predict", params={"q": "MARK-query"}, headers={"x-api-key": "MARK-key", "user-agent": "MARK-agent"}),
    ]
    fine = [predict(), predict("/explain")]
    server.wait(lambda: server.metric("churn_prediction_log_failed_flushes_total") >= 1)

    assert [each.status_code for each in fine] == [200, 200]
    assert {each.status_code for each in refused} == {404, 405, 413, 415, 422, 503}
    assert server.stop() == 0
    personal_data = re.compile(r"MARK|437\.216")
    for each in refused:
        assert not personal_data.search(each.text), each.text
    assert not personal_data.search(server.log.read_text())


def test_no_metric_identifies_a_customer(server: Running) -> None:
    (given,) = customers(1)
    server.predict([given | {"customer_id": "MARK-id"}])
    server.predict([given | {"language": "MARK-language"}])
    server.http.post("/predict/by-id", json={"customer_ids": ["MARK-1"]})
    server.http.get("/MARK-path")

    assert "MARK" not in server.http.get("/metrics").text


def series(server: Running) -> set[str]:
    """Names and labels of everything on `/metrics`."""
    lines = server.http.get("/metrics").text.splitlines()
    return {each.rpartition(" ")[0] for each in lines if not each.startswith("#")}


def test_arbitrary_requests_create_no_new_metric_series(server: Running) -> None:
    def send(number: int) -> None:
        methods = ("GET", "POST", "PROPFIND", "MKCOL", "PURGE", "LINK")
        server.http.request(methods[number % 6], f"/nowhere-{number}/{number}", params={"q": str(number)})
        server.http.request(methods[number % 6], f"/predict?q={number}")
        server.http.post("/predict", json={f"key-{number}": number})
        server.http.post("/predict/by-id", json={"customer_ids": [f"customer-{number}"]})

    for number in range(6):
        send(number)
    series(server)
    before = series(server)  # now with the request for the first
    for number in range(6, 206):
        send(number)

    assert series(server) == before
    routes = {found for each in before if (found := "".join(re.findall(r'route="([^"]*)"', each)))}
    methods = {found for each in before if (found := "".join(re.findall(r'method="([^"]*)"', each)))}
    assert routes <= {"other", "/predict", "/predict/by-id", "/readyz", "/healthz", "/metrics", "/model"}
    assert methods == {"GET", "POST", "other"}
    assert len(before) < 400


def test_invalid_http_is_refused_and_the_server_keeps_serving(server: Running) -> None:
    at = urlsplit(server.url)
    for sent in (
        b"MARK\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with closing(socket.create_connection((str(at.hostname), int(at.port or 0)), timeout=30)) as client:
            client.sendall(sent)
            assert client.recv(4096).startswith(b"HTTP/1.1 400")

    assert server.predict(customers(1)).status_code == 200


def test_counters_are_summed_over_workers(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(workers="2")
    ok = 'churn_http_requests_total{method="POST",route="/predict",status="200"}'
    try:
        server.wait(lambda: server.metric("churn_model_swaps_total") == 2)  # both are ready
        for _ in range(40):
            with httpx2.Client(base_url=server.url, timeout=30) as http:
                for _ in range(5):
                    assert http.post("/predict", json={"customers": customers(3)}).status_code == 200

        server.wait(lambda: server.metric(ok) >= 200)
        server.wait(lambda: server.metric("churn_prediction_log_written_rows_total") >= 600)
        for _ in range(10):
            text = httpx2.get(f"{server.url}/metrics").text
            assert f"\n{ok} 200.0\n" in text
            assert sum(float(each) for each in re.findall(r"\nchurn_predictions_total\{.*\} (.*)", text)) == 600
            assert "\nchurn_prediction_log_written_rows_total 600.0\n" in text
            assert "\nchurn_probability_count 600.0\n" in text
            assert "\nchurn_http_requests_in_flight 0.0\n" in text
    finally:
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.reported
def test_a_killed_workers_gauges_are_removed_and_its_counters_kept(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(workers="2")
    scored = 'churn_http_requests_total{method="POST",route="/predict",status="200"}'
    server.wait(lambda: server.metric("churn_model_swaps_total") == 2)  # both are ready
    for _ in range(40):
        assert httpx2.post(f"{server.url}/predict", json={"customers": customers(1)}).status_code == 200
    server.wait(lambda: server.metric(scored) == 40)
    server.http.close()

    killed, survivor = workers(server)
    os.kill(killed, signal.SIGKILL)
    at = time.time()
    server.http = httpx2.Client(base_url=server.url, timeout=30)
    server.wait(lambda: killed not in workers(server) and len(workers(server)) == 2)

    # The least of all workers: it stands still for good where a dead one is among them.
    server.wait(lambda: server.metric("churn_registry_checked_timestamp_seconds") > at + 1)
    assert server.metric(scored) == 40
    assert server.metric("churn_model_version") == 1
    assert survivor in workers(server)
    assert server.stop(signal.SIGTERM) == 0


def workers(server: Running) -> list[int]:
    """The processes of the workers."""
    pids = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(each) for each in pids if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.reported
def test_every_failed_request_is_logged_with_its_reason(releases: Releases, serve: Serve) -> None:
    server = serve().alive()  # without a version
    given = {"customers": customers(1)}
    table = {"dataframe_records": customers(1)}
    tensors = {"inputs": [{"name": "member_months", "shape": [1], "datatype": "INT64", "data": [5]}]}
    form = {"content": "customer_id=a", "headers": {"content-type": "application/x-www-form-urlencoded"}}

    posts: dict[str, dict[str, Any]] = {
        "/predict": {"json": given},
        "/predict/by-id": {"json": {"customer_ids": ["a"]}},
        "/explain": {"json": given},
        "/outcomes": {"json": {"outcomes": []}},
        "/invocations": {"json": table},
        "/v2/models/churn/infer": {"json": tensors},
        "/v2/models/other/infer": {"json": tensors},
        "/page/score": form,
        "/page/customer": form,
        "/hooks/mlflow": {"json": {}},
        "/nowhere": {"json": {}},
        "/model": {"json": {}},
    }
    for path, right in posts.items():
        wrong: list[dict[str, Any]] = [{"json": []}, {"content": "{", "headers": {"content-type": "text/plain"}}]
        for request in (right, *wrong):
            assert server.http.post(path, **request).status_code >= 400
    for path in ("/model", "/v2/models/churn", "/v2/models/churn/ready", "/nowhere", "/static-offline-docs/nowhere", "/predict"):
        assert server.http.get(path).status_code >= 400

    def failed() -> list[dict[str, Any]]:
        return [each for each in server.logged() if each["message"] == "request"]

    server.wait(lambda: len(failed()) == 3 * len(posts) + 6)  # a line is written after its answer
    assert [each for each in failed() if not each["reason"]] == []
