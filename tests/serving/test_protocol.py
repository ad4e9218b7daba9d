"""HTTP on raw sockets: responses written in one call equal those of any other server."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from served import Releases, Running, Serve, customers

pytestmark = pytest.mark.both_ways


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as client:
        yield client


def request(given: list[dict[str, Any]], *headers: str, version: str = "1.1") -> bytes:
    body = json.dumps({"customers": given}).encode()
    lines = [f"POST /predict HTTP/{version}", "Host: here", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def answers(client: socket.socket, n: int) -> list[tuple[str, dict[str, str], Any]]:
    """The next `n` answers: status line, headers, body."""
    stream = client.makefile("rb")
    found = []
    for _ in range(n):
        status = stream.readline().decode().strip()
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        found.append((status, headers, json.loads(stream.read(int(headers["content-length"])))))
    return found


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    given = customers(3)

    with connected(server) as client:
        client.sendall(b"".join(request([each]) for each in given))
        found = answers(client, 3)

    assert [status for status, _, _ in found] == ["HTTP/1.1 200 OK"] * 3
    assert [body["predictions"][0]["customer_id"] for _, _, body in found] == [each["customer_id"] for each in given]


def test_one_connection_serves_valid_and_refused_requests_alternately(server: Running) -> None:
    good, bad = request(customers(1)), request([{}])

    with connected(server) as client:
        found = []
        for each in (good, bad, good, bad):
            client.sendall(each)
            found += answers(client, 1)

    assert [status.split()[1] for status, _, _ in found] == ["200", "422", "200", "422"]
    assert {headers["content-type"] for _, headers, _ in found} == {"application/json"}
    assert all("date" in headers and headers["cache-control"] == "no-store" for _, headers, _ in found)


@pytest.mark.parametrize(("headers", "version"), [(["Connection: close"], "1.1"), ([], "1.0")])
def test_connection_close_gets_the_response_and_closes(headers: list[str], version: str, server: Running) -> None:
    with connected(server) as client:
        client.sendall(request(customers(1), *headers, version=version))
        ((status, given, body),) = answers(client, 1)
        assert client.recv(1) == b""

    assert status.split()[1] == "200"
    assert given["connection"] == "close"
    assert len(body["predictions"]) == 1


def test_a_fragmented_request_is_answered(server: Running) -> None:
    whole = request(customers(2))

    with connected(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(whole), 100):
            client.sendall(whole[start : start + 100])
        ((status, _, body),) = answers(client, 1)

    assert status == "HTTP/1.1 200 OK"
    assert len(body["predictions"]) == 2


@pytest.mark.parametrize("first", [5, 60, -1, -300], ids=["in the line", "in the headers", "before the last byte", "in the body"])
def test_a_delayed_request_body_is_answered(first: int, server: Running) -> None:
    whole = request(customers(1))

    with connected(server) as client:
        client.sendall(whole[:first])
        time.sleep(0.2)
        client.sendall(whole[first:])
        client.sendall(request(customers(1, seed=2)))
        found = answers(client, 2)

    assert [status for status, _, _ in found] == ["HTTP/1.1 200 OK"] * 2


def test_pipelined_requests_of_different_routes_are_answered_in_order(server: Running) -> None:
    alive = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"

    with connected(server) as client:
        client.sendall(request(customers(1)) + alive + request(customers(2)) + alive)
        found = answers(client, 4)

    assert [len(body.get("predictions", [])) for _, _, body in found] == [1, 0, 2, 0]


def test_a_disconnected_client_frees_its_slot(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(max_in_flight="4").ready()

    for _ in range(20):
        with connected(server) as client:
            client.sendall(request(customers(1)))
    server.wait(lambda: server.metric("churn_http_requests_in_flight") == 0)

    assert [server.predict(customers(1)).status_code for _ in range(5)] == [200] * 5


def test_a_large_file_is_sent_completely(server: Running) -> None:
    script = httpx2.get(f"{server.url}/static-offline-docs/swagger-ui-bundle.js")

    assert script.status_code == 200
    assert len(script.content) == int(script.headers["content-length"]) > 1_000_000
