"""The limited HTTP protocol with a fast path for the hottest route, and one write for each answer of the others.

By way of ASGI a request is a scope, an event, a task and a handful of coroutines, and its answer two messages and a regular
expression for each header: together they cost more than a prediction. A request that the application takes whole has none of
that: the same parser reads it, and one write answers it. What comes in pieces, is sent ahead of an answer, or asks for anything
out of the ordinary goes by way of ASGI.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.answers import WHOLE, Headers
from serving.http.connections import HEAD, IDLE
from serving.http.protocol import LimitedProtocol
from serving.problems import Problem


class Exchange:
    """A request that came whole, and the place for its answer. To uvicorn it is the connection's request in progress."""

    __slots__ = ("_protocol", "body", "disconnected", "headers", "keep_alive", "response_complete")

    message_event = asyncio.Event()
    """Nobody waits for it."""

    def __init__(self, protocol: "OneWrite", headers: Headers) -> None:
        self._protocol = protocol
        self.headers = headers
        self.body = b""
        self.disconnected = self.response_complete = False
        self.keep_alive = True

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Send `headers` (whole lines) after the server's own, and the body; to a client that is gone, nothing."""
        self.response_complete = True
        self.body = b""  # the connection may stay
        if self.is_disconnected():
            return
        if not self.keep_alive:
            headers += b"connection: close\r\n"
        self._protocol.send(status, headers, body)
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()

    def is_disconnected(self) -> bool:
        """Whether the client went away."""
        return self.disconnected or bool(self._protocol.transport.is_closing())

    def abort(self) -> None:
        """End the connection, as there is no answer."""
        self.response_complete = True
        self._protocol.transport.close()


Take = Callable[[Exchange], bool]
"""Takes a request, to answer it now or later; False: go the usual way."""


class OneWrite(LimitedProtocol):
    """Give it to uvicorn as `http`. The application's `short`, if it has one, says who takes the posts to which targets."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._short: Mapping[bytes, Take] = getattr(self.app, "short", {})
        self._exchange: Exchange | None = None
        self._given: Headers | None = None
        self._own = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hold every head back until its body is there."""
        super().connection_made(transport)
        self.transport: Any = _Joined(transport)
        self._write = transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop every reference."""
        super().connection_lost(exc)
        self._exchange = None

    def on_message_begin(self) -> None:
        """What the parser's next calls need; the rest where it is needed."""
        self._begin_head()
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def _begin(self) -> None:
        """Offer the fast path, or the one write."""
        if self.url in self._short and self._is_usual():
            self._exchange = Exchange(self, self.headers)
        else:
            self._go_by_asgi()

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

    def _go_by_asgi(self) -> None:
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, headers, expect_100_continue
        self.scope["headers"] = headers
        extensions: dict[str, Any] = {WHOLE: self.answer}
        self.scope["extensions"] = extensions
        super()._begin()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._exchange:
            self._unused = -1
            self._exchange.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Let the application take the request."""
        exchange = self._exchange
        if not exchange:
            super().on_message_complete()
            return
        self._exchange, self.cycle = None, exchange  # type: ignore[assignment]
        self._phase = IDLE
        if not self._short[self.url](exchange):
            self.cycle = None  # type: ignore[assignment]
            self._go_by_asgi()
            super().on_body(exchange.body)
            super().on_message_complete()

    def _parse(self, data: bytes) -> None:
        """Parse; a request that is not whole by then goes by way of ASGI, where bodies have their limits."""
        super()._parse(data)
        if self._exchange:
            exchange, self._exchange = self._exchange, None
            if not self._is_over and not self.transport.is_closing():
                self._go_by_asgi()
                if exchange.body:
                    super().on_body(exchange.body)

    def _refuse(self, problem: Problem) -> None:
        if self._exchange:
            self._exchange, self._phase = None, HEAD  # the application has not begun it
        super()._refuse(problem)

    def on_response_complete(self) -> None:
        """Let a head without a body go, before anything follows it."""
        self.transport.flush()
        super().on_response_complete()

    def answer(self, scope: Any, status: int, headers: bytes, body: bytes) -> bool:
        """What `RequestResponseCycle.send` does of a whole answer; `headers` (whole lines) follow the server's own."""
        cycle = self.cycle
        if (
            cycle is None
            or cycle.scope is not scope
            or cycle.disconnected
            or not cycle.keep_alive
            or cycle.flow.write_paused
            or scope["method"] == "HEAD"
        ):
            return False  # another request waits behind this one, the connection ends with it, or it has no body
        cycle.response_started = cycle.response_complete = True
        self.send(status, headers, body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """Write a whole answer."""
        given = self.server_state.default_headers
        if given is not self._given:  # uvicorn makes the list anew when the date changes
            self._given, self._own = given, b"".join([b"%b: %b\r\n" % each for each in given])
        self._write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], self._own, headers, len(body), body))


class _Joined:
    """A transport that joins a head to the body that uvicorn writes after it, if there is one."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        # Asked for with every request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write what is held back."""
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()
