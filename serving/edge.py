"""What every request passes: keys, limits, shedding, deadline, headers, metrics, and one log line if it fails.

Plain ASGI before the framework. The hot routes end here: their handlers take the body and return the answer's bytes, without
the framework's routing and dependencies, which cost three times what the model does. The hottest passes it without ASGI too.
"""

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from churn.settings import Serving
from serving import metrics
from serving.answers import JSON, REASON, Answer, Headers, allowed
from serving.fast_path.protocol import Exchange, Take
from serving.fast_path.request import FastRequest
from serving.http.bodies import Bodies, overloaded
from serving.http.connections import Limits
from serving.keys import Key, Keys
from serving.predictor import ResultHandler
from serving.problems import FAILED, BadRequest, ClientDisconnected, Overloaded, Problem, Unsupported, WrongMethod
from serving.requests import UNGUARDED, Requests
from serving.root_path import mount
from serving.routes import OTHER, Routes

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Handler = Callable[[bytes], Awaitable[bytes]]
Submit = Callable[[bytes, ResultHandler], None]

WEIGHT_BYTES = 16 * 1024
"""A body of this size counts as one request in flight, a larger one as several."""
HEAVY_BYTES = 64 * 1024
"""Larger bodies of hot routes are handled one at a time, so that everything else gets its turn between them."""


class Edge:
    """The outermost ASGI application: lets requests in to `app`, or to the handler of a hot route.

    `short` are the hot routes that need no ASGI, for `serving.fast_path.protocol`. `serving.http.protocol` uses `limits` and
    `on_refused`.
    """

    def __init__(
        self,
        app: Any,
        settings: Serving,
        *,
        hot: Mapping[str, Handler],
        short: Mapping[str, Submit],
        routes: Routes,
    ) -> None:
        self._app = app
        self._hot = hot
        self.short: Mapping[bytes, Take] = {
            f"{root_path}{path}".encode(): partial(self._take, path, submit)
            for root_path in {"", settings.root_path}
            for path, submit in short.items()
        }
        self._routes = routes
        self.limits = Limits(connections=settings.max_connections)
        self._keys = Keys(settings.api_keys)
        self._root_path = settings.root_path
        self._bodies = Bodies(settings.max_body_bytes)
        self._capacity = settings.max_in_flight
        self._deadline_s = settings.deadline_s
        self.requests = Requests(access_log=settings.access_log)
        self._weight = 0
        self._turn = asyncio.Lock()
        self.in_flight = 0
        self.draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = Answer(scope, send, self)
        path, reason = mount(scope, self._root_path), ""
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
            route = path if path in self._hot else self._routes.name(path)
            self.requests.observe(route, scope["method"], answer.status or FAILED.status, time.perf_counter() - began, reason)

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
        length, key, kind, coding = _relevant(scope["headers"])
        if path not in UNGUARDED:
            scope["state"]["key"] = self._check(self._routes.name(path), key, length)
        if methods and method not in methods:
            raise WrongMethod(allowed(methods))
        # A body is read where one is used, and nowhere else: what comes of another is dropped.
        if path in UNGUARDED:
            await self._app(scope, _replay(b""), answer.send)
        elif method == "POST" and methods:
            await self._post(path, scope, receive, kind, coding, answer)
        else:
            await self._pass_on(scope, b"", answer)

    def _take(self, path: str, submit: Submit, exchange: Exchange) -> bool:
        size = len(exchange.body)
        if self.draining or size > HEAVY_BYTES:
            return False
        asked = FastRequest(self, path, exchange)
        try:
            _, key, kind, coding = _relevant(exchange.headers)
            self._check(path, key, size)
            _require_plain(coding)
            asked.weight = self._admit(size)
            _require_json(kind)
            submit(exchange.body, asked)
        except Exception as error:  # noqa: BLE001 - it is answered, and logged if nobody foresaw it
            asked.on_result(error)
        return True

    async def _post(self, path: str, scope: Any, receive: Any, kind: bytes, coding: bytes, answer: Answer) -> None:
        _require_plain(coding)
        if self._weight >= self._capacity:  # before its body is read
            raise overloaded()
        # Not counted until it is whole: clients that send slowly must not take the places of those that do not.
        body = await self._bodies.read(receive)
        weight = self._admit(len(body))
        try:
            if len(body) > HEAVY_BYTES and path in self._hot:
                async with self._turn:
                    await asyncio.sleep(0)
                    await self._handle(path, scope, body, kind, answer)
            else:
                await self._handle(path, scope, body, kind, answer)
        finally:
            self.release(weight)

    async def _handle(self, path: str, scope: Any, body: bytes, kind: bytes, answer: Answer) -> None:
        if handler := self._hot.get(path):
            _require_json(kind)
            await answer.json(await handler(body))
        else:
            await self._pass_on(scope, body, answer)

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
        """Take a share of what may be in flight; alone, any request fits.

        Raises:
            Overloaded: there is no room.
        """
        weight = -(-size // WEIGHT_BYTES) or 1
        if self._weight and self._weight + weight > self._capacity:
            raise overloaded()
        self._weight += weight
        self.in_flight += 1
        return weight

    def release(self, weight: int) -> None:
        """Give back what `_admit` gave."""
        self._weight -= weight
        self.in_flight -= 1

    def count(self) -> None:
        """Update the metrics."""
        self.requests.count()
        metrics.IN_FLIGHT.set(self.in_flight)

    def give_up_on_slow_bodies(self) -> None:
        """Refuse requests whose body takes too long. Called every second."""
        self._bodies.give_up_on_slow()

    def on_refused(self, problem: Problem) -> None:
        """Count a request that was refused before its head was whole."""
        self.requests.observe(OTHER, OTHER, problem.status, 0, problem.reason)

    def _check(self, route: str, key: bytes | None, size: int) -> Key | None:
        found = self._keys.check(key, route)
        if size > self._bodies.max_bytes:
            raise self._bodies.too_large()
        return found


def _require_json(kind: bytes) -> None:
    if kind and kind != JSON[1] and kind.partition(b";")[0].rstrip() != JSON[1]:
        raise Unsupported("Content-Type is not application/json; send JSON")


def _require_plain(coding: bytes) -> None:
    if coding:
        raise Unsupported("Content-Encoding: compressed bodies are not read; send it uncompressed")


_CREDENTIALS = frozenset({b"x-api-key", b"authorization"})


def _relevant(headers: Headers) -> tuple[int, bytes | None, bytes, bytes]:
    """Content length (0 if not told), API key, content type, and content coding (empty if there is none).

    The key is None if there are several that differ: a proxy in front may have looked at another one than the last.
    """
    length, key, kind, coding = 0, b"", b"", b""
    several = False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            kind = value.lower()
        elif name == b"content-encoding" and value.lower() != b"identity":
            coding = value
        elif name in _CREDENTIALS and (sent := value if name == b"x-api-key" else _credential(value)):
            several = several or key not in (b"", sent)
            key = sent
    return length, None if several else key, kind, coding


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
