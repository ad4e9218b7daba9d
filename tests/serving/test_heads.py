"""Limits of what is read before a request reaches the application: heads, targets, and the number of connections."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from raw_http import Client, connected, fetch, request
from served import Releases, Running, Serve, customers

pytestmark = pytest.mark.both_ways

KIB = 1024
MIB = 2**20


def field_of(size: int, name: str = "X") -> str:
    """A header field of that many bytes, its line end included."""
    return f"{name}: " + "x" * (size - len(name) - 4)


@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize(("size", "status"), [(15 * KIB, 200), (17 * KIB, 431), (200 * KIB, 431)])
def test_a_request_head_can_have_16_kib(size: int, status: int, pieces: int, server: Running) -> None:
    whole = request("GET", "/healthz", field_of(size))

    with connected(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(whole), -(-len(whole) // pieces)):
            client.send(whole[start : start + -(-len(whole) // pieces)])
        answer = client.answer()

        assert answer.status == status
        if status == 431:
            assert answer.json == {"detail": "more than 100 header fields or 16384 bytes of them; send fewer"}
            assert answer.headers["connection"] == "close"
            assert client.is_at_end()


def test_a_large_head_in_any_fragments_before_a_large_body_is_read(server: Running) -> None:
    whole = request("POST", "/predict", field_of(15 * KIB), body=b" " * 100_000)
    head = whole.index(b"\r\n\r\n")

    for cut in (1, head - 1, head + 1, head + 2, head + 3, head + 4, head + 5, head + 20_000):
        with connected(server) as client:
            client.send(whole[:cut])
            client.send(whole[cut:] + request("GET", "/healthz"))

            assert (cut, client.answer().status, client.answer().status) == (cut, 422, 200)


@pytest.mark.parametrize(("n", "status"), [(98, 200), (100, 431), (3000, 431)])
def test_a_request_head_can_have_100_fields(n: int, status: int, server: Running) -> None:
    assert fetch(server, request("GET", "/healthz", *["X: y"] * n)).status == status


@pytest.mark.parametrize(("size", "status"), [(8000, 404), (9 * KIB, 414), (15 * KIB, 414), (50 * KIB, 414)])
def test_a_request_target_can_have_8_kib(size: int, status: int, server: Running) -> None:
    assert fetch(server, request("GET", "/" + "x" * size)).status == status
    assert fetch(server, request("GET", "/healthz?" + "x" * (size - 9))).status == (status if status == 414 else 200)


ENDLESS = {
    "a value": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", b"c" * 2**18, 431),
    "fields": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", (b"X-A: " + b"b" * 40 + b"\r\n") * 5000, 431),
    "a name": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"d" * 2**18, 431),
    "a target": (b"GET /", b"d" * 2**18, 414),
    "a trailer": (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"e" * 2**18, 431),
    "trailers": (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: e\r\n" * 40_000, 431),
    "an extension of a chunk": (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"f" * 2**18, 431),
}


@pytest.mark.reported
@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_head_or_body_is_refused_without_memory_growth(kind: str, server: Running) -> None:
    begin, more, status = ENDLESS[kind]
    before = server.resident_mb()

    with connected(server) as client:
        client.send(begin)
        sent = 0
        try:
            while sent < 60 * MIB:
                client.send(more)
                sent += len(more)
        except (ConnectionResetError, BrokenPipeError):
            pass

    assert sent < 20 * MIB, "the connection was closed"
    assert server.resident_mb() - before < 20
    with connected(server) as client:
        client.send(begin + more)
        assert client.answer().status == status
    assert server.http.get("/healthz").status_code == 200


def test_an_unused_body_is_dropped_up_to_a_limit(server: Running) -> None:
    before = server.resident_mb()

    with connected(server) as client:
        client.send(request("POST", "/healthz", f"Content-Length: {2**40}"))
        assert client.answer().status == 405
        sent = 0
        try:
            while sent < 200 * MIB:
                client.send(bytes(MIB))
                sent += MIB
        except (ConnectionResetError, BrokenPipeError):
            pass

    assert sent < 50 * MIB, "the connection was closed"
    assert server.resident_mb() - before < 20


def test_requests_refused_before_the_application_are_counted(server: Running) -> None:
    counted = 'churn_http_requests_total{method="other",route="other",status="431"}'
    before = server.metric(counted)

    fetch(server, request("GET", "/healthz", field_of(20 * KIB)))

    server.wait(lambda: server.metric(counted) > before)
    assert server.metric(counted) == before + 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HT", request("POST", "/predict", body=b"{")[:-1]], ids=["idle", "head", "body"]
)
def test_the_longest_idle_connections_are_closed_above_the_limit(sent: bytes, releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(max_connections="50").ready()
    files = Path(f"/proc/{server.process.pid}/fd")
    before = len(list(files.iterdir()))

    with ExitStack() as stack:
        clients: list[Client] = []
        for _ in range(300):
            clients.append(stack.enter_context(connected(server)))
            clients[-1].send(sent)
            if len(clients) % 20 == 0:
                assert fetch(server, request("GET", "/healthz")).status == 200
        assert server.predict(customers(1)).status_code == 200

        assert len(list(files.iterdir())) - before <= 60
        assert clients[0].is_at_end()
