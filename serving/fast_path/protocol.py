"""The limited HTTP protocol, which gives whole requests to the application's fast path.

By way of ASGI a request is a scope, an event, a task and a handful of coroutines, and its answer two messages and a regular
expression for each header: together they cost more than a prediction. A request that the fast path takes has none of that: the
same parser reads it, and one write answers it. What comes in pieces, is sent ahead of an answer, or asks for anything out of the
ordinary goes by way of ASGI.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.answers import Headers
from serving.fast_path.request import FastRequest
from serving.http.connections import HEAD, IDLE
from serving.http.protocol import LimitedProtocol
from serving.problems import Problem


class FastProtocol(LimitedProtocol):
    """The application's `routes` has a function for each target that answers a request, or returns False."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._routes = self.app.routes
        self._request: FastRequest | None = None
        self._default_headers: Headers | None = None
        self._default_lines = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop every reference."""
        super().connection_lost(exc)
        self._request = None

    def _begin(self) -> None:
        """Offer the fast path."""
        if self.url in self._routes and self._is_usual():
            self._request = FastRequest(self, self.headers)
        else:
            super()._begin()

    def _is_usual(self) -> bool:
        """A post that asks for nothing but its answer, and nothing before it waits for one."""
        parser = self.parser
        return bool(
            parser.get_method() == b"POST"
            and self._version == "1.1"
            and parser.should_keep_alive()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
        )

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._request:
            self._unused = -1
            self._request.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Let the fast path take the request."""
        request = self._request
        if not request:
            super().on_message_complete()
            return
        self._request, self.cycle = None, request  # type: ignore[assignment]
        self._phase = IDLE
        if not self._routes[self.url](request):
            self._go_by_asgi(request)
            super().on_message_complete()

    def _go_by_asgi(self, request: FastRequest) -> None:
        self._request = self.cycle = None  # type: ignore[assignment]
        super()._begin()
        if request.body:
            super().on_body(request.body)

    def _parse(self, data: bytes) -> None:
        """Parse; a request that is not whole by then goes by way of ASGI, where bodies have their limits."""
        super()._parse(data)
        if (request := self._request) and not self._is_over and not self.transport.is_closing():
            self._go_by_asgi(request)

    def _refuse(self, problem: Problem) -> None:
        if self._request:
            self._request, self._phase = None, HEAD  # the application has not begun it
        super()._refuse(problem)

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """Write a whole answer; `headers` (whole lines) follow the server's own."""
        default = self.server_state.default_headers
        if default is not self._default_headers:  # uvicorn makes a new list when the date changes
            self._default_headers, self._default_lines = default, b"".join([b"%b: %b\r\n" % each for each in default])
        head = b"%b%b%bcontent-length: %d\r\n\r\n" % (STATUS_LINE[status], self._default_lines, headers, len(body))
        self.transport.write(head + body)
