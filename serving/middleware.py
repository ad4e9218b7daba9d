"""What every request passes: keys, limits, shedding, deadline, headers, metrics, and one log line if it fails."""

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from churn.settings import Serving
from serving import metrics
from serving.answers import REASON, Answer, Headers, allowed
from serving.http.bodies import Bodies, overloaded
from serving.http.connections import Limits
from serving.keys import Key, Keys, require_right
from serving.problems import FAILED, BadRequest, ClientDisconnected, Overloaded, Problem, Unsupported, WrongMethod
from serving.requests import UNGUARDED, Requests
from serving.root_path import mount
from serving.routes import OTHER, Routes

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

WEIGHT_BYTES = 16 * 1024
"""A body of this size counts as one request in flight, a larger one as several."""
HEAVY_BYTES = 64 * 1024
"""Requests with larger bodies begin one at a time, so that everything else gets its turn between them."""


class RequestLimits:
    """ASGI middleware around `app`, which has those routes. `serving.http.protocol` uses `limits` and `on_refused`."""

    def __init__(self, app: Any, settings: Serving, routes: Routes) -> None:
        self._app = app
        self._routes = routes
        self.limits = Limits(connections=settings.max_connections)
        self.root_path = settings.root_path
        self.requests = Requests(access_log=settings.access_log)
        self.draining = False
        self._keys = Keys(settings.api_keys)
        self._bodies = Bodies(settings.max_body_bytes)
        self._capacity = settings.max_in_flight
        self._deadline_s = settings.deadline_s
        self._turn = asyncio.Lock()
        self._weight = self._in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = Answer(send, self)
        path, reason = mount(scope, self.root_path), ""
        state = scope.setdefault("state", {})
        try:
            await self._route(scope, path, receive, answer)
        except Problem as problem:
            reason = problem.reason
            await answer.problem(problem)
        except ClientDisconnected:
            answer.status, reason = 499, "gone"
        except Exception:
            reason = FAILED.reason
            raise
        finally:
            reason = reason or state.get(REASON, "")
            status, duration_s = answer.status or FAILED.status, time.perf_counter() - began
            self.requests.observe(self._routes.name(path), scope["method"], status, duration_s, reason)

    async def _route(self, scope: Any, path: str, receive: Any, answer: Answer) -> None:
        if _CONTROL.search(path):  # the framework's patterns match before a last line feed: not the route that is checked
            raise BadRequest("the path has a control character; send it without")
        method, methods = scope["method"], self._routes.methods(path)
        if method == "OPTIONS" and (methods or path == "*"):
            await answer.options(methods or ("GET", "POST"))  # what a route takes is no secret: no key is needed
            return
        if method == "HEAD":
            # The answer to GET, whose body uvicorn leaves out.
            method, scope = "GET", {**scope, "method": "GET"}
        head = _head_of(scope["headers"])
        if path not in UNGUARDED:
            scope["state"]["key"] = self._check(path, head, head.length)
        if methods and method not in methods:
            raise WrongMethod(allowed(methods))
        # A body is read where one is used, and nowhere else: what comes of another is dropped.
        if path in UNGUARDED:
            await self._app(scope, _replay(b""), answer.send)
        elif method == "POST" and methods:
            await self._post(scope, receive, head, answer)
        else:
            await self._pass_on(scope, b"", answer)

    async def _post(self, scope: Any, receive: Any, head: "_Head", answer: Answer) -> None:
        _require_plain(head)
        if self._weight >= self._capacity:  # before its body is read
            raise overloaded()
        # Not counted until it is whole: clients that send slowly must not take the places of those that do not.
        body = await self._bodies.read(receive)
        weight = self._admit(len(body))
        try:
            if len(body) > HEAVY_BYTES:
                # The endpoint reads its body in one go: it is the only one to do so in this round of the event loop.
                async with self._turn:
                    await asyncio.sleep(0)
            await self._pass_on(scope, body, answer)
        finally:
            self.release(weight)

    def accept(self, path: str, headers: Headers, size: int) -> int:
        """Check a POST whose body of that size is here already, as `__call__` does; returns the weight to `release`.

        Raises:
            Problem: it is refused.
        """
        head = _head_of(headers)
        self._check(path, head, size)
        _require_plain(head)
        return self._admit(size)

    async def _pass_on(self, scope: Any, body: bytes, answer: Answer) -> None:
        """Let the framework answer."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._app(scope, _replay(body), answer.send)
        except TimeoutError as error:
            if answer.status is not None:
                raise
            raise Overloaded("deadline", f"took longer than {self._deadline_s:g} s; try again later, or ask for less") from error

    def _admit(self, size: int) -> int:
        """Take a share of what may be in flight; a request that is alone always fits.

        Raises:
            Overloaded: there is no room.
        """
        weight = -(-size // WEIGHT_BYTES) or 1
        if self._weight and self._weight + weight > self._capacity:
            raise overloaded()
        self._weight += weight
        self._in_flight += 1
        return weight

    def release(self, weight: int) -> None:
        """Give the weight of a request back."""
        self._weight -= weight
        self._in_flight -= 1

    def count(self) -> None:
        """Update the metrics."""
        self.requests.count()
        metrics.IN_FLIGHT.set(self._in_flight)

    def give_up_on_slow_bodies(self) -> None:
        """Refuse requests whose body takes too long. Called every second."""
        self._bodies.give_up_on_slow()

    def on_refused(self, problem: Problem) -> None:
        """Count a request that was refused before its head was whole."""
        self.requests.observe(OTHER, OTHER, problem.status, 0, problem.reason)

    def _check(self, path: str, head: "_Head", size: int) -> Key | None:
        key = self._keys.find(head.key)
        if key and (right := self._routes.right(path)):
            require_right(key, right)
        if size > self._bodies.max_bytes:
            raise self._bodies.too_large()
        return key


def _require_plain(head: "_Head") -> None:
    if head.coding:
        raise Unsupported("Content-Encoding: compressed bodies are not read; send it uncompressed")


class _Head(NamedTuple):
    length: int
    key: bytes | None
    coding: bytes


_CREDENTIALS = frozenset({b"x-api-key", b"authorization"})


def _head_of(headers: Headers) -> _Head:
    """Content length (0 if not given), API key, and content coding (empty if there is none).

    The key is None if there are several that differ: a proxy in front may have looked at another one than the last.
    """
    length, key, coding = 0, b"", b""
    several = False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            coding = value
        elif name in _CREDENTIALS and (sent := value if name == b"x-api-key" else _credential(value)):
            several = several or key not in (b"", sent)
            key = sent
    return _Head(length, None if several else key, coding)


def _credential(value: bytes) -> bytes:
    """The key in `Bearer KEY`, or in the password of `Basic …`, which is what a browser sends."""
    scheme, _, rest = value.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            try:
                return base64.b64decode(rest).partition(b":")[2]
            except ValueError:
                return b""
        case _:
            return b""


def _replay(body: bytes) -> Callable[[], Awaitable[Any]]:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        # The framework may listen for the client to go away; that it did is of no use to anyone.
        return messages.pop() if messages else await asyncio.Event().wait()

    return receive
