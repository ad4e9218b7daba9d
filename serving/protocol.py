"""uvicorn's HTTP protocol with a short way out: a whole answer in one call and one system call.

A small answer by way of ASGI is two messages, a regular expression for each header, and two writes: a fifth of what a prediction
costs. The framework's answers go that way still, with their head and body in one write.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

WHOLE = "churn.whole_answer"
"""The key in `scope["extensions"]` of a function `(scope, status, headers, body)` that answers; False: go the usual way."""


class OneWrite(HttpToolsProtocol):
    """Give it to uvicorn as `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hold every head back until its body is there."""
        super().connection_made(transport)
        self.transport: Any = _Joined(transport)

    def on_headers_complete(self) -> None:
        """Offer the short way."""
        super().on_headers_complete()
        extensions: dict[str, Any] = {WHOLE: self.answer}
        self.scope["extensions"] = extensions

    def answer(self, scope: Any, status: int, headers: bytes, body: bytes) -> bool:
        """Send `headers` (whole lines) after the server's own, and the body; what `RequestResponseCycle.send` does of it."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.disconnected or not cycle.keep_alive or cycle.flow.write_paused:
            return False  # another request waits behind this one, or the connection ends with it
        own = b"".join([b"%b: %b\r\n" % each for each in cycle.default_headers])
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], own, headers, len(body), body))
        cycle.message_event.set()
        cycle.on_response()
        return True


class _Joined:
    """A transport that joins a head to the body that uvicorn writes after it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()
