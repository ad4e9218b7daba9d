"""One client cannot exhaust the slots, memory or time of the others."""

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice, repeat
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from raw_http import read_answer
from served import Releases, Running, Serve, customers

pytestmark = [pytest.mark.both_ways, pytest.mark.slow]

MIB = 2**20
JSON = {"content-type": "application/json"}
ACTIONS = ("/predict", "/predict/by-id", "/explain", "/outcomes")


def body_of(given: list[dict[str, Any]]) -> bytes:
    return json.dumps({"customers": given}).encode()


@contextmanager
def loaded(server: Running, body: bytes, *, clients: int) -> Iterator[list[httpx2.Response]]:
    """Clients that send that body to `/predict` again and again; their answers, complete when the block has ended."""
    stop = threading.Event()
    answers: list[httpx2.Response] = []

    def send() -> None:
        with httpx2.Client(base_url=server.url, timeout=60) as http:
            while not stop.is_set():
                answers.append(http.post("/predict", content=body, headers=JSON))

    with ThreadPoolExecutor(clients) as pool:
        sending = [pool.submit(send) for _ in range(clients)]
        try:
            server.wait(lambda: len(answers) >= clients)
            yield answers
        finally:
            stop.set()
        for each in sending:
            each.result()


def begun(server: Running, *, length: int, sent: bytes = b"") -> socket.socket:
    """A connection whose request is announced, and sent as far as `sent`."""
    at = urlsplit(server.url)
    client = socket.create_connection((str(at.hostname), int(at.port or 0)), timeout=60)
    client.sendall(f"POST /predict HTTP/1.1\r\nHost: churn\r\nContent-Length: {length}\r\n\r\n".encode() + sent)
    return client


def test_health_checks_stay_fast_and_are_never_shed_under_load(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(max_in_flight="32").ready()
    durations: list[float] = []
    statuses: set[int] = set()

    with loaded(server, body_of(customers(1000)), clients=6) as answers:
        while len(durations) < 100 or len(answers) < 60:
            for path in ("/healthz", "/readyz"):
                began = time.perf_counter()
                statuses.add(server.http.get(path).status_code)
                durations.append(time.perf_counter() - began)

    assert statuses == {200}
    assert {each.status_code for each in answers} == {200, 503}
    assert statistics.median(durations) < 0.1
    assert max(durations) < 1


def test_overload_is_refused_with_a_reason_and_frees_its_resources(releases: Releases, serve: Serve) -> None:
    number = releases.release()
    server = serve(max_in_flight="4").ready()
    given = customers(100)
    expected = releases.probabilities(number, given)
    server.wait(lambda: [server.predict(given) for _ in range(50)])
    before = server.resident_mb()

    with loaded(server, body_of(given), clients=20) as answers:
        server.wait(lambda: sum(each.status_code == 503 for each in list(answers)) > 500)

    refused = [each for each in answers if each.status_code == 503]
    accepted = [each.json() for each in answers if each.status_code == 200]
    assert len(refused) + len(accepted) == len(answers)
    assert {each.headers["retry-after"] for each in refused} == {"1"}
    assert {each.json()["detail"] for each in refused} == {"more requests than this server can take; try again later"}
    assert accepted
    for each in accepted:
        found = [one["churn_probability"] for one in each["predictions"]]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert server.resident_mb() - before < 50
    assert server.metric('churn_http_requests_refused_total{reason="overload"}') == len(refused)
    assert sum(each["refused"] for each in server.logged() if each["message"] == "overload") == len(refused), "once a second"
    assert not [each for each in server.logged() if each.get("reason") == "overload"]
    assert server.metric("churn_http_requests_in_flight") == 0
    assert [server.predict(given).status_code for _ in range(20)] == [200] * 20


def test_a_request_past_its_deadline_is_refused(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(deadline_s="0.000001").ready()

    for path in ("/predict", "/explain"):
        late = server.http.post(path, json={"customers": customers(1)})

        assert late.status_code == 503
        assert late.headers["retry-after"] == "1"
        assert "longer than 1e-06 s" in late.json()["detail"]
    assert server.http.get("/healthz").status_code == 200
    assert server.metric("churn_http_requests_in_flight") == 0


def pieces(size: int) -> Iterator[bytes]:
    """That many bytes in pieces, so that httpx sends them chunked."""
    return islice(repeat(b" " * 1024), size // 1024)


BODIES: dict[str, tuple[Callable[[], Any], int]] = {
    "one byte too large": (lambda: b" " * (MIB + 1), 413),
    "too large in chunks": (lambda: pieces(2 * MIB), 413),
    "nested arrays": (lambda: b"[" * 100_000, 422),
    "nested objects": (lambda: b'{"customers":' * 70_000, 422),
    "nested in a field": (lambda: b'{"customers":[{"language":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", 422),
    "empty": (lambda: b"", 422),
    "blank, as large as may be": (lambda: b" " * MIB, 422),
    "blank in chunks, as large as may be": (lambda: pieces(MIB), 422),
    "null": (lambda: b"null", 422),
    "a text": (lambda: b'"text"', 422),
    "cut off": (lambda: b'{"customers": [{"gen', 422),
    "not UTF-8": (lambda: b'{"customers": "\xff\xfe"}', 422),
    "half a surrogate pair": (lambda: rb'{"customer_ids": ["\ud800"], "customers": ["\ud800"]}', 422),
    "a compressed one": (lambda: b"\x1f\x8b\x08\x00", 422),
}


@pytest.fixture
def server(releases: Releases, serve: Serve) -> Running:
    releases.release()
    return serve().ready()


def test_bodies_that_are_too_large_or_not_json_are_refused(server: Running) -> None:
    for path in ACTIONS:
        for name, (body, status) in BODIES.items():
            answer = server.http.post(path, content=body(), headers=JSON)

            assert (path, name, answer.status_code) == (path, name, status)
            assert answer.json()["detail"]
    assert server.predict(customers(1)).status_code == 200


def test_numbers_outside_the_contract_are_refused(server: Running) -> None:
    (given,) = customers(1, member_months=12)
    written = json.dumps({"customers": [given | {"monthly_fee": "FEE", "member_months": "MONTHS"}]})

    def status(fee: str = "20.5", months: str = "12") -> int:
        body = written.replace('"FEE"', fee).replace('"MONTHS"', months)
        return server.http.post("/predict", content=body, headers=JSON).status_code

    assert status() == 200
    for wrong in ("NaN", "Infinity", "-Infinity", "1e999", "-1", "1" + "0" * 5000, '"20.5"', "true", "null", "1001"):
        assert (wrong, status(fee=wrong)) == (wrong, 422)
    for wrong in ("NaN", "Infinity", "1e999", "-1", "1" + "0" * 5000, '"12"', "true", "null", "12.5", "721"):
        assert (wrong, status(months=wrong)) == (wrong, 422)


def test_more_rows_than_allowed_are_refused(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(max_rows="10").ready()
    outcome = {"customer_id": "c", "churned": True, "observed_at": "2026-01-01T00:00:00Z"}

    for path, key, rows in (
        ("/predict", "customers", customers(11)),
        ("/explain", "customers", customers(11)),
        ("/predict/by-id", "customer_ids", ["c"] * 11),
        ("/outcomes", "outcomes", [outcome] * 11),
    ):
        answer = server.http.post(path, json={key: rows})

        assert (path, answer.status_code) == (path, 413)
        assert answer.json()["detail"] == "11 rows at once; at most 10 are taken: send fewer"
    assert server.predict(customers(10)).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/by-id", "/explain", "/outcomes"])
def test_a_content_type_other_than_json_is_refused(path: str, server: Running) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"):
        answer = server.http.post(path, content=body_of(customers(1)), headers={"content-type": kind})

        assert (kind, answer.status_code) == (kind, 415)
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        answer = server.http.post(path, content=b"{}", headers={"content-type": kind})

        assert (kind, answer.status_code) == (kind, 422)


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["none of the body", "one byte of the body"])
def test_slow_clients_do_not_block_the_server(sent: bytes, releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(max_in_flight="4").ready()

    with ExitStack() as open_sockets:
        slow = [open_sockets.enter_context(begun(server, length=MIB, sent=sent)) for _ in range(20)]

        assert [server.predict(customers(1)).status_code for _ in range(20)] == [200] * 20
        assert server.http.get("/healthz").status_code == 200
        # In the end each is refused, and does not stay for good.
        refused = [read_answer(each.makefile("rb")) for each in slow]

    assert {each.status for each in refused} == {503}
    assert all("the body took longer than" in each.json["detail"] for each in refused)
    assert server.metric("churn_http_requests_in_flight") == 0


def test_clients_that_disconnect_during_their_request_leave_no_state(server: Running) -> None:
    for _ in range(100):
        begun(server, length=MIB, sent=b'{"customers": [').close()

    server.wait(lambda: server.metric('churn_http_requests_total{method="POST",route="/predict",status="499"}') == 100)
    assert server.metric("churn_http_requests_in_flight") == 0
    assert server.predict(customers(1)).status_code == 200
    assert not [each for each in server.logged() if each["level"] == "ERROR"]


def test_clients_that_disconnect_before_the_response_leave_no_state(server: Running) -> None:
    body = body_of(customers(1000))
    before = server.resident_mb()

    for _ in range(100):
        begun(server, length=len(body), sent=body).close()

    server.wait(lambda: server.metric("churn_http_requests_in_flight") == 0)
    assert server.predict(customers(1)).status_code == 200
    assert server.resident_mb() - before < 100
    assert not [each for each in server.logged() if each["level"] == "ERROR"]
