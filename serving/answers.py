"""What every answer looks like: the security headers, and a refusal's text."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Protocol

from pydantic_core import to_json

from serving.problems import Problem

Headers = list[tuple[bytes, bytes]]

REASON = "refused_because"
"""The key in `scope["state"]` of the reason of a refusal that an endpoint or the framework answers, for the log of requests."""

SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""Of every answer; uvicorn checks each header by a regular expression, so there are no more than say something of JSON too."""
_NAMES = frozenset(name for name, _ in SECURITY)
JSON = (b"content-type", b"application/json")
_HEADERS = b"".join(b"%b: %b\r\n" % each for each in (JSON, *SECURITY))


class Drains(Protocol):
    """Who knows whether the server is stopping."""

    draining: bool


class Answer:
    """Sends an answer with the security headers, and knows its status."""

    def __init__(self, send: Any, server: Drains) -> None:
        self._send = send
        self._server = server
        self.status: int | None = None

    async def send(self, message: Any) -> None:
        """Pass a message of the framework on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            extra = [each for each in SECURITY if each[0] not in given] if not given >= _NAMES else []
            message = {**message, "headers": [*message["headers"], *extra, *self._closing()]}
        await self._send(message)

    async def options(self, methods: Collection[str]) -> None:
        """Send which methods a route takes."""
        allow = (b"allow", allowed(methods))
        await self.send({"type": "http.response.start", "status": 204, "headers": [allow]})
        await self._send({"type": "http.response.body"})

    async def problem(self, problem: Problem) -> None:
        """Send why a request was refused."""
        body = problem_body(problem)
        headers = [JSON, (b"content-length", str(len(body)).encode()), *problem.headers]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _closing(self) -> Headers:
        # So that no client sends its next request into a connection that is about to close.
        return [(b"connection", b"close")] if self._server.draining else []


def problem_body(problem: Problem) -> bytes:
    """The body of a refusal."""
    return to_json({"detail": problem.detail})


def lines(headers: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The header lines of an answer in JSON, all but its length; `headers` are this one's own."""
    return _HEADERS + b"".join([b"%b: %b\r\n" % each for each in headers]) if headers else _HEADERS


def last_answer(problem: Problem, own: Headers) -> tuple[bytes, bytes]:
    """Head and body of a refusal with which the connection ends; `own` are the server's headers."""
    body = problem_body(problem)
    phrase = HTTPStatus(problem.status).phrase.encode()
    given = b"".join([b"%b: %b\r\n" % header for header in own]) + lines(problem.headers)
    head = b"HTTP/1.1 %d %b\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (problem.status, phrase, given, len(body)), body


def allowed(methods: Collection[str]) -> bytes:
    """The value of `Allow`: with these methods come HEAD and OPTIONS."""
    return ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})).encode()
