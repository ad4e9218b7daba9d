"""HTTP requests with a deadline for the whole answer.

The standard library limits the time of each read; a server that sends one byte now and then never reaches that limit.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener


@contextmanager
def answer(request: Request, *, timeout_s: float, total_s: float) -> Iterator[HTTPResponse]:
    """The answer to a request. Its connections are cut `total_s` from now; `timeout_s` limits each read.

    Raises:
        TimeoutError: the block did not end before the deadline.
        OSError, HTTPException: as `urllib.request.urlopen` raises them.
    """
    deadline = _Deadline(total_s)
    try:
        with build_opener(_Http(deadline), _Https(deadline)).open(request, timeout=timeout_s) as response:
            yield response
    finally:
        deadline.end()
        if deadline.passed:  # whatever the cut connection raised, or a body that it ended early
            raise TimeoutError(f"timed out: no complete answer within {total_s:g} s")


class _Deadline:
    """Cuts the connections that it watches after some time."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._watched: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def connect(self, *arguments: Any, **options: Any) -> socket.socket:
        """`socket.create_connection`, watched from then on: also while TLS shakes hands."""
        connection = socket.create_connection(*arguments, **options)
        with self._lock:
            # A descriptor of its own: TLS takes the other one over.
            self._watched.append(connection.dup())
            if self.passed:
                self._shut_down()
        return connection

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            self._shut_down()

    def _shut_down(self) -> None:
        for connection in self._watched:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
        with self._lock:
            for connection in self._watched:
                connection.close()
            self._watched.clear()


class _Http(HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        def connection(*arguments: Any, **options: Any) -> HTTPConnection:
            return _watched(HTTPConnection(*arguments, **options), self._deadline)

        return self.do_open(connection, req)


class _Https(HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: Request) -> HTTPResponse:
        def connection(*arguments: Any, **options: Any) -> HTTPConnection:
            return _watched(HTTPSConnection(*arguments, **options), self._deadline)

        return self.do_open(connection, req)


def _watched(connection: HTTPConnection, deadline: _Deadline) -> HTTPConnection:
    # Private in http.client since Python 3.3: the one place between the connection and the TLS handshake.
    connection._create_connection = deadline.connect  # type: ignore[attr-defined]
    return connection
