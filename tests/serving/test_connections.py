"""The HTTP protocol alone, with a small application: connections without progress are closed and free their memory."""

import asyncio
import gc
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from raw_http import read_answer
from serving.fast_path.protocol import FastProtocol
from serving.http.connections import Limits
from serving.http.protocol import LimitedProtocol
from serving.problems import Problem

pytestmark = pytest.mark.slow

QUICK = Limits(idle_s=0.5, head_s=0.5, discard_s=0.5, stalled_s=0.5)
LARGE = b"x" * 30_000_000
POST = b"POST / HTTP/1.1\r\nHost: here\r\n"


@dataclass
class Application:
    """Answers a body with its length, `/large` with more than a client receives unasked, `/early` before the body is read."""

    limits: Limits = QUICK
    routes: dict[bytes, Any] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def on_refused(self, problem: Problem) -> None:
        self.refused.append(problem.status)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        size, more = 0, scope["path"] != "/early"
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        body = LARGE if scope["path"] == "/large" else b"%d" % size
        length = b"%d" % len(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Listening:
    """A server in a thread of this process."""

    server: uvicorn.Server
    application: Application

    def connect(self) -> socket.socket:
        """A connection to it."""
        address: tuple[str, int] = self.server.servers[0].sockets[0].getsockname()
        return socket.create_connection(address, timeout=30)

    def wait_until_closed(self) -> None:
        """Wait until it has no connection."""
        waiting = threading.Event()
        while self.server.server_state.connections:
            waiting.wait(0.01)


@pytest.fixture(
    params=[
        pytest.param((LimitedProtocol, "uvloop"), id="limits"),
        pytest.param((FastProtocol, "uvloop"), id="fast path"),
        pytest.param((FastProtocol, "asyncio"), id="asyncio"),
    ]
)
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    protocol, loop = request.param
    application = Application()
    config = uvicorn.Config(
        application, port=0, http=protocol, loop=loop, lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def serve() -> None:
        asyncio.get_running_loop().call_later(0.1, check)
        await server.serve()

    def check() -> None:
        ready.set() if server.started else asyncio.get_running_loop().call_later(0.1, check)

    def run() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    yield Listening(server, application)
    server.should_exit = True
    thread.join()


WITHOUT_PROGRESS = {
    "nothing sent": b"",
    "empty lines": b"\r\n\r\n",
    "half a head": b"GET / HTTP/1.1\r\nX: ",
    "half a body": POST + b"Content-Length: 10\r\n\r\n12345",
    "half a body that nothing needs": b"POST /early HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n12345",
    "no request after an answer": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "half a head after an answer": b"GET / HTTP/1.1\r\nHost: here\r\n\r\nGET",
    "an answer that is not received": b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n",
    "a last answer that is not received": b"GET /large HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
    "a refusal after which the client stays": b"NONSENSE\r\n\r\n",
}


def test_a_connection_without_progress_is_closed(listening: Listening) -> None:
    clients = []
    for sent in WITHOUT_PROGRESS.values():
        clients.append(listening.connect())
        clients[-1].sendall(sent)

    listening.wait_until_closed()

    assert not listening.server.server_state.connections
    for client in clients:
        client.close()


def test_a_slow_request_head_gets_408(listening: Listening) -> None:
    with listening.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")

        assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert listening.application.refused == [408]


def test_single_bytes_do_not_extend_the_head_timeout(listening: Listening) -> None:
    with listening.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        client.settimeout(0.05)
        answer = b""
        while not answer:
            client.sendall(b"x")
            try:
                answer = client.recv(4096)
            except TimeoutError:
                continue

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_leave_no_reference_cycle(listening: Listening) -> None:
    """In one of those, the last body of each would stay until the collector runs."""
    body = b"x" * 100_000
    kinds = (
        POST + b"Content-Length: 100000\r\n\r\n" + body,
        POST + b"Content-Length: 100000\r\n\r\n" + body[:70_000],
        b"POST /early HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n" + body,
        b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n" * 50,
        POST + b"X: " + body + b"\r\n\r\n",
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz",
        b"NONSENSE\r\n\r\n",
    )

    gc.collect()
    gc.disable()
    try:
        for sent in kinds:
            for _ in range(3):
                with listening.connect() as client:
                    client.sendall(sent)
                    if len(sent) != len(kinds[1]):
                        client.recv(4096)
        listening.wait_until_closed()
        kept = [found for found in gc.get_objects() if isinstance(found, LimitedProtocol)]
        held = len(kept)
        del kept
    finally:
        gc.enable()

    assert held == 0


def test_a_queued_request_of_a_disconnected_client_is_dropped(listening: Listening) -> None:
    with listening.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n" * 3)

    listening.wait_until_closed()
    with listening.connect() as client:
        client.sendall(POST + b"Content-Length: 3\r\n\r\nabc")

        assert read_answer(client.makefile("rb")).body == b"3"


@pytest.mark.reported
def test_memory_for_pipelined_requests_is_limited(listening: Listening) -> None:
    listening.application.limits = Limits(held_bytes=40_000)
    ahead = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 800
    sent = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n" + ahead + b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"

    for _ in range(2):  # what one holds is given back at its end
        with listening.connect() as one, listening.connect() as other:
            for client in (one, other):
                client.sendall(sent)
            refused, answered = sorted((statuses(one), statuses(other)), key=len)
        listening.wait_until_closed()

        assert answered == [b"200"] * 802
        assert refused == [*[b"200"] * (len(refused) - 1), b"503"]
    assert listening.application.refused == [503, 503]


def statuses(client: socket.socket) -> list[bytes]:
    """The statuses of all answers until the end."""
    with client.makefile("rb") as stream:
        return re.findall(rb"HTTP/1\.1 (\d+) ", stream.read())
