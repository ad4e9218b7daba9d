"""What every request passes: keys, limits, shedding, deadline, headers, metrics, and one log line if it fails.

Plain ASGI before the framework. The hot routes end here: their handlers take the body and return the answer's bytes, without
the framework's routing and dependencies, which cost three times what the model does. The hottest passes it without ASGI too.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from churn.settings import Serving
from serving import metrics
from serving.answers import JSON, Answer, lines, told
from serving.keys import Key, Keys
from serving.predictor import Asker, Scored
from serving.problems import Busy, Gone, Problem, TooLarge, Unavailable, Unsupported
from serving.protocol import Exchange, Headers, Take
from serving.root_path import mount

log = logging.getLogger(__name__)

Handler = Callable[[bytes], Awaitable[bytes]]
Submit = Callable[[bytes, Asker], None]

UNGUARDED = frozenset({"/healthz", "/health", "/readyz", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Never shed and never asked for a key: what orchestrators and Prometheus read."""

WEIGHT_BYTES = 16 * 1024
"""A body of this size counts as one request in flight, a larger one as several."""
HEAVY_BYTES = 64 * 1024
"""Larger bodies of hot routes are handled one at a time, so that everything else gets its turn between them."""
BODY_TIMEOUT_S = 10
OVERLOAD = "overload"
"""Why a request is shed. Told in the log once a second: a line for each would cost more than to answer them."""
UNFINISHED_BYTES = 32 * 2**20
"""What all bodies that are not whole yet may take together."""

FAILED = Problem("the server failed; its log says why")


class Edge:
    """The outermost ASGI application: lets requests in to `app`, or to the handler of a hot route.

    `short` are the hot routes that need no ASGI, for `serving.protocol`.
    """

    def __init__(
        self,
        app: Any,
        settings: Serving,
        *,
        hot: Mapping[str, Handler],
        short: Mapping[str, Submit],
        routes: Callable[[str], str],
    ) -> None:
        self._app = app
        self._hot = hot
        self.short: Mapping[bytes, Take] = {
            f"{root_path}{path}".encode(): partial(self._take, path, submit)
            for root_path in {"", settings.root_path}
            for path, submit in short.items()
        }
        self._route_of = routes
        self._keys = Keys(settings.api_keys)
        self._root_path = settings.root_path
        self._max_body = settings.max_body_bytes
        self._capacity = settings.max_in_flight
        self._deadline_s = settings.deadline_s
        self._access_log = settings.access_log
        self._weight = 0
        self._unfinished = 0
        self._turn = asyncio.Lock()
        self.in_flight = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._shed = 0
        self._durations: dict[tuple[str, str, int], list[float]] = {}
        self.draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = Answer(scope, send, self)
        reason = ""
        path = mount(scope, self._root_path)
        try:
            if path in UNGUARDED:
                await self._app(scope, receive, answer.send)
            else:
                await self._guarded(path, scope, receive, answer)
        except Problem as problem:
            reason = problem.reason
            await answer.problem(problem)
        except Gone:
            answer.status, reason = 499, "gone"
        finally:
            route = path if path in self._hot else self._route_of(path)
            self.observe(route, scope["method"], answer.status or FAILED.status, time.perf_counter() - began, reason)

    def _take(self, path: str, submit: Submit, exchange: Exchange) -> bool:
        size = len(exchange.body)
        if self.draining or size > HEAVY_BYTES:
            return False
        asked = _Asked(self, path, exchange)
        try:
            _, key, kind = _relevant(exchange.headers)
            self._check(path, key, size)
            asked.weight = self._admit(size)
            _require_json(kind)
            submit(exchange.body, asked)
        except Exception as error:  # noqa: BLE001 - it is answered, and logged if nobody foresaw it
            asked.tell(error)
        return True

    async def _guarded(self, path: str, scope: Any, receive: Any, answer: "Answer") -> None:
        length, key, kind = _relevant(scope["headers"])
        scope.setdefault("state", {})["key"] = self._check(self._route_of(path), key, length)
        if self._weight >= self._capacity:  # before its body is read
            raise self._overloaded()
        # Not counted until it is whole: clients that send slowly must not take the places of those that do not.
        body = await self._body(receive)
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

    async def _handle(self, path: str, scope: Any, body: bytes, kind: bytes, answer: "Answer") -> None:
        if scope["method"] == "POST" and (handler := self._hot.get(path)):
            _require_json(kind)
            await answer.json(await handler(body))
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._app(scope, _replay(body), answer.send)
        except TimeoutError as error:
            if answer.status is not None:
                raise
            raise Busy("deadline", f"took longer than {self._deadline_s:g} s; try again later, or ask for less") from error

    def _admit(self, size: int) -> int:
        """Take a share of what may be in flight; alone, any request fits.

        Raises:
            Busy: there is no room.
        """
        weight = -(-size // WEIGHT_BYTES) or 1
        if self._weight and self._weight + weight > self._capacity:
            raise self._overloaded()
        self._weight += weight
        self.in_flight += 1
        return weight

    def release(self, weight: int) -> None:
        """Give back what `_admit` gave."""
        self._weight -= weight
        self.in_flight -= 1

    def _overloaded(self) -> Busy:
        self._shed += 1
        return Busy(OVERLOAD, "more requests than this server can take; try again later")

    async def _body(self, receive: Any) -> bytes:
        task: Any = asyncio.current_task()
        self._reading[task] = time.monotonic()
        try:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                return await self._rest(receive, body)
        except asyncio.CancelledError as error:
            if task in self._reading:  # the server itself is being stopped
                raise
            task.uncancel()
            raise Busy("slow_body", f"the body took longer than {BODY_TIMEOUT_S} s; send it faster") from error
        finally:
            self._reading.pop(task, None)
        if len(body) > self._max_body:
            raise self._too_large()
        return body

    def give_up_on_slow_bodies(self) -> None:
        """Refuse requests whose body takes too long. Called every second: a timer for each would cost more than reading most."""
        late = time.monotonic() - BODY_TIMEOUT_S
        for task in [task for task, began in self._reading.items() if began < late]:
            del self._reading[task]
            task.cancel()

    async def _rest(self, receive: Any, body: bytes) -> bytes:
        parts, size = [body], len(body)
        self._unfinished += size
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._unfinished += len(part)
                if size > self._max_body:
                    raise self._too_large()
                if not message.get("more_body"):
                    return b"".join(parts)
                if self._unfinished > UNFINISHED_BYTES:
                    raise self._overloaded()
        finally:
            self._unfinished -= size

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._max_body} bytes; send fewer rows at once")

    def _check(self, route: str, key: bytes, size: int) -> Key | None:
        found = self._keys.check(key, route)
        if size > self._max_body:
            raise self._too_large()
        return found

    def observe(self, route: str, method: str, status: int, duration_s: float, reason: str) -> None:
        """Remember an answer for `count`; tell the log of one that failed."""
        key = (route, method, status)
        if known := self._durations.get(key):
            known.append(duration_s)
        else:
            self._durations[key] = [duration_s]
        # An orchestrator hears every two seconds that the server is not ready; why it is not was logged once.
        is_usual = status < 400 or reason == OVERLOAD or (status == Unavailable.status and route in UNGUARDED)
        if not is_usual or self._access_log:
            facts = {
                "route": route,
                "method": method,
                "status": status,
                "reason": reason,
                "duration_ms": round(1e3 * duration_s, 3),
            }
            log.log(logging.WARNING if status >= 500 else logging.INFO, "request", extra=facts)

    def count(self) -> None:
        """Bring the metrics up to date, tell of what was shed: doing it for every request takes as long as answering it."""
        durations, self._durations = self._durations, {}
        shed, self._shed = self._shed, 0
        if shed:
            metrics.REFUSED.labels(OVERLOAD).inc(shed)
            log.warning("overload", extra={"refused": shed})
        for (route, method, status), given in durations.items():
            metrics.REQUESTS.labels(route, method if method in _METHODS else "other", str(status)).inc(len(given))
            metrics.observe_many(metrics.DURATION.labels(route), given)
        metrics.IN_FLIGHT.set(self.in_flight)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class _Asked:
    """A request on the short way: hears its answer, and sends it."""

    __slots__ = ("_began", "_edge", "_exchange", "_path", "is_gone", "weight")

    def __init__(self, edge: Edge, path: str, exchange: Exchange) -> None:
        self._began = time.perf_counter()
        self._edge = edge
        self._path = path
        self._exchange = exchange
        self.is_gone = exchange.is_gone
        self.weight = 0

    def tell(self, result: Scored | Exception) -> None:
        if self.weight:
            self._edge.release(self.weight)
        status, reason = FAILED.status, ""
        try:
            if isinstance(result, Scored):
                self._exchange.answer(200, lines(), result.body())
                status = 200
            elif isinstance(result, Gone):
                self._exchange.abort()
                status, reason = 499, "gone"
            else:
                status, reason = self._refuse(result)
        except Exception:  # it must not keep those of the same batch from their answers
            self._exchange.abort()
            log.exception("an answer could not be sent")
        self._edge.observe(self._path, "POST", status, time.perf_counter() - self._began, reason)

    def _refuse(self, error: Exception) -> tuple[int, str]:
        if isinstance(error, Problem):
            problem = error
        else:
            problem = FAILED
            log.error("request failed", exc_info=error)
        self._exchange.answer(problem.status, lines(problem.headers), told(problem))
        return problem.status, problem.reason


def _require_json(kind: bytes) -> None:
    if kind and kind != JSON[1] and kind.partition(b";")[0].rstrip() != JSON[1]:
        raise Unsupported("Content-Type is not application/json; send JSON")


def _relevant(headers: Headers) -> tuple[int, bytes, bytes]:
    """Content length (0 if not told), API key, and content type."""
    length, key, kind = 0, b"", b""
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            kind = value.lower()
        elif name == b"x-api-key":
            key = value
        elif name == b"authorization":
            key = _credential(value)
    return length, key, kind


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
