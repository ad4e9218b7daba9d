"""A request on the fast path: receives its result, and sends the answer."""

import asyncio
import logging
import time
from typing import Any

from pydantic_core import to_json

from serving.answers import Headers, lines, problem_body
from serving.middleware import RequestLimits
from serving.predictor import Scored
from serving.problems import FAILED, ClientDisconnected, Problem

log = logging.getLogger(__name__)


class FastRequest:
    """A request that came whole. To uvicorn it is the connection's request in progress, its `RequestResponseCycle`."""

    __slots__ = (
        *("_app", "_began", "_path", "_protocol"),
        *("body", "disconnected", "headers", "keep_alive", "response_complete", "weight"),
    )

    message_event = asyncio.Event()
    """uvicorn sets it, nothing waits for it."""

    def __init__(self, protocol: Any, headers: Headers) -> None:
        self._protocol = protocol
        self.headers = headers
        self.body = b""
        self.disconnected = self.response_complete = False
        self.keep_alive = True
        self.weight = 0

    def start(self, app: RequestLimits, path: str) -> None:
        """From here on the request is timed, and counted as one to that path."""
        self._app, self._path, self._began = app, path, time.perf_counter()

    def release(self) -> None:
        """Give its place back."""
        if self.weight:
            self._app.release(self.weight)
            self.weight = 0

    def is_disconnected(self) -> bool:
        """Whether the client closed the connection."""
        return self.disconnected or bool(self._protocol.transport.is_closing())

    def on_result(self, result: Scored | Exception) -> None:
        """Send the answer."""
        self.release()
        try:
            status, reason = self._answer(result)
        except Exception:  # it must not keep those of the same batch from their answers
            self._abort()
            log.exception("an answer could not be sent")
            status, reason = FAILED.status, FAILED.reason
        self._app.requests.observe(self._path, "POST", status, time.perf_counter() - self._began, reason)

    def _answer(self, result: Scored | Exception) -> tuple[int, str]:
        if isinstance(result, Scored):
            self._send(200, lines(), to_json(result.content()))
            return 200, ""
        if isinstance(result, ClientDisconnected):
            self._abort()
            return 499, "gone"
        problem = result if isinstance(result, Problem) else FAILED
        if problem is FAILED:
            log.error("request failed", exc_info=result)
        self._send(problem.status, lines(problem.headers), problem_body(problem))
        return problem.status, problem.reason

    def _send(self, status: int, headers: bytes, body: bytes) -> None:
        """Send `headers` (whole lines) after the server's own, and the body; nothing to a client that has disconnected."""
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

    def _abort(self) -> None:
        self.response_complete = True
        self._protocol.transport.close()
