"""A request that passes the edge without ASGI: receives its result, and sends the answer."""

import logging
import time
from typing import Protocol

from serving.answers import lines, told
from serving.fast_path.protocol import Exchange
from serving.predictor import Scored
from serving.problems import FAILED, ClientDisconnected, Problem
from serving.requests import Requests

log = logging.getLogger(__name__)


class Edge(Protocol):
    """What it uses of the edge."""

    requests: Requests

    def release(self, weight: int) -> None:
        """Give the request's place back."""


class FastRequest:
    """A request on the fast path: receives its result once, and sends the answer."""

    __slots__ = ("_began", "_edge", "_exchange", "_path", "is_disconnected", "weight")

    def __init__(self, edge: Edge, path: str, exchange: Exchange) -> None:
        self._began = time.perf_counter()
        self._edge = edge
        self._path = path
        self._exchange = exchange
        self.is_disconnected = exchange.is_disconnected
        self.weight = 0

    def on_result(self, result: Scored | Exception) -> None:
        """Send the answer."""
        if self.weight:
            self._edge.release(self.weight)
        status, reason = FAILED.status, FAILED.reason
        try:
            if isinstance(result, Scored):
                self._exchange.answer(200, lines(), result.body())
                status, reason = 200, ""
            elif isinstance(result, ClientDisconnected):
                self._exchange.abort()
                status, reason = 499, "gone"
            else:
                status, reason = self._refuse(result)
        except Exception:  # it must not keep those of the same batch from their answers
            self._exchange.abort()
            log.exception("an answer could not be sent")
        self._edge.requests.observe(self._path, "POST", status, time.perf_counter() - self._began, reason)

    def _refuse(self, error: Exception) -> tuple[int, str]:
        if isinstance(error, Problem):
            problem = error
        else:
            problem = FAILED
            log.error("request failed", exc_info=error)
        self._exchange.answer(problem.status, lines(problem.headers), told(problem))
        return problem.status, problem.reason
